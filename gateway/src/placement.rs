//! Which broker group a message goes to. Decided here, whatever the client chose: five stacks hash
//! message groups in five ways.

use proto::{BrokerName, QueueId};

use crate::TopicRoute;

/// The queue that keeps a message group's order, over all broker groups of the topic. The same for
/// every node as long as the topic's placement stays the same.
pub fn fifo_queue<'a>(route: &'a TopicRoute, message_group: &str) -> (&'a BrokerName, QueueId) {
    let queues: u64 = route.placement.iter().map(|(_, queues)| u64::from(*queues)).sum();
    assert!(queues > 0, "topic {} has no queues", route.topic);
    let mut nth = fnv1a(message_group.as_bytes()) % queues;
    for (name, queues) in &route.placement {
        let queues = u64::from(*queues);
        if nth < queues {
            let id = u32::try_from(nth).expect("below a u32");
            return (name, QueueId(id));
        }
        nth -= queues;
    }
    unreachable!("the remainder is below the sum");
}

/// Broker groups for a message that may go anywhere, best first: the preferred one, then the others
/// with a leader from the turn on, then those without. With each, whether it has a leader.
pub(crate) fn rotation<'a>(
    route: &'a TopicRoute,
    turn: usize,
    preferred: Option<&BrokerName>,
    has_leader: impl Fn(&BrokerName) -> bool,
) -> Vec<(&'a BrokerName, bool)> {
    let names = route.placement.iter().map(|(name, _)| name);
    let (mut led, leaderless): (Vec<_>, Vec<_>) = names.partition(|name| has_leader(name));
    if let Some(at) = led.iter().position(|name| Some(*name) == preferred) {
        led.swap(0, at);
    } else if !led.is_empty() {
        let turn = turn % led.len();
        led.rotate_left(turn);
    }
    let led = led.into_iter().map(|name| (name, true));
    led.chain(leaderless.into_iter().map(|name| (name, false))).collect()
}

/// FNV-1a, 64 bits. Written out because its values must never change.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use proto::v2::{MessageType, Permission};

    use super::*;

    fn route(placement: &[(&str, u32)]) -> TopicRoute {
        TopicRoute {
            topic: "orders".parse().expect("valid"),
            permission: Permission::ReadWrite,
            accepts: vec![MessageType::Fifo],
            placement: placement
                .iter()
                .map(|(name, queues)| (name.parse().expect("valid"), *queues))
                .collect(),
            version: 1,
        }
    }

    #[test]
    fn the_hash_is_that_of_the_published_test_vectors() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_message_group_has_one_queue_and_all_queues_are_used() {
        let route = route(&[("broker-a", 3), ("broker-b", 5)]);
        let mut used = std::collections::BTreeSet::new();
        for n in 0..200 {
            let group = format!("group-{n}");
            let (name, queue) = fifo_queue(&route, &group);
            assert_eq!(fifo_queue(&route, &group), (name, queue));
            used.insert((name.clone(), queue));
        }
        assert_eq!(used.len(), 8);
        assert!(
            used.iter()
                .all(|(name, queue)| { queue.0 < if name.as_str() == "broker-a" { 3 } else { 5 } })
        );
    }

    #[test]
    fn groups_take_turns_and_leaderless_ones_come_last() {
        let route = route(&[("broker-a", 1), ("broker-b", 1), ("broker-c", 1)]);
        let order = |turn, preferred: Option<&str>| -> String {
            let preferred: Option<BrokerName> = preferred.map(|name| name.parse().expect("valid"));
            rotation(&route, turn, preferred.as_ref(), |name| name.as_str() != "broker-b")
                .iter()
                .map(|(name, _)| &name.as_str()[7..])
                .collect()
        };
        assert_eq!(order(0, None), "acb");
        assert_eq!(order(1, None), "cab");
        assert_eq!(order(2, None), "acb");
        assert_eq!(order(0, Some("broker-c")), "cab");
        assert_eq!(order(0, Some("broker-b")), "acb", "no leader, no preference");
    }
}
