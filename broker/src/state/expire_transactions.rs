//! Transactions that were given up and are kept no longer.

use super::State;
use crate::command::{ExpireTransactions, Outcome};
use crate::kv;

impl State {
    /// Only those that are parked: the others belong to their producers.
    pub(super) fn expire_transactions(&mut self, c: &ExpireTransactions) -> Outcome {
        let mut count = 0;
        for number in &c.transactions {
            if self.transactions.get(*number).is_none_or(|half| !half.parked) {
                continue;
            }
            let half = self.transactions.take(*number).expect("looked at just now");
            kv::half::delete(&mut self.change.batch, *number);
            self.retained.release(half.topic, half.position, half.len.into());
            count += 1;
        }
        Outcome::TransactionsExpired { count }
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{Script, message};
    use super::*;
    use crate::command::{Command, Orphan, ParkTransactions, Rejection, Verdict};

    fn expire(script: &mut Script, transactions: Vec<u64>) -> Outcome {
        script.does(Command::ExpireTransactions(ExpireTransactions { transactions }))
    }

    #[test]
    fn only_parked_transactions_expire() {
        let mut script = Script::with_queues(1);
        let number = script.appends_half(message("half"));
        let expired = |count| Outcome::TransactionsExpired { count };
        assert_eq!(expire(&mut script, vec![number, 7]), expired(0));
        let orphans = vec![Orphan { transaction: number, checks: 0 }];
        script.does(Command::ParkTransactions(ParkTransactions { orphans }));
        assert_eq!(expire(&mut script, vec![number, number]), expired(1));
        let mut script = script.restarted();
        assert_eq!(script.state.kept().segments, 0);
        let unknown = Outcome::Rejected(Rejection::TransactionNotFound);
        assert_eq!(script.ends(number, Verdict::Commit), unknown);
    }
}
