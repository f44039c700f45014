//! The mode `serve`: does what each line on standard input says, through the official client.
//!
//! The commands and the answers are described in `tests/clients/README.md`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rocketmq::conf::{ProducerOption, SimpleConsumerOption};
use rocketmq::error::ClientError;
use rocketmq::model::common::{FilterExpression, FilterType};
use rocketmq::model::message::{MessageBuilder, MessageView};
use rocketmq::model::transaction::{Transaction, TransactionResolution};
use rocketmq::{Producer, SimpleConsumer};
use serde_json::{json, Value};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{report, Options};

/// Larger bodies are told by their size.
const TOLD: usize = 4096;

/// A simple consumer and what it asks for, which this library is told with each call.
struct Subscriber {
    consumer: SimpleConsumer,
    topic: String,
    filter: FilterExpression,
}

#[derive(Clone)]
enum Client {
    Producer(Arc<Producer>),
    Simple(Arc<Subscriber>),
}

struct Server {
    options: Options,
    started: Instant,
    clients: Mutex<HashMap<String, Client>>,
    held: Mutex<Vec<Arc<MessageView>>>,
}

enum Failure {
    /// The library said so.
    Refused(ClientError),
    /// The library cannot express it.
    Impossible(&'static str),
    /// The library did not survive it.
    Panicked(String),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Refused(error)
    }
}

fn text<'a>(command: &'a Value, name: &str) -> Option<&'a str> {
    command.get(name).and_then(Value::as_str)
}

fn need<'a>(command: &'a Value, name: &str) -> &'a str {
    text(command, name).unwrap_or_else(|| panic!("{name} is missing in {command}"))
}

fn millis(command: &Value, name: &str) -> Duration {
    let value = command.get(name).and_then(Value::as_u64);
    Duration::from_millis(value.unwrap_or_else(|| panic!("{name} is missing in {command}")))
}

fn view(message: &MessageView) -> Value {
    let mut keys = message.keys().to_vec();
    keys.sort();
    let body = message.body();
    json!({
        "topic": message.topic(),
        "id": message.message_id(),
        "size": body.len(),
        "body": (body.len() <= TOLD).then(|| String::from_utf8_lossy(body)),
        "tag": message.tag(),
        "keys": keys,
        "properties": message.properties(),
        "message_group": message.message_group(),
        "attempt": message.delivery_attempt(),
        "deliver_at_ms": message.delivery_timestamp().map(|seconds| seconds * 1000),
    })
}

impl Server {
    async fn producer(&self, command: &Value) -> Result<Value, Failure> {
        if text(command, "without").is_some() {
            return Err(Failure::Impossible("types ask for the configuration"));
        }
        let mut options = ProducerOption::default();
        if let Some(topics) = command.get("topics").and_then(Value::as_array) {
            options.set_topics(topics.iter().filter_map(Value::as_str).collect());
        }
        let name = need(command, "client").to_owned();
        let mut client = self.options.client();
        if let Some(key) = text(command, "access_key") {
            client.set_access_key(key);
            client.set_secret_key(need(command, "secret_key"));
        }
        let mut producer = match text(command, "verdict") {
            None => Producer::new(options, client)?,
            Some(verdict) => {
                let (verdict, asked, started) = (verdict.to_owned(), name.clone(), self.started);
                let checker = move |_id, message: MessageView| {
                    let event = json!({"event": "asked", "client": asked, "message": view(&message)});
                    report(started, event);
                    match verdict.as_str() {
                        "commit" => TransactionResolution::COMMIT,
                        "rollback" => TransactionResolution::ROLLBACK,
                        _ => TransactionResolution::UNKNOWN,
                    }
                };
                Producer::new_transaction_producer(options, client, Box::new(checker))?
            }
        };
        producer.start().await?;
        self.keep(name, Client::Producer(Arc::new(producer)));
        Ok(json!({}))
    }

    async fn simple(&self, command: &Value) -> Result<Value, Failure> {
        let topic = need(command, "topic").to_owned();
        let without = text(command, "without");
        if without == Some("configuration") {
            return Err(Failure::Impossible("types ask for the configuration"));
        }
        let mut options = SimpleConsumerOption::default();
        if without != Some("subscription") {
            options.set_topics(vec![topic.as_str()]);
        }
        if without != Some("group") {
            options.set_consumer_group(need(command, "group"));
        }
        let mut client = self.options.client();
        client.set_long_polling_timeout(millis(command, "await_ms"));
        let mut consumer = SimpleConsumer::new(options, client)?;
        consumer.start().await?;
        let sql = command.get("sql").and_then(Value::as_bool).unwrap_or(false);
        let kind = if sql { FilterType::Sql } else { FilterType::Tag };
        let filter = FilterExpression::new(kind, text(command, "filter").unwrap_or("*"));
        let subscriber = Subscriber { consumer, topic, filter };
        self.keep(need(command, "client").to_owned(), Client::Simple(Arc::new(subscriber)));
        Ok(json!({}))
    }

    fn keep(&self, name: String, client: Client) {
        self.clients.lock().expect("no holder panics").insert(name, client);
    }

    fn client(&self, command: &Value) -> Client {
        let name = need(command, "client");
        self.clients.lock().expect("no holder panics")[name].clone()
    }

    fn producer_of(&self, command: &Value) -> Arc<Producer> {
        match self.client(command) {
            Client::Producer(producer) => producer,
            Client::Simple(_) => panic!("no producer: {command}"),
        }
    }

