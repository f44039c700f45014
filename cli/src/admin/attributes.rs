//! Topic attributes as RocketMQ writes them: `+key=value` sets one, `-key` takes one away.

use anyhow::{Result, bail};
use proto::v2::MessageType;

const MESSAGE_TYPE: &str = "message.type";

/// The message types that a mixed topic takes.
const MIXED: [MessageType; 4] =
    [MessageType::Normal, MessageType::Fifo, MessageType::Delay, MessageType::Transaction];

/// The message types that the attributes ask for; `None` when they do not say.
pub(super) fn accepted_types(attributes: &str) -> Result<Option<Vec<MessageType>>> {
    let mut accepted = None;
    for attribute in attributes.split(',').map(str::trim).filter(|a| !a.is_empty()) {
        let (key, value) = if let Some(set) = attribute.strip_prefix('+') {
            let Some((key, value)) = set.split_once('=') else {
                bail!("attribute {attribute:?} has no value; write +{MESSAGE_TYPE}=FIFO");
            };
            (key, value)
        } else if let Some(key) = attribute.strip_prefix('-') {
            // Without the attribute a topic is an ordinary one.
            (key, "NORMAL")
        } else {
            bail!("attribute {attribute:?} must begin with + or -; write +{MESSAGE_TYPE}=FIFO");
        };
        if key != MESSAGE_TYPE {
            bail!("attribute {key:?} is not supported; the one that is: {MESSAGE_TYPE}");
        }
        accepted = Some(types(value)?);
    }
    Ok(accepted)
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
        let one = |text| accepted_types(text).unwrap();
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
            assert!(accepted_types(bad).is_err(), "{bad}");
        }
        let error = accepted_types("+reserve.time=1").unwrap_err().to_string();
        assert!(error.contains("reserve.time") && error.contains(MESSAGE_TYPE), "{error}");
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
