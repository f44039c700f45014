//! Broker groups come and go: settings and topics over several of them.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jepsen::Fate;
use proto::admin::change_request::Change;
use proto::admin::error::Fate as Ended;
use proto::admin::query_messages_request::By;
use proto::{admin, hop, v2};
use tests::cluster::{DRAIN, ELECTION};
use tests::node::Node;
use tests::rpc::Rpc;
use tests::{Cluster, eventually};

const TOPIC: &str = "orders";

type Admin = admin::admin_client::AdminClient<tonic::transport::Channel>;

/// Administration at a NameServer, which holds nothing itself.
fn admin(cluster: &Cluster) -> Admin {
    cluster.nameservers[0].rpc().admin()
}

/// What a change ended with, if not well.
async fn change(cluster: &Cluster, change: Change) -> Option<admin::Error> {
    let request = admin::ChangeRequest { change: Some(change) };
    let answer = admin(cluster).change(request).await;
    answer.expect("an answer").into_inner().error
}

async fn put_topic(cluster: &Cluster, brokers: &[&str], queues: u32) -> Option<admin::Error> {
    let config = admin::TopicConfig {
        topic: TOPIC.into(),
        queues,
        permission: v2::Permission::ReadWrite.into(),
        accepts: vec![v2::MessageType::Normal.into()],
    };
    let request = admin::PutTopicRequest {
        config: Some(config),
        broker_names: brokers.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    };
    let answer = admin(cluster).put_topic(request).await;
    answer.expect("an answer").into_inner().error
}

async fn put_group(cluster: &Cluster, max_attempts: u32) -> Option<admin::Error> {
    let config = admin::GroupConfig {
        group: "audit".into(),
        fifo: true,
        max_attempts,
        ..Default::default()
    };
    let request = admin::PutGroupRequest { config: Some(config) };
    let answer = admin(cluster).put_group(request).await;
    answer.expect("an answer").into_inner().error
}

fn quota(messages_per_second: u64) -> Change {
    Change::PutQuota(admin::Quota {
        kind: admin::LimitedKind::Client.into(),
        name: "somebody".into(),
        messages_per_second,
        ..Default::default()
    })
}

fn retire(broker: &str, force: bool) -> Change {
    let (topic, broker_name) = (TOPIC.to_owned(), broker.to_owned());
    Change::RetireTopic(admin::RetireTopic { topic, broker_name, force })
}

/// The consumer group `audit` and the quota as this node's broker group has them.
async fn settings_at(
    node: &Node,
    name: &str,
) -> (Option<admin::GroupConfig>, Option<admin::Quota>) {
    let name = name.parse().expect("a broker name");
    let mut client = node.rpc().admin();
    let mut request = tonic::Request::new(admin::ListGroupsRequest {});
    hop::mark(request.metadata_mut(), &name);
    let groups = client.list_groups(request).await.expect("it leads").into_inner().groups;
    let mut request = tonic::Request::new(admin::ListQuotasRequest {});
    hop::mark(request.metadata_mut(), &name);
    let quotas = client.list_quotas(request).await.expect("it leads").into_inner().quotas;
    let group = groups.into_iter().find(|group| group.group == "audit");
    (group, quotas.into_iter().find(|quota| quota.name == "somebody"))
}

/// Messages per broker group that its queues were given in all.
async fn given(cluster: &Cluster, broker: &str) -> u64 {
    let request = admin::DescribeTopicRequest { topic: TOPIC.into() };
    let answer = admin(cluster).describe_topic(request).await.expect("an answer");
    let queues = answer.into_inner().queues;
    queues.iter().filter(|queue| queue.broker_name == broker).map(|queue| queue.max_offset).sum()
}

/// The broker groups in a route, and the permissions of their queues.
async fn route(cluster: &Cluster) -> BTreeSet<(String, i32)> {
    let route = cluster.nameservers[0].rpc().query_route(TOPIC).await.expect("a route");
    let queue = |queue: v2::MessageQueue| {
        (queue.broker.map(|broker| broker.name).unwrap_or_default(), queue.permission)
    };
    route.into_iter().map(queue).collect()
}

fn is(name: &str, permission: v2::Permission) -> (String, i32) {
    (name.to_owned(), permission.into())
}

async fn routes_become(cluster: &Cluster, expected: BTreeSet<(String, i32)>) {
    eventually("routes follow", ELECTION, async || {
        let route = route(cluster).await;
        if route == expected { Ok(()) } else { Err(format!("{route:?}")) }
    })
    .await;
}

