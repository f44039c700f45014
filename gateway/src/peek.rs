//! Reads the few fields of an encoded message that routing needs.

use bytes::Bytes;
use prost::Message;
use proto::{SendMessageRequest, Topic, v2};

use crate::{retry::Repeat, status::Refusal};

/// `v2.Message` with most fields left out; the decoder skips those.
#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(message, optional, tag = "1")]
    topic: Option<v2::Resource>,
    #[prost(message, optional, tag = "3")]
    system: Option<SystemHead>,
}

#[derive(Clone, PartialEq, Message)]
struct SystemHead {
    #[prost(string, tag = "3")]
    message_id: String,
    #[prost(string, optional, tag = "17")]
    message_group: Option<String>,
}

/// What routing needs to know of a send.
#[derive(Debug, PartialEq)]
pub(crate) struct SendHead {
    pub(crate) topic: Topic,
    /// Of the first message; empty when it has none.
    pub(crate) message_id: String,
    /// As sent; the leader checks it.
    pub(crate) message_group: Option<String>,
    pub(crate) repeat: Repeat,
}

/// Looks at a send. Its messages are checked by the leader; only what cannot be routed is refused.
pub(crate) fn peek(request: &SendMessageRequest) -> Result<SendHead, Refusal> {
    let first = head(request.messages.first().ok_or(Refusal::NoMessage)?)?;
    let system = first.system.unwrap_or_default();
    let mut identified = !system.message_id.is_empty();
    for message in &request.messages[1..] {
        identified &= head(message)?.system.is_some_and(|system| !system.message_id.is_empty());
    }
    Ok(SendHead {
        topic: Topic::from_resource(first.topic.as_ref())?,
        message_group: system.message_group,
        // The leader recognises a message that it has by the ids of client and message.
        repeat: if identified { Repeat::Safe } else { Repeat::NotDoneOnly },
        message_id: system.message_id,
    })
}

fn head(message: &Bytes) -> Result<Head, Refusal> {
    Head::decode(message.clone()).map_err(|error| Refusal::Undecodable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str) -> v2::Message {
        v2::Message {
            topic: Some(v2::Resource { resource_namespace: "ns".into(), name: "orders".into() }),
            system_properties: Some(v2::SystemProperties {
                message_id: id.into(),
                message_group: Some("g".into()),
                keys: vec!["k".into()],
                ..Default::default()
            }),
            body: Bytes::from_static(b"body"),
            ..Default::default()
        }
    }

    #[test]
    fn the_head_is_that_of_the_whole_message() {
        let head = peek(&SendMessageRequest::of(&[message("1"), message("2")])).expect("valid");
        assert_eq!(head.topic.as_str(), "ns%orders");
        assert_eq!(head.message_group.as_deref(), Some("g"));
        assert_eq!(head.repeat, Repeat::Safe);
    }

    #[test]
    fn one_message_without_an_id_makes_the_send_unrepeatable() {
        let head = peek(&SendMessageRequest::of(&[message("1"), message("")])).expect("valid");
        assert_eq!(head.repeat, Repeat::NotDoneOnly);
    }

    #[test]
    fn what_cannot_be_routed_is_refused() {
        let empty = SendMessageRequest { messages: vec![] };
        assert_eq!(peek(&empty), Err(Refusal::NoMessage));
        let garbage = SendMessageRequest { messages: vec![Bytes::from_static(&[0xff; 8])] };
        assert!(matches!(peek(&garbage), Err(Refusal::Undecodable(_))));
        let nameless = SendMessageRequest::of(&[v2::Message::default()]);
        assert!(matches!(peek(&nameless), Err(Refusal::InvalidName(_))));
    }
}
