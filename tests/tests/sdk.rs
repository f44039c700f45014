//! The client SDK against a real group of three brokers, and across the death of its leader.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]
#![allow(clippy::print_stderr, reason = "measured figures are printed for the reader")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proto::{admin, v2};
use raftmq_client::{
    Begin, ClientConfig, ConsumeResult, FilterExpression, MemoryOffsets, Message, MessageView,
    Producer, PullConsumer, PushConsumer, Resolution, SimpleConsumer, StartFrom,
};
use tests::cluster::{DRAIN, ELECTION};
use tests::{Cluster, eventually, throughout};

/// Sends of the longer tests.
const SENDS: usize = 3000;
const INVISIBLE: Duration = Duration::from_secs(30);

fn config(cluster: &Cluster) -> ClientConfig {
    let all: Vec<String> = cluster.access_points().iter().map(ToString::to_string).collect();
    ClientConfig::new(&all.join(";")).expect("addresses")
}

fn text(message: &MessageView) -> String {
    String::from_utf8_lossy(message.body()).into_owned()
}

/// [`eventually`], for whatever stands in the way.
async fn wait<T, E: Debug>(
    what: &str,
    bound: Duration,
    condition: impl AsyncFn() -> Result<T, E>,
) -> T {
    eventually(what, bound, async || condition().await.map_err(|error| format!("{error:?}"))).await
}

/// What a listener got, and how often.
#[derive(Clone, Default)]
struct Got(Arc<Mutex<BTreeMap<String, u32>>>);

impl Got {
    fn add(&self, text: String) {
        *self.0.lock().expect("no holder panics").entry(text).or_default() += 1;
    }

    fn texts(&self) -> BTreeSet<String> {
        self.0.lock().expect("no holder panics").keys().cloned().collect()
    }

    fn deliveries(&self) -> u32 {
        self.0.lock().expect("no holder panics").values().sum()
    }
}

/// Keeps `listener` called with the messages of a topic.
async fn listen(cluster: &Cluster, group: &str, topic: &str) -> (PushConsumer, Got) {
    let got = Got::default();
    let add = got.clone();
    let consumer = PushConsumer::builder(config(cluster), group)
        .subscribe(topic, "*")
        .listen(move |message| {
            add.add(text(&message));
            async { ConsumeResult::Success }
        })
        .await
        .expect("it starts");
    (consumer, got)
}

/// Every send that the SDK said is stored arrives, none fails, and what was acknowledged does not
/// come again, although the leader dies in the middle: awaited and submitted sends alike.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_leader_dies() {
    let cluster = Cluster::of(3).nameservers(2).start().await;
    cluster.topic("orders", 8).await;
    let producer =
        Producer::builder(config(&cluster)).topic("orders").build().await.expect("it starts");
    let (consumer, got) = listen(&cluster, "billing", "orders").await;

    let submitting = {
        let producer = producer.clone();
        tokio::spawn(async move {
            let mut sendings = Vec::new();
            for n in 0..SENDS {
                let message = Message::new("orders", format!("submitted-{n}"));
                sendings.push(producer.submit(message).await.expect("there is room"));
                if n % 50 == 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            for sending in sendings {
                sending.await.expect("stored in the end");
            }
        })
    };
    let awaiting = {
        let producer = producer.clone();
        tokio::spawn(async move {
            let (mut gap, mut last) = (Duration::ZERO, Instant::now());
            for n in 0..SENDS / 10 {
                let message = Message::new("orders", format!("awaited-{n}"));
                producer.send(message).await.expect("stored in the end");
                gap = gap.max(last.elapsed());
                last = Instant::now();
                tokio::time::sleep(Duration::from_millis(4)).await;
            }
            gap
        })
    };
    wait("a quarter arrived", DRAIN, async || {
        let count = got.texts().len();
        if count > SENDS / 4 { Ok(()) } else { Err(count) }
    })
    .await;
    let (leader, status) = cluster.leader().await;
    leader.kill();
    cluster.leader_after(status.term).await;
    submitting.await.expect("no send failed");
    let gap = awaiting.await.expect("no send failed");
    eprintln!("the longest gap between two awaited sends: {gap:?}");

    let expected: BTreeSet<String> = (0..SENDS)
        .map(|n| format!("submitted-{n}"))
        .chain((0..SENDS / 10).map(|n| format!("awaited-{n}")))
        .collect();
    wait("everything arrived", DRAIN, async || {
        let missing = expected.difference(&got.texts()).count();
        if missing == 0 { Ok(()) } else { Err(missing) }
    })
    .await;
    assert_eq!(got.texts(), expected, "nothing that nobody sent");
    let deliveries = usize::try_from(got.deliveries()).expect("few");
    eprintln!("{} deliveries of {} messages", deliveries, expected.len());
    producer.close().await;
    assert!(consumer.close().await, "no acknowledgement is lost");
    wait("the group holds nothing", ELECTION, async || match cluster.in_flight("billing").await {
        Some(0) => Ok(()),
        other => Err(other),
    })
    .await;

    // What was acknowledged is not delivered again to anybody of the group.
    let (late, again) = listen(&cluster, "billing", "orders").await;
    throughout("nothing comes again", Duration::from_secs(2), async || match again.deliveries() {
        0 => Ok(()),
        _ => Err(format!("{:?}", again.texts())),
    })
    .await;
    late.close().await;
    leader.start();
    cluster.finish().await;
}

