//! Receives messages and acknowledges them.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use futures::future::join_all;
use proto::{ConsumerGroup, Topic, clock, limits, v2};
use serde::Serialize;
use tokio::{sync::watch, task::JoinSet, time};

use super::{
    connection::{self, Client},
    marks::Marks,
    recorder::{Latencies, Percentiles, Recorder, Summary, Window},
    template::Run,
    units,
};

/// After a failure a receiver waits this long.
const BACKOFF: Duration = Duration::from_millis(50);

#[derive(Clone, Debug, Args)]
pub struct ConsumeArgs {
    #[arg(short = 'g', long, default_value = "mqbench")]
    pub group: ConsumerGroup,
    /// ReceiveMessages under way at once.
    #[arg(long, default_value_t = 16)]
    pub receivers: usize,
    /// Messages that one ReceiveMessage asks for.
    #[arg(long, default_value_t = limits::RECEIVE_BATCH)]
    pub receive_batch: usize,
    /// An AckMessage for each message, or one for all that came together.
    #[arg(long, default_value = "each")]
    pub ack: Ack,
    /// How long a message is kept from others.
    #[arg(long, value_parser = units::duration, default_value = "30s")]
    pub invisible: Duration,
    /// How long an empty poll waits.
    #[arg(long, value_parser = units::duration, default_value = "5s")]
    pub long_poll: Duration,
    /// After sending has ended: how long to wait for what has not arrived. Longer than --invisible,
    /// because a message whose delivery got lost on the way comes again only after that.
    #[arg(long, value_parser = units::duration, default_value = "60s")]
    pub drain: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ack {
    Each,
    Together,
}

impl ConsumeArgs {
    pub fn check(&self) -> Result<()> {
        if self.receivers == 0 {
            bail!("--receivers is at least 1");
        }
        if self.receive_batch == 0 || self.receive_batch > limits::RECEIVE_BATCH {
            bail!("--receive-batch is within 1 and {}", limits::RECEIVE_BATCH);
        }
        if self.invisible < limits::INVISIBLE_MIN || self.invisible > limits::INVISIBLE_MAX {
            bail!("--invisible is within 10s and 12h");
        }
        Ok(())
    }
}

/// What receiving came to.
#[derive(Clone, Debug)]
pub(super) struct Consumed {
    pub(super) receives: Summary,
    pub(super) acks: Summary,
    /// From when a send was due to its arrival, for messages of this run.
    pub(super) send_to_receive: Option<Percentiles>,
    /// Messages of this run that came more than once.
    pub(super) duplicates: u64,
}

/// Receivers at work.
pub(super) struct Consumers {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

struct Shared {
    args: ConsumeArgs,
    topic: Topic,
    run: Run,
    window: Window,
    queues: Vec<v2::MessageQueue>,
    tally: Mutex<Tally>,
}

struct Tally {
    receives: Recorder,
    acks: Recorder,
    send_to_receive: Latencies,
    arrived: Marks,
    duplicates: u64,
}

impl Consumers {
    pub(super) fn start(
        args: &ConsumeArgs,
        topic: &Topic,
        clients: &[Client],
        queues: Vec<v2::MessageQueue>,
        run: Run,
        window: Window,
    ) -> Self {
        assert!(!queues.is_empty(), "a route has a queue");
        let tally = Tally {
            receives: Recorder::new(window),
            acks: Recorder::new(window),
            send_to_receive: Latencies::new(),
            arrived: Marks::default(),
            duplicates: 0,
        };
        let shared = Arc::new(Shared {
            args: args.clone(),
            topic: topic.clone(),
            run,
            window,
            queues,
            tally: Mutex::new(tally),
        });
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for n in 0..args.receivers {
            let client = clients[n % clients.len()].clone();
            let receiver = Receiver { client, shared: Arc::clone(&shared), next_queue: n };
            tasks.spawn(receiver.run(stopped.clone()));
        }
        Self { shared, stop, tasks }
    }

    /// Messages received so far, of any run.
    pub(super) fn received(&self) -> u64 {
        self.shared.tally().receives.total()
    }

    /// How many of these messages have not arrived.
    pub(super) fn missing(&self, sent: &Marks) -> u64 {
        sent.missing_from(&self.shared.tally().arrived)
    }

    /// Lets the receivers finish what they hold.
    pub(super) async fn stop(mut self) -> Result<Consumed> {
        self.stop.send_replace(true);
        while let Some(end) = self.tasks.join_next().await {
            end?;
        }
        let tally = self.shared.tally();
        Ok(Consumed {
            receives: tally.receives.summary(),
            acks: tally.acks.summary(),
            send_to_receive: tally.send_to_receive.summary(),
            duplicates: tally.duplicates,
        })
    }
}

impl Shared {
    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().expect("no receiver panics while it counts")
    }

    fn arrived(&self, message: &v2::Message, at: Instant) {
        let Some(stamp) = self.run.read(&message.body) else { return };
        let mut tally = self.tally();
        if !tally.arrived.mark(stamp.number) {
            tally.duplicates += 1;
        } else if self.window.from <= stamp.due && stamp.due < self.window.to {
            tally.send_to_receive.record(at.saturating_duration_since(stamp.due));
        }
    }
}

struct Receiver {
    client: Client,
    shared: Arc<Shared>,
    next_queue: usize,
}

impl Receiver {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        loop {
            let began = Instant::now();
            let messages = tokio::select! {
                messages = self.receive() => messages,
                _ = stopped.wait_for(|stop| *stop) => return,
            };
            let ended = Instant::now();
            match messages {
                Ok(messages) if messages.is_empty() => {}
                Ok(messages) => {
                    self.shared.tally().receives.success(began, ended, messages.len() as u64);
                    self.acknowledge(&messages).await;
                }
                Err(what) => {
                    self.shared.tally().receives.failure(began, &what);
                    time::sleep(BACKOFF).await;
                }
            }
        }
    }

