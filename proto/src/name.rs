//! Names as types: checked where they come in, trusted from then on, cheap to clone.
//!
//! A topic or consumer group with a namespace is one text inside: `namespace%name`.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use thiserror::Error;

use crate::{
    limits,
    text::{self, Flaw},
    v2,
};

/// A text that is not the name it was meant to be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the {word} {flaw}")]
pub struct InvalidName {
    pub word: Word,
    pub flaw: Flaw,
}

/// The kinds of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Topic,
    ConsumerGroup,
    BrokerName,
    ClientId,
    MessageGroup,
    MessageId,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Topic => "topic",
            Self::ConsumerGroup => "consumer group",
            Self::BrokerName => "broker name",
            Self::ClientId => "client id",
            Self::MessageGroup => "message group",
            Self::MessageId => "message id",
        })
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                match $check(text) {
                    Ok(()) => Ok(Self(text.into())),
                    Err(flaw) => Err(InvalidName { word: Word::$name, flaw }),
                }
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidName;

            fn try_from(text: &str) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        // Maps keyed by the name can be asked with a plain text.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// A topic's full name: 1 to 127 of `[%|a-zA-Z0-9_-]`, none of RocketMQ's own topics.
    Topic, check_topic
}
name! {
    /// A consumer group's full name: 1 to 120 of `[%|a-zA-Z0-9_-]`, none of RocketMQ's own groups.
    ConsumerGroup, check_consumer_group
}
name! {
    /// The name that the replicas of one broker group share: 1 to 127 of `[a-zA-Z0-9._-]`.
    BrokerName, check_broker_name
}
name! {
    /// What a client calls itself: not blank, at most 512 bytes, no control characters.
    ClientId, check_client_id
}
name! {
    /// Messages of one group keep their order: not blank, at most 63 bytes, no control characters.
    MessageGroup, check_message_group
}
name! {
    /// Made by the sending client and kept byte for byte: not blank, at most 255 bytes.
    MessageId, check_message_id
}

/// Topics of RocketMQ itself.
const SYSTEM_TOPICS: [&str; 10] = [
    "TBW102",
    "SCHEDULE_TOPIC_XXXX",
    "BenchmarkTest",
    "RMQ_SYS_TRANS_HALF_TOPIC",
    "RMQ_SYS_TRACE_TOPIC",
    "RMQ_SYS_TRANS_OP_HALF_TOPIC",
    "TRANS_CHECK_MAX_TIME_TOPIC",
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
    "CHECKPOINT_TOPIC",
];
const SYSTEM_TOPIC_PREFIX: &str = "rmq_sys_";
const SYSTEM_GROUP_PREFIX: &str = "CID_RMQ_SYS_";
/// What the topics that belong to a consumer group begin with.
const GROUP_TOPIC_PREFIXES: [&str; 2] = ["%RETRY%", DEAD_LETTERS];
/// What the topic for the dead letters of a consumer group begins with.
const DEAD_LETTERS: &str = "%DLQ%";

fn check_topic(text: &str) -> Result<(), Flaw> {
    let of_a_group = GROUP_TOPIC_PREFIXES.iter().any(|prefix| text.starts_with(prefix));
    let max = if of_a_group { limits::GROUP_TOPIC_CHARS } else { limits::TOPIC_CHARS };
    check_resource(text, max)?;
    if SYSTEM_TOPICS.contains(&text) || text.starts_with(SYSTEM_TOPIC_PREFIX) {
        return Err(Flaw::Reserved);
    }
    Ok(())
}

fn check_consumer_group(text: &str) -> Result<(), Flaw> {
    check_resource(text, limits::CONSUMER_GROUP_CHARS)?;
    if text.starts_with(SYSTEM_GROUP_PREFIX) {
        return Err(Flaw::Reserved);
    }
    Ok(())
}

fn check_resource(text: &str, max: usize) -> Result<(), Flaw> {
    text::not_blank(text)?;
    text::only(text, |c| c.is_ascii_alphanumeric() || matches!(c, '%' | '|' | '_' | '-'))?;
    text::at_most_bytes(text, max)
}

fn check_broker_name(text: &str) -> Result<(), Flaw> {
    text::not_blank(text)?;
    text::only(text, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))?;
    text::at_most_bytes(text, limits::BROKER_NAME_CHARS)
}

fn check_client_id(text: &str) -> Result<(), Flaw> {
    text::not_blank(text)?;
    text::no_control(text)?;
    text::at_most_bytes(text, limits::CLIENT_ID_BYTES)
}

fn check_message_group(text: &str) -> Result<(), Flaw> {
    text::not_blank(text)?;
    text::no_control(text)?;
    text::at_most_bytes(text, limits::MESSAGE_GROUP_BYTES)
}

