//! Administration.

use proto::{
    admin::{
        ClusterStatusRequest, DescribeTopicRequest, GroupProgressRequest, ListGroupsRequest,
        ListTopicsRequest, PutGroupRequest, PutTopicRequest, TopicConfig, error::Fate,
    },
    v2::{MessageType, Permission},
};

use crate::{
    client::{message, poll},
    harness::{Node, eventually},
};

fn put_topic(topic: &str, permission: Permission, accepts: &[MessageType]) -> PutTopicRequest {
    PutTopicRequest {
        config: Some(TopicConfig {
            topic: topic.into(),
            queues: 4,
            permission: permission.into(),
            accepts: accepts.iter().map(|kind| (*kind).into()).collect(),
        }),
        ..Default::default()
    }
}

#[tokio::test]
async fn topics_are_created_listed_and_described() {
    let node = Node::with(|config| config.auto_create_topics = false).await;
    let client = node.client("c").await;
    let mut admin = client.admin();
    let put = put_topic("orders", Permission::ReadWrite, &[MessageType::Normal]);
    let response = admin.put_topic(put).await.unwrap().into_inner();
    assert_eq!(response.error, None);
    assert_eq!(response.placement[0].broker_name, "broker-a");
    assert!(response.version > 0);

    client.sent(&[message("orders", "id", "body")]).await;
    let listed = admin.list_topics(ListTopicsRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.topics[0].config.as_ref().unwrap().queues, 4);
    let request = DescribeTopicRequest { topic: "orders".into() };
    let described = admin.describe_topic(request).await.unwrap().into_inner();
    let ends: Vec<u64> = described.queues.iter().map(|queue| queue.max_offset).collect();
    assert_eq!(ends, [1, 0, 0, 0]);
    let request = DescribeTopicRequest { topic: "absent".into() };
    let absent = admin.describe_topic(request).await.unwrap().into_inner();
    assert_eq!(absent.error.unwrap().fate(), Fate::Rejected);
    node.stop().await;
}

#[tokio::test]
async fn permission_and_type_of_a_topic_are_kept() {
    let node = Node::start().await;
    let client = node.client("c").await;
    let mut admin = client.admin();
    let cases = [
        put_topic("read-only", Permission::Read, &[MessageType::Normal]),
        put_topic("write-only", Permission::Write, &[MessageType::Normal]),
        put_topic("fifo", Permission::ReadWrite, &[MessageType::Fifo]),
    ];
    for put in cases {
        assert_eq!(admin.put_topic(put).await.unwrap().into_inner().error, None);
    }
    let code = |topic: &'static str| {
        let client = client.clone();
        async move { client.send(&[message(topic, "id", "b")]).await.status.unwrap().code }
    };
    assert_eq!(code("read-only").await, 40300);
    assert_eq!(code("fifo").await, 40014);
    assert_eq!(code("write-only").await, 20000);
    assert_eq!(client.receive(poll("g", "write-only")).await.status.code, 40300);
    node.stop().await;
}

#[tokio::test]
async fn progress_shows_what_is_held_and_what_is_left() {
    let node = Node::start().await;
    let client = node.client("c").await;
    let batch: Vec<_> = (0..5).map(|n| message("t", &n.to_string(), "b")).collect();
    client.sent(&batch).await;
    let mut two = poll("g", "t");
    two.batch_size = 2;
    let received = client.receive(two).await;
    client.ack("g", "t", &received.messages[..1]).await;
    let request = GroupProgressRequest { group: "g".into(), topic: "t".into() };
    let progress = client.admin().group_progress(request).await.unwrap().into_inner();
    let queue = progress.queues.iter().find(|queue| queue.queue_id == 0).unwrap();
    let figures = (queue.committed_offset, queue.next_offset, queue.max_offset, queue.in_flight);
    assert_eq!(figures, (1, 2, 5, 1));

    let groups = client.admin().list_groups(ListGroupsRequest {}).await.unwrap().into_inner();
    assert_eq!(groups.groups[0].group, "g");
    let put = PutGroupRequest {
        config: Some(proto::admin::GroupConfig {
            group: "h".into(),
            max_attempts: 3,
            backoff_ms: vec![1000],
            ..Default::default()
        }),
    };
    assert_eq!(client.admin().put_group(put).await.unwrap().into_inner().error, None);
    let groups = client.admin().list_groups(ListGroupsRequest {}).await.unwrap().into_inner();
    assert!(groups.groups.iter().any(|group| group.group == "h" && group.max_attempts == 3));
    node.stop().await;
}

#[tokio::test]
async fn pages_and_cluster_status_name_the_leader() {
    let node = Node::start().await;
    let client = node.client("c").await;
    let status = client.admin().cluster_status(ClusterStatusRequest {}).await.unwrap();
    let groups = status.into_inner().groups;
    let own = groups.iter().find(|group| group.broker_name == "broker-a").unwrap();
    assert_eq!((own.leader_id, own.flush.as_str()), (1, "sync"));

    eventually("ready", || async { node.page("/ready").await.contains("ready").then_some(()) })
        .await;
    let page = node.page("/status").await;
    let body = page.split("\r\n\r\n").nth(1).unwrap();
    let status: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(status["role"], "leader");
    assert_eq!(status["broker_name"], "broker-a");
    let at = |key: &str| status[key].as_u64().unwrap();
    assert!(at("purged") <= at("applied") && at("applied") <= at("committed"));
    assert!(at("committed") <= at("last"));
    node.stop().await;
}