    async fn receive(&mut self) -> Result<Vec<v2::Message>, String> {
        let args = &self.shared.args;
        let queue = self.shared.queues[self.next_queue % self.shared.queues.len()].clone();
        self.next_queue += 1;
        let request = receive_request(args, queue);
        let timeout = args.long_poll + self.client.timeout();
        let request = self.client.request_within(request, timeout);
        let poll = receive(&mut self.client, request, |message| {
            self.shared.arrived(message, Instant::now());
        });
        time::timeout(timeout + Duration::from_secs(1), poll)
            .await
            .unwrap_or_else(|_| Err("no answer".into()))
    }

    async fn acknowledge(&self, messages: &[v2::Message]) {
        let args = &self.shared.args;
        let entries: Vec<_> = messages.iter().map(entry).collect();
        let requests: Vec<Vec<_>> = match args.ack {
            Ack::Each => entries.into_iter().map(|entry| vec![entry]).collect(),
            Ack::Together => vec![entries],
        };
        let ack = async |entries: Vec<v2::AckMessageEntry>| {
            let (began, count) = (Instant::now(), entries.len() as u64);
            let outcome = ack(&self.client, &args.group, &self.shared.topic, entries).await;
            let ended = Instant::now();
            let mut tally = self.shared.tally();
            match outcome {
                Ok(()) => tally.acks.success(began, ended, count),
                Err(what) => tally.acks.failure(began, &what),
            }
        };
        join_all(requests.into_iter().map(ack)).await;
    }
}

/// A receive as a simple consumer makes it.
pub(super) fn receive_request(
    args: &ConsumeArgs,
    queue: v2::MessageQueue,
) -> v2::ReceiveMessageRequest {
    v2::ReceiveMessageRequest {
        group: Some(args.group.to_resource()),
        message_queue: Some(queue),
        filter_expression: Some(v2::FilterExpression {
            r#type: v2::FilterType::Tag as i32,
            expression: "*".into(),
        }),
        batch_size: i32::try_from(args.receive_batch).expect("checked against the limit"),
        invisible_duration: Some(clock::to_wire(args.invisible)),
        auto_renew: false,
        long_polling_timeout: Some(clock::to_wire(args.long_poll)),
        attempt_id: None,
    }
}

/// Reads one answer to its end; each message is shown at once. An empty poll is no failure.
pub(super) async fn receive(
    client: &mut Client,
    request: tonic::Request<v2::ReceiveMessageRequest>,
    mut seen: impl FnMut(&v2::Message),
) -> Result<Vec<v2::Message>, String> {
    use v2::receive_message_response::Content;
    let answer = client.rpc.receive_message(request).await;
    let mut stream = answer.map_err(|status| connection::failure(&status))?.into_inner();
    let mut messages = Vec::new();
    let mut verdict = Err("answer without status".to_owned());
    loop {
        match stream.message().await {
            Ok(None) => break,
            Ok(Some(part)) => match part.content {
                Some(Content::Message(message)) => {
                    seen(&message);
                    messages.push(message);
                }
                Some(Content::Status(status)) if is_empty_poll(&status) => verdict = Ok(()),
                Some(Content::Status(status)) => verdict = connection::verdict(Some(&status)),
                Some(Content::DeliveryTimestamp(_)) | None => {}
            },
            Err(status) => return Err(connection::failure(&status)),
        }
    }
    verdict.map(|()| messages)
}

fn is_empty_poll(status: &v2::Status) -> bool {
    status.code == v2::Code::MessageNotFound as i32
}

/// What acknowledges a message.
pub(super) fn entry(message: &v2::Message) -> v2::AckMessageEntry {
    let system = message.system_properties.as_ref();
    v2::AckMessageEntry {
        message_id: system.map(|system| system.message_id.clone()).unwrap_or_default(),
        receipt_handle: system.and_then(|s| s.receipt_handle.clone()).unwrap_or_default(),
        lite_topic: None,
    }
}

/// Acknowledges; the name of the first failure comes back.
pub(super) async fn ack(
    client: &Client,
    group: &ConsumerGroup,
    topic: &Topic,
    entries: Vec<v2::AckMessageEntry>,
) -> Result<(), String> {
    let request = client.request(v2::AckMessageRequest {
        group: Some(group.to_resource()),
        topic: Some(topic.to_resource()),
        entries,
    });
    let mut rpc = client.rpc.clone();
    let deadline = client.timeout() + Duration::from_secs(1);
    let answer = match time::timeout(deadline, rpc.ack_message(request)).await {
        Ok(answer) => answer.map_err(|status| connection::failure(&status))?.into_inner(),
        Err(_) => return Err("no answer".into()),
    };
    connection::verdict(answer.status.as_ref())?;
    answer.entries.iter().try_for_each(|entry| connection::verdict(entry.status.as_ref()))
}
