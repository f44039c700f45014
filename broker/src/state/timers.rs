//! Messages that wait for their time: the near ones in memory, all of them in the store.
//!
//! What is in memory makes no difference to what happens: it depends on how commands were batched
//! and on restarts, and every look-up sees the store behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use commitlog::Bug;
use commitlog::position::LogOffset;
use proto::Timestamp;

use super::digest::Fold;
use crate::command::TimerId;
use crate::kv::timer::Timer;
use crate::kv::timer_counts::Counters;
use crate::kv::{self, Batch, Kv, TopicId};

/// Timers in memory at most, at about 120 bytes each: 8 MiB. One call of `apply` may exceed it by
/// what it brings.
const NEAR_MAX: usize = 65_536;
/// Timers that stay in memory when there were too many, and that are fetched when none is left:
/// several seconds of firing at the highest rate.
const NEAR_KEPT: usize = 32_768;

#[derive(Debug)]
pub(super) struct Timers {
    near: BTreeMap<TimerId, Timer>,
    /// The pending timers before this one are exactly `near`; those from it on are not in memory.
    /// `None` when all are.
    horizon: Option<TimerId>,
    /// What happened from the horizon on and is not in the store yet: set, or gone.
    unwritten: BTreeMap<TimerId, Option<Timer>>,
    /// Taken back, and not in the store yet.
    recalled: BTreeMap<TimerId, TopicId>,
    counters: Counters,
    /// How many there are by topic; no topic with none.
    pending: BTreeMap<TopicId, u64>,
    total: u64,
    /// Topics whose number changed since the last write.
    touched: BTreeSet<TopicId>,
}

/// What a recall found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Waiting {
    /// It waited, and does no more.
    Recalled(Timer),
    /// It waits, and is of another topic than was said.
    OfAnotherTopic,
    /// It does not wait.
    No,
}

impl Timers {
    pub(super) fn load(kv: &dyn Kv) -> Result<Self, kv::Error> {
        let mut all = Self {
            near: BTreeMap::new(),
            horizon: Some(TimerId { due: Timestamp(0), number: 0 }),
            unwritten: BTreeMap::new(),
            recalled: BTreeMap::new(),
            counters: kv::timer_counts::load(kv)?,
            pending: BTreeMap::new(),
            total: 0,
            touched: BTreeSet::new(),
        };
        kv::timer_counts::load_pending(kv, |topic, pending| {
            all.pending.insert(topic, pending);
            all.total += pending;
        })?;
        all.fetch(kv)?;
        Ok(all)
    }

    /// How many wait.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// How many of a topic wait.
    pub(super) fn pending(&self, topic: TopicId) -> u64 {
        self.pending.get(&topic).copied().unwrap_or_default()
    }

