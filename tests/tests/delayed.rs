//! Delayed messages: on time, once, never when recalled, whoever leads.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]
#![allow(clippy::print_stderr, reason = "measured figures are printed for the reader")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jepsen::{Message, Place};
use proto::clock::{millis, wall_now};
use proto::{Timestamp, admin, v2};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tests::cluster::{DRAIN, ELECTION};
use tests::consumer::{BATCH, Consumer, INVISIBLE};
use tests::producer::normal_message;
use tests::rpc::{DEADLINE, Rpc};
use tests::{Cluster, Failure, Written, body, eventually};

const POLL: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

async fn delay_topic(cluster: &Cluster, name: &str, queues: u32) {
    let config = admin::TopicConfig {
        topic: name.to_owned(),
        queues,
        permission: v2::Permission::ReadWrite.into(),
        accepts: vec![v2::MessageType::Delay.into()],
    };
    let request = admin::PutTopicRequest { config: Some(config), ..Default::default() };
    eventually("a topic is created", ELECTION, async || {
        let (leader, _) = cluster.leader().await;
        let answer = leader.rpc().admin().put_topic(request.clone()).await;
        match answer.map_err(|e| e.to_string())?.into_inner().error {
            None => Ok(()),
            Some(error) => Err(format!("{error:?}")),
        }
    })
    .await;
    for nameserver in &cluster.nameservers {
        eventually("a NameServer knows the topic", ELECTION, async || {
            nameserver.rpc().query_route(name).await.map(|_| ()).map_err(|e| e.to_string())
        })
        .await;
    }
}

fn delayed(topic: &str, number: u32, due: Timestamp, bytes: usize) -> v2::Message {
    let number = Message::new(1, number);
    let mut message = normal_message(topic, number, body::of(number, bytes));
    let properties = message.system_properties.as_mut().expect("it has some");
    properties.message_type = v2::MessageType::Delay.into();
    properties.delivery_timestamp = Some(due.into());
    message
}

fn id_of(message: &v2::Message) -> String {
    message.system_properties.as_ref().expect("it has some").message_id.clone()
}

