//! A fingerprint of the state, for comparing replicas.

use std::fmt;

use super::State;
use crate::command::{encode_group_config, encode_limited, encode_topic_config};

/// Folds words into one. Not for strangers' data: it finds accidents, not forgeries. Persisted as
/// part of the queue heads and the frontier, so it must remain as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fold(pub(super) u64);

impl Fold {
    #[must_use]
    pub(super) fn word(self, word: u64) -> Self {
        let mixed = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self(mixed ^ (mixed >> 29))
    }

    #[must_use]
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        bytes.chunks(8).fold(self.word(bytes.len() as u64), |fold, chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            fold.word(u64::from_be_bytes(word))
        })
    }
}

/// A fingerprint of everything that users can observe. Replicas that applied the same entries have
/// the same, whatever they did in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(u64);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl State {
    /// Takes time in proportion to queues, deliveries in flight and transactions, not to messages.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut fold = Fold(0).word(self.stamp.0).word(self.topics_version);
        fold = self.fold_topics(fold);
        fold = self.fold_consumer_groups(fold);
        fold = self.fold_subscriptions(fold);
        for ((topic, queue), next) in &self.redriven {
            fold = fold.word(topic.0.into()).word(queue.0.into()).word(next.0);
        }
        fold = self.transactions.fold(fold);
        fold = self.fold_quotas(fold);
        for (of, version) in self.settings.iter() {
            fold = fold.word(of.kind as u64).bytes(of.name.as_bytes()).word(version);
        }
        fold = self.live_settings.fold(fold);
        fold = fold.word(self.topics.next_id().0.into()).word(self.groups.next_id().0.into());
        fold = fold.word(self.level.into());
        fold = self.timers.fold(fold);
        fold = self.retained.fold(fold);
        let (sends, sends_digest) = self.dedupe.counters();
        Digest(fold.word(sends).word(sends_digest).word(self.keys.counters().next).0)
    }

    fn fold_topics(&self, mut fold: Fold) -> Fold {
        for topic in self.topics.iter() {
            let mut config = bytes::BytesMut::new();
            encode_topic_config(&mut config, topic.config());
            fold = fold.bytes(topic.name().as_str().as_bytes()).bytes(&config);
            let standing = topic.standing();
            fold = fold.word(standing.born).word(standing.readable.into());
            fold = fold.word(standing.retention.ms).word(standing.retention.bytes);
            for head in topic.heads() {
                fold = fold.word(head.min.0).word(head.max.0).word(head.digest);
            }
        }
        fold
    }

    fn fold_consumer_groups(&self, mut fold: Fold) -> Fold {
        for (id, name, config) in self.groups.iter() {
            let mut bytes = bytes::BytesMut::new();
            encode_group_config(&mut bytes, config);
            let standing = self.groups.standing(id);
            fold = fold.bytes(name.as_str().as_bytes()).bytes(&bytes);
            fold = fold.word(standing.born).word(standing.enabled.into());
        }
        fold
    }

    fn fold_quotas(&self, mut fold: Fold) -> Fold {
        for (of, quota) in self.quotas.iter() {
            let mut bytes = bytes::BytesMut::new();
            encode_limited(&mut bytes, of);
            fold = fold.bytes(&bytes);
            fold = fold.word(quota.messages_per_second).word(quota.bytes_per_second);
        }
        fold
    }

    fn fold_subscriptions(&self, mut fold: Fold) -> Fold {
        for ((group, topic), subscription) in self.subscriptions.iter() {
            fold = fold.word(group.0.into()).word(topic.0.into());
            for (queue, progress) in subscription.progress() {
                fold = fold.word(queue.0.into()).word(progress.next.0).word(progress.known.into());
            }
            for (queue, reset) in subscription.resets() {
                fold = fold.word(queue.0.into()).word(reset.id).word(reset.to.0);
                fold = fold.word(reset.pending.into());
            }
            for ((queue, offset), record) in subscription.in_flight.records() {
                let delivery = &record.delivery;
                fold = fold.word(queue.0.into()).word(offset.0).word(delivery.id);
                fold = fold.word(delivery.due.0).word(delivery.since.0);
                fold = fold.word(delivery.attempt.into()).word(delivery.auto_renew.into());
                if let Some(order) = delivery.order {
                    fold = fold.word(order.block).word(order.attempt_id.unwrap_or_default());
                }
                fold = fold.bytes(self.subscriptions.client(record.client).as_str().as_bytes());
            }
        }
        fold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        assert_eq!(Fold(0).word(1).word(2).0, Fold(Fold(0).word(1).0).word(2).0);
        assert_ne!(Fold(0).word(1).word(2), Fold(0).word(2).word(1));
        assert_ne!(Fold(0).bytes(b"a"), Fold(0).bytes(b"a\0"));
        assert_eq!(Fold(0).word(1).bytes(b"orders, the rest").0, GOLDEN);
    }

    /// Computed once; a change means that replicas of two versions no longer agree.
    const GOLDEN: u64 = 12_696_641_148_248_842_626;
}
