//! Retention on a real cluster: the log's beginning moves on all replicas alike, and what is still
//! wanted outlives the files that it was stored in.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]
#![allow(clippy::print_stderr, reason = "measured figures are printed for the reader")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jepsen::Message;
use proto::clock::wall_now;
use proto::v2::{self, MessageType, TransactionResolution};
use proto::{Timestamp, admin};
use tests::cluster::{CATCH_UP, DRAIN, ELECTION};
use tests::consumer::{BATCH, Delivery, INVISIBLE};
use tests::node::Node;
use tests::producer::{id_of, normal_message};
use tests::rpc::{DEADLINE, Rpc};
use tests::{Cluster, body, eventually};

const MIB: u64 = 1 << 20;
/// The smallest that holds the largest entry.
const SEGMENT: u64 = 9 * MIB;
const NOISE_BODY: usize = 64 << 10;
/// Five files.
const NOISE: usize = 700;
/// A message that is given up in the end is held for so long: longer than the test.
const HELD: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

fn of_type(
    topic: &str,
    number: u32,
    kind: MessageType,
    due: Option<Timestamp>,
) -> (String, v2::Message) {
    let number = Message::new(77, number);
    let mut message = normal_message(topic, number, body::of(number, 2000));
    let properties = message.system_properties.as_mut().expect("it has some");
    properties.message_type = kind.into();
    properties.delivery_timestamp = due.map(Into::into);
    (id_of(number), message)
}

async fn stored(cluster: &Cluster, message: &v2::Message) -> v2::SendResultEntry {
    eventually("it is stored", ELECTION, async || {
        let (leader, _) = cluster.leader().await;
        let sent = leader.rpc().send(std::slice::from_ref(message), DEADLINE).await;
        sent.map(|mut entries| entries.remove(0)).map_err(|failure| failure.to_string())
    })
    .await
}

async fn retain(cluster: &Cluster, topic: &str, ms: u64) {
    use admin::change_request::Change;
    let change =
        Change::PutRetention(admin::Retention { topic: topic.into(), ms, bytes: 0, version: 0 });
    let request = admin::ChangeRequest { change: Some(change) };
    eventually("the retention is set", ELECTION, async || {
        let rpc = Rpc::new(cluster.nameservers[0].address);
        let answer = rpc.admin().change(request.clone()).await.map_err(|e| e.to_string())?;
        answer.into_inner().error.map_or(Ok(()), |error| Err(format!("{error:?}")))
    })
    .await;
}

/// Receives and acks until all of these came, whole.
async fn arrive(cluster: &Cluster, group: &str, topic: &str, expected: &BTreeSet<String>) {
    let mut consumer = cluster.consumer(group, topic);
    let (mut came, start) = (BTreeSet::new(), Instant::now());
    while came.len() < expected.len() {
        assert!(start.elapsed() < DRAIN, "{topic}: {came:?} of {expected:?}");
        let Ok(got) = consumer.receive(BATCH, INVISIBLE, POLL).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        for delivery in &got {
            let number = delivery.message.expect("not a byte was changed");
            assert_eq!(delivery.raw.body, body::of(number, 2000));
            came.insert(delivery.id.clone());
        }
        if !got.is_empty() {
            let _again_if_lost = consumer.ack(&got).await;
        }
    }
    assert_eq!(came, *expected, "{topic}");
}

/// A metric of each node that runs.
async fn everywhere(cluster: &Cluster, metric: &str) -> Result<Vec<u64>, String> {
    let mut all = Vec::new();
    for node in cluster.nodes.iter().filter(|node| node.is_active()) {
        let value = node.metric(metric).await.map_err(|e| format!("{node:?}: {e:#}"))?;
        all.push(format!("{value:.0}").parse().map_err(|e| format!("{value}: {e}"))?);
    }
    Ok(all)
}

