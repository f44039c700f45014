//! What a planned stop and a new start leave: everything.

use std::time::Duration;

use crate::{
    client::{MESSAGE_NOT_FOUND, OK, message, poll},
    harness::{Node, eventually, metric},
};

#[tokio::test]
async fn a_restart_keeps_messages_progress_and_handles() {
    let node = Node::start().await;
    let client = node.client("c").await;
    for n in 0..3 {
        client.sent(&[message("t", &format!("id-{n}"), &n.to_string())]).await;
    }
    let mut one = poll("g", "t");
    one.batch_size = 1;
    one.invisible_duration = Some(proto::clock::to_wire(Duration::from_secs(60)));
    let acked = client.receive(one.clone()).await;
    client.ack("g", "t", &acked.messages).await;
    let held = client.receive(one).await;
    let before = node.server().broker().view().digest().1;

    let node = node.restart().await;
    let client = node.client("c").await;
    assert_eq!(node.server().broker().view().digest().1, before);
    let rest = client.receive(poll("g", "t")).await;
    assert_eq!(rest.bodies(), ["2"], "0 is consumed, 1 is held");
    assert_eq!(client.ack("g", "t", &held.messages).await.status.unwrap().code, OK);
    assert_eq!(client.ack("g", "t", &rest.messages).await.status.unwrap().code, OK);
    assert_eq!(client.receive(poll("g", "t")).await.status.code, MESSAGE_NOT_FOUND);
    let again = client.sent(&[message("t", "id-0", "0")]).await;
    assert_eq!(again.entries[0].offset, 0, "a send from before the restart is remembered");
    node.stop().await;
}

#[tokio::test]
async fn a_stop_ends_polls_with_an_empty_answer() {
    let node = Node::start().await;
    let client = node.client("c").await;
    client.sent(&[message("other", "id", "body")]).await;
    let waiting = client.begin(poll("g", "t")).await;
    let answer = tokio::spawn(crate::client::finish(waiting));
    eventually("the poll waits", || async {
        let page = node.page("/metrics").await;
        metric(&page, "raftmq_long_polls", &[]).filter(|polls| *polls == 1.0)
    })
    .await;
    node.stop().await;
    assert_eq!(answer.await.unwrap().status.code, MESSAGE_NOT_FOUND);
}
