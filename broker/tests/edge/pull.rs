//! PullMessage and offsets: reading without taking.

use std::time::{Duration, Instant};

use futures::StreamExt;
use proto::{
    clock::to_wire,
    v2::{
        FilterExpression, FilterType, GetOffsetRequest, Message, MessageQueue, PullMessageRequest,
        QueryOffsetPolicy, QueryOffsetRequest, UpdateOffsetRequest, pull_message_response::Content,
    },
};

use crate::{
    client::{Client, MESSAGE_NOT_FOUND, OK, message, poll, resource, tagged},
    harness::{Node, within},
};

const ILLEGAL_OFFSET: i32 = 40019;
const OFFSET_NOT_FOUND: i32 = 40404;

/// Everything that one PullMessage answered.
#[derive(Debug, PartialEq)]
pub(crate) struct Pulled {
    pub(crate) code: i32,
    pub(crate) bodies: Vec<String>,
    next: Option<i64>,
}

fn queue(id: i32) -> MessageQueue {
    MessageQueue { topic: Some(resource("t")), id, ..Default::default() }
}

pub(crate) fn pull_of(group: &str, offset: i64) -> PullMessageRequest {
    PullMessageRequest {
        group: Some(resource(group)),
        message_queue: Some(queue(0)),
        offset,
        batch_size: 32,
        filter_expression: None,
        long_polling_timeout: Some(to_wire(Duration::ZERO)),
    }
}

pub(crate) async fn pull(client: &Client, request: PullMessageRequest) -> Pulled {
    let answer = client.rpc.clone().pull_message(client.request(request)).await.unwrap();
    let mut pulled = Pulled { code: 0, bodies: vec![], next: None };
    let mut answer = answer.into_inner();
    while let Some(part) = answer.next().await {
        match part.unwrap().content.unwrap() {
            Content::Status(status) => pulled.code = status.code,
            Content::Message(m) => {
                pulled.bodies.push(String::from_utf8_lossy(&m.body).into_owned());
                let system = m.system_properties.unwrap();
                assert_eq!((system.receipt_handle, system.delivery_attempt), (None, None));
            }
            Content::NextOffset(next) => pulled.next = Some(next),
        }
    }
    pulled
}

fn found(bodies: &[&str], next: i64) -> Pulled {
    let bodies = bodies.iter().map(ToString::to_string).collect();
    Pulled { code: OK, bodies, next: Some(next) }
}

fn nothing(code: i32, next: i64) -> Pulled {
    Pulled { code, bodies: vec![], next: Some(next) }
}

async fn commit(client: &Client, group: &str, offset: i64) -> i32 {
    let (group, message_queue) = (Some(resource(group)), Some(queue(0)));
    let request = client.request(UpdateOffsetRequest { group, message_queue, offset });
    client.rpc.clone().update_offset(request).await.unwrap().into_inner().status.unwrap().code
}

async fn committed(client: &Client, group: &str) -> (i32, i64) {
    let (group, message_queue) = (Some(resource(group)), Some(queue(0)));
    let request = client.request(GetOffsetRequest { group, message_queue });
    let answer = client.rpc.clone().get_offset(request).await.unwrap().into_inner();
    (answer.status.unwrap().code, answer.offset)
}

async fn offset_of(
    client: &Client,
    policy: QueryOffsetPolicy,
    timestamp: Option<prost_types::Timestamp>,
) -> (i32, i64) {
    let request = client.request(QueryOffsetRequest {
        message_queue: Some(queue(0)),
        query_offset_policy: policy.into(),
        timestamp,
    });
    let answer = client.rpc.clone().query_offset(request).await.unwrap().into_inner();
    (answer.status.unwrap().code, answer.offset)
}

async fn sent(client: &Client, bodies: &[&str]) {
    for body in bodies {
        let mut m = message("t", body, body);
        m.system_properties.as_mut().unwrap().queue_id = 0;
        client.sent(&[m]).await;
    }
}

#[tokio::test]
async fn whoever_pulls_reads_everything_and_takes_nothing() {
    let node = Node::start().await;
    let client = node.client("c").await;
    sent(&client, &["a", "b", "c"]).await;
    for group in ["g", "g", "h"] {
        assert_eq!(pull(&client, pull_of(group, 0)).await, found(&["a", "b", "c"], 3));
    }
    let two = PullMessageRequest { batch_size: 2, ..pull_of("g", 1) };
    assert_eq!(pull(&client, two).await, found(&["b", "c"], 3));
    let one = PullMessageRequest { batch_size: 0, ..pull_of("g", 1) };
    assert_eq!(pull(&client, one).await, found(&["b"], 2));
    assert_eq!(committed(&client, "g").await, (OFFSET_NOT_FOUND, 0));
    assert_eq!(client.receive(poll("g", "t")).await.bodies(), ["a", "b", "c"]);
    assert_eq!(pull(&client, pull_of("g", 0)).await, found(&["a", "b", "c"], 3));
    node.stop().await;
}

#[tokio::test]
async fn an_offset_out_of_range_is_told_with_the_nearest_one() {
    let node = Node::start().await;
    let client = node.client("c").await;
    sent(&client, &["a", "b"]).await;
    assert_eq!(pull(&client, pull_of("g", 2)).await, nothing(MESSAGE_NOT_FOUND, 2));
    assert_eq!(pull(&client, pull_of("g", 3)).await, nothing(ILLEGAL_OFFSET, 2));
    assert_eq!(pull(&client, pull_of("g", -1)).await.code, ILLEGAL_OFFSET);
    assert_eq!(commit(&client, "g", 3).await, ILLEGAL_OFFSET);
    assert_eq!(commit(&client, "g", -1).await, ILLEGAL_OFFSET);
    let nowhere = PullMessageRequest { message_queue: Some(queue(99)), ..pull_of("g", 0) };
    assert_eq!(pull(&client, nowhere).await.code, 40000);
    let any = PullMessageRequest { message_queue: Some(queue(-1)), ..pull_of("g", 0) };
    assert_eq!(pull(&client, any).await.code, 40000);
    node.stop().await;
}