/// A broker group is added to a topic and brings its share, with every setting that the others have;
/// another one is closed, drained and taken out. Producers and consumers see nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_added_and_another_one_leaves() {
    let mut cluster = Cluster::of(1).start().await;
    cluster.topic(TOPIC, 2).await;
    assert_eq!(put_group(&cluster, 5).await, None);
    assert_eq!(change(&cluster, quota(1000)).await, None);
    let access = [cluster.nameservers[0].address];
    let producer = tests::Producer::new(&access, TOPIC, &cluster.ledger);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (producer, stopped) = (producer.clone(), stopped.clone());
        senders.spawn(async move {
            while !*stopped.borrow() {
                assert_eq!(producer.send_one().await, Fate::Done);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }

    cluster.add_group(1).await;
    eventually("the new group is known", ELECTION, async || {
        let status = admin(&cluster).cluster_status(admin::ClusterStatusRequest {}).await;
        let groups = status.map_err(|e| e.to_string())?.into_inner().groups;
        if groups.len() == 2 { Ok(()) } else { Err(format!("{groups:?}")) }
    })
    .await;
    assert_eq!(put_topic(&cluster, &["broker-b"], 2).await, None);
    let new = Arc::clone(&cluster.groups[1].nodes[0]);
    let (group, quota) = settings_at(&new, "broker-b").await;
    let (known, limit) = settings_at(&cluster.groups[0].nodes[0], "broker-a").await;
    assert!(group.as_ref().is_some_and(|group| group.fifo && group.max_attempts == 5));
    assert_eq!((group, quota), (known, limit), "it has what the others have");
    eventually("the new group has its share", ELECTION, async || {
        let given = given(&cluster, "broker-b").await;
        if given > 50 { Ok(()) } else { Err(format!("{given} messages")) }
    })
    .await;

    let both = |a| BTreeSet::from([is("broker-a", a), is("broker-b", v2::Permission::ReadWrite)]);
    let last = change(&cluster, retire("broker-a", false)).await.expect("it is open");
    assert_eq!(last.fate(), Ended::Rejected, "{last:?}");
    assert_eq!(put_topic(&cluster, &["broker-a"], 0).await, None);
    routes_become(&cluster, both(v2::Permission::Read)).await;
    let closed = given(&cluster, "broker-a").await;
    let sent = cluster.ledger.acknowledged();
    eventually("sends go on", ELECTION, async || {
        let more = cluster.ledger.acknowledged() - sent;
        if more > 50 { Ok(()) } else { Err(format!("{more}")) }
    })
    .await;
    assert_eq!(given(&cluster, "broker-a").await, closed, "nothing goes there any more");
    let left = change(&cluster, retire("broker-a", false)).await.expect("nobody read anything");
    assert!(left.message.contains(&format!("{closed} messages")), "{left:?}");
    let none = put_topic(&cluster, &["broker-b"], 0).await.expect("nobody would be left");
    assert_eq!(none.fate(), Ended::Rejected, "{none:?}");

    let mut reader = tests::Consumer::new(&access, "reader", TOPIC, &cluster.ledger);
    let reading = {
        let stopped = stopped.clone();
        tokio::spawn(async move { reader.consume_until(stopped).await })
    };
    eventually("the group is drained and leaves", DRAIN, async || {
        match change(&cluster, retire("broker-a", false)).await {
            None => Ok(()),
            Some(error) => Err(error.message),
        }
    })
    .await;
    routes_become(&cluster, BTreeSet::from([is("broker-b", v2::Permission::ReadWrite)])).await;
    assert_eq!(change(&cluster, retire("broker-a", false)).await, None, "again does no harm");
    let sent = cluster.ledger.acknowledged();
    eventually("sends go on without it", ELECTION, async || {
        let more = cluster.ledger.acknowledged() - sent;
        if more > 50 { Ok(()) } else { Err(format!("{more}")) }
    })
    .await;
    stop.send(true).expect("they listen");
    senders.join_all().await;
    reading.await.expect("the reader finds nothing wrong");
    cluster.consumer("reader", TOPIC).receives_everything(DRAIN).await;
    cluster.ledger.must_hold(&["reader"]);
    cluster.finish().await;
}

/// While a group is gone, whatever concerns it says so: no answer is silently a part of the truth,
/// nothing is said not to exist, and what was not done everywhere is completed by doing it again.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_missing_group_keeps_from_being_done_is_said() {
    let cluster = Cluster::of(1).groups(2).start().await;
    cluster.topic(TOPIC, 2).await;
    assert_eq!(put_group(&cluster, 5).await, None);
    let producer = cluster.producer(TOPIC);
    assert_eq!(producer.send(40, 4).await, 40);
    cluster.groups[1].kill();
    // NameServers give a silent node up after 15 s; the group must not be forgotten with it.
    eventually("the group is given up", Duration::from_secs(30), async || {
        let status = admin(&cluster).cluster_status(admin::ClusterStatusRequest {}).await;
        let groups = status.map_err(|e| e.to_string())?.into_inner().groups;
        let gone = groups.iter().find(|group| group.broker_name == "broker-b");
        match gone.map(|group| group.leader_id) {
            Some(0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    let named = |error: Option<admin::Error>, what: &str| {
        let error = error.unwrap_or_else(|| panic!("{what}: no error, though a group is gone"));
        assert!(error.message.contains("broker-b"), "{what}: {error:?}");
        assert_eq!(error.fate(), Ended::NotDone, "{what}: {error:?}");
    };
    let mut client = admin(&cluster);
    let listed = client.list_topics(admin::ListTopicsRequest {}).await.expect("an answer");
    named(listed.into_inner().error, "topics");
    let listed = client.list_groups(admin::ListGroupsRequest {}).await.expect("an answer");
    named(listed.into_inner().error, "consumer groups");
    let request = admin::GroupProgressRequest { group: "audit".into(), topic: String::new() };
    named(client.group_progress(request).await.expect("an answer").into_inner().error, "progress");
    let request = admin::DescribeTopicRequest { topic: TOPIC.into() };
    named(client.describe_topic(request).await.expect("an answer").into_inner().error, "offsets");
    let by = Some(By::Key("key".into()));
    let request = admin::QueryMessagesRequest { topic: TOPIC.into(), by, ..Default::default() };
    named(client.query_messages(request).await.expect("an answer").into_inner().error, "messages");
    let request = admin::ResetOffsetsRequest {
        group: "audit".into(),
        topic: TOPIC.into(),
        to: Some(admin::reset_offsets_request::To::Begin(true)),
        ..Default::default()
    };
    named(client.reset_offsets(request).await.expect("an answer").into_inner().error, "reset");
    named(put_topic(&cluster, &[], 4).await, "a wider topic");
    let request = admin::DescribeTopicRequest { topic: TOPIC.into() };
    let queues = client.describe_topic(request).await.expect("an answer").into_inner().queues;
    assert_eq!(queues.len(), 2, "what cannot be done everywhere is begun nowhere");
    named(put_group(&cluster, 9).await, "a changed consumer group");
    named(change(&cluster, quota(7)).await, "a quota");
    named(change(&cluster, Change::DeleteTopic("bills".into())).await, "a topic that may be there");
    let rpc: Rpc = cluster.nameservers[0].rpc();
    let unknown = rpc.query_route("bills").await.expect_err("it may be in the missing group");
    assert_eq!(unknown.code(), i32::from(v2::Code::HaNotAvailable), "{unknown}");
    assert_eq!(rpc.query_route(TOPIC).await.expect("it is known").len(), 4);

    cluster.groups[1].start();
    cluster.groups[1].leader().await;
    assert_eq!(put_group(&cluster, 9).await, None);
    assert_eq!(change(&cluster, quota(7)).await, None);
    let (group, limit) = settings_at(&cluster.groups[0].nodes[0], "broker-a").await;
    assert!(group.as_ref().is_some_and(|group| group.max_attempts == 9 && group.version > 0));
    assert_eq!(limit.as_ref().map(|quota| quota.messages_per_second), Some(7));
    assert_eq!(settings_at(&cluster.groups[1].nodes[0], "broker-b").await, (group, limit));
    assert_eq!(put_topic(&cluster, &[], 4).await, None);
    cluster.finish_with_everything_received(TOPIC, &["reader"]).await;
}

/// Messages with a key are found in whichever group they are; dead letters of both are read under
/// one name, and go back where they came from.
#[tokio::test(flavor = "multi_thread")]
async fn messages_and_dead_letters_of_all_groups_are_found() {
    let cluster = Cluster::of(1).groups(2).start().await;
    cluster.topic(TOPIC, 2).await;
    let access = [cluster.nameservers[0].address];
    let rpc = Rpc::new(access[0]);
    let mut ids = Vec::new();
    for n in 0..30 {
        let number = jepsen::Message::new(5000, n);
        let mut message = tests::producer::normal_message(TOPIC, number, "body".into());
        let system = message.system_properties.as_mut().expect("they are set");
        system.keys = vec!["invoice".into()];
        ids.push(system.message_id.clone());
        rpc.send(&[message], tests::rpc::DEADLINE).await.expect("it is stored");
    }
    let find = async |by: By, topic: &str| {
        let topic = topic.to_owned();
        let request = admin::QueryMessagesRequest { topic, by: Some(by), ..Default::default() };
        let answer = rpc.admin().query_messages(request).await.expect("an answer").into_inner();
        assert_eq!(answer.error, None);
        answer.messages
    };
    let brokers = |found: &[admin::StoredMessage]| -> BTreeSet<String> {
        found.iter().map(|message| message.broker_name.clone()).collect()
    };
    let both = BTreeSet::from(["broker-a".to_owned(), "broker-b".to_owned()]);
    let keyed = find(By::Key("invoice".into()), TOPIC).await;
    assert_eq!((keyed.len(), brokers(&keyed)), (30, both.clone()));
    assert!(keyed.windows(2).all(|pair| pair[0].stored_ms >= pair[1].stored_ms), "latest first");
    let any = find(By::Any(admin::QueueChoice { queue_id: None }), TOPIC).await;
    assert_eq!(any.len(), 30);
    for id in &ids {
        let found = find(By::MessageId(id.clone()), TOPIC).await;
        let [one] = &found[..] else { panic!("{id} is found {} times", found.len()) };
        let request = admin::TrackMessageRequest {
            topic: TOPIC.into(),
            broker_name: one.broker_name.clone(),
            queue_id: one.queue_id,
            offset: one.offset,
        };
        let track = rpc.admin().track_message(request).await.expect("an answer").into_inner();
        assert_eq!(track.error, None);
    }

    let mut given_up = 0;
    let mut worker = tests::Consumer::new(&access, "worker", TOPIC, &cluster.ledger)
        .identifying_by(Arc::new(|_: &v2::Message| None));
    while given_up < ids.len() {
        let poll = Duration::from_secs(5);
        let deliveries = worker.receive(8, Duration::from_secs(30), poll).await.expect("a poll");
        for delivery in deliveries {
            rpc.give_up("worker", TOPIC, delivery.entry()).await.expect("it is given up");
            given_up += 1;
        }
    }
    let graves = "%DLQ%worker";
    let dead = find(By::Any(admin::QueueChoice { queue_id: None }), graves).await;
    assert_eq!((dead.len(), brokers(&dead)), (30, both.clone()));
    eventually("the route leads to the dead letters of both", ELECTION, async || {
        let route = rpc.query_route(graves).await.map_err(|e| e.to_string())?;
        let names: BTreeSet<_> =
            route.into_iter().filter_map(|queue| queue.broker).map(|broker| broker.name).collect();
        if names == both { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
    let mut undertaker = tests::Consumer::new(&access, "undertaker", graves, &cluster.ledger)
        .identifying_by(Arc::new(|_: &v2::Message| None));
    let mut letters = BTreeSet::new();
    eventually("all dead letters are read", DRAIN, async || {
        let poll = Duration::from_secs(5);
        let deliveries = undertaker.receive(32, Duration::from_secs(30), poll).await;
        for delivery in deliveries.map_err(|e| e.to_string())? {
            letters.insert(delivery.id);
        }
        if letters.len() == ids.len() { Ok(()) } else { Err(format!("{}", letters.len())) }
    })
    .await;
    let request = admin::RedriveDeadLettersRequest { group: "worker".into(), max: 0 };
    let answer = rpc.admin().redrive_dead_letters(request.clone()).await.expect("an answer");
    assert_eq!((answer.get_ref().error.clone(), answer.get_ref().count), (None, 30));
    let again = rpc.admin().redrive_dead_letters(request).await.expect("an answer");
    assert_eq!(again.into_inner().count, 0, "each goes back once");
    assert_eq!(given(&cluster, "broker-a").await + given(&cluster, "broker-b").await, 60);

    // Two that pull everything, each by offsets of its own, in all groups.
    let route = rpc.query_route(TOPIC).await.expect("a route");
    for name in ["first", "second"] {
        let client = Rpc::with_id(access[0], name);
        let mut read = 0;
        for queue in &route {
            let mut next = 0;
            loop {
                let wait = Duration::from_millis(10);
                let (messages, after) = client.pull(name, queue, next, wait).await.expect("a pull");
                if messages.is_empty() {
                    break;
                }
                (read, next) = (read + messages.len(), after);
            }
        }
        assert_eq!(read, 60, "{name} reads all");
    }
    let request = admin::ResetOffsetsRequest {
        group: "worker".into(),
        topic: TOPIC.into(),
        to: Some(admin::reset_offsets_request::To::End(true)),
        ..Default::default()
    };
    let reset = rpc.admin().reset_offsets(request).await.expect("an answer").into_inner();
    assert_eq!((reset.error, reset.queues.len()), (None, 4));
    let request = admin::GroupProgressRequest { group: "worker".into(), topic: TOPIC.into() };
    let progress = rpc.admin().group_progress(request).await.expect("an answer").into_inner();
    assert_eq!((progress.error, progress.queues.len()), (None, 4));
    assert!(progress.queues.iter().all(|queue| queue.ready + queue.lasting == 0));
    cluster.finish().await;
}
