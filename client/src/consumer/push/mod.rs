//! A consumer that messages come to: a listener is called with each.

use std::{fmt, sync::Arc, time::Duration};

use proto::v2;
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::timeout,
};
use tracing::warn;

use super::{
    acker::Acker,
    start_from::{self, StartFrom},
};
use crate::{
    ClientConfig, ConfigError, Error, FilterExpression, MessageView, Propagation, client::Client,
    settings::Role,
};

mod listener;
mod poll;
mod work;

use listener::Listener;

pub use listener::ConsumeResult;

/// Listeners that run at a time.
const CONCURRENCY: usize = 20;
/// Messages that were received and whose fate is not known yet.
const CACHED: usize = 1024;
/// How long a consumer that is closed waits for its listeners and acknowledgements.
const GRACE: Duration = Duration::from_secs(30);

/// Makes a [`PushConsumer`].
#[derive(Clone)]
#[must_use = "nothing happens before `build`"]
pub struct PushConsumerBuilder {
    config: ClientConfig,
    group: String,
    subscriptions: Vec<(String, FilterExpression)>,
    concurrency: usize,
    cached: usize,
    at_most_once: bool,
    grace: Duration,
    start_from: StartFrom,
    propagation: Option<Propagation>,
}

impl PushConsumerBuilder {
    subscribe!("A topic, and which of its messages.");

    /// How many listeners run at a time, over all topics. Default: 20.
    pub fn concurrency(mut self, listeners: usize) -> Self {
        self.concurrency = listeners;
        self
    }

    /// How many messages may be here whose fate is not known yet. Default: 1024.
    pub fn max_cached(mut self, messages: usize) -> Self {
        self.cached = messages;
        self
    }

    /// Acknowledges each message before its listener is called: a crash or a failure loses it, and
    /// nothing is delivered twice. Default: off, acknowledged after the listener, at least once.
    pub fn at_most_once(mut self, at_most_once: bool) -> Self {
        self.at_most_once = at_most_once;
        self
    }

    /// How long [`PushConsumer::close`] waits for listeners and acknowledgements. Default: 30 s.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Where a consumer group begins that has consumed nothing yet. Default: where the server says.
    pub fn start_from(mut self, start_from: StartFrom) -> Self {
        self.start_from = start_from;
        self
    }

    /// Continues the traces that messages name.
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.propagation = Some(propagation);
        self
    }

    /// Connects, and begins to call `listener` with messages. Whether messages of a message group
    /// come one after the other is a property of the consumer group.
    ///
    /// # Errors
    /// When a setting makes no sense, a topic does not exist, or no access point answers.
    pub async fn listen<F>(
        self,
        listener: impl Fn(MessageView) -> F + Send + Sync + 'static,
    ) -> Result<PushConsumer, Error>
    where
        F: Future<Output = ConsumeResult> + Send + 'static,
    {
        if self.subscriptions.is_empty() {
            return Err(ConfigError::NoSubscription.into());
        }
        if self.concurrency == 0 || self.cached == 0 {
            return Err(ConfigError::Zero { setting: "a bound of the consumer" }.into());
        }
        self.subscriptions.iter().try_for_each(|(_, filter)| filter.check())?;
        let role = Role::Consumer {
            kind: v2::ClientType::PushConsumer,
            group: self.group.clone(),
            subscriptions: self.subscriptions.clone(),
        };
        let (client, _orphans) = Client::start(self.config, role, false).await?;
        // Unless everything below comes to its end, the client is stopped.
        let consumer = PushConsumer(Arc::new(Inner {
            cached: self.cached.min(Semaphore::MAX_PERMITS >> 3),
            grace: self.grace,
            shared: Arc::new(Shared {
                acker: Acker::start(Arc::clone(&client), self.group.clone()),
                room: Arc::new(Semaphore::new(self.cached.min(Semaphore::MAX_PERMITS >> 3))),
                turns: Semaphore::new(self.concurrency.min(Semaphore::MAX_PERMITS >> 3)),
                listener: Listener::new(listener),
                at_most_once: self.at_most_once,
                propagation: self.propagation,
                paused: watch::Sender::new(false),
                stopping: watch::Sender::new(false),
                rescan: Notify::new(),
                group: self.group,
                client,
            }),
        }));
        let shared = &consumer.0.shared;
        for (topic, _) in &self.subscriptions {
            start_from::apply(&shared.client, &shared.group, topic, self.start_from).await?;
        }
        tokio::spawn(poll::keep_assignments(Arc::clone(shared)));
        Ok(consumer)
    }
}

