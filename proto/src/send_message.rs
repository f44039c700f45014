//! SendMessage's request with its messages still encoded.

use bytes::Bytes;
use prost::Message;

use crate::v2;

/// Stands for `apache.rocketmq.v2.SendMessageRequest`, and is the same bytes on the wire.
///
/// Each message is kept as it was received, because those bytes are what the log stores: decoding
/// and encoding again would cost time and could drop fields that this version does not know.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SendMessageRequest {
    /// Encoded [`v2::Message`]s. Decode one with `v2::Message::decode(bytes.clone())`; its body is
    /// then a slice of these bytes, not a copy.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub messages: Vec<Bytes>,
}

impl SendMessageRequest {
    /// A request that carries these messages, in this order.
    pub fn of<'a>(messages: impl IntoIterator<Item = &'a v2::Message>) -> Self {
        Self { messages: messages.into_iter().map(|m| m.encode_to_vec().into()).collect() }
    }
}
