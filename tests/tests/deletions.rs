//! Topics and quotas are changed while leaders die: what was answered holds, on all replicas.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proto::admin::{
    ChangeRequest, LimitedKind, ListQuotasRequest, ListTopicsRequest, Quota, change_request::Change,
};
use rand::RngExt;
use tests::cluster::ELECTION;
use tests::{Cluster, eventually};

const ROUNDS: u64 = 3;
const TOPICS: u64 = 4;

/// Makes a change through whichever node answers; again, if the answer was lost.
async fn change(cluster: &Cluster, change: Change) {
    let request = ChangeRequest { change: Some(change) };
    eventually("a change is made", ELECTION * 2, async || {
        let mut last = String::new();
        for node in cluster.nodes.iter().filter(|node| node.is_active()) {
            match node.rpc().admin().change(request.clone()).await {
                Ok(answer) => match answer.into_inner().error {
                    None => return Ok(()),
                    Some(error) => last = format!("{error:?}"),
                },
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    })
    .await;
}

async fn topics(cluster: &Cluster) -> BTreeSet<String> {
    let (leader, _) = cluster.leader().await;
    let answer = leader.rpc().admin().list_topics(ListTopicsRequest {}).await;
    let topics = answer.expect("the leader answers").into_inner().topics;
    topics.into_iter().map(|topic| topic.config.expect("settings").topic).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_topics_never_come_back_and_quotas_stay() {
    let cluster = Cluster::of(3).set("auto_create_topics", "false").start().await;
    for round in 0..ROUNDS {
        for number in 0..TOPICS {
            let name = format!("round-{round}-{number}");
            cluster.topic(&name, 2).await;
            cluster.producer(&name).send(20, 4).await;
        }
        let (leader, before) = cluster.leader().await;
        let pause = Duration::from_millis(rand::rng().random_range(0..60));
        let killer = tokio::spawn({
            let leader = Arc::clone(&leader);
            async move {
                tokio::time::sleep(pause).await;
                leader.kill();
            }
        });
        for number in 0..TOPICS / 2 {
            change(&cluster, Change::DeleteTopic(format!("round-{round}-{number}"))).await;
        }
        let quota = Quota {
            kind: LimitedKind::Topic.into(),
            name: format!("round-{round}-3"),
            messages_per_second: 1000 + round,
            bytes_per_second: 0,
            version: 0,
        };
        change(&cluster, Change::PutQuota(quota)).await;
        killer.await.expect("it only kills");
        cluster.leader_after(before.term).await;
        leader.start();
        let expected: BTreeSet<_> = (0..=round)
            .flat_map(|round| (2..TOPICS).map(move |n| format!("round-{round}-{n}")))
            .collect();
        assert_eq!(topics(&cluster).await, expected, "round {round}");
        cluster.replicas_agree().await;
    }
    let (leader, _) = cluster.leader().await;
    let listed = leader.rpc().admin().list_quotas(ListQuotasRequest {}).await;
    let quotas = listed.expect("the leader answers").into_inner().quotas;
    let figures: Vec<_> = quotas.iter().map(|quota| quota.messages_per_second).collect();
    assert_eq!(figures, [1000, 1001, 1002]);
    cluster.no_panics();
}
