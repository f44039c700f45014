//! Which queue a message goes to.

use std::{fmt, sync::Arc};

use crate::{Error, Message, MessageQueue, route::Placed};

type Choose = dyn Fn(&[MessageQueue], &Message) -> usize + Send + Sync;

/// Chooses a queue for each message.
///
/// The choice is a wish: a message group overrules it, because servers place ordered messages
/// themselves, and a server that has no such queue takes another. A retry keeps to a queue that was
/// chosen by key or by function, and prefers another broker otherwise.
#[derive(Clone)]
pub struct QueueSelector(Kind);

#[derive(Clone)]
enum Kind {
    RoundRobin,
    Random,
    Hash(String),
    Function(Arc<Choose>),
}

/// Messages that share a queue in a row when they are batched: they share a request then.
pub(super) const RUN: usize = 64;

impl QueueSelector {
    /// One queue after the other. The default.
    #[must_use]
    pub fn round_robin() -> Self {
        Self(Kind::RoundRobin)
    }

    /// Any.
    #[must_use]
    pub fn random() -> Self {
        Self(Kind::Random)
    }

    /// The same queue for the same key, as long as the topic's queues stay the same.
    pub fn hash(key: impl Into<String>) -> Self {
        Self(Kind::Hash(key.into()))
    }

    /// The one whose place in the list this function returns.
    pub fn by(choose: impl Fn(&[MessageQueue], &Message) -> usize + Send + Sync + 'static) -> Self {
        Self(Kind::Function(Arc::new(choose)))
    }

    /// The place in the list, and whether a retry must keep to it. `turn` counts messages.
    pub(super) fn choose(
        &self,
        queues: &[Placed],
        message: &Message,
        turn: usize,
    ) -> Result<(usize, bool), Error> {
        let count = queues.len();
        if message.message_group.is_some() {
            // One way for all messages of a group: fewer servers have to forward.
            let group = message.message_group.as_deref().unwrap_or_default();
            return Ok((hash(group, count), true));
        }
        match &self.0 {
            Kind::RoundRobin => Ok((turn % count, false)),
            Kind::Random => Ok((rand::random_range(0..count), false)),
            Kind::Hash(key) => Ok((hash(key, count), true)),
            Kind::Function(choose) => {
                let shown: Vec<_> = queues.iter().map(|placed| placed.queue.clone()).collect();
                let chosen = choose(&shown, message);
                if chosen < count {
                    Ok((chosen, true))
                } else {
                    Err(Error::Selector { chosen, count })
                }
            }
        }
    }
}

impl Default for QueueSelector {
    fn default() -> Self {
        Self::round_robin()
    }
}

impl fmt::Debug for QueueSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::RoundRobin => f.write_str("RoundRobin"),
            Kind::Random => f.write_str("Random"),
            Kind::Hash(key) => write!(f, "Hash({key})"),
            Kind::Function(_) => f.write_str("Function"),
        }
    }
}

/// FNV-1a of 64 bits: the same in every process and version.
fn hash(key: &str, count: usize) -> usize {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let count = u64::try_from(count.max(1)).expect("a usize fits");
    usize::try_from(hash % count).expect("below a usize")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Route, tests::wire};

    fn queues() -> Vec<Placed> {
        let wires: Vec<_> =
            (0..4).map(|id| wire("a", id, proto::v2::Permission::ReadWrite, "h:1")).collect();
        Route::from_wire("t", &wires).writable
    }

    fn chosen(selector: &QueueSelector, message: &Message, turn: usize) -> (usize, bool) {
        selector.choose(&queues(), message, turn).unwrap()
    }

    #[test]
    fn queues_take_turns() {
        let message = Message::new("t", "x");
        let all: Vec<_> =
            (0..6).map(|turn| chosen(&QueueSelector::round_robin(), &message, turn)).collect();
        assert_eq!(all.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1, 2, 3, 0, 1]);
        assert!(all.iter().all(|(_, fixed)| !fixed));
    }

    #[test]
    fn a_key_keeps_its_queue_and_keys_use_all_queues() {
        let message = Message::new("t", "x");
        let of = |key: &str| chosen(&QueueSelector::hash(key), &message, 7);
        assert_eq!(of("order-17"), of("order-17"));
        let used: std::collections::HashSet<_> = (0..64).map(|n| of(&n.to_string()).0).collect();
        assert_eq!(used.len(), 4);
        assert!(of("a").1, "a retry keeps to it");
    }

    #[test]
    fn a_function_chooses_and_may_be_wrong() {
        let message = Message::new("t", "x").key("3");
        let third = QueueSelector::by(|queues, message| {
            assert_eq!(queues.len(), 4);
            message.keys[0].parse().unwrap()
        });
        assert_eq!(chosen(&third, &message, 0), (3, true));
        let wrong = QueueSelector::by(|queues, _| queues.len());
        let end = wrong.choose(&queues(), &message, 0);
        assert!(matches!(end, Err(Error::Selector { chosen: 4, count: 4 })));
    }

    #[test]
    fn random_choices_are_within_the_list() {
        let message = Message::new("t", "x");
        let used: std::collections::HashSet<_> =
            (0..200).map(|n| chosen(&QueueSelector::random(), &message, n).0).collect();
        assert_eq!(used, (0..4).collect());
    }
}
