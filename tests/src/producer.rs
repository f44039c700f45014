//! A producer that writes down what became of each message.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
pub use jepsen::client::message::{id_of, message_of, normal_message};
use jepsen::{Action, Fate, Message};
use proto::v2;

use crate::body;
use crate::ledger::Ledger;
use crate::outcome::Failure;
use crate::rpc::{DEADLINE, Rpc};

/// How long a producer keeps asking before it gives a message up.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts of one message.
const PAUSE: Duration = Duration::from_millis(20);

/// Sends numbered messages to one topic. Clones share the numbers and may send at once.
///
/// It asks again, with the same message id, until it knows that the message is stored or rejected:
/// as official clients do, except that it is more patient. It moves to the next access point when
/// one does not answer.
#[derive(Clone)]
pub struct Producer {
    rpcs: Arc<Vec<Rpc>>,
    topic: String,
    ledger: Arc<Ledger>,
    sender: u32,
    next: Arc<AtomicU32>,
    at: Arc<AtomicU32>,
    bodies: Bodies,
    tag: Option<String>,
}

/// What a message carries.
pub type Bodies = Arc<dyn Fn(Message) -> Bytes + Send + Sync>;

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "producer {} of {}", self.sender, self.topic)
    }
}

impl Producer {
    /// # Panics
    /// When there is no access point.
    #[must_use]
    pub fn new(access_points: &[SocketAddr], topic: &str, ledger: &Arc<Ledger>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        assert!(!access_points.is_empty(), "a producer needs an access point");
        let sender = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("producer-{}@{sender}", std::process::id());
        Self {
            rpcs: Arc::new(access_points.iter().map(|a| Rpc::with_id(*a, &id)).collect()),
            topic: topic.to_owned(),
            ledger: Arc::clone(ledger),
            sender,
            next: Arc::default(),
            at: Arc::default(),
            bodies: Arc::new(|message| body::of(message, 64)),
            tag: None,
        }
    }

    /// Sends bodies of this many bytes from now on.
    #[must_use]
    pub fn with_bodies_of(self, bytes: usize) -> Self {
        self.with_bodies(Arc::new(move |message| body::of(message, bytes)))
    }

    /// Sends what `bodies` makes of each message from now on.
    #[must_use]
    pub fn with_bodies(mut self, bodies: Bodies) -> Self {
        self.bodies = bodies;
        self
    }

    /// Sends with this tag from now on.
    #[must_use]
    pub fn with_tag(mut self, tag: &str) -> Self {
        self.tag = Some(tag.to_owned());
        self
    }

    /// The next message, not sent yet.
    #[must_use]
    pub fn next_message(&self) -> (Message, v2::Message) {
        let number = Message::new(self.sender, self.next.fetch_add(1, Ordering::Relaxed));
        let mut message = normal_message(&self.topic, number, (self.bodies)(number));
        if let Some(properties) = &mut message.system_properties {
            properties.tag.clone_from(&self.tag);
        }
        (number, message)
    }

    /// Sends one message and asks until its fate is known or patience is over.
    pub async fn send_one(&self) -> Fate {
        let (number, message) = self.next_message();
        let start = Instant::now();
        let mut fate = Fate::Refused;
        while start.elapsed() < PATIENCE {
            match self.attempt(number, &message).await {
                Ok(()) => return Fate::Done,
                Err(Failure::Rejected { code, message }) => {
                    panic!("{number} was rejected ({code}): {message}")
                }
                Err(Failure::NotDone { .. }) => {}
                Err(Failure::Unknown { .. }) => fate = Fate::Unknown,
            }
            self.at.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        fate
    }

    /// One attempt, entered into the ledger.
    pub async fn attempt(&self, number: Message, message: &v2::Message) -> Result<(), Failure> {
        let began = self.ledger.now();
        let result = self.rpc().send(std::slice::from_ref(message), DEADLINE).await;
        let (fate, offset) = match &result {
            Ok(entries) => (Fate::Done, entries.first().and_then(|e| u64::try_from(e.offset).ok())),
            Err(Failure::Unknown { .. }) => (Fate::Unknown, None),
            Err(Failure::Rejected { .. } | Failure::NotDone { .. }) => (Fate::Refused, None),
        };
        self.ledger.record(began, Action::Send { message: number, fate, offset });
        result.map(|_| ())
    }

    /// Sends `count` messages, up to `at_once` of them at a time, and returns how many were
    /// acknowledged.
    ///
    /// # Panics
    /// When a message is rejected.
    pub async fn send(&self, count: usize, at_once: usize) -> usize {
        let left = Arc::new(AtomicU32::new(u32::try_from(count).expect("a test's messages fit")));
        let mut senders = tokio::task::JoinSet::new();
        for _ in 0..at_once {
            let (producer, left) = (self.clone(), Arc::clone(&left));
            senders.spawn(async move {
                let mut done = 0;
                while take_one(&left) {
                    done += usize::from(producer.send_one().await == Fate::Done);
                }
                done
            });
        }
        senders.join_all().await.into_iter().sum()
    }

    /// Sends batches of `size` messages in one call each, `at_once` calls at a time, until `count`
    /// messages were sent; every one must be acknowledged.
    ///
    /// # Panics
    /// When a call fails.
    pub async fn send_batches(&self, count: usize, size: usize, at_once: usize) {
        let batches = u32::try_from(count.div_ceil(size)).expect("a test's batches fit");
        let left = Arc::new(AtomicU32::new(batches));
        let mut senders = tokio::task::JoinSet::new();
        for _ in 0..at_once {
            let (producer, left) = (self.clone(), Arc::clone(&left));
            senders.spawn(async move {
                while take_one(&left) {
                    producer.send_batch(size).await;
                }
            });
        }
        senders.join_all().await;
    }

    async fn send_batch(&self, size: usize) {
        let began = self.ledger.now();
        let (numbers, messages): (Vec<_>, Vec<_>) = (0..size).map(|_| self.next_message()).unzip();
        let entries = self.rpc().send(&messages, 10 * DEADLINE).await.expect("a batch is stored");
        for (message, entry) in numbers.into_iter().zip(entries) {
            let offset = u64::try_from(entry.offset).ok();
            self.ledger.record(began, Action::Send { message, fate: Fate::Done, offset });
        }
    }

    /// The access point in use.
    fn rpc(&self) -> &Rpc {
        let at = self.at.load(Ordering::Relaxed) as usize;
        &self.rpcs[at % self.rpcs.len()]
    }

    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }
}

fn take_one(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
}