/// The handle of one message, asked for until the answer is known, with the same message id.
async fn send(rpcs: &[Rpc], message: &v2::Message) -> String {
    let start = Instant::now();
    for turn in 0.. {
        match rpcs[turn % rpcs.len()].send(std::slice::from_ref(message), DEADLINE).await {
            Ok(entries) => return entries[0].recall_handle.clone(),
            Err(Failure::Rejected { code, message }) => panic!("rejected ({code}): {message}"),
            Err(failure) => assert!(start.elapsed() < DRAIN, "{failure}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    unreachable!("it asks for ever")
}

/// The definite answer to a recall: OK, or a code.
async fn recall(rpcs: &[Rpc], topic: &str, handle: &str) -> Result<String, i32> {
    let start = Instant::now();
    for turn in 0.. {
        match rpcs[turn % rpcs.len()].recall(topic, handle).await {
            Ok(id) => return Ok(id),
            Err(Failure::Rejected { code, .. }) => return Err(code),
            Err(failure) => assert!(start.elapsed() < DRAIN, "{failure}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    unreachable!("it asks for ever")
}

/// What arrived: where each message is, and when it was there first.
#[derive(Debug, Default)]
struct Arrived(BTreeMap<String, (BTreeSet<Place>, Timestamp)>);

impl Arrived {
    async fn receive(&mut self, consumer: &mut Consumer) {
        let Ok(got) = consumer.receive(BATCH, INVISIBLE, POLL).await else {
            tokio::time::sleep(PAUSE).await;
            return;
        };
        let now = wall_now();
        for delivery in &got {
            let known = self.0.entry(delivery.id.clone());
            let known = known.or_insert_with(|| (BTreeSet::new(), now));
            known.0.insert(delivery.place.clone());
        }
        if !got.is_empty() {
            // What could not be acked comes again, at the same place.
            let _ = consumer.ack(&got).await;
        }
    }

    fn lateness(&self, id: &str, due: Timestamp) -> Duration {
        let (places, at) = &self.0[id];
        assert_eq!(places.len(), 1, "{id} is there more than once: {places:?}");
        assert!(*at >= due, "{id} was due at {due} and came at {at}");
        at.since(due)
    }
}

fn percentile(mut all: Vec<Duration>, percent: usize) -> Duration {
    all.sort();
    all[(all.len() - 1) * percent / 100]
}

/// Without a fault every message comes after its time and hardly later; those that are taken back
/// do not come.
#[tokio::test(flavor = "multi_thread")]
async fn messages_come_on_time_and_recalled_ones_never() {
    const COUNT: u32 = 400;
    let cluster = Cluster::of(3).start().await;
    delay_topic(&cluster, "later", 4).await;
    let (leader, _) = cluster.leader().await;
    let rpcs = [leader.rpc()];
    let start = wall_now();
    let (mut due, mut handles) = (BTreeMap::new(), BTreeMap::new());
    for number in 0..COUNT {
        let at = start.plus(Duration::from_millis(3000 + u64::from(number) * 7));
        let message = delayed("later", number, at, 64);
        let handle = send(&rpcs, &message).await;
        assert_eq!(send(&rpcs, &message).await, handle, "the same send, the same answer");
        due.insert(id_of(&message), at);
        handles.insert(id_of(&message), handle);
    }
    let mut recalled = BTreeSet::new();
    for id in due.keys().step_by(5) {
        let answer = recall(&rpcs, "later", &handles[id]).await;
        assert_eq!(recall(&rpcs, "later", &handles[id]).await, answer);
        if answer == Ok(id.clone()) {
            recalled.insert(id.clone());
        } else {
            // The first ones may be due by now on a machine this busy.
            assert!(wall_now() > due[id], "{answer:?}");
        }
    }
    assert!(!recalled.is_empty(), "all were due before they could be taken back");
    let mut consumer = cluster.consumer("audit", "later");
    let mut arrived = Arrived::default();
    let deadline = Instant::now() + DRAIN;
    let expected = due.len() - recalled.len();
    while arrived.0.len() < expected && Instant::now() < deadline {
        arrived.receive(&mut consumer).await;
    }
    let came: BTreeSet<String> = arrived.0.keys().cloned().collect();
    let wanted: BTreeSet<String> =
        due.keys().filter(|id| !recalled.contains(*id)).cloned().collect();
    assert_eq!(came, wanted);
    let late: Vec<_> = came.iter().map(|id| arrived.lateness(id, due[id])).collect();
    let (p50, p99) = (percentile(late.clone(), 50), percentile(late.clone(), 99));
    eprintln!(
        "received {p50:?} after the time at p50, {p99:?} at p99, {:?} at most",
        late.iter().max()
    );
    assert!(p99 <= Duration::from_secs(1), "{p99:?}");

    let some = came.iter().next().expect("messages came");
    let delivered = i32::from(v2::Code::PreconditionFailed);
    assert_eq!(recall(&rpcs, "later", &handles[some]).await, Err(delivered));
    let invalid = i32::from(v2::Code::BadRequest);
    assert_eq!(recall(&rpcs, "later", "bm90IGEgaGFuZGxl").await, Err(invalid));
    cluster.finish().await;
}

/// A time in the past is now; one beyond the limit is refused; a batch may mix times.
#[tokio::test(flavor = "multi_thread")]
async fn times_in_the_past_and_too_far_ahead() {
    let cluster = Cluster::of(1).set("max_delay", "40days").start().await;
    delay_topic(&cluster, "later", 1).await;
    let (leader, _) = cluster.leader().await;
    let rpc = leader.rpc();
    let (now, day) = (wall_now(), Duration::from_hours(24));
    let batch = [
        delayed("later", 1, now.plus(39 * day), 64),
        delayed("later", 2, now.minus(day), 64),
        delayed("later", 3, now.plus(Duration::from_secs(2)), 64),
    ];
    let entries = rpc.send(&batch, DEADLINE).await.expect("stored");
    let has_handle: Vec<_> = entries.iter().map(|e| !e.recall_handle.is_empty()).collect();
    assert_eq!(has_handle, [true, false, true]);
    let beyond = rpc.send(&[delayed("later", 4, now.plus(41 * day), 64)], DEADLINE).await;
    assert_eq!(beyond.expect_err("refused").code(), i32::from(v2::Code::IllegalDeliveryTime));
    let normal = normal_message("later", Message::new(1, 5), body::of(Message::new(1, 5), 64));
    let conflict = rpc.send(&[normal], DEADLINE).await.expect_err("refused");
    assert_eq!(conflict.code(), i32::from(v2::Code::MessagePropertyConflictWithType));

    let mut consumer = cluster.consumer("audit", "later");
    let mut arrived = Arrived::default();
    eventually("two of three arrive", DRAIN, async || {
        arrived.receive(&mut consumer).await;
        if arrived.0.len() == 2 { Ok(()) } else { Err(format!("{}", arrived.0.len())) }
    })
    .await;
    arrived.lateness(&id_of(&batch[1]), now.minus(day));
    arrived.lateness(&id_of(&batch[2]), now.plus(Duration::from_secs(2)));
    assert_eq!(recall(&[rpc], "later", &entries[0].recall_handle).await, Ok(id_of(&batch[0])));
    cluster.finish().await;
}

/// What is known of a recall that was asked for while leaders died.
type Recalls = Vec<(String, Result<String, i32>)>;

/// Recalls every third message at a random moment around its time.
async fn recall_some(
    rpcs: Vec<Rpc>,
    messages: Vec<(String, Timestamp, String)>,
    mut random: StdRng,
) -> Recalls {
    let mut answers = Vec::new();
    for (id, due, handle) in messages.into_iter().step_by(3) {
        let moment = due.minus(Duration::from_millis(random.random_range(0..60)));
        tokio::time::sleep(moment.since(wall_now())).await;
        answers.push((id, recall(&rpcs, "later", &handle).await));
    }
    answers
}

/// Leaders are killed between due and fired, and between a recall and its answer: each message
/// comes once, never early, or never when its recall was answered so.
#[tokio::test(flavor = "multi_thread")]
async fn every_outcome_holds_across_leaders() {
    const ROUNDS: u32 = 4;
    const COUNT: u32 = 60;
    let seed = tests::faults::seed("delayed");
    let mut random = StdRng::seed_from_u64(seed);
    let cluster = Cluster::of(3).start().await;
    delay_topic(&cluster, "later", 3).await;
    let rpcs: Vec<Rpc> = cluster.nodes.iter().map(|node| node.rpc()).collect();
    let mut consumer = cluster.consumer("audit", "later");
    let (mut due, mut recalls) = (BTreeMap::new(), Recalls::new());
    let mut arrived = Arrived::default();
    for round in 0..ROUNDS {
        let start = wall_now().plus(Duration::from_millis(1500));
        let sends = (0..COUNT).map(|number| {
            let at = start.plus(Duration::from_millis(random.random_range(0..1500)));
            let message = delayed("later", round * COUNT + number, at, 64);
            let rpcs = rpcs.clone();
            async move { (id_of(&message), at, send(&rpcs, &message).await) }
        });
        let mut sent = futures::future::join_all(sends).await;
        sent.sort_by_key(|(_, at, _)| *at);
        due.extend(sent.iter().map(|(id, at, _)| (id.clone(), *at)));
        sent.retain(|(_, _, handle)| !handle.is_empty());
        assert!(!sent.is_empty(), "the machine is too slow for this test");
        let seeded = StdRng::seed_from_u64(random.random());
        let recalling = tokio::spawn(recall_some(rpcs.clone(), sent, seeded));

        let (leader, status) = cluster.leader().await;
        let moment = start.plus(Duration::from_millis(random.random_range(0..1500)));
        tokio::time::sleep(moment.since(wall_now())).await;
        leader.kill();
        cluster.leader_after(status.term).await;
        leader.start();
        recalls.extend(recalling.await.expect("recalls end"));
        for _ in 0..3 {
            arrived.receive(&mut consumer).await;
        }
    }
    let (done, not_done): (Vec<_>, Vec<_>) = recalls.iter().partition(|(_, answer)| answer.is_ok());
    let recalled: BTreeSet<&String> = done.iter().map(|(id, _)| id).collect();
    let delivered = Err(i32::from(v2::Code::PreconditionFailed));
    assert!(not_done.iter().all(|(_, answer)| *answer == delivered), "{not_done:?}");
    let wanted: BTreeSet<&String> = due.keys().filter(|id| !recalled.contains(id)).collect();
    let deadline = Instant::now() + DRAIN;
    while arrived.0.len() < wanted.len() && Instant::now() < deadline {
        arrived.receive(&mut consumer).await;
    }
    // Nothing comes late that must not come at all.
    arrived.receive(&mut consumer).await;
    let came: BTreeSet<&String> = arrived.0.keys().collect();
    assert_eq!(came, wanted);
    let late = came.iter().map(|id| arrived.lateness(id, due[*id])).max();
    eprintln!(
        "{} delivered, {} recalled, {} too late to be, {late:?} late at most",
        came.len(),
        recalled.len(),
        not_done.len(),
    );
    cluster.finish().await;
}

/// A delayed message's body is written once: firing moves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_written_once() {
    const BODY: usize = 4096;
    const COUNT: u32 = 8192;
    const BATCH_SIZE: usize = 64;
    let cluster = Cluster::of(3).alone().start().await;
    delay_topic(&cluster, "later", 4).await;
    let written = Written::by(&cluster).await;
    let (leader, _) = cluster.leader().await;
    let rpc = leader.rpc();
    let at = wall_now().plus(Duration::from_secs(8));
    let messages: Vec<_> = (0..COUNT).map(|n| delayed("later", n, at, BODY)).collect();
    for batch in messages.chunks(BATCH_SIZE) {
        rpc.send(batch, 10 * DEADLINE).await.expect("stored");
    }
    let sent = wall_now();
    eventually("all have fired", DRAIN, async || {
        let request = admin::DescribeTopicRequest { topic: "later".to_owned() };
        let answer = rpc.admin().describe_topic(request).await.map_err(|e| e.to_string())?;
        let fired: u64 = answer.into_inner().queues.iter().map(|q| q.max_offset).sum();
        if fired == u64::from(COUNT) { Ok(()) } else { Err(format!("{fired}")) }
    })
    .await;
    let took = millis(wall_now().since(at.max(sent)));
    let what = format!("4 KiB, delayed, in batches of 64, fired in {took} ms");
    written.holds_each_body_once(&what, u64::from(COUNT) * BODY as u64).await;
    cluster.finish().await;
}
