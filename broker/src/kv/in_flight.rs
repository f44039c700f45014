//! Messages delivered and not acknowledged yet.
//!
//! ```text
//! key    06 | consumer group id 4 | topic id 4 | queue 4 | offset 8
//! value  due 8 | since 8 | delivery 8 | attempt 4 | flags 1 [| block 8] [| attempt id 8]
//!        | client, to the end
//! flags  1 auto renew, 2 block, 4 attempt id
//! ```
//! Written by Pop and PopFifo, rewritten when `due` moves, deleted by Ack.

use std::ops::ControlFlow;

use bytes::{Buf, BufMut};
use proto::{ClientId, QueueId, QueueOffset, Timestamp};

use super::{Batch, ConsumerGroupId, Error, Family, Kv, TopicId, corrupt, prefix};

/// A message in the hands of a consumer group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub group: ConsumerGroupId,
    pub topic: TopicId,
    pub queue: QueueId,
    pub offset: QueueOffset,
}

/// One delivery. The client is stored with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// When the message may be delivered again.
    pub due: Timestamp,
    /// When this delivery was made.
    pub since: Timestamp,
    /// Names this delivery among all of the message.
    pub id: u64,
    /// 1 for the first delivery of the message; 0 for one that was passed over and waits for its
    /// message group.
    pub attempt: u32,
    /// The leader renews it while the client lives.
    pub auto_renew: bool,
    /// `None` where order does not matter.
    pub order: Option<Order>,
}

/// Where a delivery stands in the order of its message group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Hash of the message group; 0 for messages without one.
    pub block: u64,
    /// Names the receive call that got it across its retries.
    pub attempt_id: Option<u64>,
}

mod flag {
    pub(super) const AUTO_RENEW: u8 = 1;
    pub(super) const BLOCK: u8 = 2;
    pub(super) const ATTEMPT_ID: u8 = 4;
    pub(super) const ALL: u8 = AUTO_RENEW | BLOCK | ATTEMPT_ID;
}

impl Delivery {
    /// Made before `trusted_since`, renewed automatically, and never renewed yet: whether it ever
    /// reached its client is not known.
    pub fn is_doubtful(&self, trusted_since: Timestamp) -> bool {
        let first_end = self.since.plus(proto::limits::AUTO_RENEW_INVISIBLE);
        self.auto_renew && self.since < trusted_since && self.due <= first_end
    }
}

pub fn put(batch: &mut Batch, place: &Place, delivery: &Delivery, client: &ClientId) {
    batch.put(Family::State, &key(place), &value(delivery, client.as_str()));
}

pub fn delete(batch: &mut Batch, place: &Place) {
    batch.delete(Family::State, &key(place));
}

/// Shows every delivery in flight, in the order of places.
///
/// # Errors
/// The store cannot be read, holds a damaged record, or `visit` failed.
pub fn load(
    kv: &dyn Kv,
    mut visit: impl FnMut(Place, Delivery, ClientId) -> Result<(), &'static str>,
) -> Result<(), Error> {
    let range = ([prefix::IN_FLIGHT], [prefix::IN_FLIGHT + 1]);
    kv.scan(Family::State, &range.0, &range.1, &mut |key, bytes| {
        let damaged = |problem| corrupt("in-flight", problem, key);
        let place = parse_key(key).ok_or_else(|| damaged("key has a wrong length"))?;
        let (delivery, client) =
            parse_value(bytes).ok_or_else(|| damaged("value is not readable"))?;
        visit(place, delivery, client).map_err(damaged)?;
        Ok(ControlFlow::Continue(()))
    })
}

fn key(place: &Place) -> [u8; 21] {
    let mut key = [prefix::IN_FLIGHT; 21];
    key[1..5].copy_from_slice(&place.group.0.to_be_bytes());
    key[5..9].copy_from_slice(&place.topic.0.to_be_bytes());
    key[9..13].copy_from_slice(&place.queue.0.to_be_bytes());
    key[13..].copy_from_slice(&place.offset.0.to_be_bytes());
    key
}

fn parse_key(key: &[u8]) -> Option<Place> {
    let key: &[u8; 21] = key.try_into().ok()?;
    let mut rest = &key[1..];
    Some(Place {
        group: ConsumerGroupId(rest.get_u32()),
        topic: TopicId(rest.get_u32()),
        queue: QueueId(rest.get_u32()),
        offset: QueueOffset(rest.get_u64()),
    })
}

