//! Ends what is kept no longer, and makes room in the log.
//!
//! A round looks at every queue's first message, then at what topics and the log hold beyond
//! their bounds, then at transactions that were given up; last it carries forward what little is
//! left of old segments. It only proposes: what ends is decided where the command is applied, the
//! same on all replicas, and each frees its files by itself when nothing refers to them.

mod carry;
mod rules;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use proto::{QueueId, QueueOffset, Topic, clock::wall_now};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::{
    Error,
    command::{CheckTransactions, Command, Expire, ExpireTransactions, Retention},
    ops::{Broker, Head},
};

use rules::{Rules, cut};

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(5);
/// At least that, however often topics change.
const AFTER_CHANGE: Duration = Duration::from_millis(500);
/// When a round has left something over.
const SOON: Duration = Duration::from_millis(50);
/// Messages that one command ends: about a millisecond of applying.
const MOST_MESSAGES: u64 = 16_384;
/// Queues looked at while nothing is applied.
const QUEUES_AT_A_TIME: u32 = 256;
/// Proposals in flight.
const AT_ONCE: usize = 32;
const MOST_TRANSACTIONS: usize = 4096;
const PROPOSAL_WAIT: Duration = Duration::from_secs(5);

const _: () = assert!(MOST_TRANSACTIONS <= CheckTransactions::MAX_ORPHANS);

/// Runs until dropped.
pub(super) async fn run(broker: Arc<Broker>) {
    let mut changed = broker.view().topics_changed();
    let mut task = Task { broker, heads: HashMap::new(), pressed: false };
    loop {
        changed.mark_unchanged();
        let more = match task.round().await {
            Ok(more) => more,
            Err(error) => {
                // Somebody else leads, or the log is full: the next round tries again.
                debug!(%error, "retention stopped half way");
                false
            }
        };
        tokio::time::sleep(if more { SOON } else { AFTER_CHANGE }).await;
        if !more {
            // A topic that keeps less from now on is looked at soon.
            let _ = timeout(EVERY, changed.changed()).await;
        }
    }
}

struct Task {
    broker: Arc<Broker>,
    /// What was seen of the first message of each queue.
    heads: HashMap<Topic, Vec<Head>>,
    /// The log or the disk was over its bound in the last round.
    pressed: bool,
}

impl Task {
    /// Whether it left something over.
    async fn round(&mut self) -> Result<bool, Error> {
        let settings = self.broker.tunables().retention;
        let kept = self.broker.view().kept();
        let span = self.broker.group.log_span();
        let cut = cut(&settings, &kept, span, self.broker.disk.excess());
        let before = cut.and_then(|base| self.broker.view().segment_started(base));
        if before.is_some() && !self.pressed {
            warn!(?cut, "the log is over its bound, or the disk: the oldest messages end early");
        }
        self.pressed = before.is_some();
        let rules = Rules { settings, now: wall_now(), before };

        let topics = self.broker.view().topics_kept();
        let mut more = false;
        let known: HashSet<&Topic> = topics.iter().map(|(topic, ..)| topic).collect();
        self.heads.retain(|topic, _| known.contains(topic));
        for (topic, retention, queues) in topics {
            more |= self.end_old(&rules, &topic, retention, queues).await?;
            more |= self.end_excess(&topic, retention).await?;
        }
        more |= self.end_parked(&rules).await?;
        more |= carry::forward(&self.broker, self.pressed).await?;
        Ok(more)
    }

    async fn end_old(
        &mut self,
        rules: &Rules,
        topic: &Topic,
        retention: Retention,
        queues: u32,
    ) -> Result<bool, Error> {
        let Some(bounds) = rules.bounds(topic, retention.ms) else { return Ok(false) };
        let heads = self.heads.entry(topic.clone()).or_default();
        let mut more = false;
        for first in (0..queues).step_by(QUEUES_AT_A_TIME as usize) {
            let some = first..queues.min(first + QUEUES_AT_A_TIME);
            let view = self.broker.view();
            let ended = view.overdue_in(topic, some, bounds, MOST_MESSAGES, heads)?;
            more |= !ended.is_empty();
            expire(&self.broker, topic, ended).await?;
            tokio::task::yield_now().await;
        }
        Ok(more)
    }

    /// What the topic holds beyond its bytes.
    async fn end_excess(&self, topic: &Topic, retention: Retention) -> Result<bool, Error> {
        if retention.bytes == 0 {
            return Ok(false);
        }
        let kept = self.broker.view().kept_of(topic).bytes;
        let Some(excess) = rules::excess(kept, retention.bytes) else { return Ok(false) };
        let most = usize::try_from(MOST_MESSAGES).expect("it is small");
        let ended = self.broker.view().oldest_of(topic, excess, most)?;
        let more = !ended.is_empty();
        expire(&self.broker, topic, ended).await?;
        Ok(more)
    }

    async fn end_parked(&self, rules: &Rules) -> Result<bool, Error> {
        let view = self.broker.view();
        let retention: HashMap<Topic, u64> = match view.unresolved().parked {
            0 => return Ok(false),
            _ => view.topics_kept().into_iter().map(|(topic, r, _)| (topic, r.ms)).collect(),
        };
        let until = |topic: &Topic| rules.parked_until(topic, *retention.get(topic)?);
        let transactions = view.parked_before(MOST_TRANSACTIONS, until);
        if transactions.is_empty() {
            return Ok(false);
        }
        info!(count = transactions.len(), "transactions that were given up end by retention");
        let command = Command::ExpireTransactions(ExpireTransactions { transactions });
        self.broker.propose(&command, Instant::now() + PROPOSAL_WAIT).await?;
        Ok(true)
    }
}

async fn expire(
    broker: &Broker,
    topic: &Topic,
    ended: Vec<(QueueId, QueueOffset)>,
) -> Result<(), Error> {
    let mut proposals = stream::iter(ended.into_iter().map(|(queue, to)| {
        let expire = Command::Expire(Expire { topic: topic.clone(), queue, to });
        async move { broker.propose(&expire, Instant::now() + PROPOSAL_WAIT).await }
    }))
    .buffer_unordered(AT_ONCE);
    while let Some(outcome) = proposals.next().await {
        match outcome {
            Ok(_) => {}
            // The topic or the queue went meanwhile.
            Err(error @ Error::Rejected(_)) => debug!(%topic, %error, "nothing to end"),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
