//! Sends seen lately: answers a repeated one with where the first went.
//!
//! A send is remembered for [`limits::DEDUPE_WINDOW`] of log time, and while it is among the last
//! [`limits::DEDUPE_SENDS`] of the broker group. Both are checked when it is looked up, so that
//! when old ones are forgotten makes no difference.

use std::collections::VecDeque;

use commitlog::Bug;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use proto::{QueueId, QueueOffset, Timestamp};

use super::digest::Fold;
use super::limits;
use crate::kv::dedupe::Seen;
use crate::kv::{self, Batch, Frontier, Kv, TopicId};

/// Sends in one record of the store, so that one can be found by a number within it.
const RECORD_MAX: usize = 1024;

/// The index is split so that growing it never takes long: only one part grows at a time.
const PARTS: usize = 64;

#[derive(Debug)]
pub(super) struct Dedupe {
    /// Number of `sends[0]`.
    first: u64,
    sends: VecDeque<Seen>,
    /// Number of the first send of a log entry, and the entry's stamp.
    stamps: VecDeque<(u64, Timestamp)>,
    /// From the hash of an id to the number of its last send, as the lower half of the number.
    index: Vec<HashTable<u32>>,
    /// Number of the first send that is not in a batch yet.
    unwritten: u64,
    /// Digest of all sends ever remembered.
    digest: u64,
}

impl Dedupe {
    pub(super) fn load(kv: &dyn Kv, frontier: &Frontier) -> Result<Self, kv::Error> {
        let oldest = frontier.dedupe_next.saturating_sub(limits::DEDUPE_SENDS);
        let mut all = Self {
            first: oldest,
            sends: VecDeque::new(),
            stamps: VecDeque::new(),
            index: (0..PARTS).map(|_| HashTable::new()).collect(),
            unwritten: frontier.dedupe_next,
            digest: frontier.dedupe_digest,
        };
        kv::dedupe::load(kv, oldest.saturating_sub(RECORD_MAX as u64), |first, stamp, sends| {
            for (number, seen) in (first..).zip(sends).filter(|(number, _)| *number >= oldest) {
                if all.sends.is_empty() {
                    all.first = number;
                }
                assert_eq!(number, all.next(), "remembered sends follow each other");
                all.keep(seen, stamp);
            }
        })?;
        if all.sends.is_empty() {
            all.first = frontier.dedupe_next;
        }
        assert_eq!(all.next(), frontier.dedupe_next, "the last remembered send is in the store");
        Ok(all)
    }

    /// Sends ever remembered, and a digest of them.
    pub(super) fn counters(&self) -> (u64, u64) {
        (self.next(), self.digest)
    }

    /// Where the message of an earlier attempt went.
    pub(super) fn find(
        &self,
        id: u128,
        topic: TopicId,
        now: Timestamp,
    ) -> Option<(QueueId, QueueOffset)> {
        let low = *self.index[part(id)].find(hash(id), |low| self.at(*low).id == id)?;
        let number = self.number(low);
        let seen = self.at(low);
        let recent = self.next() - number <= limits::DEDUPE_SENDS;
        let short = std::time::Duration::from_millis(100);
        let window = if Bug::B24.is_sown() { short } else { limits::DEDUPE_WINDOW };
        let young = self.stamp(number).plus(window) > now;
        (recent && young && seen.topic == topic).then_some((seen.queue, seen.offset))
    }

    pub(super) fn remember(&mut self, seen: Seen, stamp: Timestamp) {
        let fold = Fold(self.digest).bytes(&seen.id.to_be_bytes());
        self.digest = fold.word(seen.queue.0.into()).word(seen.offset.0).0;
        self.keep(seen, stamp);
    }

    /// Adds what was remembered since the last call to the batch. All of it has this stamp.
    pub(super) fn write(&mut self, batch: &mut Batch, stamp: Timestamp) {
        let from = usize::try_from(self.unwritten - self.first).expect("sends are in memory");
        if from == self.sends.len() {
            return;
        }
        let fresh: Vec<_> = self.sends.range(from..).copied().collect();
        for chunk in fresh.chunks(RECORD_MAX) {
            kv::dedupe::put(batch, self.unwritten, stamp, chunk);
            self.unwritten += chunk.len() as u64;
        }
    }

    /// Forgets sends that are out of the window, a bounded number at a time. Returns the number of
    /// the first record that is still needed, if it changed.
    pub(super) fn forget(&mut self, now: Timestamp) -> Option<u64> {
        /// More than what one entry brings at full speed, far less than a pause.
        const AT_ONCE: usize = 4096;
        let before = self.first;
        let beyond = self.next().saturating_sub(limits::DEDUPE_SENDS).saturating_sub(self.first);
        let mut gone = usize::try_from(beyond).expect("sends are in memory");
        while gone < AT_ONCE.min(self.sends.len())
            && self.stamp(self.first + gone as u64).plus(limits::DEDUPE_WINDOW) <= now
        {
            gone += 1;
        }
        for _ in 0..gone {
            self.drop_first();
        }
        (self.first != before).then(|| self.first.saturating_sub(RECORD_MAX as u64))
    }

    fn next(&self) -> u64 {
        self.first + self.sends.len() as u64
    }

    fn keep(&mut self, seen: Seen, stamp: Timestamp) {
        let number = self.next();
        self.sends.push_back(seen);
        if self.stamps.back().is_none_or(|(_, last)| *last != stamp) {
            self.stamps.push_back((number, stamp));
        }
        let (first, sends) = (self.first, &self.sends);
        let id_of = |low: &u32| sends[place(first, *low)].id;
        let part = &mut self.index[part(seen.id)];
        let entry = part.entry(hash(seen.id), |low| id_of(low) == seen.id, |low| hash(id_of(low)));
        match entry {
            Entry::Occupied(mut earlier) => *earlier.get_mut() = low(number),
            Entry::Vacant(vacant) => {
                vacant.insert(low(number));
            }
        }
    }