impl fmt::Debug for PushConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushConsumerBuilder")
            .field("config", &self.config)
            .field("group", &self.group)
            .field("subscriptions", &self.subscriptions)
            .finish_non_exhaustive()
    }
}

/// Calls a listener with each message. Dropping it ends it without waiting; [`Self::close`] waits.
///
/// ```no_run
/// # async fn example() -> Result<(), raftmq_client::Error> {
/// use raftmq_client::{ClientConfig, ConsumeResult, PushConsumer};
///
/// let config = ClientConfig::new("127.0.0.1:9876")?;
/// let consumer = PushConsumer::builder(config, "billing")
///     .subscribe("orders", "*")
///     .listen(|message| async move {
///         println!("{:?}", message.body());
///         ConsumeResult::Success
///     })
///     .await?;
/// tokio::signal::ctrl_c().await.ok();
/// consumer.close().await;
/// # Ok(())
/// # }
/// ```
pub struct PushConsumer(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    cached: usize,
    grace: Duration,
}

/// What the tasks of one consumer share.
struct Shared {
    client: Arc<Client>,
    group: String,
    acker: Acker,
    /// For messages whose fate is not known yet.
    room: Arc<Semaphore>,
    /// For listeners that run.
    turns: Semaphore,
    listener: Listener,
    at_most_once: bool,
    propagation: Option<Propagation>,
    paused: watch::Sender<bool>,
    /// Nothing new is begun once it is true.
    stopping: watch::Sender<bool>,
    /// Asks for the assignments to be looked at now.
    rescan: Notify,
}

impl Shared {
    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.stopping.send_replace(true);
        self.shared.client.stop();
    }
}

impl PushConsumer {
    /// A member of this consumer group.
    pub fn builder(config: ClientConfig, group: impl Into<String>) -> PushConsumerBuilder {
        PushConsumerBuilder {
            config,
            group: group.into(),
            subscriptions: Vec::new(),
            concurrency: CONCURRENCY,
            cached: CACHED,
            at_most_once: false,
            grace: GRACE,
            start_from: StartFrom::Server,
            propagation: None,
        }
    }

    /// Adds a topic, or changes its filter. What was received before is still consumed.
    ///
    /// # Errors
    /// When the filter cannot be read, or the topic does not exist.
    pub async fn subscribe(
        &self,
        topic: &str,
        filter: impl Into<FilterExpression>,
    ) -> Result<(), Error> {
        let filter = filter.into();
        let shared = &self.0.shared;
        if shared.client.subscribe(topic, &filter).await? {
            shared.client.meet();
            shared.rescan.notify_one();
        }
        Ok(())
    }

    /// Leaves a topic out from now on. What was received before is still consumed.
    pub fn unsubscribe(&self, topic: &str) {
        let shared = &self.0.shared;
        if shared.client.role.send_if_modified(|role| role.unsubscribe(topic)) {
            shared.rescan.notify_one();
        }
    }

    /// Receives nothing more until it is resumed. What was received before is still consumed.
    pub fn pause(&self) {
        self.0.shared.paused.send_replace(true);
    }

    /// Goes on.
    pub fn resume(&self) {
        self.0.shared.paused.send_replace(false);
    }

    /// Messages that were received and whose fate is not known yet.
    #[must_use]
    pub fn cached(&self) -> usize {
        self.0.cached.saturating_sub(self.0.shared.room.available_permits())
    }

    /// Receives nothing more, lets the listeners that run come to their end, sees every
    /// acknowledgement through, and says good-bye; then messages whose listener had not begun go to
    /// others at once. Returns whether everything came to its end within the grace period.
    pub async fn close(self) -> bool {
        let shared = &self.0.shared;
        shared.stopping.send_replace(true);
        let all = u32::try_from(self.0.cached).unwrap_or(u32::MAX);
        let ended = timeout(self.0.grace, shared.room.acquire_many(all)).await.is_ok();
        if !ended {
            warn!(cached = self.cached(), "closed before every listener came to its end");
        }
        shared.client.close().await;
        ended
    }
}

impl fmt::Debug for PushConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushConsumer")
            .field("group", &self.0.shared.group)
            .field("cached", &self.cached())
            .finish_non_exhaustive()
    }
}