    /// When the first of them is due. Between calls of `apply`.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.near.keys().next().map(|id| id.due)
    }

    /// Whether a timer of this number was ever set.
    pub(super) fn was_set(&self, number: u64) -> bool {
        number < self.counters.next
    }

    pub(super) fn set(&mut self, batch: &mut Batch, due: Timestamp, timer: Timer) -> TimerId {
        let id = TimerId { due, number: self.counters.next };
        self.counters.next += 1;
        self.counters.digest = self.counters.digest.wrapping_add(digest(id, &timer));
        kv::timer::put(batch, id, &timer);
        *self.pending.entry(timer.topic).or_default() += 1;
        self.total += 1;
        self.touched.insert(timer.topic);
        if self.is_near(id) {
            self.near.insert(id, timer);
        } else {
            self.unwritten.insert(id, Some(timer));
        }
        id
    }

    /// The first timer that is due, taken out.
    pub(super) fn take_due(
        &mut self,
        kv: &dyn Kv,
        batch: &mut Batch,
        now: Timestamp,
    ) -> Result<Option<(TimerId, Timer)>, kv::Error> {
        self.fetch_if_none(kv)?;
        match self.near.first_entry() {
            Some(first) if first.key().due <= now => {
                let (id, timer) = first.remove_entry();
                self.gone(batch, id, &timer);
                Ok(Some((id, timer)))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Takes a timer of a topic out, and remembers that it was recalled.
    pub(super) fn recall(
        &mut self,
        kv: &dyn Kv,
        batch: &mut Batch,
        id: TimerId,
        topic: TopicId,
    ) -> Result<Waiting, kv::Error> {
        let timer = match self.find(kv, id)? {
            None => return Ok(Waiting::No),
            Some(timer) if timer.topic != topic => return Ok(Waiting::OfAnotherTopic),
            Some(timer) => timer,
        };
        if self.near.remove(&id).is_none() {
            self.unwritten.insert(id, None);
        }
        self.gone(batch, id, &timer);
        self.remember(batch, id, topic);
        Ok(Waiting::Recalled(timer))
    }

    /// The timer, if it waits.
    fn find(&self, kv: &dyn Kv, id: TimerId) -> Result<Option<Timer>, kv::Error> {
        Ok(match (self.is_near(id), self.unwritten.get(&id)) {
            (true, _) => self.near.get(&id).cloned(),
            (false, Some(unwritten)) => unwritten.clone(),
            (false, None) => kv::timer::get(kv, id)?,
        })
    }

    /// Its message was carried: what waits and lies at `from` lies at `to` from now on. The topic
    /// of the timer; `None` when there is no such one.
    pub(super) fn carry(
        &mut self,
        kv: &dyn Kv,
        batch: &mut Batch,
        id: TimerId,
        from: (LogOffset, u32),
        to: LogOffset,
    ) -> Result<Option<TopicId>, kv::Error> {
        let found = self.find(kv, id)?.filter(|timer| (timer.position, timer.len) == from);
        let Some(mut timer) = found else { return Ok(None) };
        self.counters.digest = self.counters.digest.wrapping_sub(digest(id, &timer));
        timer.position = to;
        self.counters.digest = self.counters.digest.wrapping_add(digest(id, &timer));
        kv::timer::put(batch, id, &timer);
        let topic = timer.topic;
        self.touched.insert(topic);
        if self.is_near(id) {
            self.near.insert(id, timer);
        } else {
            self.unwritten.insert(id, Some(timer));
        }
        Ok(Some(topic))
    }

    /// Remembers that a message of a topic was not delivered and will not be.
    pub(super) fn remember(&mut self, batch: &mut Batch, id: TimerId, topic: TopicId) {
        kv::recalled::put(batch, id, topic);
        self.recalled.insert(id, topic);
    }

    /// The topic of a message that was taken back, or that went with its topic.
    pub(super) fn recalled(&self, kv: &dyn Kv, id: TimerId) -> Result<Option<TopicId>, kv::Error> {
        match self.recalled.get(&id) {
            Some(topic) => Ok(Some(*topic)),
            None => kv::recalled::get(kv, id),
        }
    }

    /// Adds the counters to the batch, where they changed.
    pub(super) fn write(&mut self, batch: &mut Batch) {
        if self.touched.is_empty() {
            return;
        }
        for topic in std::mem::take(&mut self.touched) {
            kv::timer_counts::put_pending(batch, topic, self.pending(topic));
        }
        kv::timer_counts::put(batch, self.counters);
    }

    /// The batch is in the store: makes room in memory, or fills it.
    pub(super) fn written(&mut self, kv: &dyn Kv) -> Result<(), kv::Error> {
        self.unwritten.clear();
        self.recalled.clear();
        if self.near.len() > NEAR_MAX {
            let horizon = *self.near.keys().nth(NEAR_KEPT).expect("there are more");
            self.near.split_off(&horizon);
            self.horizon = Some(horizon);
        }
        self.fetch_if_none(kv)
    }

    pub(super) fn fold(&self, fold: Fold) -> Fold {
        let fold = fold.word(self.counters.next).word(self.counters.digest);
        self.pending
            .iter()
            .fold(fold, |fold, (topic, pending)| fold.word(topic.0.into()).word(*pending))
    }

    fn is_near(&self, id: TimerId) -> bool {
        self.horizon.is_none_or(|horizon| id < horizon)
    }

    fn gone(&mut self, batch: &mut Batch, id: TimerId, timer: &Timer) {
        if Bug::B14.is_sown() {
            return;
        }
        kv::timer::delete(batch, id);
        self.counters.digest = self.counters.digest.wrapping_sub(digest(id, timer));
        let pending = self.pending.get_mut(&timer.topic).expect("it was counted");
        *pending -= 1;
        if *pending == 0 {
            self.pending.remove(&timer.topic);
        }
        self.total -= 1;
        self.touched.insert(timer.topic);
    }

    fn fetch_if_none(&mut self, kv: &dyn Kv) -> Result<(), kv::Error> {
        if self.near.is_empty() && self.total > 0 { self.fetch(kv) } else { Ok(()) }
    }

    /// Moves the horizon on, over as many timers of the store as are to be in memory.
    fn fetch(&mut self, kv: &dyn Kv) -> Result<(), kv::Error> {
        let Some(from) = self.horizon.take() else {
            return Ok(());
        };
        let mut left = NEAR_KEPT;
        kv::timer::scan(kv, from, |id, timer| {
            if left == 0 {
                self.horizon = Some(id);
                return ControlFlow::Break(());
            }
            // What was taken out since is not to come back.
            if !matches!(self.unwritten.get(&id), Some(None)) {
                self.near.insert(id, timer);
                left -= 1;
            }
            ControlFlow::Continue(())
        })?;
        let beyond = match self.horizon {
            Some(horizon) => self.unwritten.split_off(&horizon),
            None => BTreeMap::new(),
        };
        for (id, change) in std::mem::replace(&mut self.unwritten, beyond) {
            if let Some(timer) = change {
                self.near.insert(id, timer);
            }
        }
        Ok(())
    }
}

/// Summed over all that are pending, so that the order in which they come and go is none of it.
fn digest(id: TimerId, timer: &Timer) -> u64 {
    let fold = Fold(id.due.0).word(id.number).word(timer.topic.0.into());
    let fold = fold.word(timer.queue.0.into()).word(timer.position.0).word(timer.len.into());
    let fold = fold.word(timer.tag_hash).word(timer.sent.0);
    timer.key_hashes.iter().fold(fold, |fold, hash| fold.word(*hash)).0
}

#[cfg(test)]
mod tests {
    use commitlog::position::LogOffset;
    use proto::QueueId;

    use super::*;
    use crate::kv::Memory;

    const TOPIC: TopicId = TopicId(1);

    fn timer(n: u64) -> Timer {
        Timer {
            topic: TOPIC,
            queue: QueueId(0),
            position: LogOffset(n),
            len: 1,
            tag_hash: 0,
            sent: Timestamp(0),
            key_hashes: Box::default(),
        }
    }

    struct Bench {
        kv: Memory,
        timers: Timers,
        batch: Batch,
    }

    impl Bench {
        fn new() -> Self {
            let kv = Memory::new();
            Self { timers: Timers::load(&kv).unwrap(), kv, batch: Batch::default() }
        }

        fn set(&mut self, due: u64) -> TimerId {
            self.timers.set(&mut self.batch, Timestamp(due), timer(due))
        }

        fn write(&mut self) {
            self.timers.write(&mut self.batch);
            self.kv.write(&self.batch).unwrap();
            self.batch.clear();
            self.timers.written(&self.kv).unwrap();
        }

        fn take(&mut self, now: u64) -> Option<u64> {
            let due = self.timers.take_due(&self.kv, &mut self.batch, Timestamp(now)).unwrap();
            due.map(|(id, timer)| {
                assert_eq!(id.due.0, timer.position.0);
                id.due.0
            })
        }

        fn recall(&mut self, id: TimerId) -> bool {
            let found = self.timers.recall(&self.kv, &mut self.batch, id, TOPIC).unwrap();
            matches!(found, Waiting::Recalled(_))
        }

        fn restart(&mut self) {
            let before = self.timers.fold(Fold(0));
            self.timers = Timers::load(&self.kv).unwrap();
            assert_eq!(self.timers.fold(Fold(0)), before);
        }
    }

    /// As many as make memory the smaller part, and all of them in one call of `apply`.
    #[test]
    fn timers_beyond_the_horizon_fire_in_order_too() {
        let many = 3 * NEAR_MAX as u64;
        let mut bench = Bench::new();
        (0..many).rev().step_by(2).for_each(|due| {
            bench.set(due);
        });
        bench.write();
        assert_eq!(bench.timers.near.len(), NEAR_KEPT);
        // Some before the horizon, some after, and not written when they are needed.
        (0..many).step_by(2).for_each(|due| {
            bench.set(due);
        });
        assert_eq!(bench.timers.total(), many);
        let half = (0..many / 2).map(|_| bench.take(many).unwrap());
        assert!(half.eq(0..many / 2));
        bench.write();
        bench.restart();
        let rest: Vec<_> = std::iter::from_fn(|| bench.take(many)).collect();
        assert!(rest.into_iter().eq(many / 2..many));
        bench.write();
        bench.restart();
        assert_eq!((bench.timers.total(), bench.timers.next_due()), (0, None));
    }

    #[test]
    fn memory_stays_bounded_and_never_runs_dry() {
        let mut bench = Bench::new();
        for round in 0..5 * NEAR_MAX as u64 / 1000 {
            (0..1000).for_each(|n| {
                bench.set(round * 1000 + n);
            });
            bench.write();
            assert!(bench.timers.near.len() <= NEAR_MAX);
        }
        while bench.timers.total() > 0 {
            assert!(bench.timers.next_due().is_some());
            (0..1000).for_each(|_| {
                bench.take(u64::MAX);
            });
            bench.write();
        }
    }

    #[test]
    fn a_timer_is_taken_back_wherever_it_is() {
        let mut bench = Bench::new();
        (0..=NEAR_MAX as u64).for_each(|due| {
            bench.set(due);
        });
        bench.write();
        let at = |due: u64| TimerId { due: Timestamp(due), number: due };
        let far = NEAR_MAX as u64;
        let fresh = bench.set(far + 5);
        for id in [at(3), at(far), fresh] {
            assert!(bench.recall(id));
            assert!(!bench.recall(id), "it is gone before it is written");
            assert_eq!(bench.timers.recalled(&bench.kv, id).unwrap(), Some(TOPIC));
        }
        assert!(!bench.recall(at(far + 9)));
        // Reaches over the horizon while the recalls are not in the store.
        let fired: Vec<_> = std::iter::from_fn(|| bench.take(u64::MAX)).collect();
        assert!(fired.into_iter().eq((0..far).filter(|due| *due != 3)));
        bench.write();
        bench.restart();
        assert!(!bench.recall(at(far)));
        assert_eq!(bench.timers.recalled(&bench.kv, at(far)).unwrap(), Some(TOPIC));
        assert_eq!(bench.timers.pending(TOPIC), 0);
    }
}
