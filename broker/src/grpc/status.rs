//! The one place of this crate where an outcome becomes a RocketMQ code.
#![deny(clippy::wildcard_enum_match_arm)]

use gateway::Miss;
use proto::{
    InvalidMessage, Word,
    v2::{self, Code},
};

use crate::{Error, command::Rejection};

/// What the client is told. `Err` for what is not the client's business: the gateway asks another
/// node, or says that nobody knows.
pub fn answer(error: &Error) -> Result<v2::Status, Miss> {
    if let Error::NotLeader { leader } = error {
        return Err(Miss::NotLeader { leader: leader.clone() });
    }
    if matches!(error, Error::Stopped | Error::PlacedElsewhere(_) | Error::ClosedHere) {
        return Err(Miss::NotDone);
    }
    if *error == Error::Unknown {
        return Err(Miss::Unknown);
    }
    Ok(of(error))
}

/// The same, with a code for every case.
pub fn of(error: &Error) -> v2::Status {
    v2::Status { code: code(error).into(), message: error.to_string() }
}

/// All went well.
pub fn ok() -> v2::Status {
    v2::Status { code: Code::Ok.into(), message: "OK".to_owned() }
}

/// A poll that ended without a message.
pub fn no_new_message() -> v2::Status {
    v2::Status { code: Code::MessageNotFound.into(), message: "no new message".to_owned() }
}

/// A pull from an offset that is none to pull from.
pub fn misplaced(why: crate::ops::Misplaced) -> v2::Status {
    v2::Status { code: Code::IllegalOffset.into(), message: why.to_string() }
}

/// The status of a request whose entries ended so: theirs if they ended alike.
pub fn common(entries: &[v2::Status]) -> v2::Status {
    let told =
        |code: Code, message: &str| v2::Status { code: code.into(), message: message.into() };
    match entries {
        [] => told(Code::InternalServerError, "the request holds no entries"),
        [first, rest @ ..] if rest.iter().all(|other| other.code == first.code) => first.clone(),
        _ => told(Code::MultipleResults, "multiple results"),
    }
}

fn code(error: &Error) -> Code {
    match error {
        Error::Name(name) => name_code(name.word),
        Error::Message(message) => message_code(message),
        Error::Filter(_) => Code::IllegalFilterExpression,
        Error::Handle(_) | Error::ForeignHandle(_) | Error::StaleHandle => {
            Code::InvalidReceiptHandle
        }
        Error::TransactionId(_) | Error::ForeignTransaction(_) => Code::InvalidTransactionId,
        Error::RecallHandle(_) | Error::ForeignRecallHandle(_) => Code::BadRequest,
        Error::AlreadyDelivered => Code::PreconditionFailed,
        Error::NothingToRecall => Code::MessageNotFound,
        Error::NoClientId => Code::ClientIdRequired,
        Error::TopicNotFound(_) => Code::TopicNotFound,
        Error::MixedMessageGroups => Code::IllegalMessageGroup,
        Error::NotWritable(_) | Error::NotReadable(_) => Code::Forbidden,
        Error::Unsupported(_) => Code::NotImplemented,
        Error::InvisibleTooSmall { .. } | Error::InvisibleTooLarge { .. } => {
            Code::IllegalInvisibleTime
        }
        Error::NoTimeToPoll { .. } => Code::IllegalPollingTime,
        Error::TooManyEntries { .. } | Error::TooLarge { .. } => Code::PayloadTooLarge,
        Error::IllegalOffset(_) => Code::IllegalOffset,
        Error::NoOffset => Code::OffsetNotFound,
        Error::Rejected(rejection) => rejection_code(*rejection),
        Error::BadSetting { .. } | Error::LiveSetting { .. } => Code::BadRequest,
        Error::Overloaded(_) | Error::QuotaExceeded(_) => Code::TooManyRequests,
        Error::NotLeader { .. }
        | Error::Stopped
        | Error::PlacedElsewhere(_)
        | Error::Level { .. }
        | Error::ClosedHere => Code::HaNotAvailable,
        Error::Unknown | Error::Unreadable { .. } | Error::Store { .. } => {
            Code::InternalServerError
        }
    }
}

