//! Ending transactions, and looking at those that have not ended.

use std::{str::FromStr, time::Instant};

use proto::{Topic, TransactionId, clock::wall_now, v2};

use super::{Broker, unexpected};
use crate::{
    Error,
    command::{Command, EndTransaction, Outcome, Resolver, Verdict},
    state::Transaction,
};

/// Transactions in one answer to an administrator.
const LISTED: usize = 1000;

/// A transaction as an administrator sees it.
#[derive(Debug)]
pub struct ListedTransaction {
    pub id: TransactionId,
    pub transaction: Transaction,
    /// The message, as far as the log still gives it back.
    pub message: Option<v2::Message>,
}

impl Broker {
    /// A producer says what became of its transaction. `None`: it does not know yet, which changes
    /// nothing. Repeating a verdict is harmless; a verdict against an earlier one is refused.
    pub async fn end_transaction(
        &self,
        topic: &Topic,
        id: &str,
        verdict: Option<Verdict>,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.leading()?;
        let number = self.own_transaction(id)?;
        let known = self.view.transaction_topic(number);
        if known.is_some_and(|known| known != *topic) {
            return Err(Error::ForeignTransaction("topic"));
        }
        match verdict {
            Some(verdict) => self.end(number, verdict, Resolver::Producer, deadline).await,
            None => Ok(()),
        }
    }

    /// An administrator decides a transaction, parked or not.
    pub async fn resolve_transaction(
        &self,
        id: &str,
        verdict: Verdict,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.leading()?;
        let number = self.own_transaction(id)?;
        self.end(number, verdict, Resolver::Administrator, deadline).await?;
        tracing::info!(id, ?verdict, "transaction resolved by an administrator");
        Ok(())
    }

    async fn end(
        &self,
        transaction: u64,
        verdict: Verdict,
        by: Resolver,
        deadline: Instant,
    ) -> Result<(), Error> {
        let pending = self.view.transaction(transaction);
        let end = Command::EndTransaction(EndTransaction { transaction, verdict, by });
        match self.propose(&end, deadline).await? {
            Outcome::TransactionEnded { repeated } => {
                // This node may hear of it only by applying its end, and it may have ended before.
                if let Some(half) = pending.filter(|_| !repeated) {
                    let times = (half.born, wall_now());
                    self.metrics.transaction_ended(&half.topic, verdict, times);
                }
                Ok(())
            }
            other => unexpected(&other),
        }
    }

    /// Transactions after a number that have not ended, [`LISTED`] at most, in order.
    pub async fn list_transactions(
        &self,
        topic: Option<&Topic>,
        parked_only: bool,
        after: u64,
        deadline: Instant,
    ) -> Result<Vec<ListedTransaction>, Error> {
        self.catch_up(deadline).await?;
        let found = self.view.transactions(topic, parked_only, after, LISTED);
        let broker = &self.settings.name;
        let listed = |transaction: Transaction| ListedTransaction {
            id: TransactionId { broker: broker.clone(), number: transaction.number },
            message: self.view.message(transaction.position, transaction.len).ok(),
            transaction,
        };
        Ok(found.into_iter().map(listed).collect())
    }

    fn own_transaction(&self, id: &str) -> Result<u64, Error> {
        let id = TransactionId::from_str(id)?;
        if id.broker != self.settings.name {
            return Err(Error::ForeignTransaction("broker"));
        }
        Ok(id.number)
    }
}
