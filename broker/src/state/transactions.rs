//! Transactions: those that have not ended, and how the latest ones ended.

use std::collections::{BTreeMap, BTreeSet};

use proto::Timestamp;

use super::digest::Fold;
use super::limits;
use crate::command::verdict_byte;
use crate::kv::half::Half;
use crate::kv::resolution::Resolution;
use crate::kv::{self, Kv, TopicId};

#[derive(Debug, Default)]
pub(super) struct Transactions {
    unresolved: BTreeMap<u64, Half>,
    /// Of these, the ones that are not parked: next check and number, by topic.
    checks: BTreeMap<TopicId, BTreeSet<(Timestamp, u64)>>,
    parked: usize,
    resolved: BTreeMap<u64, Resolution>,
    /// When each of these ended, and its number.
    by_end: BTreeSet<(Timestamp, u64)>,
}

impl Transactions {
    pub(super) fn load(kv: &dyn Kv) -> Result<Self, kv::Error> {
        let mut all = Self::default();
        kv::half::load(kv, |number, half| {
            all.insert(number, half);
            Ok(())
        })?;
        kv::resolution::load(kv, |number, resolution| {
            all.remember(number, resolution);
            Ok(())
        })?;
        Ok(all)
    }

    pub(super) fn get(&self, number: u64) -> Option<&Half> {
        self.unresolved.get(&number)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Half)> {
        self.unresolved.iter().map(|(number, half)| (*number, half))
    }

    /// Those after a number, in order.
    pub(super) fn after(&self, number: u64) -> impl Iterator<Item = (u64, &Half)> {
        let later = (std::ops::Bound::Excluded(number), std::ops::Bound::Unbounded);
        self.unresolved.range(later).map(|(number, half)| (*number, half))
    }

    /// All that have not ended.
    pub(super) fn len(&self) -> usize {
        self.unresolved.len()
    }

    /// Of these, the parked ones.
    pub(super) fn parked(&self) -> usize {
        self.parked
    }

    /// Next checks with the numbers of their transactions, by topic and in order.
    pub(super) fn checks(
        &self,
    ) -> impl Iterator<Item = (TopicId, impl Iterator<Item = (Timestamp, u64)>)> {
        self.checks.iter().map(|(topic, checks)| (*topic, checks.iter().copied()))
    }

    pub(super) fn insert(&mut self, number: u64, half: Half) {
        self.index(number, &half);
        let before = self.unresolved.insert(number, half);
        assert!(before.is_none(), "transaction {number} is not stored twice");
    }

    /// Changes what is not resolved, and returns it.
    pub(super) fn update(&mut self, number: u64, change: impl FnOnce(&mut Half)) -> Half {
        let mut half = self.take(number).expect("the caller looked it up");
        change(&mut half);
        self.insert(number, half.clone());
        half
    }

    /// Those of a topic.
    pub(super) fn of_topic(&self, topic: TopicId) -> Vec<u64> {
        let found = self.unresolved.iter().filter(|(_, half)| half.topic == topic);
        found.map(|(number, _)| *number).collect()
    }

    pub(super) fn take(&mut self, number: u64) -> Option<Half> {
        let half = self.unresolved.remove(&number)?;
        if half.parked {
            self.parked -= 1;
        } else {
            let checks = self.checks.get_mut(&half.topic).expect("it is among them");
            checks.remove(&(half.next_check, number));
            if checks.is_empty() {
                self.checks.remove(&half.topic);
            }
        }
        Some(half)
    }

    fn index(&mut self, number: u64, half: &Half) {
        if half.parked {
            self.parked += 1;
        } else {
            self.checks.entry(half.topic).or_default().insert((half.next_check, number));
        }
    }

    /// How a transaction ended, if that is not too long ago. Age is looked at here, so that when
    /// old ones are forgotten makes no difference.
    pub(super) fn resolution(&self, number: u64, now: Timestamp) -> Option<&Resolution> {
        self.resolved.get(&number).filter(|resolution| is_young(resolution.at, now))
    }

    pub(super) fn remember(&mut self, number: u64, resolution: Resolution) {
        self.by_end.insert((resolution.at, number));
        self.resolved.insert(number, resolution);
    }

    /// Forgets ends that are too old or too many, a bounded number of them, and returns which.
    /// More than one, so that what piled up goes.
    pub(super) fn forget(&mut self, now: Timestamp) -> Vec<(Timestamp, u64)> {
        const AT_ONCE: usize = 8;
        let mut gone = Vec::new();
        while gone.len() < AT_ONCE {
            let Some((at, number)) = self.by_end.first().copied() else { break };
            if is_young(at, now) && self.by_end.len() <= limits::RESOLUTIONS {
                break;
            }
            self.by_end.remove(&(at, number));
            self.resolved.remove(&number);
            gone.push((at, number));
        }
        gone
    }

    pub(super) fn fold(&self, mut fold: Fold) -> Fold {
        fold = fold.word(self.unresolved.len() as u64).word(self.resolved.len() as u64);
        for (number, half) in self.iter() {
            fold = fold.word(number).word(half.topic.0.into()).word(half.queue.0.into());
            fold = fold.word(half.position.0).word(half.len.into()).word(half.tag_hash);
            fold = fold.word(half.born.0).word(half.next_check.0).word(half.checks.into());
            fold = fold.word(half.parked.into()).bytes(half.client.as_str().as_bytes());
            fold = half.key_hashes.iter().fold(fold, |fold, hash| fold.word(*hash));
        }
        for (number, resolution) in &self.resolved {
            fold = fold.word(*number).word(resolution.at.0).word(resolution.topic.0.into());
            fold = fold.word(verdict_byte(resolution.verdict).into());
        }
        fold
    }
}

fn is_young(at: Timestamp, now: Timestamp) -> bool {
    at.plus(limits::RESOLUTION_WINDOW) > now
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Verdict;

    fn ended(at: u64) -> Resolution {
        Resolution { at: Timestamp(at), topic: TopicId(0), verdict: Verdict::Commit }
    }

    const DAY: u64 = 24 * 60 * 60 * 1000;

    #[test]
    fn an_end_is_known_for_a_day_and_then_forgotten_bit_by_bit() {
        let mut transactions = Transactions::default();
        (0..20).for_each(|number| transactions.remember(number, ended(number)));
        assert!(transactions.resolution(3, Timestamp(DAY + 2)).is_some());
        assert!(transactions.resolution(3, Timestamp(DAY + 3)).is_none());
        assert!(transactions.forget(Timestamp(DAY - 1)).is_empty());
        assert_eq!(transactions.forget(Timestamp(DAY)), [(Timestamp(0), 0)]);
        assert_eq!(transactions.forget(Timestamp(2 * DAY)).len(), 8);
        assert_eq!(transactions.resolved.len(), 11);
    }

    #[test]
    fn only_the_latest_ends_are_known() {
        let mut transactions = Transactions::default();
        for number in 0..=limits::RESOLUTIONS as u64 {
            transactions.remember(number, ended(number));
        }
        assert_eq!(transactions.forget(Timestamp(0)), [(Timestamp(0), 0)]);
        assert_eq!(transactions.resolved.len(), limits::RESOLUTIONS);
    }
}