/// Ordered messages that were submitted in order are consumed in order, although the leader dies.
#[tokio::test(flavor = "multi_thread")]
async fn order_survives_the_leader() {
    const GROUPS: usize = 10;
    const EACH: usize = 60;
    let cluster = Cluster::of(3).start().await;
    cluster.topic_of("steps", 4, v2::MessageType::Fifo).await;
    let config_of_group =
        admin::GroupConfig { group: "clerk".to_owned(), fifo: true, ..Default::default() };
    let (leader, status) = cluster.leader().await;
    cluster.consumer_group(config_of_group).await;

    let producer =
        Producer::builder(config(&cluster)).topic("steps").build().await.expect("it starts");
    let seen: Arc<Mutex<BTreeMap<String, Vec<usize>>>> = Arc::default();
    let see = Arc::clone(&seen);
    let consumer = PushConsumer::builder(config(&cluster), "clerk")
        .subscribe("steps", "*")
        .listen(move |message| {
            let group = message.message_group().expect("it is ordered").to_owned();
            let step = text(&message).parse().expect("a number");
            let mut seen = see.lock().expect("no holder panics");
            let steps = seen.entry(group).or_default();
            // A repeated delivery is legal; a step that overtakes another is not.
            if !steps.contains(&step) {
                steps.push(step);
            }
            async { ConsumeResult::Success }
        })
        .await
        .expect("it starts");
    let mut sendings = Vec::new();
    for step in 0..EACH {
        for group in 0..GROUPS {
            let message =
                Message::new("steps", step.to_string()).message_group(format!("order-{group}"));
            sendings.push(producer.submit(message).await.expect("there is room"));
        }
        if step == EACH / 2 {
            leader.kill();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for sending in sendings {
        sending.await.expect("stored in the end");
    }
    cluster.leader_after(status.term).await;
    wait("every step is done", DRAIN, async || {
        let seen = seen.lock().expect("no holder panics");
        let count: usize = seen.values().map(Vec::len).sum();
        if count == GROUPS * EACH { Ok(()) } else { Err(count) }
    })
    .await;
    for (group, steps) in &*seen.lock().expect("no holder panics") {
        assert!(steps.is_sorted(), "{group}: {steps:?}");
    }
    assert!(consumer.close().await);
    leader.start();
    cluster.finish().await;
}

/// Delayed messages come when they are due and not before, a recalled one never; commits become
/// visible, rollbacks never, and open transactions as the checker says. The leader dies in between.
#[tokio::test(flavor = "multi_thread")]
async fn delays_and_transactions_survive_the_leader() {
    let cluster = Cluster::of(3).set("transaction.timeout", "1s").start().await;
    cluster.topic_of("later", 2, v2::MessageType::Delay).await;
    cluster.topic_of("transfers", 2, v2::MessageType::Transaction).await;
    let producer = Producer::builder(config(&cluster))
        .topic("later")
        .topic("transfers")
        .checker(|message| async move {
            if &message.body()[..] == b"open, done" {
                Resolution::Commit
            } else {
                Resolution::Rollback
            }
        })
        .build()
        .await
        .expect("it starts");

    let due = Duration::from_secs(4);
    let sent = Instant::now();
    let keep =
        producer.send(Message::new("later", "keep").deliver_after(due)).await.expect("stored");
    let drop =
        producer.send(Message::new("later", "drop").deliver_after(due)).await.expect("stored");
    assert!(keep.recall_handle().is_some());
    let half = async |body: &'static str| {
        producer.send_transactional(Message::new("transfers", body)).await.expect("stored")
    };
    let (commit, rollback) = (half("commit").await, half("rollback").await);
    // Nobody ends these: the cluster asks.
    let _open = (half("open, done").await, half("open, undone").await);

    let (leader, status) = cluster.leader().await;
    leader.kill();
    let handle = drop.recall_handle().expect("it is delayed");
    let recalled =
        wait("a definite answer", ELECTION, async || producer.recall("later", handle).await).await;
    assert_eq!(recalled, drop.message_id());
    wait("committed", ELECTION, async || commit.commit().await).await;
    wait("rolled back", ELECTION, async || rollback.rollback().await).await;
    cluster.leader_after(status.term).await;

    let (transfers, moved) = listen(&cluster, "bank", "transfers").await;
    let (later, arrived) = listen(&cluster, "diary", "later").await;
    wait("the delayed message is there", DRAIN, async || match arrived.deliveries() {
        0 => Err(()),
        _ => Ok(()),
    })
    .await;
    assert!(sent.elapsed() >= due, "never early");
    let expected: BTreeSet<String> = ["commit".to_owned(), "open, done".to_owned()].into();
    wait("transactions ended", DRAIN, async || {
        let moved = moved.texts();
        if moved == expected { Ok(()) } else { Err(moved) }
    })
    .await;
    let kept: BTreeSet<String> = ["keep".to_owned()].into();
    throughout("and nothing else", Duration::from_secs(1), async || {
        let seen = (moved.texts(), arrived.texts());
        if seen == (expected.clone(), kept.clone()) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    producer.close().await;
    assert!(transfers.close().await && later.close().await);
    leader.start();
    cluster.finish().await;
}

/// Filters, acknowledgements and where a group begins, through one NameServer after the other.
#[tokio::test(flavor = "multi_thread")]
async fn simple_consumers_choose_what_they_get() {
    let cluster = Cluster::of(3).nameservers(2).start().await;
    cluster.topic("orders", 2).await;
    let producer = Producer::builder(config(&cluster))
        .topic("orders")
        .compress_from(1000)
        .build()
        .await
        .expect("it starts");
    let send = async |body: String, tag: &str, price: u32| {
        let message = Message::new("orders", body).tag(tag).property("price", price.to_string());
        producer.send(message).await.expect("stored");
    };
    let long = "x".repeat(5000);
    send(long.clone(), "a", 10).await;
    send("b-20".to_owned(), "b", 20).await;
    send("c-30".to_owned(), "c", 30).await;
    cluster.nameservers[0].kill();

    let receives = async |group: &str, filter: FilterExpression, start: StartFrom| {
        let consumer = SimpleConsumer::builder(config(&cluster), group)
            .subscribe("orders", filter)
            .await_duration(Duration::from_secs(5))
            .start_from(start)
            .build()
            .await
            .expect("it starts");
        if start == StartFrom::Last {
            send("after".to_owned(), "a", 1).await;
        }
        let (mut all, begun) = (BTreeSet::new(), Instant::now());
        while begun.elapsed() < Duration::from_secs(1) || all.is_empty() {
            let got = consumer.receive(32, INVISIBLE).await.expect("received");
            for result in consumer.ack_all(&got).await {
                result.expect("acknowledged");
            }
            all.extend(got.iter().map(text));
            assert!(begun.elapsed() < DRAIN, "{group} got nothing");
        }
        consumer.close().await;
        all
    };
    let tags = receives("tags", "a || b".into(), StartFrom::Server).await;
    assert_eq!(tags, [long, "b-20".to_owned()].into());
    let sql = FilterExpression::sql("price > 15 AND TAGS <> 'b'");
    assert_eq!(receives("sql", sql, StartFrom::First).await, ["c-30".to_owned()].into());
    let late = receives("late", FilterExpression::all(), StartFrom::Last).await;
    assert_eq!(late, ["after".to_owned()].into());
    producer.close().await;
    cluster.finish().await;
}

/// Members of a group that pull share the queues, go on from what was committed when the leader or
/// one of them goes, and read everything; broadcasting clients read everything each.
#[tokio::test(flavor = "multi_thread")]
async fn pulling_goes_on_after_the_leader() {
    const MESSAGES: usize = 400;
    let cluster = Cluster::of(3).start().await;
    cluster.topic("audit", 4).await;
    let producer =
        Producer::builder(config(&cluster)).topic("audit").build().await.expect("it starts");
    let send = async |from: usize| {
        for n in from..from + MESSAGES / 2 {
            producer.send_one_way(Message::new("audit", n.to_string())).await.expect("room");
        }
        producer.flush().await;
    };
    send(0).await;
    let member = async || {
        let builder = PullConsumer::builder(config(&cluster), "readers").subscribe("audit", "*");
        builder.build().await.expect("it starts")
    };
    let (one, other) = (member().await, member().await);
    wait("the queues are shared", DRAIN, async || {
        let (mine, yours) = (one.assigned(), other.assigned());
        let apart = mine.iter().all(|queue| !yours.contains(queue));
        if apart && mine.len() == 2 && yours.len() == 2 { Ok(()) } else { Err((mine, yours)) }
    })
    .await;
    let got = Got::default();
    let read = async |consumer: &PullConsumer, until: usize| {
        let start = Instant::now();
        while got.texts().len() < until {
            let polled = consumer.poll(Duration::from_secs(1)).await.expect("polled");
            polled.iter().for_each(|message| got.add(text(message)));
            let _ = consumer.commit().await;
            assert!(start.elapsed() < DRAIN, "{} of {until}", got.texts().len());
        }
    };
    let (leader, status) = cluster.leader().await;
    tokio::join!(read(&one, MESSAGES / 2), read(&other, MESSAGES / 2));
    wait("committed", ELECTION, async || one.commit().await.and(other.commit().await)).await;
    leader.kill();
    cluster.leader_after(status.term).await;
    // The other one gets everything that is left.
    one.close().await;
    send(MESSAGES / 2).await;
    read(&other, MESSAGES).await;
    wait("committed", ELECTION, async || other.commit().await).await;
    eprintln!("{} deliveries of {MESSAGES} messages", got.deliveries());
    other.close().await;

    let late = member().await;
    assert!(late.poll(Duration::from_secs(2)).await.expect("polled").is_empty(), "all committed");
    late.close().await;
    for begin in [Begin::First, Begin::Last] {
        let all = PullConsumer::builder(config(&cluster), "screens")
            .subscribe("audit", "*")
            .begin(begin)
            .broadcast(MemoryOffsets::default())
            .build()
            .await
            .expect("it starts");
        let mut seen = BTreeSet::new();
        loop {
            let polled = all.poll(Duration::from_secs(2)).await.expect("polled");
            if polled.is_empty() {
                break;
            }
            seen.extend(polled.iter().map(text));
        }
        assert_eq!(seen.len(), if begin == Begin::First { MESSAGES } else { 0 });
        all.close().await;
    }
    producer.close().await;
    leader.start();
    cluster.finish().await;
}
