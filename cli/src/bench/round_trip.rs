//! From a send to the arrival at a consumer that waits for it, one message at a time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Args;
use proto::{SendMessageRequest, v2};
use tokio::{sync::mpsc, task::JoinSet, time};

use super::{
    connection::Client,
    consume::{self, ConsumeArgs},
    load::LoadArgs,
    produce,
    recorder::{Latencies, Percentiles},
    template::{Run, Stamp},
    units,
};

/// Samples that are not counted, before those which are.
const WARM_UP: u64 = 10;
/// A message that takes longer than this has not arrived.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed poll.
const BACKOFF: Duration = Duration::from_millis(50);

#[derive(Clone, Debug, Args)]
pub struct RoundTripArgs {
    #[command(flatten)]
    pub consume: ConsumeArgs,
    /// Messages to send.
    #[arg(long, default_value_t = 200)]
    pub samples: u64,
    /// Rest after each arrival, so that the cluster is idle.
    #[arg(long, value_parser = units::duration, default_value = "20ms")]
    pub pause: Duration,
}

/// What a message's way takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoundTrips {
    /// From the send to its acknowledgement to the producer.
    pub(super) send: Percentiles,
    /// From the send to the consumer.
    pub(super) send_to_receive: Percentiles,
}

struct Arrival {
    number: u64,
    at: Instant,
}

pub(super) async fn run(
    load: &LoadArgs,
    args: &RoundTripArgs,
    sender: &Client,
    waiting: &Client,
    queues: &[v2::MessageQueue],
    run: Run,
) -> Result<RoundTrips> {
    let (arrived, mut arrivals) = mpsc::channel(1024);
    let args = Arc::new(args.clone());
    // A poll for each broker: any of its queues brings what is in the others.
    let mut brokers: Vec<&v2::MessageQueue> = queues.iter().collect();
    brokers.sort_by_key(|queue| broker_name(queue));
    brokers.dedup_by_key(|queue| broker_name(queue));
    let mut consumers = JoinSet::new();
    for queue in brokers {
        let client = waiting.clone();
        let topic = load.topic.clone();
        let (args, queue, arrived) = (Arc::clone(&args), queue.clone(), arrived.clone());
        consumers.spawn(async move {
            let consumer = Consumer { client, topic, args, queue, run };
            consumer.run(arrived).await;
        });
    }
    drop(arrived);
    // The consumers end with the set.
    measure(load, &args, sender, run, &mut arrivals).await
}

fn broker_name(queue: &v2::MessageQueue) -> String {
    queue.broker.as_ref().map(|broker| broker.name.clone()).unwrap_or_default()
}

async fn measure(
    load: &LoadArgs,
    args: &RoundTripArgs,
    sender: &Client,
    run: Run,
    arrivals: &mut mpsc::Receiver<Arrival>,
) -> Result<RoundTrips> {
    let template = produce::template(load, run, 0)?;
    let mut client = sender.clone();
    let (mut sends, mut ways) = (Latencies::new(), Latencies::new());
    for number in 0..WARM_UP + args.samples {
        let due = Instant::now();
        let messages = vec![template.message(Stamp { number, due })];
        let sent = produce::send(&mut client, SendMessageRequest { messages }).await;
        let acknowledged = due.elapsed();
        if let Err(code) = sent {
            bail!("message {number} was not taken: {code}");
        }
        // Before the first the consumers may have to work off what others left in the topic.
        let limit = if number == 0 { args.consume.drain } else { ARRIVAL_TIMEOUT };
        let Ok(at) = time::timeout(limit, arrival(arrivals, number)).await else {
            bail!(
                "message {number} was acknowledged and did not arrive within {} s; if group {} has \
                 a backlog (`mqadmin consumerProgress`), use another --topic or a longer --drain",
                limit.as_secs(),
                args.consume.group
            );
        };
        if number >= WARM_UP {
            sends.record(acknowledged);
            ways.record(at?.saturating_duration_since(due));
        }
        time::sleep(args.pause).await;
    }
    match (sends.summary(), ways.summary()) {
        (Some(send), Some(send_to_receive)) => Ok(RoundTrips { send, send_to_receive }),
        _ => bail!("--samples is at least 1"),
    }
}

async fn arrival(arrivals: &mut mpsc::Receiver<Arrival>, number: u64) -> Result<Instant> {
    loop {
        match arrivals.recv().await {
            Some(arrival) if arrival.number == number => return Ok(arrival.at),
            // An earlier one that came twice.
            Some(_) => {}
            None => bail!("the consumers ended"),
        }
    }
}

struct Consumer {
    client: Client,
    topic: proto::Topic,
    args: Arc<RoundTripArgs>,
    queue: v2::MessageQueue,
    run: Run,
}

impl Consumer {
    async fn run(mut self, arrived: mpsc::Sender<Arrival>) {
        let consume = self.args.consume.clone();
        loop {
            let request = consume::receive_request(&consume, self.queue.clone());
            let timeout = consume.long_poll + self.client.timeout();
            let request = self.client.request_within(request, timeout);
            let run = self.run;
            let mut full = false;
            let received = consume::receive(&mut self.client, request, |message| {
                let at = Instant::now();
                if let Some(stamp) = run.read(&message.body) {
                    full |= arrived.try_send(Arrival { number: stamp.number, at }).is_err();
                }
            });
            let Ok(messages) = received.await else {
                time::sleep(BACKOFF).await;
                continue;
            };
            // One message is under way at a time: nobody listens any more.
            if full {
                return;
            }
            if !messages.is_empty() {
                let entries = messages.iter().map(consume::entry).collect();
                // What is not acknowledged comes again and is known by its number.
                let _ = consume::ack(&self.client, &consume.group, &self.topic, entries).await;
            }
        }
    }
}
