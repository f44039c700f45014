//! Pull consumers against a scripted server.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

mod cast;

use std::{collections::BTreeSet, time::Duration};

use cast::{Script, Server, eventually};
use proto::v2;
use raftmq_client::{
    Begin, ClientConfig, Code, Error, FileOffsets, MessageView, PullConsumer, PullConsumerBuilder,
};

const WAIT: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(200);

async fn server(messages: usize) -> Server {
    let server = Server::start().await;
    server.topic("orders", 1, v2::MessageType::Normal);
    for n in 0..messages {
        server.put("orders", &n.to_string(), None);
    }
    server
}

fn pull(server: &Server) -> PullConsumerBuilder {
    let config = ClientConfig::new(&server.address).unwrap();
    let config = config.request_timeout(Duration::from_millis(500));
    PullConsumer::builder(config, "audit").subscribe("orders", "*")
}

fn bodies(messages: &[MessageView]) -> Vec<String> {
    let text = |message: &MessageView| String::from_utf8_lossy(message.body()).into_owned();
    messages.iter().map(text).collect()
}

fn committed(server: &Server) -> Option<i64> {
    server.state().offsets.get(&("audit".to_owned(), 0)).copied()
}

/// Messages are polled in order, committed when the application says so, and read on from there by
/// the next member.
#[tokio::test]
async fn reading_goes_on_where_it_was_committed() {
    let server = server(40).await;
    let consumer = pull(&server).build().await.unwrap();
    let first = consumer.poll(WAIT).await.unwrap();
    assert_eq!((first.len(), first[0].offset()), (32, 0));
    assert_eq!(committed(&server), None);
    consumer.commit().await.unwrap();
    assert_eq!(committed(&server), Some(32));
    assert_eq!(consumer.poll(WAIT).await.unwrap().len(), 8);
    consumer.close().await;
    assert!(matches!(consumer.poll(WAIT).await, Err(Error::Closed)));

    let next = pull(&server).build().await.unwrap();
    assert_eq!(next.poll(WAIT).await.unwrap()[0].offset(), 32, "8 were not committed");
    assert_eq!(next.committed(&next.assigned()[0]).await.unwrap(), Some(32));
    assert!(next.poll(SHORT).await.unwrap().is_empty());
}

/// With automatic commits a poll settles what was polled before it, and nothing else.
#[tokio::test]
async fn a_poll_settles_the_one_before() {
    let server = server(40).await;
    let consumer = pull(&server).auto_commit(true).build().await.unwrap();
    consumer.poll(WAIT).await.unwrap();
    consumer.close().await;
    assert_eq!(committed(&server), None, "the application may not be done");
    let consumer = pull(&server).auto_commit(true).build().await.unwrap();
    consumer.poll(WAIT).await.unwrap();
    consumer.poll(WAIT).await.unwrap();
    consumer.close().await;
    assert_eq!(committed(&server), Some(32));
}

/// A consumer reads from where it seeks to; a queue that is not its own it cannot seek.
#[tokio::test]
async fn seeking() {
    let server = server(10).await;
    let consumer = pull(&server).build().await.unwrap();
    let queue = consumer.assigned()[0].clone();
    consumer.seek(&queue, 7).unwrap();
    assert_eq!(bodies(&consumer.poll(WAIT).await.unwrap()), ["7", "8", "9"]);
    assert_eq!(consumer.seek_to(&queue, Begin::First).await.unwrap(), 0);
    assert_eq!(consumer.poll(WAIT).await.unwrap().len(), 10);
    assert_eq!(consumer.seek_to(&queue, Begin::Last).await.unwrap(), 10);
    assert!(consumer.poll(SHORT).await.unwrap().is_empty());
    consumer.unsubscribe("orders");
    assert!(consumer.seek(&queue, 0).is_err());
}

/// Where the group has committed nothing, reading begins where it is told to.
#[tokio::test]
async fn reading_begins_where_it_is_told_to() {
    let server = server(5).await;
    let consumer = pull(&server).begin(Begin::Last).build().await.unwrap();
    assert!(consumer.poll(SHORT).await.unwrap().is_empty());
    server.put("orders", "new", None);
    assert_eq!(bodies(&consumer.poll(WAIT).await.unwrap()), ["new"]);
}

/// After a reset of the group it goes on where the server says, and does not undo the reset.
#[tokio::test]
async fn a_reset_is_followed() {
    let server = server(5).await;
    let consumer = pull(&server).build().await.unwrap();
    assert_eq!(consumer.poll(WAIT).await.unwrap().len(), 5);
    server.script("pull_message", [Script::Code(Code::IllegalOffset)]);
    assert_eq!(consumer.poll(WAIT).await.unwrap().len(), 5, "from 0 again");
    consumer.commit().await.unwrap();
    assert_eq!(committed(&server), Some(5));
}

/// Queues can be assigned by hand, and paused.
#[tokio::test]
async fn queues_are_assigned_by_hand_and_paused() {
    let server = server(3).await;
    let config = ClientConfig::new(&server.address).unwrap();
    let consumer = PullConsumer::builder(config, "audit").build().await.unwrap();
    assert!(consumer.poll(SHORT).await.unwrap().is_empty());
    let queues = consumer.message_queues("orders").await.unwrap();
    consumer.assign("orders", &queues, "*").await.unwrap();
    consumer.pause(&queues[0]);
    assert!(consumer.poll(SHORT).await.unwrap().is_empty());
    consumer.resume(&queues[0]);
    assert_eq!(consumer.poll(WAIT).await.unwrap().len(), 3);
}

/// Broadcasting clients read everything each, keep their own offsets, and leave the group's alone.
#[tokio::test]
async fn everybody_reads_everything_when_broadcasting() {
    let server = server(6).await;
    let directory = tempfile::tempdir().unwrap();
    let open = |name: &str| FileOffsets::open(directory.path().join(name)).unwrap();
    for name in ["one", "two"] {
        let consumer = pull(&server).broadcast(open(name)).build().await.unwrap();
        assert_eq!(consumer.poll(WAIT).await.unwrap().len(), 6, "{name}");
        consumer.commit().await.unwrap();
    }
    server.put("orders", "later", None);
    let again = pull(&server).broadcast(open("one")).build().await.unwrap();
    assert_eq!(bodies(&again.poll(WAIT).await.unwrap()), ["later"]);
    assert_eq!(committed(&server), None);
}

/// Failures of the server are waited out, and nothing is skipped.
#[tokio::test]
async fn a_failing_server_costs_nothing_but_time() {
    let server = server(50).await;
    server.script("pull_message", vec![Script::Code(Code::HaNotAvailable); 3]);
    server.script("get_offset", [Script::Code(Code::InternalServerError)]);
    let consumer = pull(&server).build().await.unwrap();
    let mut all = BTreeSet::new();
    for _ in 0..2 {
        all.extend(consumer.poll(WAIT).await.unwrap().iter().map(MessageView::offset));
    }
    assert_eq!(all, (0..50).collect());
    eventually("it has pulled several times", || server.calls("pull_message") >= 5).await;
}
