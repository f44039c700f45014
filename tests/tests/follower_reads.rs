//! Pulls that the replica answers which is asked, as far as it has come.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::time::Duration;

use jepsen::Fate;
use proto::v2;
use tests::node::Node;
use tests::rpc::Rpc;
use tests::{Cluster, Failure};

const ILLEGAL_OFFSET: i32 = 40019;
const NO_WAIT: Duration = Duration::ZERO;
const WAIT: Duration = Duration::from_secs(10);

/// Pulls that this node answered itself.
async fn pulls(node: &Node) -> u64 {
    let page = tests::http::get_async(node.addresses.metrics, "/metrics").await.expect("a page");
    let of_pulls = page.lines().filter(|l| l.contains("_total{") && l.contains("\"pull\""));
    of_pulls.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
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
