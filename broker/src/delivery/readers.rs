//! Pulls that wait at the end of a queue. They take nothing from each other, so every one of them
//! is called when there is news; a call says "look again".

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use proto::{QueueId, Topic};
use tokio::sync::watch;

use super::long_poll::Full;

/// The waiting pulls of this node.
#[derive(Debug)]
pub struct Readers {
    bound: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    topics: HashMap<Topic, HashMap<QueueId, Line>>,
    waiting: usize,
}

/// Who waits at one queue. A line that stands is not empty.
#[derive(Debug)]
struct Line {
    bell: watch::Sender<()>,
    waiting: usize,
}

impl Readers {
    /// Nobody waits; at most `bound` will.
    pub fn new(bound: usize) -> Arc<Self> {
        Arc::new(Readers { bound, inner: Mutex::default() })
    }

    /// Join first and look afterwards: what arrives in between then calls.
    pub fn join(self: &Arc<Self>, topic: &Topic, queue: QueueId) -> Result<Reader, Full> {
        let mut inner = self.lock();
        if inner.waiting >= self.bound {
            return Err(Full);
        }
        inner.waiting += 1;
        let lines = inner.topics.entry(topic.clone()).or_default();
        let line =
            lines.entry(queue).or_insert_with(|| Line { bell: watch::Sender::new(()), waiting: 0 });
        line.waiting += 1;
        let called = line.bell.subscribe();
        Ok(Reader { readers: Arc::clone(self), topic: topic.clone(), queue, called })
    }

    /// There is news in a queue.
    pub fn call(&self, topic: &Topic, queue: QueueId) {
        let inner = self.lock();
        if let Some(line) = inner.topics.get(topic).and_then(|lines| lines.get(&queue)) {
            line.bell.send_replace(());
        }
    }

    /// Everybody looks again.
    pub fn call_all(&self) {
        for line in self.lock().topics.values().flat_map(HashMap::values) {
            line.bell.send_replace(());
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.lock().waiting
    }

    /// True if nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }
}

/// A place at the end of a queue. Dropping it leaves.
#[derive(Debug)]
pub struct Reader {
    readers: Arc<Readers>,
    topic: Topic,
    queue: QueueId,
    called: watch::Receiver<()>,
}

impl Reader {
    /// Returns when called, also for a call since the last one was answered.
    pub async fn called(&mut self) {
        // The line stands as long as somebody is in it.
        let _ = self.called.changed().await;
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut inner = self.readers.lock();
        inner.waiting -= 1;
        let lines = inner.topics.get_mut(&self.topic).expect("the line stands");
        let line = lines.get_mut(&self.queue).expect("the line stands");
        line.waiting -= 1;
        if line.waiting == 0 {
            lines.remove(&self.queue);
        }
        if lines.is_empty() {
            inner.topics.remove(&self.topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn topic() -> Topic {
        "t".parse().expect("a topic")
    }

    #[tokio::test]
    async fn everybody_at_the_queue_is_called_and_nobody_else() {
        let readers = Readers::new(3);
        let mut first = readers.join(&topic(), QueueId(0)).expect("room");
        let mut second = readers.join(&topic(), QueueId(0)).expect("room");
        let mut other = readers.join(&topic(), QueueId(1)).expect("room");
        assert_eq!(readers.join(&topic(), QueueId(0)).expect_err("full"), Full);
        readers.call(&topic(), QueueId(0));
        tokio::time::timeout(SOON, first.called()).await.expect("called");
        tokio::time::timeout(SOON, second.called()).await.expect("called");
        let early = tokio::time::timeout(Duration::from_millis(20), other.called()).await;
        assert!(early.is_err(), "nothing happened there");
        readers.call_all();
        tokio::time::timeout(SOON, other.called()).await.expect("called");
    }

    #[test]
    fn who_leaves_makes_room() {
        let readers = Readers::new(1);
        drop(readers.join(&topic(), QueueId(0)).expect("room"));
        assert!(readers.is_empty());
        assert!(readers.lock().topics.is_empty());
        let _again = readers.join(&topic(), QueueId(0)).expect("room");
        assert_eq!(readers.len(), 1);
    }
}
