//! Which addresses to leave alone for a while: RocketMQ's latency fault tolerance. No IO.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::address::Address;

/// From this latency on an address is avoided this long.
const LATENCIES: [(Duration, Duration); 5] = [
    (Duration::from_millis(550), Duration::from_secs(2)),
    (Duration::from_millis(1800), Duration::from_secs(5)),
    (Duration::from_secs(3), Duration::from_secs(6)),
    (Duration::from_secs(5), Duration::from_secs(10)),
    (Duration::from_secs(15), Duration::from_secs(30)),
];
/// After a failure an address is avoided this long, or until it answers a heartbeat.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// What is known of addresses in trouble. Those without an entry are well.
#[derive(Debug, Default)]
pub(crate) struct Health {
    avoid_until: HashMap<Address, Instant>,
}

impl Health {
    pub(crate) fn failed(&mut self, address: &Address, now: Instant) {
        self.avoid(address, AFTER_FAILURE, now);
    }

    /// It answered, after this long. Slowness is only held against it when the caller minds.
    pub(crate) fn answered(
        &mut self,
        address: &Address,
        took: Duration,
        mind_latency: bool,
        now: Instant,
    ) {
        let pause = LATENCIES.iter().rev().find(|(latency, _)| took >= *latency);
        match pause {
            Some((_, pause)) if mind_latency => self.avoid(address, *pause, now),
            _ => {
                if !self.avoid_until.is_empty() {
                    self.avoid_until.remove(address);
                }
            }
        }
    }

    fn avoid(&mut self, address: &Address, pause: Duration, now: Instant) {
        // Expired entries go here, so that the map holds no more than what is in trouble.
        self.avoid_until.retain(|_, until| *until > now);
        self.avoid_until.insert(address.clone(), now + pause);
    }

    #[cfg(test)]
    fn is_well(&self, address: &Address, now: Instant) -> bool {
        self.avoid_until.get(address).is_none_or(|until| *until <= now)
    }

    /// Those that are well first, otherwise in the order given; of the others, the one that is to
    /// be tried again soonest first.
    pub(crate) fn order(&self, addresses: &mut [Address], now: Instant) {
        addresses.sort_by_key(|address| {
            self.avoid_until.get(address).copied().filter(|until| *until > now)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Address {
        format!("10.0.0.1:{port}").parse().unwrap()
    }

    #[test]
    fn a_failed_address_is_avoided_until_it_answers_or_time_passes() {
        let (mut health, now, a) = (Health::default(), Instant::now(), address(1));
        assert!(health.is_well(&a, now));
        health.failed(&a, now);
        assert!(!health.is_well(&a, now));
        assert!(health.is_well(&a, now + AFTER_FAILURE));
        health.answered(&a, Duration::from_millis(1), false, now);
        assert!(health.is_well(&a, now));
    }

    #[test]
    fn slowness_counts_only_when_asked_for() {
        let (mut health, now, a) = (Health::default(), Instant::now(), address(1));
        health.answered(&a, Duration::from_secs(2), false, now);
        assert!(health.is_well(&a, now));
        health.answered(&a, Duration::from_millis(549), true, now);
        assert!(health.is_well(&a, now));
        health.answered(&a, Duration::from_secs(2), true, now);
        assert!(!health.is_well(&a, now + Duration::from_millis(4999)));
        assert!(health.is_well(&a, now + Duration::from_secs(5)));
    }

    #[test]
    fn the_well_come_first_and_keep_their_order() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.failed(&address(1), now + Duration::from_secs(1));
        health.failed(&address(3), now);
        let mut all = [1, 2, 3, 4].map(address);
        health.order(&mut all, now);
        assert_eq!(all, [2, 4, 3, 1].map(address));
    }
}
