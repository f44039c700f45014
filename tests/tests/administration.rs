//! `mqadmin` against a cluster: what an operator sees and changes, and what it says when it cannot.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::net::{SocketAddr, TcpStream};

use tests::cluster::ELECTION;
use tests::mqadmin::{self, SOON, json};
use tests::official::{Language, Official};
use tests::{Cluster, eventually};

async fn mqadmin(cluster: &Cluster, through: &str, command: &str) -> (i32, String) {
    mqadmin::run(cluster, through, command, SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_and_changes_a_cluster_through_any_node() {
    let cluster = Cluster::of(3).start().await;
    let nameserver = cluster.nameservers[0].address.to_string();
    let follower = cluster.followers().await[0].addresses.client.to_string();

    for (number, through) in [&nameserver, &follower].into_iter().enumerate() {
        let topic = format!("orders-{number}");
        let made =
            json(&cluster, through, &format!("updateTopic -c DefaultCluster -t {topic} -w 3"))
                .await;
        assert_eq!(made["topic"]["name"], topic.as_str());
        assert_eq!(made["topic"]["queues_per_broker"], 3);
        let listed = json(&cluster, through, "topicList").await.to_string();
        assert!(listed.contains(&topic), "{listed}");
    }

    cluster.topic("orders-0", 3).await;
    let sent = cluster.producer("orders-0").send(90, 8).await;
    cluster.consumer("billing", "orders-0").receives_everything(tests::cluster::DRAIN).await;
    let status = json(&cluster, &follower, "topicStatus -t orders-0").await;
    let queues = status["queues"].as_array().expect("queues");
    let stored: u64 = queues.iter().map(|queue| queue["max_offset"].as_u64().expect("one")).sum();
    assert_eq!((queues.len(), stored), (3, sent as u64));
    let progress = json(&cluster, &nameserver, "consumerProgress -g billing").await;
    assert_eq!(progress["lag"], 0, "{progress}");

    let (leader, before) = cluster.leader().await;
    let list = json(&cluster, &nameserver, "clusterList").await;
    let group = &list["brokers"][0];
    assert_eq!(group["leader_id"], leader.id);
    assert_eq!(group["members"].as_array().expect("members").len(), 3);
    let target = cluster.followers().await[0].id;
    let moved =
        json(&cluster, &nameserver, &format!("transferLeader -b broker-a -i {target}")).await;
    assert_eq!(moved["leader_id"], target);
    let (leader, _) = cluster.leader_after(before.term).await;
    assert_eq!(leader.id, target);

    let (code, table) = mqadmin(&cluster, &nameserver, "clusterList").await;
    assert!(code == 0 && table.contains("leader") && table.contains("broker-a"), "{table}");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_said_with_an_exit_code() {
    let cluster = Cluster::of(1).start().await;
    let nameserver = cluster.nameservers[0].address.to_string();
    let refused = [
        ("topicStatus -t nowhere", "nowhere"),
        ("updateTopic -c Elsewhere -t orders", "Elsewhere"),
        ("transferLeader -b broker-z", "broker-z"),
    ];
    for (command, named) in refused {
        let (code, output) = mqadmin(&cluster, &nameserver, command).await;
        assert_eq!(code, 1, "{command}: {output}");
        assert!(output.contains(named), "{command}: {output}");
    }
    let misused = [("updateTopics", "updateTopic"), ("updateTopic -t bad!name -c x", "bad!name")];
    for (command, named) in misused {
        let (code, output) = mqadmin(&cluster, &nameserver, command).await;
        assert!(code == 2 && output.contains(named), "{command}: {output}");
    }
    let nobody = cluster.host.free_port().to_string();
    let (code, output) = mqadmin(&cluster, &nobody, "clusterList").await;
    assert!(code != 0 && output.contains(&nobody), "{output}");
    cluster.finish().await;
}

/// Members of one group that want different messages are named: to the operator who asks, and in
/// the leader's log.
#[tokio::test(flavor = "multi_thread")]
async fn conflicting_subscriptions_are_reported() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 2).await;
    let access_point = cluster.nameservers[0].address.to_string();
    let consumer = |language: Language, filter: &str| -> Official {
        let options = [
            ("endpoints", access_point.as_str()),
            ("topic", "orders"),
            ("group", "billing"),
            ("filter", filter),
        ];
        Official::start(language, "simple", cluster.scratch.path(), &options, &[], None)
    };
    let red = consumer(Language::Python, "red");
    let blue = consumer(Language::Node, "blue");
    let report =
        eventually("both are connected, and their conflict is seen", ELECTION, async || {
            let report = json(&cluster, &access_point, "consumerConnection -g billing").await;
            let all = report["connections"].as_array().map_or(0, Vec::len);
            match report["conflicts"].as_array() {
                Some(conflicts) if all == 2 && !conflicts.is_empty() => {
                    Ok(conflicts[0].to_string())
                }
                _ => Err(report.to_string()),
            }
        })
        .await;
    for word in ["billing", "orders", "red", "blue"] {
        assert!(report.contains(word), "{word} is not in {report}");
    }
    let (leader, _) = cluster.leader().await;
    let log = leader.process().log();
    assert!(log.contains("conflicting subscriptions"), "{log}");
    drop((red, blue));
    cluster.finish().await;
}

/// How much a node logs is its own matter, and changes while it runs.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_changes_how_much_a_node_logs() {
    const LINE: &str = "connection closed before its first request";
    let cluster = Cluster::of(1).start().await;
    let (nameserver, node) = (&cluster.nameservers[0], &cluster.nodes[0]);
    let all = format!("{};{}", nameserver.address, node.addresses.client);
    // A connection that ends at once is worth a line at the level debug only.
    let knock = |address: SocketAddr| drop(TcpStream::connect(address).expect("it listens"));
    let lines = || {
        let logs = [nameserver.process().log(), node.process().log()];
        logs.map(|log| log.matches(LINE).count())
    };
    for address in [nameserver.address, node.addresses.client] {
        knock(address);
    }
    let (code, output) = mqadmin(&cluster, &all, "changeLogLevel -l debug").await;
    assert!(code == 0 && output.matches("debug").count() == 2, "{output}");
    assert_eq!(lines(), [0, 0], "at the level info");
    eventually("both tell of it", ELECTION, async || {
        knock(nameserver.address);
        knock(node.addresses.client);
        let lines = lines();
        if lines.iter().all(|count| *count > 0) { Ok(()) } else { Err(format!("{lines:?}")) }
    })
    .await;

    let one = node.addresses.client.to_string();
    let (code, output) = mqadmin(&cluster, &one, "changeLogLevel -l warn").await;
    assert_eq!(code, 0, "{output}");
    let before = lines();
    eventually("the NameServer still tells of it", ELECTION, async || {
        knock(node.addresses.client);
        knock(nameserver.address);
        let now = lines();
        if now[0] > before[0] + 3 { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    assert_eq!(lines()[1], before[1], "the broker does not");
    let (code, output) = mqadmin(&cluster, &one, "changeLogLevel -l loud").await;
    assert!(code != 0 && output.contains("debug"), "{output}");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_tried_out_from_the_command_line() {
    let cluster = Cluster::of(3).start().await;
    let at = cluster.nameservers[0].address.to_string();
    json(&cluster, &at, "updateTopic -t trial -r 2 -a +message.type=MIXED").await;

    let route = json(&cluster, &at, "topicRoute -t trial").await;
    let queues = route["queues"].as_array().expect("queues");
    assert_eq!(queues.len(), 2, "{route}");
    assert_eq!((&queues[0]["broker"], &queues[0]["writable"]), (&"broker-a".into(), &true.into()));
    // Clients go on with the address that they asked.
    assert_eq!(queues[0]["addresses"][0], at.as_str(), "{route}");

    let command = "sendMessage -t trial -p apples -c fruit -k order-17 --property colour=red";
    let sent = json(&cluster, &at, command).await;
    let id = sent["message_id"].as_str().expect("an id");
    let found = json(&cluster, &at, &format!("queryMsgById -t trial -i {id}")).await;
    let message = &found["messages"][0];
    assert_eq!((&message["tag"], &message["body"]), (&"fruit".into(), &"apples".into()), "{found}");
    let ordered = json(&cluster, &at, "sendMessage -t trial -p second --messageGroup g").await;
    assert_eq!(ordered["recall_handle"], serde_json::Value::Null);
    let late = json(&cluster, &at, "sendMessage -t trial -p later --delayLevel 18").await;
    assert!(late["recall_handle"].is_string(), "{late}");

    // Reading does not consume, so it can be repeated; the delayed message is not there yet.
    for _ in 0..2 {
        let read = json(&cluster, &at, "consumeMessage -t trial").await;
        let mut bodies: Vec<&str> = read["messages"]
            .as_array()
            .expect("messages")
            .iter()
            .map(|message| message["body"].as_str().expect("text"))
            .collect();
        bodies.sort_unstable();
        assert_eq!(bodies, ["apples", "second"], "{read}");
    }
    let read = json(&cluster, &at, "consumeMessage -t trial -e fruit").await;
    assert_eq!(read["messages"].as_array().map(Vec::len), Some(1), "{read}");
    let (code, output) = mqadmin(&cluster, &at, "consumeMessage -t trial -b broker-z").await;
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("topicRoute"), "{output}");

    json(&cluster, &at, "updateTopicPerm -t trial -p 4").await;
    let (code, output) = mqadmin(&cluster, &at, "sendMessage -t trial -p third").await;
    assert_eq!(code, 1, "a topic that is only read takes nothing: {output}");
    let (code, output) = mqadmin(&cluster, &at, "updateTopicPerm -t nowhere -p 4").await;
    assert!(code == 1 && output.contains("does not exist"), "{output}");

    json(&cluster, &at, "updateSubGroup -g billing -o true -r 5").await;
    let config = json(&cluster, &at, "getConsumerConfig -g billing").await;
    assert_eq!(config["consume_message_orderly"], true, "{config}");
    assert_eq!(config["retry_max_times"], 5, "{config}");
    let (code, output) = mqadmin(&cluster, &at, "getConsumerConfig -g nobody").await;
    assert!(code == 1 && output.contains("does not exist"), "{output}");
}
