//! Sending.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use proto::{clock, v2};
use tokio::time::timeout;
use tracing::{Instrument, debug, info_span};

use crate::{Error, Message, client::Client, error::check, settings::Role};

mod batcher;
mod builder;
mod deliver;
mod lanes;
mod outgoing;
mod receipt;
mod selector;
mod streams;
mod transaction;

use batcher::{Batcher, Done};
use builder::Options;
use deliver::{Courier, Shipment};
use lanes::Lane;
use outgoing::{Outgoing, Packing};
use receipt::receipt;

pub use batcher::Sending;
pub use builder::ProducerBuilder;
pub use receipt::SendReceipt;
pub use selector::QueueSelector;
pub use transaction::{Resolution, Transaction};

/// How long a producer that is closed waits for what is under way: all attempts of a send.
const CLOSE: Duration = Duration::from_secs(15);

/// Sends messages. Clones share everything; the last one that is dropped ends the background tasks.
///
/// ```no_run
/// # async fn example() -> Result<(), raftmq_client::Error> {
/// use raftmq_client::{ClientConfig, Message, Producer};
///
/// let config = ClientConfig::new("127.0.0.1:9876")?;
/// let producer = Producer::builder(config).topic("orders").build().await?;
/// let receipt = producer.send(Message::new("orders", "two apples")).await?;
/// println!("stored as {} at {}", receipt.message_id(), receipt.offset());
/// producer.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Producer(Arc<Inner>);

struct Inner {
    courier: Arc<Courier>,
    batcher: Batcher,
    options: Options,
    turn: AtomicUsize,
    submitted: AtomicUsize,
    closed: AtomicBool,
}

impl Inner {
    fn new(courier: Arc<Courier>, batcher: Batcher, options: Options) -> Self {
        // Producers that start together do not all begin with the first queue.
        let turn = AtomicUsize::new(usize::from(rand::random::<u16>()));
        Self {
            courier,
            batcher,
            options,
            turn,
            submitted: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.courier.client.stop();
    }
}

/// A message with its way.
struct Packed {
    outgoing: Outgoing,
    picked: usize,
    fixed: bool,
}

impl Producer {
    /// How to make one.
    pub fn builder(config: crate::ClientConfig) -> ProducerBuilder {
        ProducerBuilder::new(config)
    }

    fn of(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    fn client(&self) -> &Arc<Client> {
        &self.0.courier.client
    }

    /// Sends a message and waits until it is stored.
    ///
    /// # Errors
    /// [`Error::fate`] tells whether the message is certainly not stored or may be.
    pub async fn send(&self, message: Message) -> Result<SendReceipt, Error> {
        self.send_to(message, &self.0.options.selector).await
    }

    /// Sends a message to a queue of this choice and waits until it is stored.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_to(
        &self,
        message: Message,
        selector: &QueueSelector,
    ) -> Result<SendReceipt, Error> {
        let span = info_span!("send", topic = %message.topic, message_id = tracing::field::Empty);
        let send = async {
            let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
            let packed = self.pack(message, selector, turn, false).await?;
            tracing::Span::current().record("message_id", packed.outgoing.message_id.as_str());
            let (_, receipt) = self.deliver(packed, true).await?;
            Ok(receipt)
        };
        send.instrument(span).await
    }

