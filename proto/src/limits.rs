//! Every limit that a client can notice.
//!
//! Where official clients or their test suites know a value, it is theirs.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

// Names.

/// Characters of a topic's full name, its namespace included.
pub const TOPIC_CHARS: usize = 127;
/// The same for the topics that belong to a consumer group: `%RETRY%...` and `%DLQ%...`.
pub const GROUP_TOPIC_CHARS: usize = 255;
/// Characters of a consumer group's full name.
pub const CONSUMER_GROUP_CHARS: usize = 120;
/// Characters of a broker's name.
pub const BROKER_NAME_CHARS: usize = 127;
/// Bytes of a client's id.
pub const CLIENT_ID_BYTES: usize = 512;
/// Bytes of a message's id. Those of the official clients have 34.
pub const MESSAGE_ID_BYTES: usize = 255;
/// Bytes of a message group.
pub const MESSAGE_GROUP_BYTES: usize = 63;
/// Bytes of a lite topic's name.
pub const LITE_TOPIC_BYTES: usize = 64;

// Messages.

/// Bytes of a body as it is on the wire. Clients are told this figure and check it themselves.
pub const BODY_BYTES: usize = 4 * MIB;
/// User properties of one message.
pub const USER_PROPERTIES: usize = 128;
/// Bytes of the user properties' keys and values, the tag and the keys of one message together.
pub const PROPERTIES_BYTES: usize = 16 * KIB;
/// Bytes of one encoded message. What is not body or properties (names, ids, times) is small.
pub const MESSAGE_BYTES: usize = BODY_BYTES + PROPERTIES_BYTES + 64 * KIB;
/// Messages in one SendMessage.
pub const MESSAGES_PER_SEND: usize = 4096;
/// Bytes of all messages in one SendMessage: they become one command of the log.
pub const SEND_BYTES: usize = 6 * MIB;
/// Bytes of one gRPC message that a server takes in. Far above [`SEND_BYTES`], so that a client
/// which sends too much is told so in RocketMQ's words and not by a broken call.
pub const GRPC_BYTES: usize = 64 * MIB;
/// How far in the future a message may be delivered, unless the broker is told otherwise.
pub const DELAY: Duration = Duration::from_hours(24);
/// How long a half message may ask to be left alone.
pub const TRANSACTION_RECOVERY: Duration = Duration::from_hours(1);
/// Bytes of a recall handle as text.
pub const RECALL_HANDLE_BYTES: usize = 1024;
/// Bytes of a transaction id as text.
pub const TRANSACTION_ID_BYTES: usize = 256;

// Consuming.

/// Messages in one answer to ReceiveMessage; a request for more gets this many.
pub const RECEIVE_BATCH: usize = 32;
/// Entries of one AckMessage.
pub const ACK_ENTRIES: usize = 4096;
/// The shortest invisible duration that a ReceiveMessage may ask for.
pub const INVISIBLE_MIN: Duration = Duration::from_secs(10);
/// The longest one, for ReceiveMessage and ChangeInvisibleDuration.
pub const INVISIBLE_MAX: Duration = Duration::from_hours(12);
/// The invisible duration of a delivery that the server renews itself.
pub const AUTO_RENEW_INVISIBLE: Duration = Duration::from_secs(60);
/// How long the server goes on renewing one delivery.
pub const AUTO_RENEW_TOTAL: Duration = Duration::from_hours(3);
/// A shorter long poll is not worth its round trip; also the least that a deadline must leave.
pub const LONG_POLL_MIN: Duration = Duration::from_secs(5);
/// No poll is held longer.
pub const LONG_POLL_MAX: Duration = Duration::from_secs(20);
/// A deadline this much closer than [`LONG_POLL_MIN`] is still good: clients that set exactly the
/// minimum have used some of it up when they are heard.
pub const LONG_POLL_SLACK: Duration = Duration::from_millis(500);
/// Bytes of a filter expression.
pub const FILTER_BYTES: usize = 64 * KIB;
/// Tags in one filter expression.
pub const FILTER_TAGS: usize = 1024;
/// Levels of an SQL filter expression: operators within operators, or within parentheses.
pub const FILTER_DEPTH: usize = 64;
/// Bytes of a receipt handle as text.
pub const RECEIPT_HANDLE_BYTES: usize = 1024;

// The widest names, with room for numbers and checksum, must fit a handle, a third larger as text.
const _: () = assert!((BROKER_NAME_CHARS + GROUP_TOPIC_CHARS + 64) * 4 / 3 < RECEIPT_HANDLE_BYTES);
const _: () = assert!(
    (BROKER_NAME_CHARS + GROUP_TOPIC_CHARS + MESSAGE_ID_BYTES + 32) * 4 / 3 < RECALL_HANDLE_BYTES
);
const _: () = assert!((BROKER_NAME_CHARS + 16) * 4 / 3 < TRANSACTION_ID_BYTES);
const _: () = assert!(TOPIC_CHARS <= GROUP_TOPIC_CHARS);
// `%RETRY%` or `%DLQ%` before any consumer group is a topic.
const _: () = assert!(CONSUMER_GROUP_CHARS + "%RETRY%".len() <= GROUP_TOPIC_CHARS);
const _: () = assert!(BODY_BYTES + PROPERTIES_BYTES < MESSAGE_BYTES);
// Any message that is legal alone can be sent alone.
const _: () = assert!(MESSAGE_BYTES < SEND_BYTES);
const _: () = assert!(SEND_BYTES < GRPC_BYTES);
// Clients are told the body's limit as an int32.
const _: () = assert!(BODY_BYTES <= i32::MAX as usize);
// A tag at its limit can be filtered by.
const _: () = assert!(PROPERTIES_BYTES <= FILTER_BYTES);
const _: () = assert!(INVISIBLE_MIN.as_millis() <= AUTO_RENEW_INVISIBLE.as_millis());
const _: () = assert!(AUTO_RENEW_INVISIBLE.as_millis() <= AUTO_RENEW_TOTAL.as_millis());
const _: () = assert!(AUTO_RENEW_TOTAL.as_millis() <= INVISIBLE_MAX.as_millis());
const _: () = assert!(LONG_POLL_MIN.as_millis() <= LONG_POLL_MAX.as_millis());
// A consumer cannot ask for more in one answer than it can acknowledge in one request.
const _: () = assert!(RECEIVE_BATCH <= ACK_ENTRIES);