#[tokio::test]
async fn all_who_wait_at_the_end_of_a_queue_get_the_next_message() {
    let node = Node::start().await;
    let client = node.client("c").await;
    sent(&client, &["a"]).await;
    let waiting = (0..3).map(|_| {
        let client = client.clone();
        let wait = Some(to_wire(Duration::from_secs(10)));
        let request = PullMessageRequest { long_polling_timeout: wait, ..pull_of("g", 1) };
        tokio::spawn(async move { pull(&client, request).await })
    });
    let waiting: Vec<_> = waiting.collect();
    let readers = node.server().broker().view().clone();
    crate::harness::eventually("all wait", || {
        let all = readers.pulls_waiting() == 3;
        async move { all.then_some(()) }
    })
    .await;
    sent(&client, &["b"]).await;
    for waiting in waiting {
        let pulled = within("the pull is answered", waiting).await.unwrap();
        assert_eq!(pulled, found(&["b"], 2));
    }
    assert_eq!(readers.pulls_waiting(), 0);

    let start = Instant::now();
    let wait = Some(to_wire(Duration::from_millis(300)));
    let request = PullMessageRequest { long_polling_timeout: wait, ..pull_of("g", 2) };
    assert_eq!(pull(&client, request).await, nothing(MESSAGE_NOT_FOUND, 2));
    assert!(start.elapsed() >= Duration::from_millis(300));
    node.stop().await;
}

#[tokio::test]
async fn what_a_filter_does_not_want_is_skipped() {
    let node = Node::start().await;
    let client = node.client("c").await;
    let tagged: Vec<Message> = ["a", "b", "a", "b", "b"]
        .iter()
        .enumerate()
        .map(|(n, tag)| {
            let mut message = tagged("t", &format!("{tag}{n}"), tag);
            message.user_properties.insert("n".into(), n.to_string());
            message
        })
        .collect();
    for message in &tagged {
        client.sent(std::slice::from_ref(message)).await;
    }
    let filtered = |kind: FilterType, expression: &str, offset, batch_size| {
        let filter = FilterExpression { r#type: kind.into(), expression: expression.into() };
        PullMessageRequest { filter_expression: Some(filter), batch_size, ..pull_of("g", offset) }
    };
    let of = |expression: &str, offset| filtered(FilterType::Tag, expression, offset, 32);
    assert_eq!(pull(&client, of("a", 0)).await, found(&["a0", "a2"], 5));
    assert_eq!(pull(&client, of("a", 3)).await, nothing(MESSAGE_NOT_FOUND, 5));
    assert_eq!(pull(&client, of("a || b", 3)).await, found(&["b3", "b4"], 5));
    assert_eq!(pull(&client, of("||", 0)).await.code, 40010);
    let sql = filtered(FilterType::Sql, "n > 0 AND TAGS = 'b'", 0, 2);
    assert_eq!(pull(&client, sql).await, found(&["b1", "b3"], 4));
    node.stop().await;
}

#[tokio::test]
async fn a_commit_is_kept_and_never_goes_back() {
    let node = Node::start().await;
    let client = node.client("c").await;
    sent(&client, &["a", "b", "c", "d"]).await;
    assert_eq!(commit(&client, "g", 3).await, OK);
    assert_eq!(commit(&client, "g", 1).await, OK);
    assert_eq!(committed(&client, "g").await, (OK, 3));
    assert_eq!(client.receive(poll("g", "t")).await.bodies(), ["d"], "pops go on from there");
    assert_eq!(committed(&client, "g").await, (OK, 3));
    let node = node.restart().await;
    let client = node.client("c").await;
    assert_eq!(committed(&client, "g").await, (OK, 3));
    assert_eq!(commit(&client, "h", 0).await, OK);
    assert_eq!(committed(&client, "h").await, (OK, 0));
    node.stop().await;
}

#[tokio::test]
async fn offsets_are_found_by_place_and_by_time() {
    let node = Node::start().await;
    let client = node.client("c").await;
    sent(&client, &["a"]).await;
    let stored = client.receive(poll("g", "t")).await.messages.remove(0);
    let stored = stored.system_properties.unwrap().store_timestamp.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    sent(&client, &["b", "c"]).await;

    use QueryOffsetPolicy::{Beginning, End, Timestamp};
    assert_eq!(offset_of(&client, Beginning, None).await, (OK, 0));
    assert_eq!(offset_of(&client, End, None).await, (OK, 3));
    let at = |ms: i64| {
        let ms = stored.seconds * 1000 + i64::from(stored.nanos) / 1_000_000 + ms;
        let (seconds, nanos) = (ms / 1000, i32::try_from(ms % 1000 * 1_000_000).unwrap());
        Some(prost_types::Timestamp { seconds, nanos })
    };
    assert_eq!(offset_of(&client, Timestamp, at(-60_000)).await, (OK, 0));
    assert_eq!(offset_of(&client, Timestamp, at(0)).await, (OK, 0));
    assert_eq!(offset_of(&client, Timestamp, at(1)).await, (OK, 1));
    assert_eq!(offset_of(&client, Timestamp, at(60_000)).await, (OK, 3));
    assert_eq!(offset_of(&client, Timestamp, None).await.0, 40000);
    node.stop().await;
}
