//! A consumer that reads queues from offsets of its own choice.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use futures::stream::{FuturesUnordered, StreamExt};
use proto::{Timestamp, clock, limits, v2};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::{debug, info};

use super::{
    offset_store::OffsetStore,
    offsets,
    positions::{Positions, Reading},
    rpc::{self, queue_to_wire},
};
use crate::{
    ClientConfig, Code, Error, FilterExpression, MessageQueue, MessageView, address::Address,
    client::Client, error::check, route::Placed, settings::Role,
};

/// How often the share of the queues is asked for, and what is settled is committed where that is
/// not left to the application.
const TURN: Duration = Duration::from_secs(5);
/// Queues that are pulled at a time.
const AT_ONCE: usize = 64;
/// How long one pull waits, so that turns change and assignments are noticed.
const PULL: Duration = Duration::from_secs(5);
/// After a pull that failed.
const PAUSE: Duration = Duration::from_millis(200);

/// Where reading begins that has no committed offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Begin {
    /// With the first message that is kept.
    #[default]
    First,
    /// With messages that arrive from now on.
    Last,
    /// With the first message that arrived at this time or later.
    Time(SystemTime),
}

/// Makes a [`PullConsumer`].
#[derive(Clone)]
#[must_use = "nothing happens before `build`"]
pub struct PullConsumerBuilder {
    config: ClientConfig,
    group: String,
    subscriptions: Vec<(String, FilterExpression)>,
    begin: Begin,
    auto_commit: bool,
    broadcast: Option<Arc<dyn OffsetStore>>,
}

impl PullConsumerBuilder {
    subscribe!("A topic whose queues are shared among the members of the group that pull it.");

    /// Where reading begins in queues of which the group has committed nothing. Default: the first
    /// message that is kept.
    pub fn begin(mut self, begin: Begin) -> Self {
        self.begin = begin;
        self
    }

    /// Commits every 5 s, and when it is closed, what was polled *before the latest poll*: polling
    /// again says that the messages of the poll before are done with. Default: off, the application
    /// calls [`PullConsumer::commit`].
    pub fn auto_commit(mut self, auto_commit: bool) -> Self {
        self.auto_commit = auto_commit;
        self
    }

    /// Every client reads everything: all queues, from offsets that the client keeps in `store`.
    /// Commits go there.
    pub fn broadcast(mut self, store: impl OffsetStore) -> Self {
        self.broadcast = Some(Arc::new(store));
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// When a setting makes no sense, a topic does not exist, or no access point answers.
    pub async fn build(self) -> Result<PullConsumer, Error> {
        self.subscriptions.iter().try_for_each(|(_, filter)| filter.check())?;
        let role = Role::Consumer {
            kind: v2::ClientType::PullConsumer,
            group: self.group.clone(),
            subscriptions: self.subscriptions,
        };
        let (client, _orphans) = Client::start(self.config, role, false).await?;
        let consumer = PullConsumer(Arc::new(Inner {
            client,
            group: self.group,
            begin: self.begin,
            auto_commit: self.auto_commit,
            broadcast: self.broadcast,
            positions: Mutex::default(),
            changed: Notify::new(),
            settled: Mutex::default(),
            polls: tokio::sync::Mutex::default(),
        }));
        consumer.0.scan().await;
        let keep = Arc::downgrade(&consumer.0);
        let mut stopped = consumer.0.client.stopped();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = sleep(TURN) => {}
                    _ = stopped.wait_for(|stopped| *stopped) => return,
                }
                // The consumer itself must be able to go.
                let Some(inner) = keep.upgrade() else { return };
                inner.scan().await;
                inner.commit_settled().await;
            }
        });
        Ok(consumer)
    }
}

impl fmt::Debug for PullConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullConsumerBuilder")
            .field("group", &self.group)
            .field("subscriptions", &self.subscriptions)
            .field("begin", &self.begin)
            .finish_non_exhaustive()
    }
}

/// Reads queues. Clones share everything; the last one that is dropped ends the background tasks.
///
/// ```no_run
/// # async fn example() -> Result<(), raftmq_client::Error> {
/// use std::time::Duration;
/// use raftmq_client::{ClientConfig, PullConsumer};
///
/// let config = ClientConfig::new("127.0.0.1:9876")?;
/// let consumer = PullConsumer::builder(config, "audit").subscribe("orders", "*").build().await?;
/// loop {
///     for message in consumer.poll(Duration::from_secs(5)).await? {
///         println!("{} {:?}", message.offset(), message.body());
///     }
///     consumer.commit().await?;
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct PullConsumer(Arc<Inner>);