fn value(delivery: &Delivery, client: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(45 + client.len());
    out.put_u64(delivery.due.0);
    out.put_u64(delivery.since.0);
    out.put_u64(delivery.id);
    out.put_u32(delivery.attempt);
    let attempt_id = delivery.order.and_then(|order| order.attempt_id);
    let set = |flag, on: bool| if on { flag } else { 0 };
    out.put_u8(
        set(flag::AUTO_RENEW, delivery.auto_renew)
            | set(flag::BLOCK, delivery.order.is_some())
            | set(flag::ATTEMPT_ID, attempt_id.is_some()),
    );
    if let Some(order) = delivery.order {
        out.put_u64(order.block);
    }
    if let Some(attempt) = attempt_id {
        out.put_u64(attempt);
    }
    out.put_slice(client.as_bytes());
    out
}

fn parse_value(value: &[u8]) -> Option<(Delivery, ClientId)> {
    let (mut fixed, mut rest) = value.split_at_checked(29)?;
    let mut delivery = Delivery {
        due: Timestamp(fixed.get_u64()),
        since: Timestamp(fixed.get_u64()),
        id: fixed.get_u64(),
        attempt: fixed.get_u32(),
        auto_renew: false,
        order: None,
    };
    let flags = fixed.get_u8();
    let is = |flag| flags & flag != 0;
    if flags & !flag::ALL != 0 || is(flag::ATTEMPT_ID) && !is(flag::BLOCK) {
        return None;
    }
    delivery.auto_renew = is(flag::AUTO_RENEW);
    if is(flag::BLOCK) {
        let block = rest.try_get_u64().ok()?;
        let attempt_id = match is(flag::ATTEMPT_ID) {
            true => Some(rest.try_get_u64().ok()?),
            false => None,
        };
        delivery.order = Some(Order { block, attempt_id });
    }
    Some((delivery, str::from_utf8(rest).ok()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn delivery(n: [u64; 3], attempt: u32, auto_renew: bool) -> Delivery {
        let [due, since, id] = n;
        let (due, since) = (Timestamp(due), Timestamp(since));
        Delivery { due, since, id, attempt, auto_renew, order: None }
    }

    fn order(block: u64, attempt_id: Option<u64>) -> Order {
        Order { block, attempt_id }
    }

    proptest! {
        #[test]
        fn a_delivery_survives_the_store(
            place: (u32, u32, u32, u64), n: [u64; 3], attempt: u32, auto_renew: bool,
            client in "[a-z0-9@.-]{1,60}", ordered: Option<(u64, Option<u64>)>,
        ) {
            let place = Place {
                group: ConsumerGroupId(place.0),
                topic: TopicId(place.1),
                queue: QueueId(place.2),
                offset: QueueOffset(place.3),
            };
            let order = ordered.map(|(block, attempt_id)| order(block, attempt_id));
            let delivery = Delivery { order, ..delivery(n, attempt, auto_renew) };
            prop_assert_eq!(parse_key(&key(&place)), Some(place));
            let client_id = client.parse().unwrap();
            prop_assert_eq!(parse_value(&value(&delivery, &client)), Some((delivery, client_id)));
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>) {
            let _either_way = (parse_key(&bytes), parse_value(&bytes));
        }
    }

    #[test]
    fn golden() {
        let place = Place {
            group: ConsumerGroupId(1),
            topic: TopicId(2),
            queue: QueueId(3),
            offset: QueueOffset(4),
        };
        let expected = [6, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4];
        assert_eq!(key(&place), expected);
        let mut expected = vec![];
        for number in [5_u64, 6, 7] {
            expected.extend(number.to_be_bytes());
        }
        expected.extend([0, 0, 0, 8, 1, b'c']);
        assert_eq!(value(&delivery([5, 6, 7], 8, true), "c"), expected);

        expected.truncate(28);
        expected.extend([6, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 10, b'c']);
        let ordered = Delivery { order: Some(order(9, Some(10))), ..delivery([5, 6, 7], 8, false) };
        assert_eq!(value(&ordered, "c"), expected);
    }
}
