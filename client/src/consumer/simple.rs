//! A consumer that asks for messages when it wants some, and acknowledges them one by one.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use proto::{limits, v2};

use super::{
    rpc::{self, Receive},
    start_from::{self, StartFrom},
};
use crate::{
    ClientConfig, ConfigError, Error, FilterExpression, MessageView, client::Client, ids,
    settings::Role,
};

/// How long a receive waits for messages.
const AWAIT: Duration = Duration::from_secs(15);

/// Makes a [`SimpleConsumer`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `build`"]
pub struct SimpleConsumerBuilder {
    config: ClientConfig,
    group: String,
    subscriptions: Vec<(String, FilterExpression)>,
    wait: Duration,
    start_from: StartFrom,
}

impl SimpleConsumerBuilder {
    subscribe!("A topic, and which of its messages.");

    /// How long a receive waits for messages, 20 s at most. Default: 15 s.
    pub fn await_duration(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Where a consumer group begins that has consumed nothing yet. Default: where the server says.
    pub fn start_from(mut self, start_from: StartFrom) -> Self {
        self.start_from = start_from;
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// When a setting makes no sense, a topic does not exist, or no access point answers.
    pub async fn build(self) -> Result<SimpleConsumer, Error> {
        if self.subscriptions.is_empty() {
            return Err(ConfigError::NoSubscription.into());
        }
        self.subscriptions.iter().try_for_each(|(_, filter)| filter.check())?;
        let role = Role::Consumer {
            kind: v2::ClientType::SimpleConsumer,
            group: self.group.clone(),
            subscriptions: self.subscriptions.clone(),
        };
        let (client, _orphans) = Client::start(self.config, role, false).await?;
        let inner = Inner {
            client,
            group: self.group,
            subscriptions: RwLock::new(self.subscriptions),
            wait: self.wait.min(limits::LONG_POLL_MAX),
            turn: AtomicUsize::new(usize::from(rand::random::<u16>())),
        };
        for (topic, _) in &inner.subscriptions() {
            start_from::apply(&inner.client, &inner.group, topic, self.start_from).await?;
        }
        Ok(SimpleConsumer(Arc::new(inner)))
    }
}

/// Receives when asked. Clones share everything; the last one that is dropped ends the background
/// tasks.
///
/// ```no_run
/// # async fn example() -> Result<(), raftmq_client::Error> {
/// use std::time::Duration;
/// use raftmq_client::{ClientConfig, SimpleConsumer};
///
/// let config = ClientConfig::new("127.0.0.1:9876")?;
/// let consumer = SimpleConsumer::builder(config, "billing").subscribe("orders", "*").build().await?;
/// for message in consumer.receive(16, Duration::from_secs(30)).await? {
///     println!("{:?}", message.body());
///     consumer.ack(&message).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SimpleConsumer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Arc<Client>,
    group: String,
    subscriptions: RwLock<Vec<(String, FilterExpression)>>,
    wait: Duration,
    turn: AtomicUsize,
}

impl Inner {
    fn subscriptions(&self) -> Vec<(String, FilterExpression)> {
        self.subscriptions.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.client.stop();
    }
}

impl SimpleConsumer {
    /// A member of this consumer group.
    pub fn builder(config: ClientConfig, group: impl Into<String>) -> SimpleConsumerBuilder {
        SimpleConsumerBuilder {
            config,
            group: group.into(),
            subscriptions: Vec::new(),
            wait: AWAIT,
            start_from: StartFrom::Server,
        }
    }

