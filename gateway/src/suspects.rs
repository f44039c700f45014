//! Broker groups that gave no answer lately although somebody leads them by the directory's word.
//!
//! A dead group is in the directory for seconds. Meanwhile what may go to any group goes to others.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use proto::BrokerName;

/// How long a group is passed over before one request tries it again.
const PASSED_OVER: Duration = Duration::from_secs(3);

/// Who is passed over. As small as the number of broker groups.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    /// So that nobody takes the lock while there is none, which is nearly always.
    any: AtomicBool,
    groups: Mutex<HashMap<BrokerName, Suspicion>>,
}

#[derive(Debug)]
struct Suspicion {
    until: Instant,
    /// The term in which the group was led then: a new leader is not suspected.
    term: u64,
}

impl Suspects {
    /// The group, which is led in this term, gave no answer.
    pub(crate) fn add(&self, group: &BrokerName, term: u64, now: Instant) {
        let suspicion = Suspicion { until: now + PASSED_OVER, term };
        self.groups.lock().expect("no holder panics").insert(group.clone(), suspicion);
        self.any.store(true, Ordering::Release);
    }

    /// The group answers.
    pub(crate) fn clear(&self, group: &BrokerName) {
        if self.any.load(Ordering::Acquire) {
            let mut groups = self.groups.lock().expect("no holder panics");
            groups.remove(group);
            self.any.store(!groups.is_empty(), Ordering::Release);
        }
    }

    /// Whether a request should pass the group over, which is led in this term. When it was passed
    /// over long enough, one request whose turn it is may try it.
    pub(crate) fn pass_over(
        &self,
        group: &BrokerName,
        term: u64,
        its_turn: bool,
        now: Instant,
    ) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let mut groups = self.groups.lock().expect("no holder panics");
        let Some(suspicion) = groups.get_mut(group).filter(|suspicion| suspicion.term == term)
        else {
            return false;
        };
        let tries = its_turn && now >= suspicion.until;
        if tries {
            suspicion.until = now + PASSED_OVER;
        }
        !tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_passed_over_until_one_request_finds_it_answering() {
        let (suspects, now) = (Suspects::default(), Instant::now());
        let names = ["broker-a", "broker-b"].map(|name| name.parse().expect("valid"));
        let [a, b]: &[BrokerName; 2] = &names;
        assert!(!suspects.pass_over(a, 7, true, now));
        suspects.add(a, 7, now);
        assert!(suspects.pass_over(a, 7, true, now) && !suspects.pass_over(b, 7, true, now));
        let later = now + PASSED_OVER;
        assert!(suspects.pass_over(a, 7, false, later), "it is not its turn");
        assert!(!suspects.pass_over(a, 7, true, later), "this one tries it");
        assert!(suspects.pass_over(a, 7, true, later), "and nobody else meanwhile");
        suspects.clear(a);
        assert!(!suspects.pass_over(a, 7, true, later));
    }

    #[test]
    fn a_new_leader_is_not_suspected() {
        let (suspects, now) = (Suspects::default(), Instant::now());
        let a: BrokerName = "broker-a".parse().expect("valid");
        suspects.add(&a, 7, now);
        assert!(!suspects.pass_over(&a, 8, true, now));
    }
}