struct Inner {
    client: Arc<Client>,
    group: String,
    begin: Begin,
    auto_commit: bool,
    broadcast: Option<Arc<dyn OffsetStore>>,
    positions: Mutex<Positions>,
    /// The queues changed.
    changed: Notify,
    /// What the application is done with, where it does not commit itself.
    settled: Mutex<Vec<(Placed, i64)>>,
    /// One poll at a time.
    polls: tokio::sync::Mutex<()>,
}

/// What a pull found.
struct Pulled {
    messages: Vec<MessageView>,
    next: i64,
    /// The offset asked for does not exist, or the group was reset.
    moved: bool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.client.stop();
    }
}

impl PullConsumer {
    /// A member of this consumer group.
    pub fn builder(config: ClientConfig, group: impl Into<String>) -> PullConsumerBuilder {
        PullConsumerBuilder {
            config,
            group: group.into(),
            subscriptions: Vec::new(),
            begin: Begin::First,
            auto_commit: false,
            broadcast: None,
        }
    }

    /// The queues of a topic that can be read.
    ///
    /// # Errors
    /// When the topic does not exist.
    pub async fn message_queues(&self, topic: &str) -> Result<Vec<MessageQueue>, Error> {
        let route = self.0.client.fetch(topic).await?;
        Ok(route.readable(topic)?.iter().map(|placed| placed.queue.clone()).collect())
    }

    /// The queues that are this consumer's at the moment.
    #[must_use]
    pub fn assigned(&self) -> Vec<MessageQueue> {
        self.0.positions().queues()
    }

    /// Reads these queues of a topic, and no others of it, whatever other members read. Not together
    /// with a subscription to the same topic.
    ///
    /// # Errors
    /// When the topic does not exist, or has no such queue.
    pub async fn assign(
        &self,
        topic: &str,
        queues: &[MessageQueue],
        filter: impl Into<FilterExpression>,
    ) -> Result<(), Error> {
        let filter = filter.into();
        filter.check()?;
        let route = self.0.client.fetch(topic).await?;
        let mut placed = Vec::new();
        for queue in queues {
            let mut known = route.readable(topic)?.iter();
            let found = known.find(|placed| placed.queue == *queue).cloned();
            let missing = || Error::NoQueue { topic: queue.to_string(), what: "readable" };
            placed.push(found.ok_or_else(missing)?);
        }
        self.0.positions().assign(topic, &placed, &filter);
        self.0.changed.notify_waiters();
        Ok(())
    }

    /// Adds a topic whose queues are shared, or changes its filter.
    ///
    /// # Errors
    /// When the filter cannot be read, or the topic does not exist.
    pub async fn subscribe(
        &self,
        topic: &str,
        filter: impl Into<FilterExpression>,
    ) -> Result<(), Error> {
        let filter = filter.into();
        if self.0.client.subscribe(topic, &filter).await? {
            self.0.client.meet();
            self.0.scan().await;
        }
        Ok(())
    }

    /// Leaves a topic out from now on.
    pub fn unsubscribe(&self, topic: &str) {
        self.0.client.role.send_if_modified(|role| role.unsubscribe(topic));
        self.0.positions().forget_topic(topic);
    }

    /// The next messages of one of the queues, up to 32; none when none arrived in time. Queues take
    /// turns. Nothing is consumed by this: other members that read the queue get the messages too.
    ///
    /// # Errors
    /// When the client is closed, or offsets cannot be looked up because of what the store says.
    /// While the cluster cannot be reached it waits, and returns none in the end.
    pub async fn poll(&self, wait: Duration) -> Result<Vec<MessageView>, Error> {
        let inner = &self.0;
        let deadline = Instant::now() + wait;
        let Ok(_turn) = timeout_at(deadline, inner.polls.lock()).await else {
            return Ok(Vec::new());
        };
        if inner.auto_commit {
            *lock(&inner.settled) = inner.positions().uncommitted();
        }
        loop {
            if inner.client.is_closed() {
                return Err(Error::Closed);
            }
            let changed = inner.changed.notified();
            let readings = inner.positions().in_turn();
            if readings.is_empty() {
                // Assignments come soon, or never.
                if timeout_at(deadline, changed).await.is_err() {
                    return Ok(Vec::new());
                }
                continue;
            }
            match timeout_at(deadline, inner.pull_first(readings)).await {
                Ok(Ok(messages)) if messages.is_empty() => {}
                Ok(end) => return end,
                Err(_) => return Ok(Vec::new()),
            }
        }
    }

