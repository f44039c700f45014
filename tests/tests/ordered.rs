//! Order per message group, and dead letters, while leaders are killed.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use jepsen::Message;
use proto::v2::receive_message_response::Content;
use proto::{admin, v2};
use tests::cluster::ELECTION;
use tests::producer::normal_message;
use tests::rpc::{DEADLINE, Rpc, duration, resource};
use tests::{Cluster, Failure, eventually};

const GROUPS: u32 = 6;
const CONSUMERS: usize = 3;
const KILLS: usize = 4;
const MAX_ATTEMPTS: u32 = 3;
const INVISIBLE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);
/// For everything to be consumed after the last kill.
const DRAIN: Duration = Duration::from_secs(60);

/// Message group and number in it.
type Name = (u32, u32);

fn name_of(body: &[u8]) -> Name {
    let text = str::from_utf8(body).expect("bodies are text");
    let (group, number) = text.split_once('-').expect("bodies are <group>-<number>");
    (group.parse().expect("a number"), number.parse().expect("a number"))
}

/// No consumer can process it.
fn is_poisoned((_, number): Name) -> bool {
    number % 13 == 4
}

/// Its consumer says so itself, rather than let the attempts be used up.
fn is_given_up((_, number): Name) -> bool {
    number % 26 == 4
}

/// What consumers may rely on, checked as they go.
#[derive(Default)]
struct Book {
    /// An ack or a farewell was sent, or the last attempt failed.
    left: BTreeSet<Name>,
    /// The server has confirmed it.
    done: BTreeSet<Name>,
    deliveries: usize,
    repeats: usize,
}

impl Book {
    /// A batch has arrived: nothing that is done comes again, and nothing overtakes.
    fn deliver(&mut self, batch: &[v2::Message]) {
        let mut before = BTreeSet::new();
        for message in batch {
            let name = name_of(&message.body);
            assert!(!self.done.contains(&name), "{name:?} was done and comes again");
            let missing = (0..name.1)
                .map(|number| (name.0, number))
                .find(|earlier| !self.left.contains(earlier) && !before.contains(earlier));
            assert!(missing.is_none(), "{name:?} overtook {missing:?}");
            before.insert(name);
            self.deliveries += 1;
            self.repeats += usize::from(attempt_of(message) > 1);
        }
    }
}

fn attempt_of(message: &v2::Message) -> u32 {
    let attempt = message.system_properties.as_ref().and_then(|s| s.delivery_attempt);
    attempt.and_then(|attempt| u32::try_from(attempt).ok()).expect("deliveries are counted")
}

fn entry_of(message: &v2::Message) -> v2::AckMessageEntry {
    let system = message.system_properties.clone().unwrap_or_default();
    v2::AckMessageEntry {
        message_id: system.message_id,
        receipt_handle: system.receipt_handle.unwrap_or_default(),
        ..Default::default()
    }
}

struct Scene {
    book: Mutex<Book>,
    sent: AtomicUsize,
    stop: AtomicBool,
    finished: AtomicBool,
}

impl Scene {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("whoever panics ends the test")
    }
}

/// One client, at whichever access point answers.
struct Client {
    rpcs: Vec<Rpc>,
    at: usize,
    calls: u64,
}

impl Client {
    fn new(cluster: &Cluster, id: &str) -> Self {
        let rpcs = cluster.access_points().into_iter().map(|a| Rpc::with_id(a, id)).collect();
        Self { rpcs, at: 0, calls: 0 }
    }

    fn rpc(&self) -> &Rpc {
        &self.rpcs[self.at % self.rpcs.len()]
    }

    async fn move_on(&mut self) {
        self.at += 1;
        tokio::time::sleep(PAUSE).await;
    }

    /// Sends until it is stored.
    async fn send(&mut self, message: &v2::Message) {
        while self.rpc().send(std::slice::from_ref(message), DEADLINE).await.is_err() {
            self.move_on().await;
        }
    }

    /// One receive call, under one attempt id until it is answered.
    async fn receive(&mut self, group: &str, topic: &str, until: &AtomicBool) -> Vec<v2::Message> {
        self.calls += 1;
        let attempt = format!("{}-{}", self.rpc().client_id(), self.calls);
        while !until.load(Ordering::Relaxed) {
            match self.attempt(group, topic, &attempt).await {
                Ok(messages) => return messages,
                Err(_) => self.move_on().await,
            }
        }
        Vec::new()
    }

