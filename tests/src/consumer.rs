//! A simple consumer that writes down what it received and acked.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jepsen::{Action, Fate, Message, Place, Queue};
use proto::v2;
use proto::v2::receive_message_response::Content;

use crate::body;
use crate::ledger::Ledger;
use crate::outcome::Failure;
use crate::rpc::{Rpc, duration, resource};

/// Messages asked for at a time: the most that the protocol allows.
pub const BATCH: i32 = 32;
/// Long enough that nothing is redelivered in a test that does not ask for it, and short enough
/// that what a lost answer carried comes again before patience is over.
pub const INVISIBLE: Duration = Duration::from_secs(30);
/// Receives in a row at one broker group before the others have a turn.
const STREAK: usize = 32;
/// After an error, before the next access point is asked.
const PAUSE: Duration = Duration::from_millis(50);

/// One delivery of a message.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The message of this test run, unless the body is somebody else's.
    pub message: Option<Message>,
    pub id: String,
    pub handle: String,
    pub place: Place,
    pub attempt: u32,
    pub raw: v2::Message,
}

impl Delivery {
    /// As an ack names it.
    #[must_use]
    pub fn entry(&self) -> v2::AckMessageEntry {
        v2::AckMessageEntry {
            message_id: self.id.clone(),
            receipt_handle: self.handle.clone(),
            ..Default::default()
        }
    }
}

/// Which message of the run this is, if it is one and nothing of it was changed.
pub type Identify = Arc<dyn Fn(&v2::Message) -> Option<Message> + Send + Sync>;

/// A member of a consumer group, reading one topic.
#[derive(Clone)]
pub struct Consumer {
    rpcs: Vec<Rpc>,
    at: usize,
    turn: usize,
    /// Receives in a row that gave something, at one broker group.
    streak: usize,
    group: String,
    topic: String,
    filter: String,
    route: Vec<v2::MessageQueue>,
    identify: Identify,
    ledger: Arc<Ledger>,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a consumer of {} in {}", self.topic, self.group)
    }
}

impl Consumer {
    /// # Panics
    /// When there is no access point.
    #[must_use]
    pub fn new(
        access_points: &[SocketAddr],
        group: &str,
        topic: &str,
        ledger: &Arc<Ledger>,
    ) -> Self {
        assert!(!access_points.is_empty(), "a consumer needs an access point");
        Self {
            rpcs: access_points.iter().map(|a| Rpc::new(*a)).collect(),
            at: 0,
            turn: 0,
            streak: 0,
            group: group.to_owned(),
            topic: topic.to_owned(),
            filter: "*".to_owned(),
            route: Vec::new(),
            identify: Arc::new(|message| body::message(&message.body)),
            ledger: Arc::clone(ledger),
        }
    }

    /// Subscribes to these tags only.
    #[must_use]
    pub fn with_filter(mut self, filter: &str) -> Self {
        filter.clone_into(&mut self.filter);
        self
    }

    /// Recognises messages by other means than the bodies of the tests.
    #[must_use]
    pub fn identifying_by(mut self, identify: Identify) -> Self {
        self.identify = identify;
        self
    }

    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// One receive of up to `batch` messages: asks a queue of the route, in turn. An empty answer
    /// means that the poll ended without a message.
    pub async fn receive(
        &mut self,
        batch: i32,
        invisible: Duration,
        poll: Duration,
    ) -> Result<Vec<Delivery>, Failure> {
        let rpc = self.rpcs[self.at % self.rpcs.len()].clone();
        let result = self.receive_at(&rpc, batch, invisible, poll).await;
        if result.is_err() {
            self.move_on();
        }
        result
    }

    /// To the next access point, which may know another route.
    fn move_on(&mut self) {
        self.at += 1;
        self.route.clear();
    }

    async fn receive_at(
        &mut self,
        rpc: &Rpc,
        batch: i32,
        invisible: Duration,
        poll: Duration,
    ) -> Result<Vec<Delivery>, Failure> {
        let began = self.ledger.now();
        if self.route.is_empty() {
            self.route = rpc.query_route(&self.topic).await?;
            assert!(!self.route.is_empty(), "a route is never empty");
        }
        let queue = self.next_queue();
        let broker = queue.broker.as_ref().map(|b| b.name.clone()).unwrap_or_default();
        let request = v2::ReceiveMessageRequest {
            group: Some(resource(&self.group)),
            message_queue: Some(queue),
            filter_expression: Some(v2::FilterExpression {
                r#type: v2::FilterType::Tag.into(),
                expression: self.filter.clone(),
            }),
            batch_size: batch,
            invisible_duration: Some(duration(invisible)),
            ..Default::default()
        };
        let mut stream = rpc.receive(request, poll).await?;
        let mut deliveries = Vec::new();
        let mut status = None;
        while let Some(part) = stream.message().await.map_err(|e| Failure::of_error(&e))? {
            match part.content {
                Some(Content::Status(s)) => status = Some(s),
                Some(Content::Message(m)) => deliveries.push(self.delivered(began, &broker, m)),
                Some(Content::DeliveryTimestamp(_)) | None => {}
            }
        }
        let code = status.as_ref().map(|s| s.code);
        if code == Some(v2::Code::Ok.into()) || code == Some(v2::Code::MessageNotFound.into()) {
            self.streak = if deliveries.is_empty() { 0 } else { (self.streak + 1) % STREAK };
            return Ok(deliveries);
        }
        Err(Failure::of_status(status.as_ref()))
    }