fn name_code(word: Word) -> Code {
    match word {
        Word::Topic => Code::IllegalTopic,
        Word::ConsumerGroup => Code::IllegalConsumerGroup,
        Word::BrokerName => Code::BadRequest,
        Word::ClientId => Code::ClientIdRequired,
        Word::MessageGroup => Code::IllegalMessageGroup,
        Word::MessageId => Code::IllegalMessageId,
    }
}

fn message_code(message: &InvalidMessage) -> Code {
    match message {
        InvalidMessage::NoMessage
        | InvalidMessage::Undecodable { .. }
        | InvalidMessage::MixedTopics { .. }
        | InvalidMessage::TransactionNotAlone
        | InvalidMessage::NoSystemProperties => Code::MessageCorrupted,
        InvalidMessage::TooManyMessages { .. } | InvalidMessage::RequestTooLarge { .. } => {
            Code::PayloadTooLarge
        }
        InvalidMessage::Topic(_) => Code::IllegalTopic,
        InvalidMessage::BodyEmpty => Code::MessageBodyEmpty,
        InvalidMessage::BodyTooLarge { .. } => Code::MessageBodyTooLarge,
        InvalidMessage::TooManyProperties { .. } | InvalidMessage::PropertiesTooLarge { .. } => {
            Code::MessagePropertiesTooLarge
        }
        InvalidMessage::ReservedKey { .. }
        | InvalidMessage::PropertyKey { .. }
        | InvalidMessage::PropertyValue { .. } => Code::IllegalMessagePropertyKey,
        InvalidMessage::Tag(_) => Code::IllegalMessageTag,
        InvalidMessage::Key(_) => Code::IllegalMessageKey,
        InvalidMessage::MessageGroup(_) => Code::IllegalMessageGroup,
        InvalidMessage::MessageId(_) => Code::IllegalMessageId,
        InvalidMessage::LiteTopic(_) => Code::IllegalLiteTopic,
        InvalidMessage::DeliveryTime { .. } => Code::IllegalDeliveryTime,
        InvalidMessage::TransactionRecovery { .. } => Code::BadRequest,
        InvalidMessage::Type { .. } => Code::MessagePropertyConflictWithType,
    }
}

