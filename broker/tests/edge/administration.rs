//! Deleting, shrinking, switching off and bounding.

use std::time::{Duration, Instant};

use proto::{
    admin::{
        ChangeRequest, GetConfigRequest, LimitedKind, ListGroupsRequest, ListQuotasRequest,
        ListTopicsRequest, LiveSetting, PutTopicRequest, Quota, Retention, SwitchGroup,
        TopicConfig, change_request::Change, error::Fate,
    },
    v2::{Message, MessageType, Permission, Resource},
};

use crate::{
    client::{Client, MESSAGE_NOT_FOUND, OK, finish, message, poll},
    harness::{Node, eventually, within},
};

const FORBIDDEN: i32 = 40300;
const TOPIC_NOT_FOUND: i32 = 40402;
const INVALID_RECEIPT_HANDLE: i32 = 40013;
const TOO_MANY_REQUESTS: i32 = 42900;

async fn node() -> Node {
    Node::with(|config| config.auto_create_topics = false).await
}

async fn put(client: &Client, topic: &str, queues: u32, permission: Permission) {
    let config = TopicConfig {
        topic: topic.into(),
        queues,
        permission: permission.into(),
        accepts: vec![MessageType::Normal.into()],
    };
    let request = PutTopicRequest { config: Some(config), ..Default::default() };
    let answer = client.admin().put_topic(request).await.unwrap().into_inner();
    assert_eq!(answer.error, None);
}

/// How a change was refused; `None` when it was made.
async fn change(client: &Client, change: Change) -> Option<Fate> {
    let request = ChangeRequest { change: Some(change) };
    let answer = client.admin().change(request).await.unwrap().into_inner();
    answer.error.map(|error| error.fate())
}

fn in_queue(topic: &str, id: &str, queue: i32) -> Message {
    let mut message = message(topic, id, id);
    message.system_properties.as_mut().unwrap().queue_id = queue;
    message
}

async fn send_code(client: &Client, topic: &str) -> i32 {
    client.send(&[message(topic, "id", "b")]).await.status.unwrap().code
}

#[tokio::test]
async fn a_deleted_topic_is_gone_for_all_and_a_new_one_of_the_name_is_empty() {
    let node = node().await;
    let client = node.client("c").await;
    put(&client, "t", 1, Permission::ReadWrite).await;
    client.sent(&[message("t", "old-1", "old"), message("t", "old-2", "old")]).await;
    let held = client.receive(poll("g", "t")).await.messages;
    assert_eq!(held.len(), 2);
    let (other, another) = (node.client("d").await, node.client("e").await);
    let waiting = [other.begin(poll("g", "t")).await, another.begin(poll("g", "t")).await];

    assert_eq!(change(&client, Change::DeleteTopic("t".into())).await, None);
    for waiting in waiting {
        let told = within("the poll ends", finish(waiting)).await;
        assert_eq!(told.status.code, TOPIC_NOT_FOUND);
    }
    assert_eq!(send_code(&client, "t").await, TOPIC_NOT_FOUND);
    assert_eq!(client.receive(poll("g", "t")).await.status.code, TOPIC_NOT_FOUND);
    let listed = client.admin().list_topics(ListTopicsRequest {}).await.unwrap().into_inner();
    assert!(listed.topics.is_empty());

    put(&client, "t", 1, Permission::ReadWrite).await;
    client.sent(&[message("t", "new", "new")]).await;
    let received = client.receive(poll("g", "t")).await;
    assert_eq!(received.bodies(), ["new"]);
    let offset = received.messages[0].system_properties.as_ref().unwrap().queue_offset;
    assert_eq!(offset, Some(0));
    for entry in client.ack("g", "t", &held).await.entries {
        assert_eq!(entry.status.unwrap().code, INVALID_RECEIPT_HANDLE);
    }
    let acked = client.ack("g", "t", &received.messages).await;
    assert_eq!(acked.status.unwrap().code, OK);
    node.stop().await;
}

