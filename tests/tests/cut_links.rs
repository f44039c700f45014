//! Links between replicas that are cut while all of them live.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]
#![allow(clippy::print_stdout, reason = "the figures are what a reader wants to see")]

use std::time::{Duration, Instant};

use jepsen::Fate;
use tests::cluster::{CATCH_UP, ELECTION};
use tests::network::{Network, in_own_network};
use tests::status::{Role, Status};
use tests::{Cluster, Producer, eventually};

/// Several times what a silent leader is given before it is replaced.
const LONG: Duration = Duration::from_secs(8);
/// The longest time without a successful send when nobody needs to be elected. A loaded machine
/// may take its time; an election would take two seconds.
const NO_ELECTION: Duration = Duration::from_millis(1_500);
/// The same when the leader is cut off.
const ELECTED: Duration = Duration::from_millis(3_500);

/// Sends one message after the other until `until`, each with patience, and returns the longest
/// time between two that were acknowledged.
async fn longest_gap(producer: &Producer, until: Instant) -> Duration {
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    while last < until {
        assert_eq!(producer.send_one().await, Fate::Done);
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    longest
}

/// Three nodes that agree, a topic, and a producer that talks to the leader itself.
async fn three(network: &Network) -> (Cluster, Producer, Status) {
    let cluster = Cluster::of(3).apart(network.clone()).alone().start().await;
    cluster.topic("orders", 2).await;
    cluster.replicas_agree().await;
    let (leader, status) = cluster.leader().await;
    let at = [leader.addresses.client];
    let producer = Producer::new(&at, "orders", &cluster.ledger);
    (cluster, producer, status)
}

/// The leader and its term are what they were, as far as `node` can tell.
async fn still_leads(cluster: &Cluster, before: &Status) {
    let (leader, now) = cluster.leader().await;
    assert_eq!((leader.id, now.term), (before.node_id, before.term), "nobody was elected");
    for node in &cluster.nodes {
        let status = node.status().await.expect("everybody lives");
        assert_eq!(status.term, before.term, "nor did anybody call an election: {status}");
    }
}

#[test]
fn one_cut_link_between_the_leader_and_a_follower_deposes_nobody() {
    in_own_network(
        "one_cut_link_between_the_leader_and_a_follower_deposes_nobody",
        async |network| {
            let (cluster, producer, before) = three(&network).await;
            let follower = cluster.followers().await[0].clone();
            network.cut(before.node_id, follower.id);
            let gap = longest_gap(&producer, Instant::now() + LONG).await;
            println!("longest time without a send, one link cut for {LONG:?}: {gap:?}");
            assert!(gap < NO_ELECTION, "{gap:?}");
            still_leads(&cluster, &before).await;
            let behind = follower.status().await.expect("it lives");
            let leader = cluster.leader().await.1;
            assert!(behind.last < leader.last, "nothing reached it: {behind}; {leader}");

            network.mend();
            let gap = longest_gap(&producer, Instant::now() + LONG / 2).await;
            assert!(gap < NO_ELECTION, "{gap:?} when it came back");
            still_leads(&cluster, &before).await;
            cluster.finish_with_everything_received("orders", &["billing"]).await;
        },
    );
}

#[test]
fn a_cut_link_between_two_followers_is_not_noticed() {
    in_own_network("a_cut_link_between_two_followers_is_not_noticed", async |network| {
        let (cluster, producer, before) = three(&network).await;
        let followers = cluster.followers().await;
        network.cut(followers[0].id, followers[1].id);
        let gap = longest_gap(&producer, Instant::now() + LONG).await;
        assert!(gap < NO_ELECTION, "{gap:?}");
        still_leads(&cluster, &before).await;
        cluster.replicas_agree().await;
        network.mend();
        cluster.finish_with_everything_received("orders", &["billing"]).await;
    });
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_follows_when_it_is_back() {
    in_own_network(
        "a_leader_that_is_cut_off_is_replaced_and_follows_when_it_is_back",
        async |network| {
            let (cluster, _, before) = three(&network).await;
            let followers = cluster.followers().await;
            let others: Vec<_> = followers.iter().map(|node| node.addresses.client).collect();
            let producer = Producer::new(&others, "orders", &cluster.ledger);
            assert_eq!(producer.send_one().await, Fate::Done);
            for follower in &followers {
                network.cut(before.node_id, follower.id);
            }
            let gap = longest_gap(&producer, Instant::now() + LONG).await;
            println!("longest time without a send, leader cut off: {gap:?}");
            assert!(gap < ELECTED, "{gap:?}");
            let old = cluster.nodes.iter().find(|node| node.id == before.node_id);
            let old = old.expect("it is one of them");
            // It knows by itself that it cannot lead any more: what it is given is not acknowledged.
            let cut_off = Producer::new(&[old.addresses.client], "orders", &cluster.ledger);
            let (number, message) = cut_off.next_message();
            let refused = cut_off.attempt(number, &message).await;
            assert!(refused.is_err(), "a leader without followers acknowledged {number}");

            network.mend();
            eventually("the old leader follows the new one", ELECTION, async || {
                let status = old.status().await.map_err(|error| format!("{error:#}"))?;
                let follows = status.role == Role::Follower && status.term > before.term;
                if follows { Ok(()) } else { Err(status.to_string()) }
            })
            .await;
            assert_eq!(producer.send_one().await, Fate::Done);
            tokio::time::timeout(CATCH_UP, cluster.replicas_agree()).await.expect("they agree");
            cluster.finish_with_everything_received("orders", &["billing"]).await;
        },
    );
}