fn rejection_code(rejection: Rejection) -> Code {
    match rejection {
        Rejection::TopicNotFound => Code::TopicNotFound,
        Rejection::TopicNotWritable | Rejection::TopicNotReadable | Rejection::GroupDisabled => {
            Code::Forbidden
        }
        Rejection::GroupNotFound => Code::ConsumerGroupNotFound,
        Rejection::InvalidHandle => Code::InvalidReceiptHandle,
        Rejection::OffsetOutOfRange { .. } | Rejection::OffsetReset { .. } => Code::IllegalOffset,
        Rejection::QueueNotFound { .. }
        | Rejection::StaleVersion { .. }
        | Rejection::TopicOpen
        | Rejection::TopicNotDrained { .. }
        | Rejection::StaleRedrive { .. } => Code::BadRequest,
        Rejection::TooManyQueues { .. }
        | Rejection::TooManyTopics { .. }
        | Rejection::TooManyGroups { .. }
        | Rejection::TooManyQuotas { .. }
        | Rejection::TooManyLiveSettings { .. } => Code::Forbidden,
        Rejection::TransactionNotFound
        | Rejection::TransactionCommitted
        | Rejection::TransactionRolledBack
        | Rejection::TransactionParked => Code::InvalidTransactionId,
        Rejection::TooManyTransactions { .. } => Code::TooManyRequests,
        // Some will fire; until then there is no room.
        Rejection::TooManyTimers { .. } => Code::TooManyRequests,
        // The leader made the command: its fault, not the client's.
        Rejection::BadPick => Code::InternalServerError,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proto::InvalidRecallHandle;

    use super::*;
    use crate::{Fate, error::Bound};

    fn told(error: &Error) -> i32 {
        answer(error).expect("an answer").code
    }

    #[test]
    fn each_rule_has_its_documented_code() {
        let topic = || "t".parse().expect("a topic");
        let wait = Duration::from_secs(1);
        let cases = [
            (Error::TopicNotFound(topic()), 40402),
            (Error::NotWritable(topic()), 40300),
            (Error::NotReadable(topic()), 40300),
            (Error::NoClientId, 40017),
            (Error::StaleHandle, 40013),
            (Error::RecallHandle(InvalidRecallHandle::Empty), 40000),
            (Error::ForeignRecallHandle("topic"), 40000),
            (Error::AlreadyDelivered, 42800),
            (Error::NothingToRecall, 40401),
            (Error::ForeignHandle("topic"), 40013),
            (Error::InvisibleTooSmall { asked: wait, min: wait }, 40011),
            (Error::InvisibleTooLarge { asked: wait, max: wait }, 40011),
            (Error::IllegalOffset(-1), 40019),
            (Error::NoOffset, 40404),
            (Error::NoTimeToPoll { left: wait, min: wait }, 40018),
            (Error::Filter("||".parse::<proto::TagFilter>().expect_err("no tag")), 40010),
            (Error::Overloaded(Bound::LongPolls), 42900),
            (Error::TooLarge { bytes: 1, max: 0 }, 41300),
            (Error::Unsupported("x"), 50100),
            (Error::Message(InvalidMessage::BodyEmpty), 41302),
            (Error::Message(InvalidMessage::BodyTooLarge { found: 1, max: 0 }), 41301),
            (Error::Message(InvalidMessage::NoMessage), 40016),
            (Error::Message(InvalidMessage::TooManyProperties { found: 1, max: 0 }), 43101),
            (Error::Message(InvalidMessage::ReservedKey { key: "KEYS".into() }), 40007),
            (Error::Message(InvalidMessage::Type { found: v2::MessageType::Fifo }), 40014),
            (Error::Message(InvalidMessage::DeliveryTime { ahead: wait, max: wait }), 40012),
        ];
        for (error, code) in cases {
            assert_eq!(told(&error), code, "{error}");
        }
    }

    #[test]
    fn what_the_gateway_can_mend_is_not_told_to_the_client() {
        let leader = Some("h:1".to_owned());
        let elsewhere = Error::NotLeader { leader: leader.clone() };
        assert_eq!(answer(&elsewhere), Err(Miss::NotLeader { leader }));
        assert_eq!(answer(&Error::Stopped), Err(Miss::NotDone));
        assert_eq!(answer(&Error::Unknown), Err(Miss::Unknown));
    }

    #[test]
    fn overload_is_not_done_and_a_lost_proposal_is_unknown() {
        assert_eq!(Error::Overloaded(Bound::Proposals).fate(), Fate::NotDone);
        assert_eq!(Error::Unknown.fate(), Fate::Unknown);
        assert_eq!(Error::StaleHandle.fate(), Fate::Rejected);
    }

    #[test]
    fn a_request_ends_as_its_entries_do() {
        let (ok, stale) = (ok(), of(&Error::StaleHandle));
        assert_eq!(common(std::slice::from_ref(&stale)), stale);
        assert_eq!(common(&[ok.clone(), ok.clone()]), ok);
        assert_eq!(common(&[ok, stale]).code, 30000);
        assert_eq!(common(&[]).code, 50001);
    }

    #[test]
    fn the_texts_that_test_suites_look_for_are_there() {
        let wait = Duration::from_secs(1);
        let small = of(&Error::InvisibleTooSmall { asked: wait, min: wait });
        assert!(small.message.contains("the invisibleTime is too small"));
        let large = of(&Error::InvisibleTooLarge { asked: wait, max: wait });
        assert!(large.message.contains("the invisibleTime is too large"));
        assert!(of(&Error::StaleHandle).message.contains("INVALID_RECEIPT_HANDLE"));
    }
}
