//! Producers were asked about transactions; or it was given up to ask.

use std::time::Duration;

use super::{At, State};
use crate::command::{CheckTransactions, Orphan, Outcome, ParkTransactions};
use crate::kv;

impl State {
    pub(super) fn check_transactions(&mut self, at: At, c: &CheckTransactions) -> Outcome {
        let next = at.stamp.plus(Duration::from_millis(c.next_ms));
        let mut count = 0;
        for orphan in &c.orphans {
            if !self.is_as_seen(orphan) {
                continue;
            }
            let half = self.transactions.update(orphan.transaction, |half| {
                half.checks += 1;
                half.next_check = next;
            });
            kv::half::put(&mut self.change.batch, orphan.transaction, &half);
            count += 1;
        }
        Outcome::TransactionsChecked { count }
    }

    pub(super) fn park_transactions(&mut self, at: At, c: &ParkTransactions) -> Outcome {
        let mut count = 0;
        for orphan in &c.orphans {
            if !self.is_as_seen(orphan) {
                continue;
            }
            let half = self.transactions.update(orphan.transaction, |half| {
                half.parked = true;
                half.next_check = at.stamp;
            });
            kv::half::put(&mut self.change.batch, orphan.transaction, &half);
            count += 1;
        }
        Outcome::TransactionsParked { count }
    }

    /// Whether the transaction still is what the leader looked at. It may have ended since, or a
    /// leader before may have checked it in an entry that was committed late.
    fn is_as_seen(&self, orphan: &Orphan) -> bool {
        let half = self.transactions.get(orphan.transaction);
        half.is_some_and(|half| !half.parked && half.checks == orphan.checks)
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{Script, message, topic};
    use crate::command::{
        Command, EndTransaction, Orphan, Outcome, ParkTransactions, Rejection, Resolver, Verdict,
    };

    fn due(script: &Script) -> Vec<(u64, u32)> {
        let due = script.state.checks_due(script.now(), 9, |_| true);
        due.iter().map(|transaction| (transaction.number, transaction.checks)).collect()
    }

    fn park(script: &mut Script, transaction: u64, checks: u32) -> u32 {
        let orphans = vec![Orphan { transaction, checks }];
        match script.does(Command::ParkTransactions(ParkTransactions { orphans })) {
            Outcome::TransactionsParked { count } => count,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_check_counts_once_and_survives_a_restart() {
        let mut script = Script::with_queues(1);
        let number = script.appends_half(message("half"));
        assert!(due(script.at(5_999)).is_empty());
        assert_eq!(script.state.next_check(|_| true), Some(proto::Timestamp(6_000)));
        assert_eq!(due(script.at(6_000)), [(number, 0)]);
        assert_eq!(script.checks(number, 0), 1);
        assert_eq!(script.checks(number, 0), 0, "seen before the first");
        assert_eq!(script.checks(number + 1, 0), 0, "unknown");

        let mut script = script.restarted();
        assert!(due(&script).is_empty());
        assert_eq!(due(script.at(36_000)), [(number, 1)]);
        assert_eq!(script.state.next_check(|_| true), Some(proto::Timestamp(36_000)));
        assert_eq!(script.state.next_check(|of| *of != topic()), None);
        script.ends(number, Verdict::Commit);
        assert_eq!(script.checks(number, 1), 0);
        assert_eq!(script.state.next_check(|_| true), None);
    }

    #[test]
    fn a_parked_transaction_waits_for_an_administrator() {
        let mut script = Script::with_queues(1);
        let number = script.appends_half(message("half"));
        script.at(6_000);
        assert_eq!(park(&mut script, number, 1), 0, "it was checked meanwhile");
        assert_eq!(park(&mut script, number, 0), 1);
        assert_eq!(park(&mut script, number, 0), 0);
        let mut script = script.restarted();
        script.at(1_000_000);
        assert!(due(&script).is_empty());
        assert_eq!(script.checks(number, 0), 0);
        let counts = script.state.unresolved();
        assert_eq!((counts.pending, counts.parked), (0, 1));
        let parked = script.state.transactions(None, true, 0, 9);
        assert_eq!(parked.iter().map(|t| t.number).collect::<Vec<_>>(), [number]);

        let refused = Outcome::Rejected(Rejection::TransactionParked);
        assert_eq!(script.ends(number, Verdict::Commit), refused);
        let end = EndTransaction {
            transaction: number,
            verdict: Verdict::Commit,
            by: Resolver::Administrator,
        };
        let ended = Outcome::TransactionEnded { repeated: false };
        assert_eq!(script.does(Command::EndTransaction(end)), ended);
        assert_eq!(script.state.unresolved().parked, 0);
        assert_eq!(script.restarted().state.unresolved().parked, 0);
    }
}