    fn drop_first(&mut self) {
        let id = self.sends.front().expect("there is one").id;
        let gone = low(self.first);
        // A later send of the same id has taken its place in the index.
        if let Ok(entry) = self.index[part(id)].find_entry(hash(id), |low| *low == gone) {
            entry.remove();
        }
        self.sends.pop_front();
        self.first += 1;
        if self.stamps.get(1).is_some_and(|(number, _)| *number <= self.first) {
            self.stamps.pop_front();
        }
    }

    fn at(&self, low: u32) -> &Seen {
        &self.sends[place(self.first, low)]
    }

    fn number(&self, low: u32) -> u64 {
        self.first + place(self.first, low) as u64
    }

    fn stamp(&self, number: u64) -> Timestamp {
        let after = self.stamps.partition_point(|(first, _)| *first <= number);
        self.stamps[after - 1].1
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half of the number is meant")]
fn low(number: u64) -> u32 {
    number as u32
}

/// Which of the sends from number `first` on has this lower half of a number.
fn place(first: u64, number: u32) -> usize {
    number.wrapping_sub(low(first)) as usize
}

#[expect(clippy::cast_possible_truncation, reason = "any bits of the id will do")]
fn hash(id: u128) -> u64 {
    Fold(id as u64).word((id >> 64) as u64).0
}

fn part(id: u128) -> usize {
    // Not the highest bits and not the lowest: the table uses those.
    (hash(id) >> 40) as usize % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Memory;

    const TOPIC: TopicId = TopicId(3);

    fn seen(id: u128, offset: u64) -> Seen {
        Seen { id, topic: TOPIC, queue: QueueId(1), offset: QueueOffset(offset) }
    }

    fn empty() -> Dedupe {
        Dedupe::load(&Memory::new(), &Frontier::default()).unwrap()
    }

    fn found(dedupe: &Dedupe, id: u128, now: u64) -> Option<u64> {
        dedupe.find(id, TOPIC, Timestamp(now)).map(|(_, offset)| offset.0)
    }

    #[test]
    fn a_send_is_known_until_its_window_ends() {
        let mut dedupe = empty();
        dedupe.remember(seen(7, 1), Timestamp(1000));
        assert_eq!(found(&dedupe, 7, 600_999), Some(1));
        assert_eq!(found(&dedupe, 7, 601_000), None);
        assert_eq!(dedupe.find(7, TopicId(4), Timestamp(1000)), None);
        assert_eq!(found(&dedupe, 8, 1000), None);
    }

    #[test]
    fn only_the_latest_sends_are_known() {
        let mut dedupe = empty();
        for number in 0..limits::DEDUPE_SENDS + 10 {
            dedupe.remember(seen(number.into(), number), Timestamp(0));
        }
        assert_eq!(found(&dedupe, 9, 0), None);
        assert_eq!(found(&dedupe, 10, 0), Some(10));
        dedupe.forget(Timestamp(0));
        assert_eq!(dedupe.sends.len() as u64, limits::DEDUPE_SENDS);
        assert_eq!(found(&dedupe, 9, 0), None);
        assert_eq!(found(&dedupe, 10, 0), Some(10));
    }

    #[test]
    fn the_last_of_two_sends_with_one_id_counts_and_outlives_the_first() {
        let mut dedupe = empty();
        dedupe.remember(seen(7, 1), Timestamp(0));
        dedupe.remember(seen(7, 2), Timestamp(600_000));
        assert_eq!(found(&dedupe, 7, 600_000), Some(2));
        assert_eq!(dedupe.forget(Timestamp(600_000)), Some(0));
        assert_eq!(dedupe.sends.len(), 1);
        assert_eq!(found(&dedupe, 7, 600_001), Some(2));
    }

    #[test]
    fn forgetting_is_bounded_and_goes_on_later() {
        let mut dedupe = empty();
        (0..10_000).for_each(|n| dedupe.remember(seen(n, 0), Timestamp(0)));
        dedupe.forget(Timestamp(600_000));
        assert_eq!(dedupe.sends.len(), 10_000 - 4096);
        dedupe.forget(Timestamp(600_000));
        dedupe.forget(Timestamp(600_000));
        assert_eq!(dedupe.sends.len(), 0);
        assert_eq!(dedupe.forget(Timestamp(600_000)), None);
        dedupe.remember(seen(1, 5), Timestamp(600_001));
        assert_eq!(found(&dedupe, 1, 600_001), Some(5));
    }

    #[test]
    fn what_was_written_is_known_after_a_restart() {
        let kv = Memory::new();
        let mut dedupe = empty();
        let mut batch = Batch::default();
        for stamp in 0..5 {
            for n in 0..1500 {
                dedupe.remember(seen(u128::from(stamp * 1500 + n), stamp), Timestamp(stamp));
            }
            dedupe.write(&mut batch, Timestamp(stamp));
        }
        kv.write(&batch).unwrap();
        let (dedupe_next, dedupe_digest) = dedupe.counters();
        let frontier = Frontier { dedupe_next, dedupe_digest, ..Frontier::default() };

        let again = Dedupe::load(&kv, &frontier).unwrap();
        assert_eq!(again.counters(), dedupe.counters());
        for id in [0, 1023, 1024, 1499, 1500, 7499] {
            assert_eq!(found(&again, id, 600_000), found(&dedupe, id, 600_000), "{id}");
            assert_eq!(found(&again, id, 5), Some(u64::try_from(id / 1500).unwrap()));
        }
    }
}
