//! Waiting consumers as tasks: [`LongPolls`] decides whom to call, this wakes them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use proto::{Timestamp, Topic, clock::wall_now};
use tokio::sync::{Notify, oneshot};

use super::long_poll::{Full, LongPolls, Place, WaitId};

/// A due timer sleeps at most so long before it looks at the wall clock again, which may jump.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// The waiting consumers of this node.
#[derive(Debug)]
pub struct Waiting {
    inner: Mutex<Inner>,
    due_changed: Notify,
}

#[derive(Debug)]
struct Inner {
    polls: LongPolls,
    bells: HashMap<WaitId, oneshot::Sender<()>>,
}

impl Waiting {
    /// Nobody waits; at most `bound` will.
    pub fn new(bound: usize) -> Self {
        let inner = Inner { polls: LongPolls::new(bound), bells: HashMap::new() };
        Waiting { inner: Mutex::new(inner), due_changed: Notify::new() }
    }

    /// Joins the line. Join first and look afterwards: what arrives in between then rings.
    pub fn join(self: &Arc<Self>, place: &Place) -> Result<Wait, Full> {
        let mut inner = self.lock();
        let id = inner.polls.wait(place)?;
        let (bell, heard) = oneshot::channel();
        inner.bells.insert(id, bell);
        Ok(Wait { waiting: Arc::clone(self), place: place.clone(), id, heard })
    }

    /// Messages were appended to `topic`.
    pub fn appended(&self, topic: &Topic) {
        self.ring(|polls| polls.call_topic(topic));
    }

    /// There is, or may be, more at `place`: the next in line looks.
    pub fn pass_on(&self, place: &Place) {
        self.ring(|polls| polls.call(place).into_iter().collect());
    }

    /// Something at `place` becomes visible at `at`.
    pub fn due_at(&self, place: &Place, at: Timestamp) {
        let sooner = {
            let mut inner = self.lock();
            let before = inner.polls.next_due();
            inner.polls.due_at(place, at);
            inner.polls.next_due() != before
        };
        if sooner {
            self.due_changed.notify_one();
        }
    }

    /// Everybody looks again.
    pub fn call_all(&self) {
        self.ring(LongPolls::call_all);
    }

    /// True if somebody waits at `place`.
    pub fn has_line(&self, place: &Place) -> bool {
        self.lock().polls.has_line(place)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.lock().polls.len()
    }

    /// True if nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls waiters as due times come. Runs until dropped.
    pub async fn watch_due_times(&self) {
        loop {
            let now = wall_now();
            self.ring(|polls| polls.call_due(now));
            let next = self.lock().polls.next_due();
            let changed = self.due_changed.notified();
            match next {
                None => changed.await,
                Some(at) => {
                    let sleep = Duration::from_millis(at.0.saturating_sub(now.0));
                    // Either way the next round looks at the clock; which one it was is no matter.
                    let _ = tokio::time::timeout(sleep.min(LONGEST_SLEEP), changed).await;
                }
            }
        }
    }

    fn ring(&self, decide: impl FnOnce(&mut LongPolls) -> Vec<WaitId>) {
        let mut inner = self.lock();
        for id in decide(&mut inner.polls) {
            if let Some(bell) = inner.bells.remove(&id) {
                // A waiter that is just leaving passes the call on in its `Drop`.
                let _ = bell.send(());
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }
}

/// A place in line. Dropping it leaves; a call that was not answered goes to the next.
#[derive(Debug)]
pub struct Wait {
    waiting: Arc<Waiting>,
    place: Place,
    id: WaitId,
    heard: oneshot::Receiver<()>,
}

impl Wait {
    /// Returns when called. The call counts as answered then.
    pub async fn called(mut self) {
        // A bell that vanished unheard is a call as well: look again.
        let _ = (&mut self.heard).await;
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let unanswered = {
            let mut inner = self.waiting.lock();
            inner.bells.remove(&self.id);
            !inner.polls.leave(self.id) && self.heard.try_recv().is_ok()
        };
        if unanswered {
            self.waiting.pass_on(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { group: "g".parse().expect("a group"), topic: "t".parse().expect("a topic") }
    }

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn an_append_wakes_a_waiter() {
        let waiting = Arc::new(Waiting::new(10));
        let wait = waiting.join(&place()).expect("room");
        waiting.appended(&place().topic);
        tokio::time::timeout(SOON, wait.called()).await.expect("called");
        assert!(waiting.is_empty());
    }

    #[tokio::test]
    async fn a_call_to_one_who_left_goes_to_the_next() {
        let waiting = Arc::new(Waiting::new(10));
        let first = waiting.join(&place()).expect("room");
        let second = waiting.join(&place()).expect("room");
        waiting.appended(&place().topic);
        drop(first);
        tokio::time::timeout(SOON, second.called()).await.expect("called");
    }

    #[tokio::test]
    async fn an_answered_call_is_not_passed_on() {
        let waiting = Arc::new(Waiting::new(10));
        let first = waiting.join(&place()).expect("room");
        let _second = waiting.join(&place()).expect("room");
        waiting.appended(&place().topic);
        tokio::time::timeout(SOON, first.called()).await.expect("called");
        assert_eq!(waiting.len(), 1);
    }

    #[tokio::test]
    async fn a_due_time_wakes_a_waiter() {
        let waiting = Arc::new(Waiting::new(10));
        let wait = waiting.join(&place()).expect("room");
        waiting.due_at(&place(), Timestamp(wall_now().0 + 20));
        let watcher = Arc::clone(&waiting);
        let task = tokio::spawn(async move { watcher.watch_due_times().await });
        tokio::time::timeout(SOON, wait.called()).await.expect("called");
        task.abort();
    }
}
