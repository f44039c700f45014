//! Topics and consumer groups of one name in different namespaces.

use proto::v2::{Message, ReceiveMessageRequest, Resource};

use crate::{
    client::{MESSAGE_NOT_FOUND, OK, message, poll, resource},
    harness::Node,
};

fn within(namespace: &str, name: &str) -> Resource {
    Resource { resource_namespace: namespace.into(), name: name.into() }
}

fn message_in(namespace: &str, body: &str) -> Message {
    Message { topic: Some(within(namespace, "t")), ..message("t", body, body) }
}

fn poll_in(namespace: &str, group: Resource) -> ReceiveMessageRequest {
    let mut poll = poll("g", "t");
    poll.group = Some(group);
    poll.message_queue.as_mut().unwrap().topic = Some(within(namespace, "t"));
    poll
}

#[tokio::test]
async fn a_namespace_has_topics_and_groups_of_its_own() {
    let node = Node::start().await;
    let client = node.client("c").await;
    client.sent(&[message_in("red", "in red")]).await;
    client.sent(&[message_in("blue", "in blue")]).await;
    client.sent(&[message("t", "in none", "in none")]).await;

    for (namespace, body) in [("red", "in red"), ("blue", "in blue")] {
        let group = || within(namespace, "g");
        let received = client.receive(poll_in(namespace, group())).await;
        assert_eq!(received.status.code, OK, "{received:?}");
        assert_eq!(received.bodies(), [body]);
        // As it was sent.
        assert_eq!(received.messages[0].topic, Some(within(namespace, "t")));
        let again = client.receive(poll_in(namespace, group())).await;
        assert_eq!(again.status.code, MESSAGE_NOT_FOUND, "it is the group's, not another's");
    }
    let received = client.receive(poll_in("", resource("g"))).await;
    assert_eq!(received.bodies(), ["in none"]);
    node.stop().await;
}
