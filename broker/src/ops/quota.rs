//! How much may pass in a second: buckets that fill with time. On the leader only; a new leader
//! begins with full ones.
//!
//! A request passes while nothing is owed, whatever its size, and what it takes beyond the bucket
//! is owed until time has filled it: so a request that is larger than a second's worth passes too.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use proto::{ClientId, ConsumerGroup};

use super::Broker;
use crate::{
    Error,
    command::{Limited, Quota},
};

/// Buckets remembered. Over it all are forgotten, which is as if they were full.
const BUCKETS: usize = 100_000;
/// More than this has no bucket to fill.
const LONGEST_DEBT: Duration = Duration::from_secs(3600);
const NANOS: i128 = 1_000_000_000;

/// The buckets of everybody that has a quota.
#[derive(Debug, Default)]
pub(crate) struct Buckets(Mutex<HashMap<Limited, Pair>>);

#[derive(Debug)]
struct Pair {
    messages: Bucket,
    bytes: Bucket,
}

/// What passes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

/// Who is charged for what a consumer gets.
pub(super) fn limited(
    group: &ConsumerGroup,
    client: Option<&ClientId>,
) -> impl IntoIterator<Item = Limited> {
    let client = client.map(|client| Limited::Client(client.clone()));
    std::iter::once(Limited::Group(group.clone())).chain(client)
}

impl Broker {
    /// What a consumer gets is taken from the buckets then: before, nothing must be owed.
    pub(super) fn must_not_owe(
        &self,
        whom: impl IntoIterator<Item = Limited>,
    ) -> Result<(), Error> {
        let quotas = self.view.quotas_of(whom);
        self.buckets.take(&quotas, Load::default(), Instant::now()).map_err(Error::QuotaExceeded)
    }

    /// A consumer gets messages with bodies of these lengths.
    pub(super) fn charge(
        &self,
        whom: impl IntoIterator<Item = Limited>,
        bodies: impl ExactSizeIterator<Item = usize>,
    ) {
        let quotas = self.view.quotas_of(whom);
        let messages = bodies.len() as u64;
        let load = Load { messages, bytes: bodies.map(|bytes| bytes as u64).sum() };
        self.buckets.charge(&quotas, load, Instant::now());
    }
}

impl Buckets {
    /// Takes `load` from everybody's bucket, or nothing from anybody's if one owes: that one is
    /// the error.
    pub(crate) fn take(
        &self,
        quotas: &[(Limited, Quota)],
        load: Load,
        now: Instant,
    ) -> Result<(), Limited> {
        self.with(quotas, now, |pairs, quotas| {
            for (of, _) in quotas {
                let pair = &pairs[of];
                if pair.messages.owes() || pair.bytes.owes() {
                    return Err(of.clone());
                }
            }
            charge(pairs, quotas, load);
            Ok(())
        })
    }

    /// Takes what has passed already, whoever owes.
    pub(crate) fn charge(&self, quotas: &[(Limited, Quota)], load: Load, now: Instant) {
        self.with(quotas, now, |pairs, quotas| charge(pairs, quotas, load));
    }

    fn with<T>(
        &self,
        quotas: &[(Limited, Quota)],
        now: Instant,
        act: impl FnOnce(&mut HashMap<Limited, Pair>, &[(Limited, Quota)]) -> T,
    ) -> T {
        let mut pairs = self.0.lock().expect("no holder panics");
        if pairs.len() >= BUCKETS {
            pairs.clear();
        }
        for (of, quota) in quotas {
            let pair = pairs.entry(of.clone()).or_insert_with(|| Pair {
                messages: Bucket::full(quota.messages_per_second, now),
                bytes: Bucket::full(quota.bytes_per_second, now),
            });
            pair.messages.fill(quota.messages_per_second, now);
            pair.bytes.fill(quota.bytes_per_second, now);
        }
        act(&mut pairs, quotas)
    }
}

fn charge(pairs: &mut HashMap<Limited, Pair>, quotas: &[(Limited, Quota)], load: Load) {
    for (of, _) in quotas {
        let pair = pairs.get_mut(of).expect("it was filled");
        pair.messages.drain(load.messages);
        pair.bytes.drain(load.bytes);
    }
}