    /// Sends messages of one topic, all stored or none; in one queue, in this order.
    ///
    /// # Errors
    /// As [`Self::send`], for all of them. Also when they are of several topics or message groups.
    pub async fn send_batch(&self, messages: Vec<Message>) -> Result<Vec<SendReceipt>, Error> {
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
        let (mut encoded, mut ids, mut way) = (Vec::new(), Vec::new(), None);
        let mut topic: Option<String> = None;
        for message in messages {
            let packed = self.pack(message, &self.0.options.selector, turn, false).await?;
            if let Some(one) = topic.as_ref().filter(|one| **one != packed.outgoing.topic) {
                let (one, other) = (one.parse()?, packed.outgoing.topic.parse()?);
                return Err(proto::InvalidMessage::MixedTopics { one, other }.into());
            }
            topic.get_or_insert_with(|| packed.outgoing.topic.clone());
            way.get_or_insert((packed.picked, packed.fixed));
            encoded.push(packed.outgoing.encoded);
            ids.push(packed.outgoing.message_id);
        }
        let (Some(topic), Some((picked, fixed))) = (topic, way) else { return Ok(Vec::new()) };
        let shipment = self.shipment(topic, encoded, (picked, fixed), true);
        let (entries, address) = self.0.courier.deliver(&shipment).await?;
        let of = |(id, entry): (&String, _)| receipt(address.as_str(), id, entry);
        ids.iter().zip(entries).map(of).collect()
    }

    /// Hands a message over to be sent together with others, and returns at once while there is
    /// room. The future tells what became of it. Messages of one message group keep the order in
    /// which they were submitted.
    ///
    /// This is the fast way: what is submitted while others are under way shares a request.
    ///
    /// # Errors
    /// When the message is refused before anything is sent, or there is no room and the producer
    /// fails fast.
    pub async fn submit(&self, message: Message) -> Result<Sending, Error> {
        let (done, sending) = Sending::new();
        self.enqueue(message, done).await?;
        Ok(sending)
    }

    /// The same, with a function that is told what became of the message. It is called on a task of
    /// the runtime and must not block.
    ///
    /// # Errors
    /// As [`Self::submit`]; the function is not called then.
    pub async fn submit_with(
        &self,
        message: Message,
        done: impl FnOnce(Result<SendReceipt, Error>) + Send + 'static,
    ) -> Result<(), Error> {
        self.enqueue(message, Done::Call(Box::new(done))).await
    }

    /// Hands a message over and does not say what became of it. For what may be lost.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn send_one_way(&self, message: Message) -> Result<(), Error> {
        let told = |result: Result<SendReceipt, Error>| {
            if let Err(error) = result {
                debug!(%error, "a one-way message was not stored");
            }
        };
        self.enqueue(message, Done::Call(Box::new(told))).await
    }