    /// Up to `max` messages (32 at a time), of the subscribed topics in turn; none when none arrived
    /// in time. Nobody else of the group is given them for `invisible` (10 s to 12 h): acknowledge
    /// them before it ends.
    ///
    /// # Errors
    /// With an unknown outcome, messages may have been handed out that come again later.
    pub async fn receive(
        &self,
        max: usize,
        invisible: Duration,
    ) -> Result<Vec<MessageView>, Error> {
        let inner = &self.0;
        if inner.client.is_closed() {
            return Err(Error::Closed);
        }
        let turn = inner.turn.fetch_add(1, Ordering::Relaxed);
        let subscriptions = inner.subscriptions();
        let Some((topic, filter)) = subscriptions.get(turn % subscriptions.len().max(1)) else {
            return Err(ConfigError::NoSubscription.into());
        };
        let route = inner.client.route(topic).await?;
        let queues = route.readable(topic)?;
        let placed = &queues[turn / subscriptions.len() % queues.len()];
        let attempt_id = ids::message_id();
        let receive = Receive {
            group: &inner.group,
            placed,
            filter,
            batch: max.clamp(1, limits::RECEIVE_BATCH),
            invisible: Some(invisible),
            poll: inner.wait,
            attempt_id: &attempt_id,
        };
        rpc::receive(&inner.client, &receive).await
    }

    /// Messages one after the other, for ever. An error ends nothing: the next item is the next try,
    /// a second later.
    pub fn messages(
        &self,
        invisible: Duration,
    ) -> impl Stream<Item = Result<MessageView, Error>> + use<> {
        const PAUSE: Duration = Duration::from_secs(1);
        let consumer = self.clone();
        let batches = stream::unfold((consumer, false), move |(consumer, failed)| async move {
            if failed {
                tokio::time::sleep(PAUSE).await;
            }
            let batch = consumer.receive(limits::RECEIVE_BATCH, invisible).await;
            if matches!(batch, Err(Error::Closed)) {
                return None;
            }
            let failed = batch.is_err();
            let items = match batch {
                Ok(messages) => messages.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            Some((stream::iter(items), (consumer, failed)))
        });
        Box::pin(batches.flatten())
    }

    /// Says that a message is done with: the group does not see it again.
    ///
    /// # Errors
    /// With the code INVALID_RECEIPT_HANDLE when its time was over; it may be delivered again then.
    pub async fn ack(&self, message: &MessageView) -> Result<(), Error> {
        let results = rpc::ack(&self.0.client, &self.0.group, std::slice::from_ref(message)).await;
        results.into_iter().next().unwrap_or(Ok(()))
    }

    /// The same for several, in as few requests as there are topics and brokers. One result for
    /// each, in their order.
    pub async fn ack_all(&self, messages: &[MessageView]) -> Vec<Result<(), Error>> {
        super::acker::ack_many(&self.0.client, &self.0.group, messages).await
    }

    /// Makes a message visible to the group again after this long, counted from now; zero gives it
    /// back at once. The message carries on with the new handle.
    ///
    /// # Errors
    /// With the code INVALID_RECEIPT_HANDLE when its time was over.
    pub async fn change_invisible_duration(
        &self,
        message: &mut MessageView,
        invisible: Duration,
    ) -> Result<(), Error> {
        let inner = &self.0;
        let handle = rpc::change_invisible(&inner.client, &inner.group, message, invisible).await?;
        if !handle.is_empty() {
            message.set_receipt_handle(handle);
        }
        Ok(())
    }

    /// Adds a topic, or changes its filter.
    ///
    /// # Errors
    /// When the filter cannot be read, or the topic does not exist.
    pub async fn subscribe(
        &self,
        topic: &str,
        filter: impl Into<FilterExpression>,
    ) -> Result<(), Error> {
        let filter = filter.into();
        self.0.client.subscribe(topic, &filter).await?;
        let mut all = self.0.subscriptions.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(known, _)| known != topic);
        all.push((topic.to_owned(), filter));
        drop(all);
        self.0.client.meet();
        Ok(())
    }

    /// Leaves a topic out from now on.
    pub fn unsubscribe(&self, topic: &str) {
        self.0.client.role.send_if_modified(|role| role.unsubscribe(topic));
        let mut all = self.0.subscriptions.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(known, _)| known != topic);
    }

    /// Says good-bye and ends the background tasks. What was received and not acknowledged comes
    /// again when its time is over.
    pub async fn close(&self) {
        self.0.client.close().await;
    }
}