    fn subscriber_of(&self, command: &Value) -> Arc<Subscriber> {
        match self.client(command) {
            Client::Simple(subscriber) => subscriber,
            Client::Producer(_) => panic!("no consumer: {command}"),
        }
    }

    async fn send(&self, command: &Value) -> Result<Value, Failure> {
        if command.get("priority").is_some() {
            return Err(Failure::Impossible("this library has no priorities"));
        }
        let body = match command.get("body_size").and_then(Value::as_u64) {
            Some(size) => vec![b'x'; size as usize],
            None => text(command, "body").unwrap_or_default().as_bytes().to_vec(),
        };
        let mut message = MessageBuilder::builder().set_topic(need(command, "topic")).set_body(body);
        if let Some(tag) = text(command, "tag") {
            message = message.set_tag(tag);
        }
        if let Some(keys) = command.get("keys").and_then(Value::as_array) {
            message = message.set_keys(keys.iter().filter_map(Value::as_str).collect());
        }
        if let Some(properties) = command.get("properties").and_then(Value::as_object) {
            let all = properties.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())));
            message = message.set_properties(all.collect::<HashMap<String, String>>());
        }
        if let Some(group) = text(command, "message_group") {
            message = message.set_message_group(group);
        }
        if let Some(at) = command.get("deliver_at_ms").and_then(Value::as_i64) {
            // Whole seconds in this library: the next one, so that it is not early.
            message = message.set_delivery_timestamp(at.div_euclid(1000) + i64::from(at % 1000 != 0));
        }
        let producer = self.producer_of(command);
        let Some(ending) = text(command, "transaction") else {
            let receipt = producer.send(message.build()?).await?;
            return Ok(json!({"id": receipt.message_id()}));
        };
        let message = message.enable_transaction().build()?;
        let transaction = producer.send_transaction_message(message).await?;
        let id = transaction.message_id().to_owned();
        match ending {
            "commit" => transaction.commit().await?,
            "rollback" => transaction.rollback().await?,
            _ => {}
        }
        Ok(json!({"id": id}))
    }

    async fn receive(&self, command: &Value) -> Result<Value, Failure> {
        let subscriber = self.subscriber_of(command);
        let max = command.get("max").and_then(Value::as_i64).unwrap_or(32) as i32;
        let invisible = millis(command, "invisible_ms");
        let (topic, filter) = (&subscriber.topic, &subscriber.filter);
        let messages = subscriber.consumer.receive_with(topic, filter, max, invisible).await?;
        let mut held = self.held.lock().expect("no holder panics");
        let told = messages.into_iter().map(|message| {
            let mut told = view(&message);
            told["token"] = json!(held.len());
            held.push(Arc::new(message));
            told
        });
        Ok(json!({"messages": told.collect::<Vec<Value>>()}))
    }

    async fn ack(&self, command: &Value) -> Result<Value, Failure> {
        let token = command.get("token").and_then(Value::as_u64).expect("a token") as usize;
        let message = Arc::clone(&self.held.lock().expect("no holder panics")[token]);
        self.subscriber_of(command).consumer.ack(&*message).await?;
        Ok(json!({}))
    }

    async fn answer(&self, command: &Value) -> Result<Value, Failure> {
        match need(command, "do") {
            "producer" => self.producer(command).await,
            "simple" => self.simple(command).await,
            "push" => Err(Failure::Impossible("this library has no push consumer")),
            "send" => self.send(command).await,
            "recall" => Err(Failure::Impossible("this library has no recall")),
            "receive" => self.receive(command).await,
            "ack" => self.ack(command).await,
            "change" => Err(Failure::Impossible("this library cannot change an invisible duration")),
            "close" => {
                let name = need(command, "client");
                let client = self.clients.lock().expect("no holder panics").remove(name);
                match client.expect("a client of this name") {
                    Client::Producer(producer) => {
                        Arc::into_inner(producer).expect("nobody uses it").shutdown().await?;
                    }
                    Client::Simple(subscriber) => {
                        let subscriber = Arc::into_inner(subscriber).expect("nobody uses it");
                        subscriber.consumer.shutdown().await?;
                    }
                }
                Ok(json!({}))
            }
            other => panic!("unknown command {other}"),
        }
    }

    fn tell(&self, n: &Value, result: Result<Value, Failure>) {
        let mut answer = match result {
            Ok(answer) => answer,
            Err(Failure::Panicked(what)) => json!({"error": what}),
            Err(Failure::Impossible(what)) => json!({"error": what, "impossible": true}),
            Err(Failure::Refused(error)) => {
                let code = error.context().iter().find(|(name, _)| *name == "code");
                let code = code.map(|(_, name)| name.clone());
                json!({"error": error.to_string(), "code": code})
            }
        };
        answer["event"] = json!("answer");
        answer["n"] = n.clone();
        report(self.started, answer);
    }
}

pub async fn serve(options: Options) -> Result<(), crate::Failure> {
    let started = Instant::now();
    let (clients, held) = (Mutex::default(), Mutex::default());
    let server = Arc::new(Server { options, started, clients, held });
    report(started, json!({"event": "ready"}));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let command: Value = serde_json::from_str(&line)?;
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let (asked, n) = (Arc::clone(&server), command["n"].clone());
            // The client panics where it meets what it does not know; a task of its own catches that.
            let result = tokio::spawn(async move { asked.answer(&command).await }).await;
            server.tell(&n, result.unwrap_or_else(|panic| Err(Failure::Panicked(panic.to_string()))));
        });
    }
    report(started, json!({"event": "done"}));
    Ok(())
}