/// Waits until nothing that is kept lies below `least` on any replica, and all say the same.
async fn floor_reaches(cluster: &Cluster, least: u64) -> u64 {
    eventually(&format!("the floor reaches {least}"), CATCH_UP, async || {
        let floors = everywhere(cluster, "raftmq_log_floor_offset").await?;
        let same = floors.iter().all(|floor| *floor == floors[0]);
        if same && floors[0] >= least { Ok(floors[0]) } else { Err(format!("{floors:?}")) }
    })
    .await
}

/// Where the files of each replica's log begin, lowest first.
fn files(cluster: &Cluster) -> Vec<Vec<u64>> {
    let of_node = |node: &Arc<Node>| {
        let log = std::fs::read_dir(node.directory().join("raft/log")).expect("its log");
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("a file").file_name();
        let base = |name: std::ffi::OsString| {
            name.to_str().and_then(|name| name.strip_suffix(".seg")?.parse::<u64>().ok())
        };
        let mut bases: Vec<u64> = log.map(name).filter_map(base).collect();
        bases.sort_unstable();
        bases
    };
    cluster.nodes.iter().map(of_node).collect()
}

/// Every file that ends at `floor` or below it is removed, on every replica.
async fn files_go(cluster: &Cluster, floor: u64) {
    eventually(&format!("the files below {floor} go"), CATCH_UP, async || {
        let all = files(cluster);
        let gone = |bases: &Vec<u64>| bases.first().is_some_and(|first| first + SEGMENT > floor);
        if all.iter().all(gone) { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
}

/// Where the only queue of the topic begins and ends.
async fn ends(cluster: &Cluster, topic: &str) -> (u64, u64) {
    let (leader, _) = cluster.leader().await;
    let request = admin::DescribeTopicRequest { topic: topic.into() };
    let described = leader.rpc().admin().describe_topic(request).await.expect("an answer");
    let queue = described.into_inner().queues.remove(0);
    (queue.min_offset, queue.max_offset)
}

/// Waits until somebody of the group is given a message.
async fn given(cluster: &Cluster, group: &str, topic: &str) -> Delivery {
    let mut consumer = cluster.consumer(group, topic);
    eventually("a message is received", ELECTION, async || {
        let got = consumer.receive(1, HELD, POLL).await.map_err(|e| e.to_string())?;
        got.first().cloned().ok_or_else(|| "nothing came".to_owned())
    })
    .await
}

/// The group gives a message up that it was given.
async fn gives_up(cluster: &Cluster, group: &str, topic: &str, held: &Delivery) {
    eventually("it is given up", ELECTION, async || {
        let (leader, _) = cluster.leader().await;
        let gone = leader.rpc().give_up(group, topic, held.entry()).await;
        gone.map(drop).map_err(|e| e.to_string())
    })
    .await;
}

/// A delayed message, a transaction that is committed late, dead letters of before and after, and
/// plain messages with a long retention lie among many that soon expire. When those are gone, the leader having been
/// killed on the way, the files go and the few are delivered whole.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wanted_outlives_the_files_that_it_was_stored_in() {
    let cluster = Cluster::of(3)
        .set("log.segment_size", "9MiB")
        .set("transaction.timeout", "10m")
        .start()
        .await;
    for (topic, kind) in [
        ("noise", MessageType::Normal),
        ("keep", MessageType::Normal),
        ("later", MessageType::Delay),
        ("orders", MessageType::Transaction),
    ] {
        cluster.topic_of(topic, 1, kind).await;
    }
    let due = wall_now().plus(Duration::from_secs(25));
    let mut kept = BTreeSet::new();
    for number in 0..5 {
        let (id, message) = of_type("keep", number, MessageType::Normal, None);
        stored(&cluster, &message).await;
        kept.insert(id);
    }
    let (later, message) = of_type("later", 10, MessageType::Delay, Some(due));
    stored(&cluster, &message).await;
    let (order, message) = of_type("orders", 11, MessageType::Transaction, None);
    let transaction = stored(&cluster, &message).await.transaction_id;
    let early = given(&cluster, "audit", "keep").await;
    gives_up(&cluster, "audit", "keep", &early).await;
    let held = given(&cluster, "slow", "keep").await;

    let producer = cluster.producer("noise").with_bodies_of(NOISE_BODY);
    assert_eq!(producer.send(NOISE, 8).await, NOISE);
    let before = everywhere(&cluster, "raftmq_log_floor_offset").await.expect("metrics");
    assert_eq!(before, [0; 3], "nothing has expired");
    for bases in files(&cluster) {
        assert!(bases.starts_with(&[0, SEGMENT, 2 * SEGMENT, 3 * SEGMENT]), "{bases:?}");
    }
    retain(&cluster, "noise", 1000).await;
    let (leader, _) = cluster.leader().await;
    leader.kill();
    let floor = floor_reaches(&cluster, 4 * SEGMENT).await;
    leader.start();
    let floor = floor_reaches(&cluster, floor).await;
    files_go(&cluster, floor).await;
    let carried = everywhere(&cluster, "raftmq_log_carried_bytes").await.expect("metrics");
    eprintln!("floor {floor}, carried {carried:?}");
    // Five plain ones, one of which is the dead letter too, a delayed one and a half one.
    assert!(carried.iter().all(|bytes| (7 * 2000..MIB).contains(bytes)), "{carried:?}");

    eventually("the transaction is committed", ELECTION, async || {
        let (leader, _) = cluster.leader().await;
        let commit = TransactionResolution::Commit;
        let ended = leader.rpc().end_transaction("orders", &transaction, commit).await;
        ended.map_err(|failure| failure.to_string())
    })
    .await;
    arrive(&cluster, "billing", "orders", &BTreeSet::from([order])).await;
    arrive(&cluster, "billing", "keep", &kept).await;
    arrive(&cluster, "billing", "%DLQ%audit", &BTreeSet::from([early.id])).await;
    // A message that is given up after its file has gone outlives its topic's retention too.
    gives_up(&cluster, "slow", "keep", &held).await;
    retain(&cluster, "keep", 1000).await;
    eventually("the topic's messages end", CATCH_UP, async || match ends(&cluster, "keep").await {
        (5, 5) => Ok(()),
        ends => Err(format!("{ends:?}")),
    })
    .await;
    arrive(&cluster, "billing", "%DLQ%slow", &BTreeSet::from([held.id])).await;
    arrive(&cluster, "billing", "later", &BTreeSet::from([later])).await;
    assert!(wall_now() >= due, "it was not early");
    cluster.finish().await;
}

/// A bound on the log's bytes holds while messages flow in, and what is left is the newest.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_keeps_its_bytes_and_the_newest_messages() {
    let cluster = Cluster::of(3)
        .set("log.segment_size", "9MiB")
        .set("log.retention_bytes", "27MiB")
        .start()
        .await;
    cluster.topic("noise", 1).await;
    let producer = cluster.producer("noise").with_bodies_of(NOISE_BODY);
    assert_eq!(producer.send(NOISE, 8).await, NOISE);
    let floor = floor_reaches(&cluster, 2 * SEGMENT).await;
    files_go(&cluster, floor).await;
    let (first, end) = ends(&cluster, "noise").await;
    assert_eq!(end, NOISE as u64);
    let left = end - first;
    let (leader, _) = cluster.leader().await;
    let in_files = |count| count * SEGMENT / NOISE_BODY as u64;
    assert!((in_files(1)..=in_files(3)).contains(&left), "{left} messages are left");
    let queue = v2::MessageQueue {
        topic: Some(tests::rpc::resource("noise")),
        id: 0,
        ..Default::default()
    };
    let mut next = i64::try_from(NOISE as u64 - left).expect("few");
    let end = i64::try_from(NOISE).expect("few");
    while next < end {
        let (messages, to) = leader.rpc().pull("audit", &queue, next, POLL).await.expect("a pull");
        assert!(!messages.is_empty() && next < to, "{next} {to}");
        for message in messages {
            let id = message.system_properties.expect("it has some").message_id;
            let number = tests::producer::message_of(&id).expect("one of ours");
            assert_eq!(message.body, body::of(number, NOISE_BODY));
        }
        next = to;
    }
    cluster.finish().await;
}
