//! The official Rust client, unmodified, as a program that the tests drive.
//!
//! Reports one JSON object per line on standard output; see `tests/clients/README.md`.

mod serve;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rocketmq::conf::{ClientOption, ProducerOption, SimpleConsumerOption};
use rocketmq::model::common::{FilterExpression, FilterType};
use rocketmq::model::message::MessageBuilder;
use rocketmq::model::transaction::{Transaction, TransactionResolution};
use rocketmq::{Producer, SimpleConsumer};
use serde_json::{json, Value};

struct Options(HashMap<String, String>);

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Self {
        let mut options = HashMap::new();
        let mut arguments = arguments.peekable();
        while let Some(name) = arguments.next() {
            let name = name.strip_prefix("--").expect("options start with --").to_owned();
            let value = arguments.next().expect("every option has a value");
            options.insert(name, value);
        }
        Self(options)
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_else(|| panic!("--{name} is missing"))
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        self.0.get(name).map_or(default, |v| v.parse().expect("a number"))
    }

    fn client(&self) -> ClientOption {
        let mut client = ClientOption::default();
        client.set_access_url(self.text("endpoints"));
        client.set_enable_tls(self.0.get("tls").is_some_and(|v| v == "true"));
        client.set_timeout(Duration::from_secs(3));
        client.set_long_polling_timeout(Duration::from_secs(self.number("await-s", 10)));
        client
    }
}

