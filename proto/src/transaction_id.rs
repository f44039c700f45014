//! What a producer hands back to say which transaction it has decided.
//!
//! Like a receipt handle it carries everything that finds the transaction, so that any node can
//! route it and any leader knows it. As text it is URL-safe Base64, without padding, of
//!
//! ```text
//! version 1 | number 8 | broker | CRC-32 4
//! ```
//!
//! with big-endian numbers; the checksum covers everything before it.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use thiserror::Error;

use crate::{BrokerName, InvalidName, limits};

/// A text that is not a transaction id of ours.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidTransactionId {
    #[error("the transaction id is empty")]
    Empty,
    #[error("the transaction id has {found} bytes, over the limit of {max}")]
    TooLong { found: usize, max: usize },
    #[error("the transaction id is not Base64")]
    Base64,
    #[error("the transaction id has version {0}, which is unknown")]
    Version(u8),
    #[error("the transaction id is cut short")]
    Truncated,
    #[error("the transaction id's checksum does not match")]
    Checksum,
    #[error("the transaction id names no broker: {0}")]
    Name(#[from] InvalidName),
}

/// One transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TransactionId {
    /// The broker group that holds the half message.
    pub broker: BrokerName,
    /// Names the transaction within the group, for ever.
    pub number: u64,
}

const VERSION: u8 = 1;
const NUMBER_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 4;

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let broker = self.broker.as_str();
        let mut bytes = Vec::with_capacity(1 + NUMBER_BYTES + broker.len() + CHECKSUM_BYTES);
        bytes.push(VERSION);
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(broker.as_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for TransactionId {
    type Err = InvalidTransactionId;

    fn from_str(text: &str) -> Result<Self, InvalidTransactionId> {
        let (found, max) = (text.len(), limits::TRANSACTION_ID_BYTES);
        if text.trim().is_empty() {
            return Err(InvalidTransactionId::Empty);
        }
        if found > max {
            return Err(InvalidTransactionId::TooLong { found, max });
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidTransactionId::Base64)?;
        // Before the checksum, because another version may have another one.
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&other) => return Err(InvalidTransactionId::Version(other)),
            None => return Err(InvalidTransactionId::Truncated),
        }
        let (content, checksum) =
            bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(InvalidTransactionId::Truncated)?;
        if crc32fast::hash(content) != u32::from_be_bytes(*checksum) {
            return Err(InvalidTransactionId::Checksum);
        }
        let (number, broker) =
            content[1..].split_first_chunk().ok_or(InvalidTransactionId::Truncated)?;
        Ok(Self {
            broker: String::from_utf8_lossy(broker).parse()?,
            number: u64::from_be_bytes(*number),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id() -> TransactionId {
        TransactionId { broker: "broker-a".parse().unwrap(), number: 4711 << 20 }
    }

    /// Producers hold ids while brokers are upgraded.
    #[test]
    fn the_text_of_an_id_never_changes() {
        let text = "AQAAAAEmcAAAYnJva2VyLWE";
        assert!(id().to_string().starts_with(&text[..22]), "{}", id());
        assert_eq!(id().to_string().parse::<TransactionId>().unwrap(), id());
    }

    #[test]
    fn what_is_not_an_id_is_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<TransactionId>().unwrap_err();
        assert_eq!(refused(" "), InvalidTransactionId::Empty);
        assert_eq!(refused("1 2"), InvalidTransactionId::Base64);
        assert_eq!(refused("AQAA"), InvalidTransactionId::Truncated);
        assert_eq!(refused("AgAAAAAAAAAA"), InvalidTransactionId::Version(2));
        assert_eq!(
            refused(&"A".repeat(257)),
            InvalidTransactionId::TooLong { found: 257, max: 256 }
        );
    }

    proptest! {
        #[test]
        fn an_id_survives_its_text(broker in "[a-zA-Z0-9._-]{1,127}", number: u64) {
            let id = TransactionId { broker: broker.parse().unwrap(), number };
            prop_assert_eq!(id.to_string().parse::<TransactionId>().unwrap(), id);
        }

        #[test]
        fn one_changed_character_is_noticed(at: prop::sample::Index, to in "[a-zA-Z0-9_-]") {
            let text = id().to_string();
            let at = at.index(text.len());
            prop_assume!(text[at..=at] != to);
            let changed = format!("{}{to}{}", &text[..at], &text[at + 1..]);
            prop_assert!(changed.parse::<TransactionId>().is_err());
        }

        #[test]
        fn no_text_makes_parsing_panic(text: String) {
            prop_assert!(text.parse::<TransactionId>().is_err());
        }
    }
}