    /// Goes on from this offset of a queue.
    ///
    /// # Errors
    /// When the queue is not this consumer's.
    pub fn seek(&self, queue: &MessageQueue, offset: i64) -> Result<(), Error> {
        match self.0.positions().seek(queue, Some(offset)) {
            true => Ok(()),
            false => Err(Error::NoQueue { topic: queue.to_string(), what: "assigned" }),
        }
    }

    /// Goes on from the first message that is kept, from the end, or from a time; the offset.
    ///
    /// # Errors
    /// When the queue is not this consumer's, or the offset cannot be looked up.
    pub async fn seek_to(&self, queue: &MessageQueue, begin: Begin) -> Result<i64, Error> {
        let missing = || Error::NoQueue { topic: queue.to_string(), what: "assigned" };
        let placed = self.0.positions().get(queue).map(|reading| reading.placed.clone());
        let offset = query(&self.0.client, &placed.ok_or_else(missing)?, begin).await?;
        self.seek(queue, offset)?;
        Ok(offset)
    }

    /// Gets nothing more of a queue until it is resumed.
    pub fn pause(&self, queue: &MessageQueue) {
        self.0.positions().pause(queue);
    }

    /// Goes on with a queue.
    pub fn resume(&self, queue: &MessageQueue) {
        self.0.positions().resume(queue);
        self.0.changed.notify_waiters();
    }

    /// Says that everything that was polled is done with. A commit never takes the group back.
    ///
    /// # Errors
    /// When some queue could not be committed; the others were. It can be repeated.
    pub async fn commit(&self) -> Result<(), Error> {
        let all = self.0.positions().uncommitted();
        self.0.commit(all).await
    }

    /// What the group, or this client if it broadcasts, has committed of a queue.
    ///
    /// # Errors
    /// When the queue is not this consumer's, or it cannot be looked up.
    pub async fn committed(&self, queue: &MessageQueue) -> Result<Option<i64>, Error> {
        let missing = || Error::NoQueue { topic: queue.to_string(), what: "assigned" };
        let placed = self.0.positions().get(queue).map(|reading| reading.placed.clone());
        self.0.committed(&placed.ok_or_else(missing)?).await
    }

    /// Commits what is settled, if that is not left to the application, says good-bye, so that
    /// others get the queues at once, and ends the background tasks.
    pub async fn close(&self) {
        self.0.commit_settled().await;
        self.0.client.close().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn positions(&self) -> MutexGuard<'_, Positions> {
        lock(&self.positions)
    }

    /// Asks which queues are this consumer's. Where nobody answers, everything stays as it is.
    async fn scan(&self) {
        let subscriptions = match &*self.client.role.borrow() {
            Role::Consumer { subscriptions, .. } => subscriptions.clone(),
            Role::Producer { .. } => Vec::new(),
        };
        for (topic, filter) in subscriptions {
            let assigned = match self.broadcast {
                Some(_) => self.client.fetch(&topic).await.map(|route| route.readable.clone()),
                None => rpc::assignments(&self.client, &self.group, &topic).await,
            };
            match assigned {
                Ok(placed) => {
                    let mut positions = self.positions();
                    let before = positions.queues();
                    positions.assign(&topic, &placed, &filter);
                    if positions.queues() != before {
                        info!(%topic, queues = placed.len(), "queues assigned");
                    }
                }
                Err(error) => debug!(%topic, %error, "assignments not asked for anew"),
            }
        }
        self.changed.notify_waiters();
    }

    /// Pulls several queues and takes what comes first. A pull changes nothing, so the others are
    /// just dropped.
    async fn pull_first(&self, readings: Vec<Reading>) -> Result<Vec<MessageView>, Error> {
        let pulls = readings.into_iter().take(AT_ONCE).map(|reading| async move {
            let pulled = self.pull(&reading).await;
            (reading, pulled)
        });
        let mut pulls: FuturesUnordered<_> = pulls.collect();
        while let Some((reading, pulled)) = pulls.next().await {
            let queue = &reading.placed.queue;
            match pulled {
                Ok(pulled) if pulled.moved => {
                    info!(%queue, offset = pulled.next, "the offset is gone: on from there");
                    self.positions().reset(queue, reading.seeks, pulled.next);
                }
                Ok(pulled) => {
                    let ours = self.positions().advance(queue, reading.seeks, pulled.next);
                    if ours && !pulled.messages.is_empty() {
                        return Ok(pulled.messages);
                    }
                }
                Err(error @ Error::Application { .. }) => return Err(error),
                Err(error) => {
                    debug!(%queue, %error, "pull failed");
                    sleep(PAUSE).await;
                }
            }
        }
        Ok(Vec::new())
    }

