//! Each message once in effect, although it is delivered at least once.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::Future,
    io,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{debug, error};

use crate::{ConsumeResult, MessageView};

/// What a store knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has worked on it; it is the caller's now.
    New,
    /// Somebody is working on it, or died over it.
    UnderWay,
    /// It is done.
    Done,
}

/// Remembers which keys are done: a table with a unique key in the database that the work changes,
/// for instance.
pub trait DoneStore: Send + Sync + 'static {
    /// Claims a key, atomically: of two callers at once, one gets [`Standing::New`]. A claim must
    /// end by itself after a while, or nobody takes over from a process that died.
    fn begin(&self, key: &str) -> impl Future<Output = io::Result<Standing>> + Send;

    /// The work is done. When this returns it is safe. If the work is a transaction of the same
    /// database, do this within it, and nothing here: then it happens exactly once.
    fn done(&self, key: &str) -> impl Future<Output = io::Result<()>> + Send;

    /// The work failed; the next one may claim the key.
    fn forget(&self, key: &str) -> impl Future<Output = io::Result<()>> + Send;
}

type Key = dyn Fn(&MessageView) -> Option<String> + Send + Sync;

/// Lets work be done once for each key, whoever gets the message however often.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use raftmq_client::{ConsumeResult, Idempotent, MemoryDone, MessageView};
///
/// let once = Arc::new(
///     Idempotent::new(MemoryDone::new(100_000, Duration::from_secs(60)))
///         .by(|message| message.property("order").map(str::to_owned)),
/// );
/// let listener = move |message: MessageView| {
///     let once = Arc::clone(&once);
///     async move { once.consume(message, |_message| async { ConsumeResult::Success }).await }
/// };
/// # let _ = listener;
/// ```
pub struct Idempotent<S> {
    store: S,
    key: Box<Key>,
}

impl<S: DoneStore> Idempotent<S> {
    /// By message id: the same for every delivery of one message, and different for two messages
    /// that a producer sent for one business event.
    pub fn new(store: S) -> Self {
        Self { store, key: Box::new(|_| None) }
    }

    /// By a key of the business, such as the number of a payment. Messages without one go by their
    /// id.
    #[must_use]
    pub fn by(
        mut self,
        key: impl Fn(&MessageView) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.key = Box::new(key);
        self
    }