    /// Sends a message that nobody sees until the transaction is committed.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_transactional(&self, message: Message) -> Result<Transaction, Error> {
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
        let packed = self.pack(message, &self.0.options.selector, turn, true).await?;
        let topic = packed.outgoing.topic.clone();
        let (address, receipt) = self.deliver(packed, true).await?;
        Ok(Transaction::new(Arc::clone(&self.0.courier), topic, receipt, address))
    }

    /// Sends a message that is seen if `local`, which runs after it was stored, says so: a local
    /// transaction and a message that both happen or both do not.
    ///
    /// # Errors
    /// As [`Self::send`], or as [`Transaction::commit`] after the local transaction; the cluster asks
    /// the checker then.
    pub async fn send_in_transaction<F>(
        &self,
        message: Message,
        local: impl FnOnce(SendReceipt) -> F,
    ) -> Result<(SendReceipt, Resolution), Error>
    where
        F: Future<Output = Resolution>,
    {
        let transaction = self.send_transactional(message).await?;
        let resolution = local(transaction.receipt().clone()).await;
        transaction.end(resolution).await?;
        Ok((transaction.receipt().clone(), resolution))
    }

    /// Takes a delayed message back that is not due yet, by the handle of its receipt. Returns its
    /// id: it was not delivered and never will be. Can be repeated.
    ///
    /// # Errors
    /// With the code PRECONDITION_FAILED when it was delivered before.
    pub async fn recall(&self, topic: &str, recall_handle: &str) -> Result<String, Error> {
        let client = self.client();
        let wait = client.config.request_timeout;
        client
            .anywhere(client.access_points(), |address| async move {
                let request = v2::RecallMessageRequest {
                    topic: Some(client.config.resource(topic)),
                    recall_handle: recall_handle.to_owned(),
                };
                let answer = client
                    .unary(&address, request, wait, |mut rpc, request| async move {
                        rpc.recall_message(request).await
                    })
                    .await?;
                check(address.as_str(), answer.status.as_ref())?;
                Ok(answer.message_id)
            })
            .await
    }

    /// Waits until the fate of everything that was submitted before is known.
    pub async fn flush(&self) {
        self.0.batcher.flush().await;
    }

    /// Waits for what is under way, 15 s at most, says good-bye and ends the background tasks. Sends
    /// that begin later fail.
    pub async fn close(&self) {
        self.0.closed.store(true, Ordering::Relaxed);
        if timeout(CLOSE, self.flush()).await.is_err() {
            debug!("closed with sends under way");
        }
        self.client().close().await;
    }

    /// Who this producer is to the cluster.
    #[must_use]
    pub fn client_id(&self) -> &str {
        self.client().id.as_str()
    }

    async fn enqueue(&self, message: Message, done: Done) -> Result<(), Error> {
        let count = self.0.submitted.fetch_add(1, Ordering::Relaxed);
        let turn = count / selector::RUN;
        let packed = self.pack(message, &self.0.options.selector, turn, false).await?;
        let lane = Lane {
            topic: packed.outgoing.topic.clone(),
            picked: packed.picked,
            fixed: packed.fixed,
            message_group: packed.outgoing.message_group.clone(),
        };
        self.0.batcher.submit(lane, packed.outgoing, done, !self.0.options.fail_fast).await
    }

    async fn pack(
        &self,
        mut message: Message,
        selector: &QueueSelector,
        turn: usize,
        transactional: bool,
    ) -> Result<Packed, Error> {
        if self.0.closed.load(Ordering::Relaxed) {
            return Err(Error::Closed);
        }
        if message.trace_context.is_none()
            && let Some(propagation) = &self.0.options.propagation
        {
            message.trace_context = propagation.current();
        }
        let client = self.client();
        let route = client.route(&message.topic).await?;
        self.announce(&message.topic);
        let queues = route.writable(&message.topic)?;
        let (picked, fixed) = selector.choose(queues, &message, turn)?;
        let settings = client.settings();
        let packing = Packing {
            config: &client.config,
            settings: &settings,
            route: &route,
            compress_from: self.0.options.compress_from,
            transactional,
            queue_id: queues[picked].queue.id(),
        };
        let outgoing = Outgoing::pack(message, packing, clock::wall_now())?;
        Ok(Packed { outgoing, picked, fixed })
    }

    /// Tells the cluster of a topic that was not announced: it asks those about transactions who
    /// announced their topic.
    fn announce(&self, topic: &str) {
        let known = |role: &Role| role.has_topic(topic);
        let client = self.client();
        if known(&client.role.borrow()) {
            return;
        }
        if client.role.send_if_modified(|role| role.add_topic(topic)) {
            client.meet();
        }
    }

    async fn deliver(
        &self,
        packed: Packed,
        repeatable: bool,
    ) -> Result<(crate::address::Address, SendReceipt), Error> {
        let Packed { outgoing, picked, fixed } = packed;
        let Outgoing { topic, encoded, message_id, .. } = outgoing;
        let shipment = self.shipment(topic, vec![encoded], (picked, fixed), repeatable);
        let (mut entries, address) = self.0.courier.deliver(&shipment).await?;
        let entry = entries.pop().unwrap_or_default();
        let receipt = receipt(address.as_str(), &message_id, entry)?;
        Ok((address, receipt))
    }

    fn shipment(
        &self,
        topic: String,
        messages: Vec<bytes::Bytes>,
        (picked, fixed): (usize, bool),
        repeatable: bool,
    ) -> Shipment {
        let max_attempts = self.0.options.attempts;
        Shipment { topic, messages, picked, fixed, max_attempts, repeatable, streamed: false }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("client_id", &self.client_id())
            .field("batcher", &self.0.batcher)
            .finish()
    }
}