#[tokio::test]
async fn queues_that_a_topic_loses_are_read_to_their_end() {
    let node = node().await;
    let client = node.client("c").await;
    put(&client, "t", 4, Permission::ReadWrite).await;
    for queue in 0..4 {
        client.sent(&[in_queue("t", &format!("id-{queue}"), queue)]).await;
    }
    put(&client, "t", 1, Permission::ReadWrite).await;
    // A queue that takes nothing any more is replaced.
    let sent = client.sent(&[in_queue("t", "late", 3)]).await;
    assert_eq!(sent.entries[0].offset, 1);

    let received = client.receive_all("g", "t", 5).await;
    client.ack("g", "t", &received).await;
    let topic = "t".parse().unwrap();
    eventually("the drained queues are gone", || async {
        (node.server().broker().view().queue_ends(&topic).len() == 1).then_some(())
    })
    .await;
    client.sent(&[message("t", "after", "after")]).await;
    assert_eq!(client.receive(poll("g", "t")).await.bodies(), ["after"]);
    put(&client, "t", 8, Permission::ReadWrite).await;
    client.sent(&[in_queue("t", "grown", 7)]).await;
    assert_eq!(client.receive(poll("g", "t")).await.bodies(), ["grown"]);
    node.stop().await;
}

#[tokio::test]
async fn a_permission_that_changes_counts_at_once() {
    let node = node().await;
    let client = node.client("c").await;
    put(&client, "t", 1, Permission::ReadWrite).await;
    let waiting = node.client("d").await.begin(poll("g", "t")).await;
    put(&client, "t", 1, Permission::Write).await;
    assert_eq!(within("the poll ends", finish(waiting)).await.status.code, FORBIDDEN);
    assert_eq!(send_code(&client, "t").await, OK);
    put(&client, "t", 1, Permission::Read).await;
    assert_eq!(send_code(&client, "t").await, FORBIDDEN);
    assert_eq!(client.receive(poll("g", "t")).await.status.code, OK);
    node.stop().await;
}

#[tokio::test]
async fn a_group_is_switched_off_and_on_and_deleted() {
    let node = node().await;
    let client = node.client("c").await;
    put(&client, "t", 1, Permission::ReadWrite).await;
    client.sent(&[message("t", "1", "1"), message("t", "2", "2")]).await;
    let one = || proto::v2::ReceiveMessageRequest { batch_size: 1, ..poll("g", "t") };
    let held = client.receive(one()).await.messages;

    let switch =
        |enabled| Change::SwitchGroup(SwitchGroup { group: "g".into(), enabled, version: 0 });
    assert_eq!(change(&client, switch(false)).await, None);
    assert_eq!(client.receive(one()).await.status.code, FORBIDDEN);
    let groups = client.admin().list_groups(ListGroupsRequest {}).await.unwrap().into_inner();
    assert!(groups.groups[0].disabled);
    assert_eq!(client.ack("g", "t", &held).await.status.unwrap().code, OK);
    assert_eq!(change(&client, switch(true)).await, None);
    assert_eq!(client.receive(one()).await.bodies(), ["2"]);

    assert_eq!(change(&client, Change::DeleteGroup("g".into())).await, None);
    assert_eq!(client.receive(poll("g", "t")).await.bodies(), ["1", "2"], "from the beginning");
    node.stop().await;
}

/// The answer to the first attempt may have been lost.
#[tokio::test]
async fn what_is_not_there_is_deleted_already() {
    let node = node().await;
    let client = node.client("c").await;
    put(&client, "t", 1, Permission::ReadWrite).await;
    client.sent(&[message("t", "1", "1")]).await;
    assert_eq!(client.receive(poll("g", "t")).await.bodies(), ["1"]);
    let deleted = |change: Change| {
        let request = ChangeRequest { change: Some(change) };
        let mut admin = client.admin();
        async move {
            let answer = admin.change(request).await.unwrap().into_inner();
            assert_eq!(answer.error, None);
            !answer.absent
        }
    };
    for change in [Change::DeleteTopic("t".into()), Change::DeleteGroup("g".into())] {
        assert!(deleted(change.clone()).await, "{change:?}");
        assert!(!deleted(change.clone()).await, "{change:?} again");
    }
    let never = Change::DeleteTopic("no topic's name".into());
    assert_eq!(change(&client, never).await, Some(Fate::Rejected), "that is a mistake");
    node.stop().await;
}

