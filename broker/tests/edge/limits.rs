//! Messages at each limit are taken in and delivered as they were; one over is refused with its
//! code.

use proto::{
    clock::{to_wire, wall_now},
    v2::{Message, MessageType},
};
use std::time::Duration;

use crate::{
    client::{Client, OK, message, poll},
    harness::Node,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

fn body(bytes: usize) -> Message {
    let mut message = message("t", "id", "");
    message.body = vec![b'x'; bytes].into();
    message
}

fn properties(count: usize, bytes: usize) -> Message {
    let mut message = message("t", "id", "b");
    for n in 0..count {
        let key = format!("k{n:03}");
        let value = "v".repeat(bytes / count + usize::from(n < bytes % count) - key.len());
        message.user_properties.insert(key, value);
    }
    message
}

fn property(key: &str, value: &str) -> Message {
    let mut message = message("t", "id", "b");
    message.user_properties.insert(key.into(), value.into());
    message
}

fn system(change: impl FnOnce(&mut proto::v2::SystemProperties)) -> Message {
    let mut message = message("t", "id", "b");
    change(message.system_properties.as_mut().unwrap());
    message
}

fn tag(tag: &str) -> Message {
    system(|system| system.tag = Some(tag.into()))
}

fn key(key: &str) -> Message {
    system(|system| system.keys = vec![key.into()])
}

fn keys(count: usize) -> Message {
    system(|system| system.keys = (0..count).map(|n| n.to_string()).collect())
}

fn in_topic(name: &str) -> Message {
    message(name, "id", "b")
}

async fn code(client: &Client, message: &Message) -> i32 {
    client.send(std::slice::from_ref(message)).await.status.unwrap().code
}

#[tokio::test]
async fn a_message_at_a_limit_arrives_as_it_was() {
    let node = Node::start().await;
    let client = node.client("c").await;
    let full = || {
        let mut message = properties(128, 16 * KIB - 20);
        message.body = vec![b'x'; 4 * MIB].into();
        let system = message.system_properties.as_mut().unwrap();
        system.tag = Some("ten-bytes!".into());
        system.keys = vec!["ten-bytes!".into()];
        message
    };
    let cases = [
        ("body", body(4 * MIB)),
        ("one byte", body(1)),
        ("128 properties", properties(128, 2000)),
        ("16 KiB of properties", properties(1, 16 * KIB)),
        ("everything at once", full()),
        ("tag", tag(&"t".repeat(16 * KIB))),
        ("key", key(&"k".repeat(16 * KIB))),
        ("words", property("中文🙂", "值")),
        ("254 keys", keys(254)),
        ("message id", system(|s| s.message_id = "i".repeat(255))),
    ];
    for (number, (name, message)) in cases.into_iter().enumerate() {
        let mut message = message;
        let topic = format!("at-limit-{number}");
        message.topic.as_mut().unwrap().name.clone_from(&topic);
        assert_eq!(code(&client, &message).await, OK, "{name}");
        let received = client.receive(poll("g", &topic)).await;
        let got = &received.messages[0];
        assert!(got.body == message.body, "{name}");
        assert_eq!(got.user_properties, message.user_properties, "{name}");
        let (got, sent) =
            (got.system_properties.as_ref(), message.system_properties.as_ref().unwrap());
        let got = got.unwrap();
        assert_eq!((&got.tag, &got.keys), (&sent.tag, &sent.keys), "{name}");
        assert_eq!(got.message_id, sent.message_id, "{name}");
    }
    node.stop().await;
}

#[tokio::test]
async fn one_over_a_limit_has_its_code() {
    let node = Node::start().await;
    let client = node.client("c").await;
    let ahead = |seconds: u64| {
        let at = wall_now().plus(Duration::from_secs(seconds));
        system(|system| system.delivery_timestamp = Some(at.into()))
    };
    let recovery = |seconds| {
        system(|system| {
            system.message_type = MessageType::Transaction.into();
            system.orphaned_transaction_recovery_duration =
                Some(to_wire(Duration::from_secs(seconds)));
        })
    };
    let group = |bytes: usize| system(|system| system.message_group = Some("g".repeat(bytes)));
    let cases = [
        ("empty body", body(0), 41302),
        ("body", body(4 * MIB + 1), 41301),
        ("129 properties", properties(129, 2000), 43101),
        ("properties", properties(1, 16 * KIB + 1), 43101),
        ("properties, many", properties(128, 16 * KIB + 1), 43101),
        ("tag size", tag(&"t".repeat(16 * KIB + 1)), 43101),
        ("key size", key(&"k".repeat(16 * KIB + 1)), 43101),
        ("255 keys", keys(255), 43101),
        ("reserved key", property("UNIQ_KEY", "v"), 40007),
        ("control in a key", property("a\u{0}b", "v"), 40007),
        ("control in a value", property("a", "\u{0}"), 40007),
        ("blank tag", tag(" "), 40004),
        ("bar in a tag", tag("a|b"), 40004),
        ("control in a tag", tag("a\u{0}"), 40004),
        ("blank key", key(" "), 40005),
        ("control in a message key", key("a\u{0}"), 40005),
        ("message group", group(64), 40006),
        ("blank message group", system(|s| s.message_group = Some(" ".into())), 40006),
        ("blank id", system(|s| s.message_id = " ".into()), 40009),
        ("delivery time", ahead(24 * 3600 + 5), 40012),
        ("recovery time", recovery(3601), 40000),
        ("topic length", in_topic(&"t".repeat(128)), 40002),
        ("topic alphabet", in_topic("a.b"), 40002),
        ("system topic", in_topic("rmq_sys_x"), 40002),
        ("half topic", in_topic("RMQ_SYS_TRANS_HALF_TOPIC"), 40002),
    ];
    for (name, message, expected) in cases {
        assert_eq!(code(&client, &message).await, expected, "{name}");
    }
    assert_eq!(code(&client, &in_topic(&"t".repeat(127))).await, OK);
    let two = [in_topic("t"), in_topic("u")];
    assert_eq!(client.send(&two).await.status.unwrap().code, 40016, "two topics");
    let none = proto::SendMessageRequest { messages: vec![] };
    let answer = client.rpc.clone().send_message(client.request(none)).await.unwrap().into_inner();
    assert_eq!(answer.status.unwrap().code, 40016, "no message");
    node.stop().await;
}

#[tokio::test]
async fn a_consumer_groups_name_has_a_limit_too() {
    let node = Node::start().await;
    let client = node.client("c").await;
    client.sent(&[message("t", "id", "b")]).await;
    assert_eq!(client.receive(poll(&"g".repeat(120), "t")).await.status.code, OK);
    for wrong in [&*"g".repeat(121), "", "a.b", "CID_RMQ_SYS_x"] {
        assert_eq!(client.receive(poll(wrong, "t")).await.status.code, 40003, "{wrong:?}");
    }
    node.stop().await;
}