fn check_message_id(text: &str) -> Result<(), Flaw> {
    text::not_blank(text)?;
    text::at_most_bytes(text, limits::MESSAGE_ID_BYTES)
}

impl Topic {
    /// The topic that the wire names. A missing resource is an empty name.
    pub fn from_resource(resource: Option<&v2::Resource>) -> Result<Self, InvalidName> {
        full_name(resource, Word::Topic)?.parse()
    }

    /// The same on the wire, with the namespace apart.
    pub fn to_resource(&self) -> v2::Resource {
        resource(&self.0)
    }

    /// Whether it holds the dead letters of a consumer group.
    pub fn is_dead_letters(&self) -> bool {
        self.0.starts_with(DEAD_LETTERS)
    }
}

impl ConsumerGroup {
    /// The group that the wire names. A missing resource is an empty name.
    pub fn from_resource(resource: Option<&v2::Resource>) -> Result<Self, InvalidName> {
        full_name(resource, Word::ConsumerGroup)?.parse()
    }

    /// The same on the wire, with the namespace apart.
    pub fn to_resource(&self) -> v2::Resource {
        resource(&self.0)
    }
}

/// `namespace%name`; before names like `%DLQ%name` the namespace goes behind their prefix.
fn full_name(resource: Option<&v2::Resource>, word: Word) -> Result<String, InvalidName> {
    let Some(v2::Resource { resource_namespace: namespace, name }) = resource else {
        return Err(InvalidName { word, flaw: Flaw::Empty });
    };
    if namespace.is_empty() || name.is_empty() {
        return Ok(name.clone());
    }
    // Otherwise two pairs could make one name.
    if let Some(at) = namespace.find('%') {
        return Err(InvalidName { word, flaw: Flaw::Character { character: '%', at } });
    }
    let (prefix, name) = split_prefix(name);
    Ok(format!("{prefix}{namespace}%{name}"))
}

fn resource(full: &str) -> v2::Resource {
    let (prefix, rest) = split_prefix(full);
    match rest.split_once('%') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => v2::Resource {
            resource_namespace: namespace.to_owned(),
            name: format!("{prefix}{name}"),
        },
        _ => v2::Resource { resource_namespace: String::new(), name: full.to_owned() },
    }
}

