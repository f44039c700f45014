//! Asking producers about transactions that they have not ended.
//!
//! A check is first handed to a producer's stream, and then recorded. If the leader dies in
//! between, the producer is asked once more, which does no harm; a check that nobody got does not
//! count.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::Instant,
};

use futures::{StreamExt, stream};
use proto::{
    ClientId, Topic, TransactionId,
    clock::millis,
    v2::{RecoverOrphanedTransactionCommand, TelemetryCommand, telemetry_command},
};
use tracing::{debug, info};

use super::{Broker, LONGEST_LOOK_UP, unexpected};
use crate::{
    Error,
    command::{CheckTransactions, Command, Orphan, Outcome, ParkTransactions},
    state::Transaction,
};

/// Producers asked at a time. Each question holds a message.
const AT_ONCE: usize = 8;

/// What a round of checks came to.
#[derive(Debug, Default)]
pub struct Asked {
    /// Topics of transactions that no producer could be asked about, and whether one is known at
    /// all.
    pub unheard: BTreeMap<Topic, Unheard>,
}

/// Why no producer was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unheard {
    /// None is known.
    Nobody,
    /// Those that are known did not take the question.
    Deaf,
}

impl Broker {
    /// Asks producers about these transactions, and records it.
    pub async fn ask(&self, orphans: Vec<Transaction>) -> Result<Asked, Error> {
        let producers = self.producers_of(&orphans);
        // Producers that do not listen cost time; once for each topic is enough.
        let deaf = Mutex::new(BTreeSet::new());
        let ask = |orphan: Transaction| async {
            if deaf.lock().expect("no holder panics").contains(&orphan.topic) {
                return (orphan, Err(Unheard::Deaf));
            }
            let candidates = candidates(&orphan, &producers[&orphan.topic]);
            let outcome = self.ask_one(&orphan, &candidates).await;
            if outcome == Err(Unheard::Deaf) {
                deaf.lock().expect("no holder panics").insert(orphan.topic.clone());
            }
            (orphan, outcome)
        };
        let outcomes: Vec<_> = stream::iter(orphans).map(ask).buffered(AT_ONCE).collect().await;
        let mut asked = Asked::default();
        let mut checked = Vec::new();
        for (orphan, outcome) in outcomes {
            match outcome {
                Ok(()) => checked.push(seen(&orphan)),
                Err(why) => {
                    asked.unheard.insert(orphan.topic, why);
                }
            }
        }
        if !checked.is_empty() {
            self.record_checks(checked).await?;
        }
        Ok(asked)
    }

    fn producers_of(&self, orphans: &[Transaction]) -> BTreeMap<Topic, Vec<ClientId>> {
        let clients = self.clients();
        let mut producers = BTreeMap::new();
        for orphan in orphans {
            producers
                .entry(orphan.topic.clone())
                .or_insert_with_key(|topic| clients.producers(topic));
        }
        producers
    }

    async fn ask_one(&self, orphan: &Transaction, candidates: &[ClientId]) -> Result<(), Unheard> {
        if candidates.is_empty() {
            return Err(Unheard::Nobody);
        }
        let question = self.question(orphan).map_err(|error| {
            tracing::error!(%error, transaction = orphan.number, "half message cannot be read");
            Unheard::Deaf
        })?;
        for client in candidates {
            if self.couriers.hand(client, &question).await {
                debug!(transaction = orphan.number, %client, checks = orphan.checks, "checked");
                return Ok(());
            }
        }
        Err(Unheard::Deaf)
    }

    /// What the producer is asked: the message as a consumer would get it, since clients read it
    /// with the same code.
    fn question(&self, orphan: &Transaction) -> Result<TelemetryCommand, Error> {
        let message = self.view.message(orphan.position, orphan.len)?;
        let transaction =
            TransactionId { broker: self.settings.name.clone(), number: orphan.number };
        let transaction_id = transaction.to_string();
        let mut message = self.half(&orphan.topic, orphan.queue, orphan.born, message);
        let system = message.system_properties.get_or_insert_default();
        // There is no delivery, but some clients insist on these.
        system.delivery_attempt = Some(1);
        system.receipt_handle = Some(transaction_id.clone());
        let question = RecoverOrphanedTransactionCommand { message: Some(message), transaction_id };
        let command = telemetry_command::Command::RecoverOrphanedTransactionCommand(question);
        Ok(TelemetryCommand { status: Some(gateway::status::ok()), command: Some(command) })
    }

    async fn record_checks(&self, orphans: Vec<Orphan>) -> Result<(), Error> {
        let sent = orphans.len();
        let next_ms = millis(self.tunables().transactions.check_interval);
        let record = Command::CheckTransactions(CheckTransactions { next_ms, orphans });
        self.metrics.transactions_checked(sent);
        match self.propose(&record, Instant::now() + LONGEST_LOOK_UP).await? {
            Outcome::TransactionsChecked { .. } => Ok(()),
            other => unexpected(&other),
        }
    }

    /// Gives these transactions up.
    pub async fn park(&self, orphans: &[Transaction]) -> Result<(), Error> {
        let orphans = orphans.iter().map(seen).collect();
        let park = Command::ParkTransactions(ParkTransactions { orphans });
        match self.propose(&park, Instant::now() + LONGEST_LOOK_UP).await? {
            Outcome::TransactionsParked { count } => {
                info!(count, "transactions given up; an administrator must resolve them");
                Ok(())
            }
            other => unexpected(&other),
        }
    }
}

fn seen(orphan: &Transaction) -> Orphan {
    Orphan { transaction: orphan.number, checks: orphan.checks }
}

/// The producer that sent it, if it is there; then the others, another one first each time: not
/// every one has a checker.
fn candidates(orphan: &Transaction, producers: &[ClientId]) -> Vec<ClientId> {
    let (sender, mut others): (Vec<ClientId>, Vec<ClientId>) =
        producers.iter().cloned().partition(|client| *client == orphan.client);
    if !others.is_empty() {
        let turn = orphan.checks as usize % others.len();
        others.rotate_left(turn);
    }
    sender.into_iter().chain(others).collect()
}

#[cfg(test)]
mod tests {
    use proto::{QueueId, Timestamp};

    use super::*;

    #[test]
    fn the_sender_is_asked_first_and_the_others_in_turn() {
        let orphan = |checks| Transaction {
            number: 1,
            topic: "t".parse().expect("a topic"),
            queue: QueueId(0),
            client: "b".parse().expect("a client id"),
            position: raft::LogOffset(0),
            len: 0,
            born: Timestamp(0),
            next_check: Timestamp(0),
            checks,
            parked: false,
        };
        let clients = |ids: &str| -> Vec<ClientId> {
            ids.chars().map(|id| id.to_string().parse().expect("a client id")).collect()
        };
        let asked = |checks, known: &str| candidates(&orphan(checks), &clients(known));
        assert_eq!(asked(0, "abc"), clients("bac"));
        assert_eq!(asked(1, "abc"), clients("bca"));
        assert_eq!(asked(1, "acd"), clients("cda"));
        assert_eq!(asked(1, ""), []);
    }
}
