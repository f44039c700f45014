//! What the leader asks about transactions.

use commitlog::position::LogOffset;
use proto::{ClientId, QueueId, Timestamp, Topic};

use super::{State, TopicState};
use crate::kv::half::Half;

/// A transaction that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Names it within the broker group.
    pub number: u64,
    pub topic: Topic,
    /// The queue that the message enters when it is committed.
    pub queue: QueueId,
    /// The producer.
    pub client: ClientId,
    /// Where the `v2.Message` lies in the log.
    pub position: LogOffset,
    pub len: u32,
    /// When it was stored, in log time.
    pub born: Timestamp,
    /// When its producer is to be asked next, in log time. Of no meaning when it is parked.
    pub next_check: Timestamp,
    /// How often producers were asked.
    pub checks: u32,
    /// Given up: only an administrator ends it.
    pub parked: bool,
}

/// How many transactions have not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unresolved {
    /// Their producers are asked from time to time.
    pub pending: usize,
    /// Given up.
    pub parked: usize,
}

impl State {
    /// A transaction that has not ended.
    #[must_use]
    pub fn transaction(&self, number: u64) -> Option<Transaction> {
        self.transactions.get(number).map(|half| self.described(number, half))
    }

    /// The topic of a transaction that has not ended, or ended lately.
    #[must_use]
    pub fn transaction_topic(&self, number: u64) -> Option<&Topic> {
        let pending = self.transactions.get(number).map(|half| half.topic);
        let ended = || self.transactions.resolution(number, self.stamp).map(|ended| ended.topic);
        let topic = pending.or_else(ended)?;
        self.topics.find_id(topic).map(TopicState::name)
    }

    /// Transactions after a number that have not ended, in order, at most `limit`: of one topic or
    /// of all, the parked ones or all.
    #[must_use]
    pub fn transactions(
        &self,
        topic: Option<&Topic>,
        parked_only: bool,
        after: u64,
        limit: usize,
    ) -> Vec<Transaction> {
        let id = topic.map(|topic| self.topics.id(topic));
        let wanted = |half: &Half| {
            (half.parked || !parked_only) && id.is_none_or(|id| id == Some(half.topic))
        };
        let found = self.transactions.after(after).filter(|(_, half)| wanted(half)).take(limit);
        found.map(|(number, half)| self.described(number, half)).collect()
    }

    #[must_use]
    pub fn unresolved(&self) -> Unresolved {
        let parked = self.transactions.parked();
        Unresolved { pending: self.transactions.len() - parked, parked }
    }

    /// Transactions whose producers are to be asked at `now`, at most `limit`, the longest due
    /// first, of the topics that are wanted.
    #[must_use]
    pub fn checks_due(
        &self,
        now: Timestamp,
        limit: usize,
        wanted: impl Fn(&Topic) -> bool,
    ) -> Vec<Transaction> {
        let mut due = Vec::new();
        for (topic, checks) in self.transactions.checks() {
            if wanted(self.topics.get(topic).name()) {
                due.extend(checks.take_while(|(at, _)| *at <= now).take(limit));
            }
        }
        due.sort_unstable();
        due.truncate(limit);
        due.into_iter().filter_map(|(_, number)| self.transaction(number)).collect()
    }

    /// When the next producer is to be asked, for a topic that is wanted.
    #[must_use]
    pub fn next_check(&self, wanted: impl Fn(&Topic) -> bool) -> Option<Timestamp> {
        let topics = self.transactions.checks();
        let wanted = topics.filter(|(topic, _)| wanted(self.topics.get(*topic).name()));
        wanted.filter_map(|(_, mut checks)| checks.next()).map(|(at, _)| at).min()
    }

    fn described(&self, number: u64, half: &Half) -> Transaction {
        Transaction {
            number,
            topic: self.topics.get(half.topic).name().clone(),
            queue: half.queue,
            client: half.client.clone(),
            position: half.position,
            len: half.len,
            born: half.born,
            next_check: half.next_check,
            checks: half.checks,
            parked: half.parked,
        }
    }
}
