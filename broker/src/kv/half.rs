//! Half messages: transactions that have not ended.
//!
//! ```text
//! key    20 | transaction 8
//! value  topic id 4 | queue 4 | position 8 | length 4 | tag hash 8 | born 8 | next check 8
//!        | checks 4 | parked 1 | keys: count 1, hash 8 each | client, to the end
//! ```
//! Written by AppendHalf, rewritten by CheckTransactions and ParkTransactions, deleted by
//! EndTransaction.

use std::ops::ControlFlow;

use bytes::{Buf, BufMut, TryGetError};
use commitlog::position::LogOffset;
use proto::{ClientId, QueueId, Timestamp};

use super::{Batch, Error, Family, Kv, TopicId, corrupt, prefix};

/// A stored message that waits for its transaction to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Half {
    pub topic: TopicId,
    /// The queue that it enters when it is committed.
    pub queue: QueueId,
    /// Where the `v2.Message` lies in the log.
    pub position: LogOffset,
    pub len: u32,
    pub tag_hash: u64,
    /// When it was stored, in log time.
    pub born: Timestamp,
    /// When its producer is to be asked next, in log time; when it was given up, if it was.
    pub next_check: Timestamp,
    /// How often producers were asked.
    pub checks: u32,
    /// Given up: only an administrator ends it.
    pub parked: bool,
    pub key_hashes: Vec<u64>,
    pub client: ClientId,
}

pub fn put(batch: &mut Batch, transaction: u64, half: &Half) {
    batch.put(Family::State, &key(transaction), &value(half));
}

pub fn delete(batch: &mut Batch, transaction: u64) {
    batch.delete(Family::State, &key(transaction));
}

/// Shows every half message, in the order of transactions.
///
/// # Errors
/// The store cannot be read, holds a damaged record, or `visit` failed.
pub fn load(
    kv: &dyn Kv,
    mut visit: impl FnMut(u64, Half) -> Result<(), &'static str>,
) -> Result<(), Error> {
    let range = ([prefix::HALF], [prefix::HALF + 1]);
    kv.scan(Family::State, &range.0, &range.1, &mut |key, value| {
        let damaged = |problem| corrupt("half message", problem, key);
        let transaction = parse_key(key).ok_or_else(|| damaged("key has a wrong length"))?;
        let half = parse_value(value).map_err(damaged)?;
        visit(transaction, half).map_err(damaged)?;
        Ok(ControlFlow::Continue(()))
    })
}

fn key(transaction: u64) -> [u8; 9] {
    let mut key = [prefix::HALF; 9];
    key[1..].copy_from_slice(&transaction.to_be_bytes());
    key
}

fn parse_key(key: &[u8]) -> Option<u64> {
    let key: &[u8; 9] = key.try_into().ok()?;
    Some((&key[1..]).get_u64())
}

fn value(half: &Half) -> Vec<u8> {
    let client = half.client.as_str();
    let mut out = Vec::with_capacity(58 + 8 * half.key_hashes.len() + client.len());
    out.put_u32(half.topic.0);
    out.put_u32(half.queue.0);
    out.put_u64(half.position.0);
    out.put_u32(half.len);
    out.put_u64(half.tag_hash);
    out.put_u64(half.born.0);
    out.put_u64(half.next_check.0);
    out.put_u32(half.checks);
    out.put_u8(half.parked.into());
    out.put_u8(u8::try_from(half.key_hashes.len()).expect("the command counts them in a byte"));
    for hash in &half.key_hashes {
        out.put_u64(*hash);
    }
    out.put_slice(client.as_bytes());
    out
}

fn parse_value(mut value: &[u8]) -> Result<Half, &'static str> {
    let early = |_: TryGetError| "value ends early";
    let input = &mut value;
    Ok(Half {
        topic: TopicId(input.try_get_u32().map_err(early)?),
        queue: QueueId(input.try_get_u32().map_err(early)?),
        position: LogOffset(input.try_get_u64().map_err(early)?),
        len: input.try_get_u32().map_err(early)?,
        tag_hash: input.try_get_u64().map_err(early)?,
        born: Timestamp(input.try_get_u64().map_err(early)?),
        next_check: Timestamp(input.try_get_u64().map_err(early)?),
        checks: input.try_get_u32().map_err(early)?,
        parked: input.try_get_u8().map_err(early)? != 0,
        key_hashes: {
            let count = input.try_get_u8().map_err(early)?;
            let hashes = (0..count).map(|_| input.try_get_u64());
            hashes.collect::<Result<_, _>>().map_err(early)?
        },
        client: {
            let text = str::from_utf8(input).map_err(|_| "client is not UTF-8")?;
            text.parse().map_err(|_| "client is not valid")?
        },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn half()(
            place: (u32, u32, u64, u32), n: [u64; 3], checks: u32, parked: bool,
            key_hashes in prop::collection::vec(any::<u64>(), 0..4),
            client in "[a-z0-9@.-]{1,60}",
        ) -> Half {
            Half {
                topic: TopicId(place.0),
                queue: QueueId(place.1),
                position: LogOffset(place.2),
                len: place.3,
                tag_hash: n[0],
                born: Timestamp(n[1]),
                next_check: Timestamp(n[2]),
                checks,
                parked,
                key_hashes,
                client: client.parse().unwrap(),
            }
        }
    }

    proptest! {
        #[test]
        fn a_half_message_survives_the_store(transaction: u64, half in half()) {
            prop_assert_eq!(parse_key(&key(transaction)), Some(transaction));
            prop_assert_eq!(parse_value(&value(&half)), Ok(half));
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>) {
            let _either_way = (parse_key(&bytes), parse_value(&bytes));
        }
    }

    #[test]
    fn golden() {
        assert_eq!(key(258), [0x20, 0, 0, 0, 0, 0, 0, 1, 2]);
        let half = Half {
            topic: TopicId(1),
            queue: QueueId(2),
            position: LogOffset(3),
            len: 4,
            tag_hash: 5,
            born: Timestamp(6),
            next_check: Timestamp(7),
            checks: 8,
            parked: true,
            key_hashes: vec![9],
            client: "c".parse().unwrap(),
        };
        let mut expected = vec![0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4];
        for number in [5_u64, 6, 7] {
            expected.extend(number.to_be_bytes());
        }
        expected.extend([0, 0, 0, 8, 1, 1]);
        expected.extend(9_u64.to_be_bytes());
        expected.push(b'c');
        assert_eq!(value(&half), expected);
    }
}