fn report(started: Instant, mut event: Value) {
    event["at_ms"] = json!(started.elapsed().as_millis() as u64);
    println!("{event}");
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().unwrap_or_default();
    let options = Options::parse(arguments);
    let outcome = match mode.as_str() {
        "produce" => produce(&options).await,
        "transact" => transact(&options).await,
        "simple" => receive(&options).await,
        "serve" => serve::serve(options).await,
        other => Err(format!("unknown mode {other:?}: produce, transact, simple, serve").into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error>;

async fn produce(options: &Options) -> Result<(), Failure> {
    let topic = options.text("topic").to_owned();
    let mut producer_options = ProducerOption::default();
    producer_options.set_topics(vec![topic.clone()]);
    let mut producer = Producer::new(producer_options, options.client())?;
    producer.start().await?;

    let started = Instant::now();
    report(started, json!({"event": "ready"}));
    let producer = Arc::new(producer);
    let deadline = Duration::from_secs(options.number("seconds", 3600));
    for count in 0..options.number("count", u64::MAX) {
        if started.elapsed() > deadline {
            break;
        }
        let body = format!("{}-{count}", options.text("prefix"));
        let mut message = MessageBuilder::builder()
            .set_topic(topic.as_str())
            .set_keys(vec![body.as_str()])
            .set_body(body.clone().into_bytes());
        if let Some(tag) = options.0.get("tag") {
            message = message.set_tag(tag.as_str());
        }
        let message = message.build()?;
        // The client panics where it meets a dead address; a task of its own catches that.
        let sender = Arc::clone(&producer);
        match tokio::spawn(async move { sender.send(message).await }).await {
            Ok(Ok(receipt)) => {
                report(started, json!({"event": "sent", "body": body, "id": receipt.message_id()}))
            }
            Ok(Err(error)) => {
                report(started, json!({"event": "failed", "body": body, "error": error.to_string()}))
            }
            Err(panic) => {
                report(started, json!({"event": "failed", "body": body, "error": panic.to_string()}))
            }
        }
        tokio::time::sleep(Duration::from_millis(options.number("interval-ms", 0))).await;
    }
    report(started, json!({"event": "done"}));
    Ok(())
}

/// How often the checker was asked about each body.
type Asked = Arc<Mutex<HashMap<String, u32>>>;

fn check(asked: &Asked, started: Instant, id: &str, body: &[u8]) -> TransactionResolution {
    let body = String::from_utf8_lossy(body).into_owned();
    report(started, json!({"event": "asked", "body": body, "id": id}));
    let count: u64 = body.rsplit('-').next().and_then(|n| n.parse().ok()).expect("a number");
    let mut asked = asked.lock().expect("no holder panics");
    let times = asked.entry(body).or_default();
    *times += 1;
    match (count % 8 >= 4 && *times == 1, count % 4) {
        (true, _) => TransactionResolution::UNKNOWN,
        (false, 2) => TransactionResolution::COMMIT,
        (false, _) => TransactionResolution::ROLLBACK,
    }
}

async fn transact(options: &Options) -> Result<(), Failure> {
    let topic = options.text("topic").to_owned();
    let mut producer_options = ProducerOption::default();
    producer_options.set_topics(vec![topic.clone()]);
    let started = Instant::now();
    let asked = Asked::default();
    let remembered = Arc::clone(&asked);
    let checker = move |_id, message: rocketmq::model::message::MessageView| {
        check(&remembered, started, message.message_id(), message.body())
    };
    let mut producer =
        Producer::new_transaction_producer(producer_options, options.client(), Box::new(checker))?;
    producer.start().await?;
    report(started, json!({"event": "ready"}));
    let count = options.number("count", 0);
    let body_of = |n: u64| format!("{}-{n}", options.text("prefix"));
    for n in 0..count {
        let body = body_of(n);
        if let Err(error) = one(&producer, &topic, &body, n, started).await {
            report(started, json!({"event": "failed", "body": body, "error": format!("{error:?}")}));
        }
    }
    let deadline = Duration::from_secs(options.number("seconds", 3600));
    let decided = || {
        let asked = asked.lock().expect("no holder panics");
        let times = |n| asked.get(&body_of(n)).copied().unwrap_or(0);
        (0..count).filter(|n| n % 4 >= 2).all(|n| times(n) >= if n % 8 >= 4 { 2 } else { 1 })
    };
    while !decided() && started.elapsed() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if decided() {
        report(started, json!({"event": "decided"}));
    }
    // The last answer is under way. Whoever started this sees when it has arrived, and ends it.
    tokio::time::sleep(deadline.saturating_sub(started.elapsed())).await;
    report(started, json!({"event": "done"}));
    Ok(())
}

async fn one(
    producer: &Producer,
    topic: &str,
    body: &str,
    n: u64,
    started: Instant,
) -> Result<(), Failure> {
    let message = MessageBuilder::transaction_message_builder(topic, body.as_bytes().to_vec());
    let transaction = producer.send_transaction_message(message.build()?).await?;
    report(started, json!({"event": "sent", "body": body, "id": transaction.message_id()}));
    match n % 4 {
        0 => {
            transaction.commit().await?;
            report(started, json!({"event": "committed", "body": body}));
        }
        1 => {
            transaction.rollback().await?;
            report(started, json!({"event": "rolled_back", "body": body}));
        }
        _ => {}
    }
    Ok(())
}

async fn receive(options: &Options) -> Result<(), Failure> {
    let topic = options.text("topic").to_owned();
    let mut consumer_options = SimpleConsumerOption::default();
    consumer_options.set_topics(vec![topic.clone()]);
    consumer_options.set_consumer_group(options.text("group"));
    let mut consumer = SimpleConsumer::new(consumer_options, options.client())?;
    consumer.start().await?;

    let filter = options.0.get("filter").map_or("*", String::as_str);
    let filter = FilterExpression::new(FilterType::Tag, filter);
    let invisible = Duration::from_secs(options.number("invisible-s", 30));
    let leave = options.number("leave-first", 0);
    let wanted = options.number("count", u64::MAX);
    let deadline = Duration::from_secs(options.number("seconds", 3600));

    let started = Instant::now();
    report(started, json!({"event": "ready"}));
    let (mut deliveries, mut acked) = (0, 0);
    while acked < wanted && started.elapsed() < deadline {
        let messages = match consumer.receive_with(&topic, &filter, 32, invisible).await {
            Ok(messages) => messages,
            Err(error) => {
                // An empty poll is an error in this client.
                if !error.to_string().contains("no new message") && !format!("{error:?}").contains("MessageNotFound") {
                    report(started, json!({"event": "receive_failed", "error": format!("{error:?}")}));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                continue;
            }
        };
        for message in messages {
            deliveries += 1;
            report(
                started,
                json!({
                    "event": "received",
                    "body": String::from_utf8_lossy(message.body()),
                    "id": message.message_id(),
                    "tag": message.tag(),
                    "attempt": message.delivery_attempt(),
                }),
            );
            if deliveries <= leave {
                continue;
            }
            match consumer.ack(&message).await {
                Ok(()) => {
                    acked += 1;
                    report(started, json!({"event": "acked", "id": message.message_id()}));
                }
                Err(error) => report(
                    started,
                    json!({"event": "ack_failed", "id": message.message_id(), "error": error.to_string()}),
                ),
            }
        }
    }
    report(started, json!({"event": "done"}));
    Ok(())
}