    async fn attempt(
        &self,
        group: &str,
        topic: &str,
        attempt: &str,
    ) -> Result<Vec<v2::Message>, Failure> {
        let queue = v2::MessageQueue {
            topic: Some(resource(topic)),
            id: -1,
            broker: Some(v2::Broker { name: "broker-a".into(), ..Default::default() }),
            ..Default::default()
        };
        let request = v2::ReceiveMessageRequest {
            group: Some(resource(group)),
            message_queue: Some(queue),
            batch_size: 8,
            invisible_duration: Some(duration(INVISIBLE)),
            attempt_id: Some(attempt.to_owned()),
            ..Default::default()
        };
        let mut stream = self.rpc().receive(request, POLL).await?;
        let (mut messages, mut status) = (Vec::new(), None);
        while let Some(part) = stream.message().await.map_err(|e| Failure::of_error(&e))? {
            match part.content {
                Some(Content::Status(told)) => status = Some(told),
                Some(Content::Message(message)) => messages.push(message),
                Some(Content::DeliveryTimestamp(_)) | None => {}
            }
        }
        let code = status.as_ref().map(|status| status.code);
        let good = [v2::Code::Ok, v2::Code::MessageNotFound].map(|code| Some(i32::from(code)));
        if good.contains(&code) { Ok(messages) } else { Err(Failure::of_status(status.as_ref())) }
    }

    /// Asks until it is confirmed, or the handle is worth nothing any more.
    async fn confirmed(&mut self, end: &End, message: &v2::Message) -> bool {
        let invalid = i32::from(v2::Code::InvalidReceiptHandle);
        loop {
            let entry = entry_of(message);
            let answer = match end {
                End::Ack => match self.rpc().ack("audit", "orders", vec![entry]).await {
                    Ok(entries) => Ok(entries[0].status.as_ref().map_or(0, |status| status.code)),
                    Err(failure) => Err(failure),
                },
                End::GiveUp => self.rpc().give_up("audit", "orders", entry).await,
                End::Nack => {
                    let nack = self.rpc().change_invisible_duration(
                        "audit",
                        "orders",
                        entry,
                        Duration::ZERO,
                    );
                    nack.await.map(|_| v2::Code::Ok.into())
                }
            };
            match answer {
                Ok(code) if code == i32::from(v2::Code::Ok) => return true,
                Ok(code) => assert_eq!(code, invalid, "an end is confirmed or too late"),
                Err(failure) if failure.code() == invalid => (),
                Err(_) => {
                    self.move_on().await;
                    continue;
                }
            }
            return false;
        }
    }
}

enum End {
    Ack,
    GiveUp,
    Nack,
}

