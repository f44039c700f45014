//! Topic attributes as RocketMQ writes them: `+key=value` sets one, `-key` takes one away.

use anyhow::{Result, bail};
use proto::v2::MessageType;

const MESSAGE_TYPE: &str = "message.type";
/// Hours.
const RESERVE_TIME: &str = "reserve.time";
const AS_THE_BROKER: &str = "-1";
const HOUR_MS: u64 = 60 * 60 * 1000;

/// The message types that a mixed topic takes.
const MIXED: [MessageType; 4] =
    [MessageType::Normal, MessageType::Fifo, MessageType::Delay, MessageType::Transaction];

/// What the attributes ask for; nothing where they do not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) types: Option<Vec<MessageType>>,
    /// How long messages are kept; 0 leaves it to the broker.
    pub(super) retention_ms: Option<u64>,
}

/// What the attributes ask for.
pub(super) fn parse(attributes: &str) -> Result<Asked> {
    let mut asked = Asked::default();
    for attribute in attributes.split(',').map(str::trim).filter(|a| !a.is_empty()) {
        let (key, value) = if let Some(set) = attribute.strip_prefix('+') {
            let Some((key, value)) = set.split_once('=') else {
                bail!("attribute {attribute:?} has no value; write +{MESSAGE_TYPE}=FIFO");
            };
            (key, Some(value))
        } else if let Some(key) = attribute.strip_prefix('-') {
            (key, None)
        } else {
            bail!("attribute {attribute:?} must begin with + or -; write +{MESSAGE_TYPE}=FIFO");
        };
        match key {
            // Without the attribute a topic is an ordinary one.
            MESSAGE_TYPE => asked.types = Some(types(value.unwrap_or("NORMAL"))?),
            RESERVE_TIME => asked.retention_ms = Some(reserved(value.unwrap_or(AS_THE_BROKER))?),
            other => bail!(
                "attribute {other:?} is not supported; those that are: {MESSAGE_TYPE}, \
                 {RESERVE_TIME}"
            ),
        }
    }
    Ok(asked)
}

/// Milliseconds of so many hours.
fn reserved(hours: &str) -> Result<u64> {
    if hours == AS_THE_BROKER {
        return Ok(0);
    }
    match hours.parse::<u64>().ok().and_then(|hours| hours.checked_mul(HOUR_MS)) {
        Some(ms) if ms > 0 => Ok(ms),
        Some(_) | None => bail!(
            "{RESERVE_TIME}={hours} is no number of hours; {AS_THE_BROKER} leaves it to the broker"
        ),
    }
}

fn types(name: &str) -> Result<Vec<MessageType>> {
    let name = name.to_ascii_uppercase();
    if name == "MIXED" {
        return Ok(MIXED.to_vec());
    }
    match MessageType::from_str_name(&name) {
        Some(MessageType::Unspecified) | None => bail!(
            "{name:?} is no message type; choose NORMAL, FIFO, DELAY, TRANSACTION, LITE, PRIORITY \
             or MIXED"
        ),
        Some(one) => Ok(vec![one]),
    }
}

/// The name of what a topic accepts.
pub(super) fn describe(accepts: &[i32]) -> String {
    let of = |one: &MessageType| accepts.contains(&(*one as i32));
    if MIXED.iter().all(of) {
        return "MIXED".into();
    }
    let name = |&number: &i32| match MessageType::try_from(number) {
        Ok(one) => one.as_str_name().to_owned(),
        Err(_) => number.to_string(),
    };
    accepts.iter().map(name).collect::<Vec<_>>().join("+")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_type_is_read() {
        let one = |text| parse(text).unwrap().types;
        assert_eq!(one("+message.type=FIFO"), Some(vec![MessageType::Fifo]));
        assert_eq!(one("+message.type=fifo"), Some(vec![MessageType::Fifo]));
        assert_eq!(one("-message.type"), Some(vec![MessageType::Normal]));
        assert_eq!(one("+message.type=MIXED"), Some(MIXED.to_vec()));
        assert_eq!(one(""), None);
    }

    #[test]
    fn what_is_not_an_attribute_of_ours_is_named() {
        for bad in ["message.type=FIFO", "+message.type", "+message.type=X", "+queue.type=BatchCQ"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let error = parse("+cleanup.policy=COMPACTION").unwrap_err().to_string();
        assert!(error.contains("cleanup.policy") && error.contains(MESSAGE_TYPE), "{error}");
    }

    #[test]
    fn the_time_to_keep_is_read_in_hours() {
        let kept = |text| parse(text).map(|asked| asked.retention_ms).ok();
        assert_eq!(kept("+reserve.time=2"), Some(Some(7_200_000)));
        assert_eq!(kept("+reserve.time=-1"), Some(Some(0)));
        assert_eq!(kept("-reserve.time"), Some(Some(0)));
        assert_eq!(kept("+message.type=FIFO"), Some(None));
        for bad in ["+reserve.time=0", "+reserve.time=2h", "+reserve.time=-2"] {
            assert_eq!(kept(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_a_topic_accepts_has_a_name() {
        let numbers = |types: &[MessageType]| types.iter().map(|t| *t as i32).collect::<Vec<_>>();
        assert_eq!(describe(&numbers(&[MessageType::Delay])), "DELAY");
        assert_eq!(describe(&numbers(&MIXED)), "MIXED");
        assert_eq!(describe(&numbers(&[MessageType::Normal, MessageType::Fifo])), "NORMAL+FIFO");
        assert_eq!(describe(&[99]), "99");
    }
}
