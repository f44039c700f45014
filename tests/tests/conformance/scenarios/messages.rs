//! What may be in a message: limits to the byte, refusals with their codes, any script.

use std::collections::BTreeMap;

use proto::v2::{Code, MessageType};
use tests::library::{Outgoing, Subscription};

use super::abilities::{Check, checks};
use super::stage::{Stage, refused, refused_by_library, sends};

/// Bytes of a message's properties, tag and keys together.
const PROPERTIES: usize = 16 << 10;
/// User properties of a message.
const COUNT: usize = 128;

fn many(count: usize) -> BTreeMap<String, String> {
    (0..count).map(|n| (format!("key{n}"), "v".to_owned())).collect()
}

/// One property of this many bytes, its key included.
fn one_of(bytes: usize) -> BTreeMap<String, String> {
    BTreeMap::from([("k".to_owned(), "v".repeat(bytes - 1))])
}

pub(super) async fn limits_hold_to_the_byte(stage: &Stage<'_>) {
    let topic = &stage.topic("limits", MessageType::Normal).await;
    let producer = stage.producer(topic).await;
    let message = |what: &str| Outgoing::to(topic, what);
    let with = |what: &str, properties| Outgoing { properties, ..message(what) };
    let (too_large, three) = (Code::MessagePropertiesTooLarge, PROPERTIES - 200);
    let fits = vec![
        message("tag").tag(&"t".repeat(PROPERTIES)),
        message("key").key(&"k".repeat(PROPERTIES)),
        with("count", many(COUNT)),
        with("bytes", one_of(PROPERTIES)),
        with("together", one_of(three)).tag(&"t".repeat(100)).key(&"k".repeat(100)),
        with("scripts", BTreeMap::from([("钥".to_owned(), "值".repeat((PROPERTIES - 3) / 3))])),
    ];
    let exceeds = vec![
        message("tag").tag(&"t".repeat(PROPERTIES + 1)),
        message("key").key(&"k".repeat(PROPERTIES + 1)),
        with("count", many(COUNT + 1)),
        with("bytes", one_of(PROPERTIES + 1)),
        with("together", one_of(three)).tag(&"t".repeat(100)).key(&"k".repeat(101)),
    ];
    for message in &fits {
        sends(&producer, message).await;
    }
    for message in &exceeds {
        let what = message.body.as_deref().unwrap_or_default();
        refused(what, producer.send(message).await, too_large);
    }
    let received = stage.drain(&Subscription::of(&stage.own("limits"), topic)).await;
    assert_eq!(received.len(), fits.len());
    for sent in &fits {
        let same = received.iter().find(|r| r.body == sent.body).expect("what fits arrives");
        assert_eq!((&same.tag, &same.keys), (&sent.tag, &sent.keys));
        assert_eq!(same.properties, sent.properties);
    }
}

pub(super) async fn what_is_wrong_is_refused_with_its_code(stage: &Stage<'_>) {
    let topic = &stage.topic("wrong", MessageType::Normal).await;
    let fifo = &stage.topic("wrong-order", MessageType::Fifo).await;
    let producer = stage.producer(topic).await;
    let message = || Outgoing::to(topic, "wrong");
    let ordered = |group: &str| Outgoing::to(fifo, "wrong").message_group(group);
    let property = |key: &str, value: &str| message().property(key, value);
    let key_code = Code::IllegalMessagePropertyKey;
    let cases = vec![
        ("an empty body", Outgoing::to(topic, ""), Code::MessageBodyEmpty, Check::EmptyBody),
        ("a blank tag", message().tag(" "), Code::IllegalMessageTag, Check::BlankTag),
        ("a bar", message().tag("a|b"), Code::IllegalMessageTag, Check::BarInTag),
        ("a filter as a tag", message().tag("@||@"), Code::IllegalMessageTag, Check::BarInTag),
        ("NUL in a tag", message().tag("a\0"), Code::IllegalMessageTag, Check::Never),
        ("a blank key", message().key(" "), Code::IllegalMessageKey, Check::BlankKey),
        ("NUL in a key", message().key("a\0"), Code::IllegalMessageKey, Check::Never),
        ("NUL in a property's key", property("a\0", "v"), key_code, Check::Never),
        ("NUL in a property", property("a", "v\0"), key_code, Check::Never),
        ("a blank group", ordered(" "), Code::IllegalMessageGroup, Check::BlankMessageGroup),
        ("64 bytes", ordered(&"g".repeat(64)), Code::IllegalMessageGroup, Check::Never),
        ("NUL in a group", ordered("g\0"), Code::IllegalMessageGroup, Check::Never),
    ];
    for (what, message, code, check) in cases {
        let sent = producer.send(&message).await;
        if checks(stage.language(), check) {
            refused_by_library(what, sent);
        } else {
            refused(what, sent, code);
        }
    }
    sends(&producer, &ordered(&"g".repeat(63))).await;
    for (topic, count) in [(topic, 0), (fifo, 1)] {
        let received = stage.drain(&Subscription::of(&stage.own("wrong"), topic)).await;
        assert_eq!(received.len(), count, "nothing was stored that was refused");
    }
}

/// Names that the server uses itself.
pub(super) async fn reserved_property_names_are_refused(stage: &Stage<'_>) {
    let topic = stage.topic("reserved", MessageType::Normal).await;
    let producer = stage.producer(&topic).await;
    let reserved = "UNIQ_KEY TAGS KEYS DELAY TRAN_MSG REAL_TOPIC REAL_QID RETRY_TOPIC PGROUP \
                    MIN_OFFSET MAX_OFFSET CONSUME_START_TIME POP_CK 1ST_POP_TIME INSTANCE_ID \
                    TIMER_DELIVER_MS TIMER_DELAY_SEC MSG_TYPE CLUSTER DLQ_ORIGIN_TOPIC __BORNHOST";
    for name in reserved.split_whitespace() {
        let message = Outgoing::to(&topic, "reserved").property(name, "v");
        refused(name, producer.send(&message).await, Code::IllegalMessagePropertyKey);
    }
    for name in ["uniq_key", "MY_TAGS", "DELAYED"] {
        sends(&producer, &Outgoing::to(&topic, "free").property(name, "v")).await;
    }
}

pub(super) async fn any_script_comes_back_as_it_was(stage: &Stage<'_>) {
    let topic = stage.topic("scripts", MessageType::Normal).await;
    let producer = stage.producer(&topic).await;
    let texts = ["中文字符", "😱🤣👩‍👩‍👧", " ", "!@#$%^&*()_+-=[]{};':\",./<>?\\", "Ωπ אב é\u{301}"];
    let mut ids = BTreeMap::new();
    for text in texts {
        let mut message = Outgoing::to(&topic, text).property(&format!("p{text}"), text);
        if !text.trim().is_empty() {
            message = message.tag(text).key(text).key("second").property(text, "v");
        } else {
            message.properties.clear();
        }
        ids.insert(sends(&producer, &message).await.id, message);
    }
    let received = stage.drain(&Subscription::of(&stage.own("scripts"), &topic)).await;
    assert_eq!(received.len(), texts.len());
    for message in received {
        let sent = ids.remove(&message.id).expect("with the id of the receipt, once");
        let mut keys = sent.keys;
        keys.sort();
        assert_eq!(message.body, sent.body);
        assert_eq!((message.tag, message.keys), (sent.tag, keys));
        assert_eq!(message.properties, sent.properties);
        assert_eq!((message.attempt, message.topic), (1, sent.topic));
        assert_eq!((message.message_group, message.deliver_at_ms), (None, None));
        assert!(!message.corrupted);
    }
}