async fn produce(mut client: Client, scene: Arc<Scene>, group: u32) {
    let mut number = 0;
    while !scene.stop.load(Ordering::Relaxed) {
        let mut message = normal_message(
            "orders",
            Message::new(1000 + group, number),
            format!("{group}-{number}").into(),
        );
        let system = message.system_properties.as_mut().expect("it has properties");
        system.message_group = Some(format!("group-{group}"));
        system.message_type = v2::MessageType::Fifo.into();
        client.send(&message).await;
        scene.sent.fetch_add(1, Ordering::Relaxed);
        number += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn consume(mut client: Client, scene: Arc<Scene>) {
    while !scene.finished.load(Ordering::Relaxed) {
        let batch = client.receive("audit", "orders", &scene.finished).await;
        scene.book().deliver(&batch);
        // What follows a failure in its message group is given back, in reverse: the block is
        // ready again when its first message is.
        let mut failed: BTreeMap<u32, Vec<&v2::Message>> = BTreeMap::new();
        for message in &batch {
            let name = name_of(&message.body);
            if let Some(after) = failed.get_mut(&name.0) {
                after.push(message);
                continue;
            }
            let attempt = attempt_of(message);
            let end = match () {
                () if !is_poisoned(name) => End::Ack,
                () if is_given_up(name) && attempt > 1 => End::GiveUp,
                () => End::Nack,
            };
            if matches!(end, End::Nack) {
                if attempt >= MAX_ATTEMPTS {
                    scene.book().left.insert(name);
                }
                failed.insert(name.0, vec![message]);
                continue;
            }
            scene.book().left.insert(name);
            if client.confirmed(&end, message).await {
                scene.book().done.insert(name);
            }
        }
        for message in failed.into_values().flat_map(|messages| messages.into_iter().rev()) {
            client.confirmed(&End::Nack, message).await;
        }
    }
}

async fn set_up() -> Cluster {
    let cluster = Cluster::of(3).start().await;
    let (leader, _) = cluster.leader().await;
    let config = admin::TopicConfig {
        topic: "orders".into(),
        queues: 3,
        permission: v2::Permission::ReadWrite.into(),
        accepts: vec![v2::MessageType::Fifo.into()],
    };
    let put = admin::PutTopicRequest { config: Some(config), ..Default::default() };
    let answer = leader.rpc().admin().put_topic(put).await.expect("an answer").into_inner();
    assert_eq!(answer.error, None);
    let config = admin::GroupConfig {
        group: "audit".into(),
        fifo: true,
        max_attempts: MAX_ATTEMPTS,
        ..Default::default()
    };
    cluster.consumer_group(config).await;
    cluster
}

/// Leaders are killed while messages are received, acknowledged, given back and given up: nothing
/// overtakes an unacknowledged message of its group, nothing acknowledged comes again, and each
/// poisoned message becomes one dead letter.
#[tokio::test(flavor = "multi_thread")]
async fn order_and_dead_letters_survive_leaders() {
    let cluster = set_up().await;
    let scene = Arc::new(Scene {
        book: Mutex::default(),
        sent: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        finished: AtomicBool::new(false),
    });
    let mut producers = tokio::task::JoinSet::new();
    for group in 0..GROUPS {
        let client = Client::new(&cluster, &format!("producer-{group}"));
        producers.spawn(produce(client, Arc::clone(&scene), group));
    }
    let mut consumers = tokio::task::JoinSet::new();
    for number in 0..CONSUMERS {
        let client = Client::new(&cluster, &format!("consumer-{number}"));
        consumers.spawn(consume(client, Arc::clone(&scene)));
    }
    for _ in 0..KILLS {
        let (old, status) = cluster.leader().await;
        let before = scene.book().deliveries;
        let moment = Duration::from_millis(proto::clock::wall_now().0 % 700);
        eventually("deliveries go on", ELECTION, async || {
            let more = scene.book().deliveries - before;
            if more > 40 { Ok(()) } else { Err(format!("{more} deliveries")) }
        })
        .await;
        tokio::time::sleep(moment).await;
        old.kill();
        cluster.leader_after(status.term).await;
        old.start();
    }
    scene.stop.store(true, Ordering::Relaxed);
    producers.join_all().await;
    let sent = scene.sent.load(Ordering::Relaxed);
    let start = Instant::now();
    eventually("everything is consumed or given up", DRAIN, async || {
        while let Some(ended) = consumers.try_join_next() {
            ended.expect("consumers find nothing wrong");
        }
        let left = scene.book().left.len();
        if left == sent { Ok(()) } else { Err(format!("{left} of {sent}")) }
    })
    .await;
    let drained = start.elapsed();
    assert!(drained < DRAIN);

    let mut dead: BTreeMap<Name, usize> = BTreeMap::new();
    let expected: BTreeSet<Name> =
        scene.book().left.iter().copied().filter(|name| is_poisoned(*name)).collect();
    let mut undertaker = Client::new(&cluster, "undertaker");
    eventually("the dead letters are read", DRAIN, async || {
        let letters = undertaker.receive("undertaker", "%DLQ%audit", &AtomicBool::new(false)).await;
        for letter in &letters {
            *dead.entry(name_of(&letter.body)).or_default() += 1;
            let system = letter.system_properties.as_ref().expect("it has properties");
            let origin = system.dead_letter_queue.as_ref().expect("dead letters say whence");
            assert_eq!((&*origin.topic, &origin.message_id), ("orders", &system.message_id));
        }
        let entries = letters.iter().map(entry_of).collect();
        let _ = undertaker.rpc().ack("undertaker", "%DLQ%audit", entries).await;
        if letters.is_empty() && dead.len() >= expected.len() {
            return Ok(());
        }
        Err(format!("{} of {}", dead.len(), expected.len()))
    })
    .await;
    scene.finished.store(true, Ordering::Relaxed);
    while let Some(ended) = consumers.join_next().await {
        ended.expect("consumers find nothing wrong");
    }
    assert_eq!(dead.keys().copied().collect::<BTreeSet<_>>(), expected);
    assert!(dead.values().all(|count| *count == 1), "each of them once: {dead:?}");
    let book = std::mem::take(&mut *scene.book());
    assert!(book.repeats > 0, "leaders were killed, so something came again");
    cluster.replicas_agree().await;
    cluster.finish().await;
}