#[tokio::test]
async fn a_quota_holds_back_and_is_told_and_lifted() {
    let node = node().await;
    let client = node.client("c").await;
    put(&client, "t", 1, Permission::ReadWrite).await;
    let quota = |kind: LimitedKind, name: &str, messages_per_second| Quota {
        kind: kind.into(),
        name: name.into(),
        messages_per_second,
        bytes_per_second: 0,
        version: 0,
    };
    let limits = [(LimitedKind::Topic, "t"), (LimitedKind::Client, "c")];
    for (kind, name) in limits {
        assert_eq!(change(&client, Change::PutQuota(quota(kind, name, 5))).await, None);
        let listed = client.admin().list_quotas(ListQuotasRequest {}).await.unwrap().into_inner();
        let [listed] = &listed.quotas[..] else { panic!("{listed:?}") };
        assert!(listed.version > 0, "it was set under a version");
        assert_eq!(Quota { version: 0, ..listed.clone() }, quota(kind, name, 5));
        let started = Instant::now();
        let mut refused = 0;
        for _ in 0..30 {
            match send_code(&client, "t").await {
                OK => {}
                TOO_MANY_REQUESTS => refused += 1,
                other => panic!("{other}"),
            }
        }
        let passed = 30 - refused;
        let seconds = started.elapsed().as_secs() + 1;
        assert!(passed >= 5 && passed <= 5 + 5 * seconds, "{passed} in {seconds} s");
        assert_eq!(change(&client, Change::PutQuota(quota(kind, name, 0))).await, None);
        assert_eq!(send_code(&client, "t").await, OK);
    }
    let batch: Vec<_> = (0..5).map(|n| message("t", &format!("id-{n}"), "b")).collect();
    client.sent(&batch).await;
    let quota = quota(LimitedKind::Group, "g", 2);
    assert_eq!(change(&client, Change::PutQuota(quota)).await, None);
    assert_eq!(client.receive(poll("g", "t")).await.status.code, OK);
    assert_eq!(client.receive(poll("g", "t")).await.status.code, TOO_MANY_REQUESTS);
    assert_eq!(client.receive(poll("h", "t")).await.status.code, OK, "another group");
    let pulled = async || crate::pull::pull(&client, crate::pull::pull_of("g", 0)).await.code;
    eventually("what was owed is forgiven by time", || async {
        (pulled().await == OK).then_some(())
    })
    .await;
    assert_eq!(pulled().await, TOO_MANY_REQUESTS, "pulls count too");
    node.stop().await;
}

#[tokio::test]
async fn what_is_kept_no_longer_is_not_delivered() {
    let node = node().await;
    let client = node.client("c").await;
    put(&client, "t", 1, Permission::ReadWrite).await;
    client.sent(&[message("t", "old", "old")]).await;
    let retention = Retention { topic: "t".into(), ms: 1, bytes: 0, version: 0 };
    assert_eq!(change(&client, Change::PutRetention(retention)).await, None);
    let topic = "t".parse().unwrap();
    eventually("the message has expired", || async {
        let ends = node.server().broker().view().queue_ends(&topic);
        (ends[0].1.0 == 1).then_some(())
    })
    .await;
    let retention = Retention { topic: "t".into(), ms: 3_600_000, bytes: 0, version: 0 };
    assert_eq!(change(&client, Change::PutRetention(retention)).await, None);
    let listed = client.admin().list_topics(ListTopicsRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.topics[0].retention_ms, 3_600_000);
    client.sent(&[message("t", "new", "new")]).await;
    assert_eq!(client.receive(poll("g", "t")).await.bodies(), ["new"]);
    node.stop().await;
}

