//! A topic that lives in two broker groups, while one of them is gone.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]
#![allow(clippy::print_stderr, reason = "measured figures are printed for the reader")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use jepsen::{Anomaly, Fate, Message};
use proto::v2::receive_message_response::Content;
use proto::{admin, v2};
use tests::cluster::{DRAIN, ELECTION};
use tests::producer::normal_message;
use tests::rpc::{DEADLINE, Rpc, duration, resource};
use tests::{Cluster, Failure, eventually};

const TOPIC: &str = "orders";
const AUDIT: &str = "audit";
const MESSAGE_GROUPS: u32 = 8;
const SENDERS: usize = 4;
const INVISIBLE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// What was sent and consumed, by message group.
#[derive(Default)]
struct Book {
    /// Acknowledged sends; the next number.
    sent: BTreeMap<u32, u32>,
    /// What became of sends that failed.
    failures: Vec<(u32, Failure)>,
    /// The broker group that each message group came from.
    placed: BTreeMap<u32, String>,
    /// An ack was sent.
    left: BTreeMap<u32, BTreeSet<u32>>,
}

impl Book {
    /// Nothing overtakes in a message group, which stays where it is.
    fn deliver(&mut self, broker: &str, batch: &[v2::Message]) {
        let mut before = BTreeSet::new();
        for message in batch {
            let (group, number) = name_of(&message.body);
            let placed = self.placed.entry(group).or_insert_with(|| broker.to_owned());
            assert_eq!(placed, broker, "message group {group} has moved");
            let left = self.left.entry(group).or_default();
            let missing = (0..number).find(|n| !left.contains(n) && !before.contains(&(group, *n)));
            assert_eq!(missing, None, "{group}-{number} overtook it");
            before.insert((group, number));
        }
    }

    fn acknowledged(&self, group: u32) -> u32 {
        self.sent.get(&group).copied().unwrap_or(0)
    }

    fn consumed(&self, group: u32) -> usize {
        self.left.get(&group).map_or(0, BTreeSet::len)
    }

    /// The message groups that live in a broker group.
    fn of(&self, broker: &str) -> Vec<u32> {
        let here = self.placed.iter().filter(|(_, placed)| *placed == broker);
        here.map(|(group, _)| *group).collect()
    }
}

fn name_of(body: &[u8]) -> (u32, u32) {
    let text = str::from_utf8(body).expect("bodies are text");
    let (group, number) = text.split_once('-').expect("bodies are <group>-<number>");
    (group.parse().expect("a number"), number.parse().expect("a number"))
}

#[derive(Default)]
struct Scene {
    book: Mutex<Book>,
    stop: AtomicBool,
    finished: AtomicBool,
}

impl Scene {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("whoever panics ends the test")
    }
}

