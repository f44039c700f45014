//! What this access point has to tell leaders about their answers to receive calls.
//!
//! A leader takes messages for delivered once it has written them. Whether the client got them only
//! its access point can see, so that it names each call and tells how its answer ended: the leader
//! takes back what did not arrive. A new session is told the latest of them once more, for the one
//! before may have broken with some on their way.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use proto::{BrokerName, hop::CallId, session};
use tokio::sync::watch;

/// Answers remembered for a group. A session that is told fewer is one that leaders hear of as
/// late: what they do not hear of in time they take back.
const REMEMBERED: usize = 16_384;

/// The answers of all groups. No clock, no network.
#[derive(Debug)]
pub(crate) struct Answers {
    access_point: u64,
    calls: AtomicU64,
    ended: Mutex<BTreeMap<BrokerName, Ended>>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ended {
    latest: VecDeque<session::Answer>,
    /// The number of the first of them, counted from the first ever.
    first: u64,
}

impl Answers {
    pub(crate) fn new(access_point: u64) -> Self {
        let (calls, changes) = (AtomicU64::new(0), watch::Sender::new(0));
        Self { access_point, calls, ended: Mutex::default(), changes }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<BrokerName, Ended>> {
        self.ended.lock().expect("no holder panics")
    }

    /// A name for a call that is about to be made.
    pub(crate) fn name_call(&self) -> CallId {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        CallId { access_point: self.access_point, number }
    }

    /// The answer to a call ended so.
    pub(crate) fn tell(&self, group: &BrokerName, answer: session::Answer) {
        {
            let mut all = self.lock();
            if !all.contains_key(group) {
                all.insert(group.clone(), Ended::default());
            }
            let ended = all.get_mut(group).expect("it is there");
            ended.latest.push_back(answer);
            if ended.latest.len() > REMEMBERED {
                ended.latest.pop_front();
                ended.first += 1;
            }
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// Wakes the sessions: there is something to tell.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Up to `most` of what the leader of a group has not been told, if it was told so many, and
    /// how many it will have been told by then.
    pub(crate) fn since(
        &self,
        group: &BrokerName,
        told: u64,
        most: usize,
    ) -> (Vec<session::Answer>, u64) {
        let all = self.lock();
        let Some(ended) = all.get(group) else { return (Vec::new(), told) };
        let from = told.max(ended.first);
        let skip = usize::try_from(from - ended.first).unwrap_or(usize::MAX);
        let answers: Vec<_> = ended.latest.iter().skip(skip).take(most).copied().collect();
        let told = from + answers.len() as u64;
        (answers, told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> BrokerName {
        "broker-a".parse().expect("valid")
    }

    fn answer(call: u64) -> session::Answer {
        session::Answer { call, passed: 1, read: true }
    }

    fn calls(answers: &[session::Answer]) -> Vec<u64> {
        answers.iter().map(|answer| answer.call).collect()
    }

    #[test]
    fn each_call_has_a_name_of_its_own() {
        let answers = Answers::new(7);
        let (first, second) = (answers.name_call(), answers.name_call());
        assert_eq!((first.access_point, second.access_point), (7, 7));
        assert_ne!(first, second);
    }

    #[test]
    fn a_session_is_told_each_answer_once_and_the_next_one_all_of_them() {
        let answers = Answers::new(7);
        assert_eq!(answers.since(&group(), 0, 9), (vec![], 0));
        (0..3).for_each(|call| answers.tell(&group(), answer(call)));
        answers.tell(&"broker-b".parse().expect("valid"), answer(9));
        let (first, told) = answers.since(&group(), 0, 2);
        assert_eq!((calls(&first), told), (vec![0, 1], 2));
        let (second, told) = answers.since(&group(), told, 2);
        assert_eq!((calls(&second), told), (vec![2], 3));
        assert_eq!(answers.since(&group(), told, 2), (vec![], 3));
        assert_eq!(calls(&answers.since(&group(), 0, 9).0), [0, 1, 2]);
    }

    #[test]
    fn only_the_latest_are_remembered() {
        let answers = Answers::new(7);
        (0..REMEMBERED as u64 + 2).for_each(|call| answers.tell(&group(), answer(call)));
        let (all, told) = answers.since(&group(), 0, usize::MAX);
        assert_eq!((all.len(), all[0].call, told), (REMEMBERED, 2, REMEMBERED as u64 + 2));
        assert_eq!(answers.since(&group(), told, 9).0, []);
    }
}