    /// Does the work, unless it is done: then the message is a success without it. While somebody
    /// else works on it, or the store does not answer, the message is to come again.
    pub async fn consume<F>(
        &self,
        message: MessageView,
        work: impl FnOnce(MessageView) -> F,
    ) -> ConsumeResult
    where
        F: Future<Output = ConsumeResult>,
    {
        let key = (self.key)(&message).unwrap_or_else(|| message.message_id().to_owned());
        match self.store.begin(&key).await {
            Ok(Standing::New) => {}
            Ok(Standing::Done) => return ConsumeResult::Success,
            Ok(Standing::UnderWay) => {
                debug!(%key, "somebody else is at it");
                return ConsumeResult::Failure;
            }
            Err(error) => {
                error!(%key, %error, "the store of what is done does not answer");
                return ConsumeResult::Failure;
            }
        }
        let result = work(message).await;
        let kept = match result {
            ConsumeResult::Success => self.store.done(&key).await,
            ConsumeResult::Failure => self.store.forget(&key).await,
        };
        match kept {
            Ok(()) => result,
            // Not a success: the message must come again until the store knows.
            Err(error) => {
                error!(%key, %error, "the store of what is done does not take it");
                ConsumeResult::Failure
            }
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Idempotent<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Idempotent").field(&self.store).finish()
    }
}

/// Remembers the latest keys for as long as the process lives: protects against repeated deliveries
/// to one process, not against its death.
#[derive(Debug)]
pub struct MemoryDone {
    known: Mutex<Known>,
    capacity: usize,
    claim: Duration,
}

#[derive(Debug, Default)]
struct Known {
    /// `None` when it is done, else when it was claimed.
    keys: HashMap<String, Option<Instant>>,
    /// As they became done.
    done: VecDeque<String>,
}

impl MemoryDone {
    /// Remembers so many keys that are done; a claim ends after `claim`.
    #[must_use]
    pub fn new(capacity: usize, claim: Duration) -> Self {
        Self { known: Mutex::default(), capacity: capacity.max(1), claim }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        act(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl DoneStore for MemoryDone {
    async fn begin(&self, key: &str) -> io::Result<Standing> {
        let now = Instant::now();
        Ok(self.with(|known| match known.keys.get(key) {
            Some(None) => Standing::Done,
            Some(Some(since)) if now.duration_since(*since) < self.claim => Standing::UnderWay,
            Some(Some(_)) | None => {
                known.keys.insert(key.to_owned(), Some(now));
                Standing::New
            }
        }))
    }

    async fn done(&self, key: &str) -> io::Result<()> {
        self.with(|known| {
            if known.keys.insert(key.to_owned(), None) != Some(None) {
                known.done.push_back(key.to_owned());
            }
            while known.done.len() > self.capacity {
                if let Some(oldest) = known.done.pop_front() {
                    known.keys.remove(&oldest);
                }
            }
        });
        Ok(())
    }

    async fn forget(&self, key: &str) -> io::Result<()> {
        self.with(|known| known.keys.remove(key));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v2;

    fn message(id: &str, order: Option<&str>) -> MessageView {
        let topic = Some(v2::Resource { name: "t".into(), ..Default::default() });
        let system = v2::SystemProperties { message_id: id.into(), ..Default::default() };
        let user_properties =
            order.map(|order| ("order".to_owned(), order.to_owned())).into_iter().collect();
        let wire = v2::Message {
            topic,
            user_properties,
            system_properties: Some(system),
            ..Default::default()
        };
        MessageView::from_wire(wire, "a", &"h:1".parse().unwrap()).unwrap()
    }

    async fn consume(
        once: &Idempotent<MemoryDone>,
        message: MessageView,
        result: ConsumeResult,
    ) -> (ConsumeResult, bool) {
        let mut worked = false;
        let end = once
            .consume(message, |_| {
                worked = true;
                async move { result }
            })
            .await;
        (end, worked)
    }

    fn once() -> Idempotent<MemoryDone> {
        Idempotent::new(MemoryDone::new(2, Duration::from_secs(60)))
    }

    #[tokio::test]
    async fn a_second_delivery_is_a_success_without_work() {
        let once = once();
        let success = ConsumeResult::Success;
        assert_eq!(consume(&once, message("1", None), success).await, (success, true));
        assert_eq!(consume(&once, message("1", None), success).await, (success, false));
        assert_eq!(consume(&once, message("2", None), success).await, (success, true));
    }

    #[tokio::test]
    async fn what_failed_is_done_again() {
        let once = once();
        let (success, failure) = (ConsumeResult::Success, ConsumeResult::Failure);
        assert_eq!(consume(&once, message("1", None), failure).await, (failure, true));
        assert_eq!(consume(&once, message("1", None), success).await, (success, true));
    }

    #[tokio::test]
    async fn two_messages_of_one_order_count_once() {
        let once = once().by(|message| message.property("order").map(str::to_owned));
        let success = ConsumeResult::Success;
        assert_eq!(consume(&once, message("1", Some("17")), success).await, (success, true));
        assert_eq!(consume(&once, message("2", Some("17")), success).await, (success, false));
    }

    #[tokio::test]
    async fn a_claim_is_one_callers_until_it_ends() {
        let store = MemoryDone::new(2, Duration::from_millis(30));
        assert_eq!(store.begin("k").await.unwrap(), Standing::New);
        assert_eq!(store.begin("k").await.unwrap(), Standing::UnderWay);
        tokio::time::sleep(Duration::from_millis(40)).await;
        assert_eq!(store.begin("k").await.unwrap(), Standing::New);
    }

    #[tokio::test]
    async fn the_oldest_are_forgotten() {
        let store = MemoryDone::new(2, Duration::from_secs(60));
        for key in ["a", "b", "c"] {
            store.begin(key).await.unwrap();
            store.done(key).await.unwrap();
        }
        assert_eq!(store.begin("a").await.unwrap(), Standing::New);
        assert_eq!(store.begin("c").await.unwrap(), Standing::Done);
    }
}