#[tokio::test]
async fn the_same_name_in_two_namespaces_is_two_topics() {
    let node = node().await;
    let client = node.client("c").await;
    put(&client, "ns%t", 1, Permission::ReadWrite).await;
    put(&client, "t", 1, Permission::ReadWrite).await;
    let resource = |namespace: &str, name: &str| Resource {
        resource_namespace: namespace.into(),
        name: name.into(),
    };
    for namespace in ["ns", ""] {
        let mut message = message("t", namespace, namespace);
        message.body = format!("in {namespace:?}").into();
        message.system_properties.as_mut().unwrap().message_id = format!("id-{namespace}");
        message.topic = Some(resource(namespace, "t"));
        client.sent(&[message]).await;
    }
    for namespace in ["ns", ""] {
        let mut poll = poll("g", "t");
        poll.group = Some(resource(namespace, "g"));
        poll.message_queue.as_mut().unwrap().topic = Some(resource(namespace, "t"));
        let received = client.receive(poll.clone()).await;
        assert_eq!(received.bodies(), [format!("in {namespace:?}")]);
        let topic = received.messages[0].topic.clone().unwrap();
        assert_eq!(topic, resource(namespace, "t"));
        assert_eq!(client.receive(poll).await.status.code, MESSAGE_NOT_FOUND);
    }
    let mut elsewhere = poll("g", "t");
    elsewhere.message_queue.as_mut().unwrap().topic = Some(resource("other", "t"));
    assert_eq!(client.receive(elsewhere).await.status.code, TOPIC_NOT_FOUND);
    let groups = client.admin().list_groups(ListGroupsRequest {}).await.unwrap().into_inner();
    let names: Vec<_> = groups.groups.iter().map(|group| group.group.as_str()).collect();
    assert_eq!(names, ["g", "ns%g"]);
    within("it stops", tokio::time::timeout(Duration::from_secs(9), node.stop())).await.unwrap();
}

fn live(key: &str, value: Option<&str>) -> Change {
    let (key, value) = (key.to_owned(), value.map(str::to_owned));
    Change::PutLiveSetting(LiveSetting { key, value, ..Default::default() })
}

#[tokio::test]
async fn a_setting_that_is_changed_while_the_broker_runs_is_in_force_and_is_listed() {
    let node = node().await;
    let client = node.client("c").await;
    let origin = async || {
        let all = client.admin().get_config(GetConfigRequest {}).await.unwrap().into_inner();
        let of = |key: &str| all.entries.iter().find(|entry| entry.key == key).unwrap().clone();
        let entry = of("auto_create_topics");
        assert!(entry.live && !of("listen").live);
        (entry.value, entry.origin)
    };
    assert_eq!(send_code(&client, "t").await, TOPIC_NOT_FOUND);
    assert_eq!(origin().await, ("false".to_owned(), "default".to_owned()));

    assert_eq!(change(&client, live("auto_create_topics", Some("true"))).await, None);
    assert_eq!(send_code(&client, "t").await, OK);
    assert_eq!(origin().await, ("true".to_owned(), "replicated".to_owned()));

    assert_eq!(change(&client, live("auto_create_topics", None)).await, None);
    assert_eq!(send_code(&client, "other").await, TOPIC_NOT_FOUND);
    assert_eq!(origin().await, ("false".to_owned(), "default".to_owned()));
}

#[tokio::test]
async fn what_cannot_be_changed_while_the_broker_runs_is_refused() {
    let node = node().await;
    let client = node.client("c").await;
    for (key, value) in [
        ("listen", "127.0.0.1:1"),
        ("no_such_key", "1"),
        ("auto_create_queues", "0"),
        ("auto_create_queues", "many"),
        ("max_delay", "100000d"),
    ] {
        let refused = change(&client, live(key, Some(value))).await;
        assert_eq!(refused, Some(Fate::Rejected), "{key} = {value}");
    }
    let long = "x".repeat(2000);
    assert_eq!(change(&client, live(&long, None)).await, Some(Fate::Rejected));
    let all = client.admin().get_config(GetConfigRequest {}).await.unwrap().into_inner();
    assert!(all.entries.iter().all(|entry| entry.origin != "replicated"));
}