    async fn pull(&self, reading: &Reading) -> Result<Pulled, Error> {
        let Reading { placed, filter, next, seeks, .. } = reading;
        let offset = match next {
            Some(next) => *next,
            None => {
                let offset = match self.committed(placed).await? {
                    Some(offset) => offset,
                    None => query(&self.client, placed, self.begin).await?,
                };
                self.positions().begin(&placed.queue, *seeks, offset);
                offset
            }
        };
        let pull = |address| self.pull_at(placed, filter, offset, address);
        self.client.anywhere(self.client.ways_to(placed), pull).await
    }

    async fn pull_at(
        &self,
        placed: &Placed,
        filter: &FilterExpression,
        offset: i64,
        address: Address,
    ) -> Result<Pulled, Error> {
        use v2::pull_message_response::Content;
        let client = &self.client;
        let request = v2::PullMessageRequest {
            group: Some(client.config.resource(&self.group)),
            message_queue: Some(queue_to_wire(client, placed)),
            offset,
            batch_size: i32::try_from(limits::RECEIVE_BATCH).unwrap_or(1),
            filter_expression: Some(filter.to_wire()),
            long_polling_timeout: Some(clock::to_wire(PULL)),
        };
        let wait = PULL + client.config.request_timeout;
        let failed = |status| {
            client.failed(&address);
            Error::transport(address.as_str(), status)
        };
        let late = |_| {
            client.failed(&address);
            Error::Timeout { address: address.to_string(), waited: wait }
        };
        let mut rpc = client.pool.messaging(&address)?;
        let answer = rpc.pull_message(client.request(request, wait));
        let mut parts = timeout(wait, answer).await.map_err(late)?.map_err(failed)?.into_inner();
        let (mut status, mut messages, mut next) = (None, Vec::new(), None);
        while let Some(part) =
            timeout(wait, parts.message()).await.map_err(late)?.map_err(failed)?
        {
            match part.content {
                Some(Content::Status(told)) => status = Some(told),
                Some(Content::Message(wire)) => {
                    let broker = placed.queue.broker_name();
                    messages.push(MessageView::from_wire(wire, broker, &address)?);
                }
                Some(Content::NextOffset(told)) => next = Some(told),
                None => {}
            }
        }
        let code = status.as_ref().map(|status| status.code);
        let moved = code == Some(Code::IllegalOffset.into()) && next.is_some();
        if !moved && code != Some(Code::MessageNotFound.into()) {
            check(address.as_str(), status.as_ref())?;
        }
        let missing = || Error::Malformed { address: address.to_string(), missing: "an offset" };
        Ok(Pulled { messages, next: next.ok_or_else(missing)?, moved })
    }

    async fn committed(&self, placed: &Placed) -> Result<Option<i64>, Error> {
        if let Some(store) = &self.broadcast {
            return store.load(&placed.queue).map_err(|error| {
                tracing::error!(%error, queue = %placed.queue, "offset not loaded");
                Error::Application { what: "the offset store" }
            });
        }
        match offsets::get(&self.client, &self.group, placed).await {
            Ok(offset) => Ok(Some(offset)),
            Err(error) if error.code() == Some(Code::OffsetNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn commit_settled(&self) {
        let settled = std::mem::take(&mut *lock(&self.settled));
        if let Err(error) = self.commit(settled).await {
            debug!(%error, "not committed; the next poll settles it again");
        }
    }

    /// All of them are tried; the last error counts.
    async fn commit(&self, all: Vec<(Placed, i64)>) -> Result<(), Error> {
        let mut end = Ok(());
        for (placed, offset) in all {
            let done = match &self.broadcast {
                Some(store) => store.save(&placed.queue, offset).map_err(|error| {
                    tracing::error!(%error, queue = %placed.queue, "offset not saved");
                    Error::Application { what: "the offset store" }
                }),
                None => offsets::update(&self.client, &self.group, &placed, offset).await,
            };
            match done {
                Ok(()) => self.positions().committed(&placed.queue, offset),
                Err(error) => end = Err(error),
            }
        }
        end
    }
}

async fn query(client: &Client, placed: &Placed, begin: Begin) -> Result<i64, Error> {
    let (policy, time) = match begin {
        Begin::First => (v2::QueryOffsetPolicy::Beginning, None),
        Begin::Last => (v2::QueryOffsetPolicy::End, None),
        Begin::Time(time) => {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            (v2::QueryOffsetPolicy::Timestamp, Some(Timestamp(clock::millis(since))))
        }
    };
    offsets::query(client, placed, policy, time).await
}

impl fmt::Debug for PullConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let assigned = self.assigned();
        f.debug_struct("PullConsumer")
            .field("group", &self.0.group)
            .field("assigned", &assigned)
            .finish()
    }
}