/// Holds up to a second's worth; 0 in a second is no bound.
#[derive(Debug)]
struct Bucket {
    rate: u64,
    /// Billionths. Negative is owed.
    level: i128,
    filled: Instant,
}

impl Bucket {
    fn full(rate: u64, now: Instant) -> Self {
        Self { rate, level: i128::from(rate) * NANOS, filled: now }
    }

    fn fill(&mut self, rate: u64, now: Instant) {
        if rate != self.rate {
            *self = Self::full(rate, now);
            return;
        }
        let passed = now.saturating_duration_since(self.filled).min(LONGEST_DEBT);
        let more = i128::from(rate) * i128::try_from(passed.as_nanos()).expect("an hour at most");
        self.level = (self.level + more).min(i128::from(rate) * NANOS);
        self.filled = now.max(self.filled);
    }

    fn drain(&mut self, amount: u64) {
        let floor = -i128::from(self.rate) * NANOS * i128::from(LONGEST_DEBT.as_secs());
        self.level = (self.level - i128::from(amount) * NANOS).max(floor);
    }

    fn owes(&self) -> bool {
        self.rate > 0 && self.level <= 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(messages_per_second: u64, bytes_per_second: u64) -> (Limited, Quota) {
        let of = Limited::Topic("t".parse().expect("ok"));
        (of, Quota { messages_per_second, bytes_per_second })
    }

    fn client(messages_per_second: u64) -> (Limited, Quota) {
        let of = Limited::Client("c".parse().expect("ok"));
        (of, Quota { messages_per_second, bytes_per_second: 0 })
    }

    const ONE: Load = Load { messages: 1, bytes: 100 };

    /// How many of `tries` pass.
    fn passed(buckets: &Buckets, of: &[(Limited, Quota)], tries: usize, now: Instant) -> usize {
        (0..tries).filter(|_| buckets.take(of, ONE, now).is_ok()).count()
    }

    #[test]
    fn a_second_lets_a_seconds_worth_pass() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        let of = [topic(10, 0)];
        assert_eq!(passed(&buckets, &of, 50, now), 10);
        assert_eq!(passed(&buckets, &of, 50, now + Duration::from_millis(500)), 5);
        assert_eq!(passed(&buckets, &of, 50, now + Duration::from_secs(60)), 10, "no more saved");
        assert_eq!(passed(&buckets, &of, 50, now), 0, "time does not go back");
    }

    #[test]
    fn what_is_too_large_passes_once_and_is_owed() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        let of = [topic(0, 1000)];
        let large = Load { messages: 1, bytes: 5000 };
        assert_eq!(buckets.take(&of, large, now), Ok(()));
        let after = |ms| now + Duration::from_millis(ms);
        assert_eq!(buckets.take(&of, ONE, after(3900)), Err(of[0].0.clone()));
        assert_eq!(buckets.take(&of, ONE, after(4100)), Ok(()));
    }

    #[test]
    fn who_owes_stops_all_and_takes_from_nobody() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        let both = [topic(10, 0), client(1)];
        assert_eq!(buckets.take(&both, ONE, now), Ok(()));
        assert_eq!(buckets.take(&both, ONE, now), Err(both[1].0.clone()));
        assert_eq!(passed(&buckets, &both[..1], 50, now), 9);
    }

    #[test]
    fn what_was_delivered_counts_whoever_owes() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        let of = [client(2)];
        (0..4).for_each(|_| buckets.charge(&of, ONE, now));
        assert!(buckets.take(&of, ONE, now + Duration::from_millis(900)).is_err());
        assert!(buckets.take(&of, ONE, now + Duration::from_millis(1100)).is_ok());
    }

    #[test]
    fn a_new_rate_counts_at_once_and_none_is_no_bound() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        assert_eq!(passed(&buckets, &[topic(1, 0)], 5, now), 1);
        assert_eq!(passed(&buckets, &[topic(3, 0)], 5, now), 3);
        assert_eq!(passed(&buckets, &[topic(0, 0)], 5, now), 5);
        assert_eq!(passed(&buckets, &[], 5, now), 5);
    }
}
