//! Pulls and look-ups that the replica answers which is asked, as far as it has come.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::time::Duration;

use jepsen::Fate;
use proto::admin::query_messages_request::{By, Reading};
use proto::admin::{QueryMessagesRequest, QueueChoice, QueuePlace, StoredMessage};
use proto::v2;
use tests::node::Node;
use tests::rpc::Rpc;
use tests::{Cluster, Failure};

const ILLEGAL_OFFSET: i32 = 40019;
const NO_WAIT: Duration = Duration::ZERO;
const WAIT: Duration = Duration::from_secs(10);

/// Pulls that this node answered itself.
async fn pulls(node: &Node) -> u64 {
    answered(node, "pull").await
}

/// Calls of this kind that the node answered itself.
async fn answered(node: &Node, rpc: &str) -> u64 {
    let page = tests::http::get_async(node.addresses.metrics, "/metrics").await.expect("a page");
    let label = format!("\"{rpc}\"");
    let of_rpc = page.lines().filter(|l| l.contains("_total{") && l.contains(&label));
    of_rpc.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Looks messages up at this node.
async fn look_up(
    node: &Node,
    by: By,
    from_ms: u64,
    reading: Reading,
) -> Result<Vec<StoredMessage>, String> {
    let request = QueryMessagesRequest {
        topic: "orders".into(),
        by: Some(by),
        from_ms,
        reading: reading.into(),
        ..Default::default()
    };
    let answer = node.rpc().admin().query_messages(request).await.expect("an answer").into_inner();
    match answer.error {
        None => Ok(answer.messages),
        Some(error) => Err(error.message),
    }
}

async fn queue(node: &Node, topic: &str) -> v2::MessageQueue {
    node.rpc().query_route(topic).await.expect("the topic exists").remove(0)
}

async fn pull_all(rpc: &Rpc, queue: &v2::MessageQueue) -> usize {
    let (mut count, mut next) = (0, 0);
    loop {
        let (messages, after) = rpc.pull("audit", queue, next, NO_WAIT).await.expect("pulls");
        if messages.is_empty() {
            return count;
        }
        count += messages.len();
        next = after;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_answers_pulls_by_itself_and_leaves_what_it_cannot_know_to_the_leader() {
    let cluster = Cluster::of(3).set("read.mode", "follower").start().await;
    cluster.topic("orders", 1).await;
    let producer = cluster.producer("orders");
    assert_eq!(producer.send(300, 16).await, 300);
    cluster.replicas_agree().await;
    let (leader, _) = cluster.leader().await;
    let follower = cluster.followers().await.remove(0);
    let (queue, rpc) = (queue(&follower, "orders").await, follower.rpc());

    assert_eq!(pull_all(&rpc, &queue).await, 300);
    assert!(pulls(&follower).await > 0, "the follower answered none of them");
    assert_eq!(pulls(&leader).await, 0, "the leader was asked");

    // A pull that waits hears of what comes.
    let (waiting, asked) = (follower.rpc(), queue.clone());
    let waits = tokio::spawn(async move { waiting.pull("audit", &asked, 300, WAIT).await });
    assert_eq!(producer.send_one().await, Fate::Done);
    let (messages, next) = waits.await.expect("it ends").expect("an answer");
    assert_eq!((messages.len(), next), (1, 301));
    assert_eq!(pulls(&leader).await, 0);

    // Beyond its end may be no more than what it lacks.
    match rpc.pull("audit", &queue, 400, NO_WAIT).await {
        Err(Failure::Rejected { code, .. }) => assert_eq!(code, ILLEGAL_OFFSET),
        other => panic!("{other:?}"),
    }
    assert!(pulls(&leader).await > 0, "the leader was not asked");
    cluster.finish_with_everything_received("orders", &["billing"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_the_leader_answers_every_pull() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 1).await;
    assert_eq!(cluster.producer("orders").send(20, 4).await, 20);
    let (leader, _) = cluster.leader().await;
    let follower = cluster.followers().await.remove(0);
    let queue = queue(&follower, "orders").await;
    assert_eq!(pull_all(&follower.rpc(), &queue).await, 20);
    assert!(pulls(&leader).await > 0);
    assert_eq!(pulls(&follower).await, 0);
    cluster.finish_with_everything_received("orders", &["billing"]).await;
}

/// Where a message is, and what it says: the rest tells of the node that answers.
fn place(stored: &StoredMessage) -> (u32, u64, u64, u64, &[u8]) {
    let body = stored.message.as_ref().map_or(&[][..], |message| &message.body[..]);
    (stored.queue_id, stored.offset, stored.stored_ms, stored.log_offset, body)
}

/// One message in all four ways of looking it up: what it says of itself.
async fn in_all_ways(node: &Node, stored: &StoredMessage, reading: Reading) {
    let system = stored.message.as_ref().and_then(|m| m.system_properties.clone());
    let (queue_id, offset) = (stored.queue_id, stored.offset);
    let ways = [
        (By::MessageId(system.expect("it has them").message_id), 0),
        (By::Key("a key".into()), 0),
        (By::Any(QueueChoice { queue_id: Some(queue_id) }), stored.stored_ms),
        (By::Place(QueuePlace { queue_id, offset }), 0),
    ];
    for (by, from_ms) in ways {
        let found = look_up(node, by.clone(), from_ms, reading).await.expect("it is found");
        assert!(found.iter().any(|one| place(one) == place(stored)), "{by:?}: {found:?}");
    }
}

/// Sends one message with a key, and finds it at the leader.
async fn stored(cluster: &Cluster) -> StoredMessage {
    let producer = cluster.producer("orders");
    let (number, mut message) = producer.next_message();
    message.system_properties.as_mut().expect("they are set").keys.push("a key".into());
    producer.attempt(number, &message).await.expect("it is stored");
    cluster.replicas_agree().await;
    let (leader, _) = cluster.leader().await;
    let by = By::Key("a key".into());
    look_up(&leader, by, 0, Reading::Latest).await.expect("it is found").remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_looks_messages_up_by_itself_where_that_is_asked_for() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 1).await;
    let stored = stored(&cluster).await;
    let (leader, _) = cluster.leader().await;
    let follower = cluster.followers().await.remove(0);
    let queries = async |node: &Node| answered(node, "query").await;
    let before = queries(&leader).await;

    in_all_ways(&follower, &stored, Reading::Applied).await;
    assert_eq!(queries(&leader).await, before, "the leader was asked");
    assert!(queries(&follower).await >= 4, "the follower did not answer");

    // What may only be missing here is the leader's to know.
    let beyond = By::Place(QueuePlace { queue_id: 0, offset: 100 });
    assert_eq!(look_up(&follower, beyond, 0, Reading::Applied).await, Ok(vec![]));
    assert_eq!(queries(&leader).await, before + 1, "the leader was not asked");

    // Without the wish, and against it, the leader answers.
    let own = queries(&follower).await;
    for reading in [Reading::Unspecified, Reading::Latest] {
        in_all_ways(&follower, &stored, reading).await;
    }
    assert_eq!(queries(&follower).await, own);
    assert_eq!(queries(&leader).await, before + 9);
    cluster.finish_with_everything_received("orders", &["billing"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_set_up_so_looks_up_by_itself_unless_the_latest_is_asked_for() {
    let cluster = Cluster::of(3).set("read.mode", "follower").start().await;
    cluster.topic("orders", 1).await;
    let stored = stored(&cluster).await;
    let (leader, _) = cluster.leader().await;
    let follower = cluster.followers().await.remove(0);
    let queries = async |node: &Node| answered(node, "query").await;
    let before = queries(&leader).await;
    in_all_ways(&follower, &stored, Reading::Unspecified).await;
    assert_eq!(queries(&leader).await, before, "the leader was asked");
    in_all_ways(&follower, &stored, Reading::Latest).await;
    assert_eq!(queries(&leader).await, before + 4);

    let (id, broker) = (stored.offset.to_string(), follower.addresses.client.to_string());
    let command = format!("queryMsgByOffset -t orders -b broker-a -i 0 -o {id} --applied");
    let (code, text) = tests::mqadmin::run(&cluster, &broker, &command, tests::mqadmin::SOON).await;
    assert!(code == 0 && text.contains("a key"), "{code}: {text}");
    assert_eq!(queries(&leader).await, before + 4);
    cluster.finish_with_everything_received("orders", &["billing"]).await;
}
