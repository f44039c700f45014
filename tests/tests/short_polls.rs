//! Clients that are told not to wait.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::time::Duration;

use tests::cluster::ELECTION;
use tests::{Cluster, Consumer, eventually};

/// A poll whose deadline is closer than the shortest long poll gets what there is, at whichever
/// node it is asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_poll_gets_messages_through_a_follower() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 1).await;
    cluster.producer("orders").send(8, 1).await;
    for follower in cluster.followers().await {
        let point = [follower.addresses.client];
        let group = format!("group-{}", follower.id);
        let mut consumer = Consumer::new(&point, &group, "orders", &cluster.ledger);
        let what = format!("{follower:?} hands messages out");
        eventually(&what, ELECTION, async || {
            let (invisible, poll) = (Duration::from_secs(30), Duration::from_millis(200));
            let found = consumer.receive(32, invisible, poll).await.map_err(|e| e.to_string())?;
            if found.is_empty() { Err("nothing".to_owned()) } else { Ok(()) }
        })
        .await;
    }
    cluster.finish().await;
}