/// Sends the messages of one group, each until it is stored, through these access points.
async fn produce(rpcs: Vec<Rpc>, scene: Arc<Scene>, group: u32) {
    let mut at = 0;
    for number in 0.. {
        let id = Message::new(1000 + group, number);
        let mut message = normal_message(TOPIC, id, format!("{group}-{number}").into());
        let system = message.system_properties.as_mut().expect("they are set");
        system.message_type = v2::MessageType::Fifo.into();
        system.message_group = Some(format!("group-{group}"));
        loop {
            if scene.stop.load(Ordering::Relaxed) {
                return;
            }
            let rpc: &Rpc = &rpcs[at % rpcs.len()];
            match rpc.send(std::slice::from_ref(&message), DEADLINE).await {
                Ok(_) => break,
                Err(failure) => {
                    scene.book().failures.push((group, failure));
                    at += 1;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        scene.book().sent.insert(group, number + 1);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Consumes in order what one broker group has.
async fn consume(rpcs: Vec<Rpc>, scene: Arc<Scene>, broker: String) {
    let (mut at, mut calls) = (0, 0);
    while !scene.finished.load(Ordering::Relaxed) {
        let rpc = &rpcs[at % rpcs.len()];
        let attempt = format!("{}-{calls}", rpc.client_id());
        let Ok(batch) = receive(rpc, &broker, &attempt).await else {
            at += 1;
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        calls += 1;
        scene.book().deliver(&broker, &batch);
        for message in &batch {
            let (group, number) = name_of(&message.body);
            scene.book().left.entry(group).or_default().insert(number);
            while !acked(&rpcs[at % rpcs.len()], message).await {
                at += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn receive(rpc: &Rpc, broker: &str, attempt: &str) -> Result<Vec<v2::Message>, Failure> {
    let queue = v2::MessageQueue {
        topic: Some(resource(TOPIC)),
        id: -1,
        broker: Some(v2::Broker { name: broker.into(), ..Default::default() }),
        ..Default::default()
    };
    let request = v2::ReceiveMessageRequest {
        group: Some(resource(AUDIT)),
        message_queue: Some(queue),
        batch_size: 8,
        invisible_duration: Some(duration(INVISIBLE)),
        attempt_id: Some(attempt.to_owned()),
        ..Default::default()
    };
    let mut stream = rpc.receive(request, POLL).await?;
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

/// Whether it is acknowledged, or comes again.
async fn acked(rpc: &Rpc, message: &v2::Message) -> bool {
    let system = message.system_properties.clone().unwrap_or_default();
    let entry = v2::AckMessageEntry {
        message_id: system.message_id,
        receipt_handle: system.receipt_handle.unwrap_or_default(),
        ..Default::default()
    };
    let codes = [v2::Code::Ok, v2::Code::InvalidReceiptHandle].map(i32::from);
    rpc.ack(AUDIT, TOPIC, vec![entry])
        .await
        .is_ok_and(|entries| codes.contains(&entries[0].status.as_ref().map_or(0, |s| s.code)))
}

/// Waits until each of these message groups has that many more acknowledged sends.
async fn all_go_on(scene: &Scene, groups: &[u32], more: u32) {
    let before: Vec<_> = groups.iter().map(|group| scene.book().acknowledged(*group)).collect();
    eventually("sends of these message groups go on", ELECTION, async || {
        let behind: Vec<_> = (groups.iter().zip(&before))
            .filter(|(group, before)| scene.book().acknowledged(**group) < **before + more)
            .collect();
        if behind.is_empty() { Ok(()) } else { Err(format!("{behind:?} are behind")) }
    })
    .await;
}

async fn put_ordered_group(cluster: &Cluster) {
    let config = admin::GroupConfig {
        group: AUDIT.into(),
        fifo: true,
        max_attempts: 17,
        ..Default::default()
    };
    cluster.consumer_group(config).await;
}

/// Message groups stay where they are whatever happens: while a broker group has no leader, sends of
/// its message groups are not done, all others go on, and order holds throughout. That a NameServer
/// starts anew meanwhile changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn order_holds_while_leaders_and_a_whole_group_are_gone() {
    let cluster = Cluster::of(3).groups(2).start().await;
    cluster.topic_of(TOPIC, 2, v2::MessageType::Fifo).await;
    put_ordered_group(&cluster).await;
    let scene = Arc::new(Scene::default());
    let rpcs = |name: &str| -> Vec<Rpc> {
        // Nobody depends on a broker that is about to be killed for more than one attempt.
        cluster.access_points().into_iter().map(|a| Rpc::with_id(a, name)).collect()
    };
    let mut producers = tokio::task::JoinSet::new();
    for group in 0..MESSAGE_GROUPS {
        producers.spawn(produce(rpcs(&format!("producer-{group}")), Arc::clone(&scene), group));
    }
    let mut consumers = tokio::task::JoinSet::new();
    for group in &cluster.groups {
        let id = format!("consumer-{}", group.name);
        consumers.spawn(consume(rpcs(&id), Arc::clone(&scene), group.name.clone()));
    }
    let all: Vec<u32> = (0..MESSAGE_GROUPS).collect();
    all_go_on(&scene, &all, 5).await;
    eventually("every message group was seen", ELECTION, async || {
        let seen = scene.book().placed.len();
        if seen == all.len() { Ok(()) } else { Err(format!("{seen}")) }
    })
    .await;
    let of_a = scene.book().of("broker-a");
    let of_b = scene.book().of("broker-b");
    assert!(!of_a.is_empty() && !of_b.is_empty(), "both groups have some: {of_a:?}, {of_b:?}");

    let (old, status) = cluster.groups[0].leader().await;
    old.kill();
    all_go_on(&scene, &of_b, 5).await;
    cluster.groups[0].leader_after(status.term).await;
    all_go_on(&scene, &all, 5).await;
    old.start();

    cluster.groups[1].kill();
    // What was under way when it died may have been stored.
    tokio::time::sleep(DEADLINE).await;
    scene.book().failures.clear();
    let stuck: Vec<_> = of_b.iter().map(|group| scene.book().acknowledged(*group)).collect();
    all_go_on(&scene, &of_a, 20).await;
    cluster.nameservers[0].restart();
    all_go_on(&scene, &of_a, 40).await;
    let still: Vec<_> = of_b.iter().map(|group| scene.book().acknowledged(*group)).collect();
    assert_eq!(still, stuck, "no message group went elsewhere");
    let failures = std::mem::take(&mut scene.book().failures);
    let untold: Vec<_> = failures
        .iter()
        .filter(|(group, failure)| {
            !of_b.contains(group) || !matches!(failure, Failure::NotDone { .. })
        })
        // A NameServer that is killed with a request takes the answer with it.
        .filter(|(_, failure)| failure.code() >= 0)
        .collect();
    assert!(untold.is_empty(), "only the dead group's sends fail, as not done: {untold:?}");
    assert!(!failures.is_empty(), "its sends were tried");

    cluster.groups[1].start();
    cluster.groups[1].leader().await;
    all_go_on(&scene, &all, 10).await;
    scene.stop.store(true, Ordering::Relaxed);
    producers.join_all().await;
    eventually("everything is consumed", DRAIN, async || {
        while let Some(ended) = consumers.try_join_next() {
            ended.expect("consumers find nothing wrong");
        }
        let book = scene.book();
        let missing: Vec<_> = all
            .iter()
            .map(|group| (*group, book.acknowledged(*group) as usize, book.consumed(*group)))
            .filter(|(_, sent, consumed)| consumed < sent)
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    })
    .await;
    scene.finished.store(true, Ordering::Relaxed);
    while let Some(ended) = consumers.join_next().await {
        ended.expect("consumers find nothing wrong");
    }
    cluster.finish().await;
}

fn puller() -> v2::Settings {
    let entry = v2::SubscriptionEntry {
        topic: Some(resource(TOPIC)),
        expression: Some(v2::FilterExpression {
            r#type: v2::FilterType::Tag.into(),
            expression: "*".into(),
        }),
    };
    v2::Settings {
        client_type: Some(v2::ClientType::PullConsumer.into()),
        pub_sub: Some(v2::settings::PubSub::Subscription(v2::Subscription {
            group: Some(resource(AUDIT)),
            subscriptions: vec![entry],
            ..Default::default()
        })),
        ..Default::default()
    }
}

async fn share(rpc: &Rpc) -> Result<BTreeSet<(String, i32)>, String> {
    let assignments = rpc.query_assignment(TOPIC, AUDIT).await.map_err(|e| format!("{e:?}"))?;
    let queue = |queue: v2::MessageQueue| (queue.broker.unwrap_or_default().name, queue.id);
    Ok(assignments.into_iter().filter_map(|a| a.message_queue).map(queue).collect())
}

/// Consumers that pull share the queues of all groups: a join and a leave show within a second, and
/// go on showing while the group is gone that is usually asked.
#[tokio::test(flavor = "multi_thread")]
async fn the_queues_of_all_groups_are_shared() {
    const REBALANCE: Duration = Duration::from_secs(1);
    let cluster = Cluster::of(1).groups(2).start().await;
    cluster.topic(TOPIC, 2).await;
    let point = cluster.nameservers[0].address;
    let (first, second) = (Rpc::with_id(point, "a"), Rpc::with_id(point, "b"));
    let queues = |names: &[&str]| -> BTreeSet<(String, i32)> {
        names.iter().flat_map(|name| (0..2).map(|id| ((*name).to_owned(), id))).collect()
    };
    let all = queues(&["broker-a", "broker-b"]);
    let is = |wanted: &BTreeSet<_>, found: BTreeSet<_>| {
        if found == *wanted { Ok(()) } else { Err(format!("{found:?}")) }
    };
    let _stream = first.telemetry(puller()).await.expect("settings");
    eventually("alone it has all", ELECTION, async || is(&all, share(&first).await?)).await;
    let other = second.telemetry(puller()).await.expect("settings");
    eventually("each has a half", REBALANCE, async || {
        is(&queues(&["broker-a"]), share(&first).await?)?;
        is(&queues(&["broker-b"]), share(&second).await?)
    })
    .await;
    cluster.groups[0].kill();
    let start = Instant::now();
    is(&queues(&["broker-b"]), share(&second).await.expect("another leader knows"))
        .expect("a half");
    assert!(start.elapsed() < REBALANCE, "{:?}", start.elapsed());
    drop(other);
    second.notify_client_termination(Some(AUDIT)).await.expect("an answer");
    eventually("who is left has all", 3 * REBALANCE, async || is(&all, share(&first).await?)).await;
    cluster.groups[0].start();
    cluster.groups[0].leader().await;
    eventually("and still", REBALANCE, async || is(&all, share(&first).await?)).await;
    cluster.finish().await;
}

/// How long nothing was acknowledged, at most, between two moments.
struct Gap {
    last: Instant,
    longest: Duration,
}

impl Gap {
    fn sent(&mut self) {
        self.longest = self.longest.max(self.last.elapsed());
        self.last = Instant::now();
    }
}

/// Messages without a message group go to whoever can take them: one group's death is hardly seen,
/// its queues stay in the routes, and it has its share again as soon as it is back.
#[tokio::test(flavor = "multi_thread")]
async fn producers_and_consumers_go_on_while_a_group_is_gone() {
    let cluster = Cluster::of(1).groups(2).alone().start().await;
    cluster.topic(TOPIC, 4).await;
    let access = [cluster.nameservers[0].address];
    let producer = tests::Producer::new(&access, TOPIC, &cluster.ledger);
    let gap = Arc::new(Mutex::new(Gap { last: Instant::now(), longest: Duration::ZERO }));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..SENDERS {
        let (producer, gap, stopped) = (producer.clone(), Arc::clone(&gap), stopped.clone());
        senders.spawn(async move {
            while !*stopped.borrow() {
                let fate = producer.send_one().await;
                assert_eq!(fate, Fate::Done, "every send is done in the end");
                gap.lock().expect("whoever panics ends the test").sent();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    }
    let mut reader = tests::Consumer::new(&access, "reader", TOPIC, &cluster.ledger);
    let reading = tokio::spawn({
        let stopped = stopped.clone();
        async move { reader.consume_until(stopped).await }
    });
    let longest = || {
        let mut gap = gap.lock().expect("whoever panics ends the test");
        std::mem::take(&mut gap.longest)
    };
    let sent = || cluster.ledger.acknowledged();
    let more = async |count: usize| {
        let before = sent();
        eventually("sends go on", ELECTION, async || {
            let more = sent() - before;
            if more >= count { Ok(()) } else { Err(format!("{more} of {count}")) }
        })
        .await;
    };
    let share = async |broker: &str| {
        let answer = Rpc::new(access[0])
            .admin()
            .describe_topic(admin::DescribeTopicRequest { topic: TOPIC.into() })
            .await
            .expect("an answer")
            .into_inner();
        let queues = answer.queues.iter().filter(|queue| queue.broker_name == broker);
        queues.map(|queue| queue.max_offset).sum::<u64>()
    };
    more(200).await;
    assert!(share("broker-a").await > 0 && share("broker-b").await > 0, "both have a share");

    longest();
    cluster.groups[1].kill();
    more(200).await;
    let received = cluster.ledger.received("reader");
    more(200).await;
    let killed = longest();
    let route = cluster.nameservers[0].rpc().query_route(TOPIC).await.expect("a route");
    assert_eq!(route.len(), 8, "the dead group's queues stay in the route");
    eventually("the rest is received meanwhile", ELECTION, async || {
        let more = cluster.ledger.received("reader") - received;
        if more >= 100 { Ok(()) } else { Err(format!("{more}")) }
    })
    .await;
    assert!(killed < Duration::from_secs(1), "no send for {killed:?} when a group was killed");
    cluster.groups[1].start();
    cluster.groups[1].leader().await;
    let before = share("broker-b").await;
    eventually("it has its share again", ELECTION, async || {
        let more = share("broker-b").await - before;
        if more > 20 { Ok(()) } else { Err(format!("{more} messages")) }
    })
    .await;

    longest();
    cluster.groups[1].nodes[0].pause();
    more(200).await;
    let paused = longest();
    cluster.groups[1].nodes[0].resume();
    more(50).await;
    eprintln!("longest time without a send: {killed:?} after a kill, {paused:?} after a pause");
    // Some wait for the answer of the one that is paused, but never all of them for long.
    assert!(paused < Duration::from_secs(4), "no send for {paused:?} when a group was paused");
    stop.send(true).expect("they listen");
    senders.join_all().await;
    reading.await.expect("the reader finds nothing wrong");
    cluster.consumer("reader", TOPIC).receives_everything(DRAIN).await;
    let verdict = cluster.ledger.verdict(&["reader"]);
    eprintln!("{verdict}");
    // Dedupe is per group: what was under way when its group died may be stored there and, sent
    // again, in the other one. That is at most one message per sender and fault.
    let twice: BTreeSet<_> = verdict.anomalies.iter().map(sent_twice).collect();
    assert!(twice.len() <= 2 * SENDERS, "{verdict}");
    cluster.finish().await;
}

/// The message that lies in two groups, and is delivered from both.
///
/// # Panics
/// When it is another anomaly.
fn sent_twice(anomaly: &Anomaly) -> Message {
    match anomaly {
        Anomaly::StoredTwice { message, .. }
        | Anomaly::Misplaced { message, .. }
        | Anomaly::Resurrected { message, .. } => *message,
        other => panic!("{other}"),
    }
}