fn split_prefix(name: &str) -> (&str, &str) {
    for prefix in GROUP_TOPIC_PREFIXES {
        if let Some(rest) = name.strip_prefix(prefix) {
            return (prefix, rest);
        }
    }
    ("", name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(namespace: &str, name: &str) -> v2::Resource {
        v2::Resource { resource_namespace: namespace.into(), name: name.into() }
    }

    fn flaw<T: FromStr<Err = InvalidName> + fmt::Debug>(text: &str) -> Flaw {
        text.parse::<T>().unwrap_err().flaw
    }

    #[test]
    fn a_topic_has_1_to_127_characters_of_its_alphabet() {
        for good in ["a", "Orders_2-x|y", "ns%orders", &"t".repeat(127)] {
            assert_eq!(good.parse::<Topic>().unwrap().as_str(), good);
        }
        assert_eq!(flaw::<Topic>(""), Flaw::Empty);
        assert_eq!(flaw::<Topic>("  "), Flaw::Blank);
        assert_eq!(flaw::<Topic>(&"t".repeat(128)), Flaw::TooLong { found: 128, max: 127 });
        assert_eq!(flaw::<Topic>("a.b"), Flaw::Character { character: '.', at: 1 });
        assert_eq!(flaw::<Topic>("日"), Flaw::Character { character: '日', at: 0 });
        assert_eq!(flaw::<Topic>("a\0"), Flaw::Character { character: '\0', at: 1 });
    }

    #[test]
    fn the_topics_of_a_group_may_be_longer() {
        let longest = format!("%RETRY%{}", "g".repeat(248));
        assert_eq!(longest.len(), 255);
        assert!(longest.parse::<Topic>().is_ok());
        assert_eq!(flaw::<Topic>(&format!("{longest}g")), Flaw::TooLong { found: 256, max: 255 });
        assert!(format!("%DLQ%{}", "g".repeat(200)).parse::<Topic>().is_ok());
    }

    #[test]
    fn topics_of_rocketmq_itself_are_refused() {
        for system in SYSTEM_TOPICS {
            assert_eq!(flaw::<Topic>(system), Flaw::Reserved, "{system}");
        }
        assert_eq!(flaw::<Topic>("rmq_sys_anything"), Flaw::Reserved);
        assert!("TBW1022".parse::<Topic>().is_ok());
    }

    #[test]
    fn a_consumer_group_has_1_to_120_characters() {
        assert!("g".repeat(120).parse::<ConsumerGroup>().is_ok());
        assert_eq!(flaw::<ConsumerGroup>(&"g".repeat(121)), Flaw::TooLong { found: 121, max: 120 });
        assert_eq!(flaw::<ConsumerGroup>("CID_RMQ_SYS_TRANS"), Flaw::Reserved);
        assert_eq!(flaw::<ConsumerGroup>("a b"), Flaw::Character { character: ' ', at: 1 });
    }

    #[test]
    fn a_message_group_is_under_64_bytes_and_may_be_in_any_script() {
        assert!("g".repeat(63).parse::<MessageGroup>().is_ok());
        assert_eq!(flaw::<MessageGroup>(&"g".repeat(64)), Flaw::TooLong { found: 64, max: 63 });
        assert!("顺序".parse::<MessageGroup>().is_ok());
        // Bytes count, not characters.
        assert!("序".repeat(21).parse::<MessageGroup>().is_ok());
        assert!("序".repeat(22).parse::<MessageGroup>().is_err());
        assert_eq!(flaw::<MessageGroup>(" "), Flaw::Blank);
        assert_eq!(flaw::<MessageGroup>("a\u{7f}"), Flaw::Character { character: '\u{7f}', at: 1 });
    }

    #[test]
    fn ids_and_broker_names_are_bounded() {
        assert!("i".repeat(255).parse::<MessageId>().is_ok());
        assert_eq!(flaw::<MessageId>(&"i".repeat(256)), Flaw::TooLong { found: 256, max: 255 });
        assert!("host@1@2@abc".parse::<ClientId>().is_ok());
        assert!("c".repeat(512).parse::<ClientId>().is_ok());
        assert_eq!(flaw::<ClientId>(&"c".repeat(513)), Flaw::TooLong { found: 513, max: 512 });
        assert!("broker-a.1".parse::<BrokerName>().is_ok());
        assert!("b".repeat(127).parse::<BrokerName>().is_ok());
        assert!("b".repeat(128).parse::<BrokerName>().is_err());
        assert_eq!(flaw::<BrokerName>("a/b"), Flaw::Character { character: '/', at: 1 });
    }

    #[test]
    fn a_namespace_is_part_of_the_name() {
        let topic = Topic::from_resource(Some(&named("shop", "orders"))).unwrap();
        assert_eq!(topic.as_str(), "shop%orders");
        assert_eq!(topic.to_resource(), named("shop", "orders"));

        let dead = Topic::from_resource(Some(&named("shop", "%DLQ%billing"))).unwrap();
        assert_eq!(dead.as_str(), "%DLQ%shop%billing");
        assert_eq!(dead.to_resource(), named("shop", "%DLQ%billing"));

        assert_eq!("orders".parse::<Topic>().unwrap().to_resource(), named("", "orders"));
        assert_eq!("%DLQ%g".parse::<Topic>().unwrap().to_resource(), named("", "%DLQ%g"));
    }

    #[test]
    fn a_missing_or_ambiguous_resource_is_refused() {
        let missing = Topic::from_resource(None).unwrap_err();
        assert_eq!(missing, InvalidName { word: Word::Topic, flaw: Flaw::Empty });
        assert_eq!(missing.to_string(), "the topic is empty");
        assert!(Topic::from_resource(Some(&named("shop", ""))).is_err());
        assert!(Topic::from_resource(Some(&named("a%b", "c"))).is_err());
        assert!(ConsumerGroup::from_resource(None).is_err());
    }

    proptest! {
        #[test]
        fn a_topic_survives_the_wire(text in "[%|a-zA-Z0-9_-]{1,40}") {
            if let Ok(topic) = text.parse::<Topic>() {
                let resource = topic.to_resource();
                prop_assert_eq!(Topic::from_resource(Some(&resource)).unwrap(), topic);
            }
        }

        #[test]
        fn different_namespaces_make_different_topics(
            a in "[a-z]{1,4}", b in "[a-z]{1,4}", x in "[a-z]{1,4}", y in "[a-z]{1,4}",
        ) {
            let one = Topic::from_resource(Some(&named(&a, &x))).unwrap();
            let other = Topic::from_resource(Some(&named(&b, &y))).unwrap();
            prop_assert_eq!(one == other, (a, x) == (b, y));
        }

        #[test]
        fn no_text_makes_a_check_panic(text in any::<String>()) {
            let _ = text.parse::<Topic>();
            let _ = text.parse::<ConsumerGroup>();
            let _ = text.parse::<MessageGroup>();
            prop_assert!(text.parse::<BrokerName>().is_ok_and(|n| n.as_str() == text) || text.parse::<BrokerName>().is_err());
        }
    }
}