    /// The queues in turn, but those of one broker group for a while as long as it has something: a
    /// poll of another one that has nothing takes its time.
    fn next_queue(&mut self) -> v2::MessageQueue {
        let broker = |queue: &v2::MessageQueue| queue.broker.as_ref().map(|b| b.name.clone());
        let last = broker(&self.route[self.turn % self.route.len()]);
        self.turn += 1;
        if (1..STREAK).contains(&self.streak) {
            for _ in 0..self.route.len() {
                if broker(&self.route[self.turn % self.route.len()]) == last {
                    break;
                }
                self.turn += 1;
            }
        }
        self.route[self.turn % self.route.len()].clone()
    }

    fn delivered(&self, began: u64, broker: &str, raw: v2::Message) -> Delivery {
        let properties = raw.system_properties.clone().unwrap_or_default();
        let queue = Queue {
            topic: self.topic.clone(),
            broker: broker.to_owned(),
            id: u32::try_from(properties.queue_id).expect("a queue id is not negative"),
        };
        let offset = properties.queue_offset.and_then(|o| u64::try_from(o).ok());
        let place = Place { queue, offset: offset.expect("a delivery names its offset") };
        let attempt = properties.delivery_attempt.unwrap_or(0).try_into().unwrap_or(0);
        let message = (self.identify)(&raw);
        let group = self.group.clone();
        self.ledger.record(
            began,
            match message {
                Some(message) => {
                    Action::Receive { group, message, place: Some(place.clone()), attempt }
                }
                None => Action::Garbage { group, what: format!("{} at {place}", raw.body.len()) },
            },
        );
        let handle = properties.receipt_handle.clone().unwrap_or_default();
        Delivery { message, id: properties.message_id, handle, place, attempt, raw }
    }

    /// Acks these deliveries in one call. `Ok` holds the code of each.
    pub async fn ack(&mut self, deliveries: &[Delivery]) -> Result<Vec<i32>, Failure> {
        let began = self.ledger.now();
        let entries = deliveries.iter().map(Delivery::entry).collect();
        let rpc = self.rpcs[self.at % self.rpcs.len()].clone();
        let result = rpc.ack(&self.group, &self.topic, entries).await;
        let codes: Result<Vec<i32>, Failure> = result.map(|entries| {
            entries.iter().map(|e| e.status.as_ref().map_or(0, |s| s.code)).collect()
        });
        for (at, delivery) in deliveries.iter().enumerate() {
            let fate = match &codes {
                Ok(codes) if codes[at] == i32::from(v2::Code::Ok) => Fate::Done,
                Ok(codes) if codes[at] == i32::from(v2::Code::InvalidReceiptHandle) => {
                    Fate::Refused
                }
                Ok(_) | Err(_) => Fate::Unknown,
            };
            if let Some(message) = delivery.message {
                let group = self.group.clone();
                self.ledger.record(began, Action::Ack { group, message, fate });
            }
        }
        if codes.is_err() {
            self.move_on();
        }
        codes
    }

    /// Receives and acks until everything that was acknowledged so far has been received and a
    /// poll comes back empty. Errors are part of life; it goes on at the next access point.
    ///
    /// # Panics
    /// When that takes longer than `budget`.
    pub async fn receives_everything(&mut self, budget: Duration) {
        let start = Instant::now();
        let mut last_failure = None;
        loop {
            let missing = self.ledger.missing(&self.group);
            let poll =
                if missing.is_empty() { Duration::from_secs(5) } else { Duration::from_secs(6) };
            assert!(
                start.elapsed() < budget,
                "{} misses {} messages after {budget:?}, the first is {:?}; last failure: {last_failure:?}",
                self.group,
                missing.len(),
                missing.first()
            );
            match self.receive(BATCH, INVISIBLE, poll).await {
                Ok(deliveries) if deliveries.is_empty() && missing.is_empty() => return,
                Ok(deliveries) => self.ack_all(&deliveries, start + budget).await,
                Err(failure) => {
                    last_failure = Some(failure);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Acks until the server answers for each delivery, or until `deadline`.
    async fn ack_all(&mut self, deliveries: &[Delivery], deadline: Instant) {
        while !deliveries.is_empty() && Instant::now() < deadline {
            match self.ack(deliveries).await {
                Ok(_) => return,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Receives and acks for about this long; errors are part of life.
    pub async fn drain_for(&mut self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            match self.receive(BATCH, INVISIBLE, Duration::from_secs(5)).await {
                Ok(deliveries) => {
                    self.ack_all(&deliveries, Instant::now() + Duration::from_secs(10)).await;
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Receives and acks until `stop` is set.
    pub async fn consume_until(&mut self, stop: tokio::sync::watch::Receiver<bool>) {
        while !*stop.borrow() {
            match self.receive(BATCH, INVISIBLE, Duration::from_secs(5)).await {
                Ok(deliveries) => {
                    self.ack_all(&deliveries, Instant::now() + Duration::from_secs(10)).await;
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}
