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

/// The turn of a message by its id. A client that sends a message again under the same id thereby
/// comes to the same broker group, which recognises it.
pub(crate) fn turn_of(message_id: &str) -> u64 {
    let hash = fnv1a(message_id.as_bytes());
    // The low bits of the hash depend on the low bits of the bytes alone.
    hash ^ (hash >> 32)
}

/// Broker groups for a message that may go anywhere, best first: the preferred one, or else the one
/// whose turn it is; then the others that can be reached, then those that cannot. With each, whether
/// it can, which is asked once for each and told whether the turn is its.
///
/// Whose turn it is does not depend on who can be reached, and the share of one that cannot is spread
/// over all others.
pub(crate) fn rotation<'a>(
    names: &[&'a BrokerName],
    turn: u64,
    preferred: Option<&BrokerName>,
    is_reachable: impl Fn(&BrokerName, bool) -> bool,
) -> Vec<(&'a BrokerName, bool)> {
    let Some(home) = nth(turn, names.len()) else { return Vec::new() };
    let home = names.iter().position(|name| Some(*name) == preferred).unwrap_or(home);
    let mut order = Vec::with_capacity(names.len());
    let mut unreachable = Vec::new();
    for (at, name) in names.iter().enumerate() {
        match is_reachable(name, at == home) {
            true if at == home => order.insert(0, (*name, true)),
            true => order.push((*name, true)),
            false if at == home => unreachable.insert(0, (*name, false)),
            false => unreachable.push((*name, false)),
        }
    }
    // Those that stand in for it take turns too.
    let first = order.first().is_some_and(|(name, _)| *name == names[home]);
    let others = &mut order[usize::from(first)..];
    if let Some(start) = nth(turn / names.len() as u64, others.len()) {
        others.rotate_left(start);
    }
    order.extend(unreachable);
    order
}

/// Which of so many has the turn.
fn nth(turn: u64, of: usize) -> Option<usize> {
    let nth = turn.checked_rem(u64::try_from(of).ok()?)?;
    usize::try_from(nth).ok()
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
    fn no_message_group_goes_where_the_topic_is_closed() {
        let route = route(&[("broker-a", 0), ("broker-b", 2), ("broker-c", 0)]);
        for n in 0..50 {
            let (name, queue) = fifo_queue(&route, &format!("group-{n}"));
            assert!(name.as_str() == "broker-b" && queue.0 < 2, "{name} {queue:?}");
        }
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

    /// The last letters of the groups in order, those that can be reached in capitals.
    fn order(turn: u64, preferred: Option<&str>, down: &[&str]) -> String {
        let route = route(&[("broker-a", 1), ("broker-b", 1), ("broker-c", 1)]);
        let preferred: Option<BrokerName> = preferred.map(|name| name.parse().expect("valid"));
        let letter = |(name, reachable): &(&BrokerName, bool)| match reachable {
            true => name.as_str()[7..].to_uppercase(),
            false => name.as_str()[7..].to_owned(),
        };
        let names: Vec<_> = route.placement.iter().map(|(name, _)| name).collect();
        rotation(&names, turn, preferred.as_ref(), |name, _| !down.contains(&name.as_str()))
            .iter()
            .map(letter)
            .collect()
    }

    #[test]
    fn groups_take_turns_and_those_that_cannot_be_reached_come_last() {
        let turns = |down: &[&str]| (0..6).map(|turn| order(turn, None, down)).collect::<Vec<_>>();
        assert_eq!(turns(&[]), ["ABC", "BAC", "CAB", "ACB", "BCA", "CBA"]);
        assert_eq!(turns(&["broker-b"]), ["ACb", "ACb", "CAb", "ACb", "CAb", "CAb"]);
        assert_eq!(turns(&["broker-a", "broker-b", "broker-c"])[1], "bac");
        assert_eq!(order(0, Some("broker-c"), &[]), "CAB");
        assert_eq!(
            order(0, Some("broker-b"), &["broker-b"]),
            "ACb",
            "not what is preferred and down"
        );
    }

    #[test]
    fn ids_that_count_up_are_spread_evenly_and_one_comes_to_the_same_group_again() {
        for groups in 2..6_u64 {
            let mut shares = vec![0_u32; usize::try_from(groups).expect("few")];
            for n in 0..10_000 {
                let id = format!("01E2D3C4B5A6970000{n:016X}");
                assert_eq!(turn_of(&id), turn_of(&id));
                shares[usize::try_from(turn_of(&id) % groups).expect("few")] += 1;
            }
            let fair = 10_000 / u32::try_from(shares.len()).unwrap();
            assert!(shares.iter().all(|share| share.abs_diff(fair) < fair / 10), "{shares:?}");
        }
    }
}
