//! Unmodified official clients that keep order: producers of several languages share message
//! groups' topics, consumers get each group in order, and a message that cannot be processed
//! becomes a dead letter.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::collections::BTreeMap;
use std::time::Duration;

use proto::{admin, v2};
use tests::Cluster;
use tests::official::{Language, Official};

const PATIENCE: Duration = Duration::from_secs(90);
const COUNT: usize = 30;
const MESSAGE_GROUPS: usize = 3;
/// In the middle of its message group.
const POISONED: &str = "python-10";

async fn set_up(groups: &[&str]) -> Cluster {
    let cluster = Cluster::of(3).start().await;
    let (leader, _) = cluster.leader().await;
    let config = admin::TopicConfig {
        topic: "orders".into(),
        queues: 4,
        permission: v2::Permission::ReadWrite.into(),
        accepts: vec![v2::MessageType::Fifo.into()],
    };
    let put = admin::PutTopicRequest { config: Some(config), ..Default::default() };
    let answer = leader.rpc().admin().put_topic(put).await.expect("an answer").into_inner();
    assert_eq!(answer.error, None);
    for group in groups {
        let config = admin::GroupConfig {
            group: (*group).to_owned(),
            fifo: true,
            max_attempts: 2,
            backoff_ms: vec![1000],
            ..Default::default()
        };
        cluster.consumer_group(config).await;
    }
    cluster
}

fn start(cluster: &Cluster, language: Language, mode: &str, options: &[(&str, &str)]) -> Official {
    let endpoints = cluster.access_points()[0].to_string();
    let mut all = vec![("endpoints", endpoints.as_str()), ("seconds", "90")];
    all.extend(options);
    Official::start(language, mode, cluster.scratch.path(), &all, &[], None)
}

/// First deliveries of each message group are in the order in which they were sent.
fn in_order(client: &Official) {
    let mut last: BTreeMap<(String, usize), usize> = BTreeMap::new();
    for line in client.of("received") {
        let body = line.body.expect("it has one");
        let (prefix, number) = body.rsplit_once('-').expect("<prefix>-<number>");
        let number: usize = number.parse().expect("a number");
        let last = last.entry((prefix.to_owned(), number % MESSAGE_GROUPS)).or_insert(number);
        assert!(
            *last == number || *last + MESSAGE_GROUPS == number,
            "{body} came after {prefix}-{last}"
        );
        *last = number;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn official_clients_send_and_receive_in_order() {
    let cluster = set_up(&["python-push", "node-push", "python-simple"]).await;
    let (count, groups) = (COUNT.to_string(), MESSAGE_GROUPS.to_string());
    let all = (2 * COUNT).to_string();
    for language in [Language::Python, Language::Node] {
        let options = [
            ("topic", "orders"),
            ("prefix", language.name()),
            ("count", &count),
            ("message-groups", &groups),
        ];
        let mut producer = start(&cluster, language, "produce", &options);
        producer.done(PATIENCE).await;
        assert_eq!(producer.of("sent").len(), COUNT, "{:?}", producer.of("failed"));
    }
    let all_but_one = (2 * COUNT - 1).to_string();
    let consumers = [
        (Language::Python, "push", "python-push", &all_but_one, Some(POISONED)),
        (Language::Node, "push", "node-push", &all_but_one, Some(POISONED)),
        (Language::Python, "simple", "python-simple", &all, None),
    ];
    for (language, mode, group, count, poisoned) in consumers {
        let mut options = vec![("topic", "orders"), ("group", group), ("count", count.as_str())];
        options.extend(poisoned.map(|body| ("fail-body", body)));
        let mut consumer = start(&cluster, language, mode, &options);
        consumer.done(PATIENCE).await;
        in_order(&consumer);
        let Some(poisoned) = poisoned else { continue };
        let received = consumer.of("received");
        let tries = received.iter().filter(|line| line.body.as_deref() == Some(poisoned));
        assert_eq!(tries.count(), 2, "{}: as often as the group's policy says", language.name());
        let graves = format!("%DLQ%{group}");
        let options = [("topic", graves.as_str()), ("group", "undertaker"), ("count", "1")];
        let mut undertaker = start(&cluster, Language::Python, "simple", &options);
        undertaker.done(PATIENCE).await;
        let dead = undertaker.of("received");
        let bodies: Vec<_> = dead.iter().filter_map(|line| line.body.as_deref()).collect();
        assert_eq!(bodies, [poisoned]);
    }
    cluster.replicas_agree().await;
    cluster.finish().await;
}
