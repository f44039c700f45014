//! Who belongs to the group, as it stands in the log.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use commitlog::position::{LogId, LogIndex, Term};
use prost::Message;
use proto::raft_rpc as rpc;

use crate::{Member, NodeId};

/// What the membership says about a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) raft_addr: String,
    pub(crate) client_addr: String,
}

pub(crate) type Membership = openraft::Membership<u64, Node>;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("decode membership")]
    Malformed(#[from] prost::DecodeError),
    #[error("membership names voters without an address, or no voters")]
    Inconsistent,
}

/// The bytes of a membership in the log: the same for equal memberships.
pub(crate) fn encode(membership: &Membership) -> Bytes {
    message(membership).encode_to_vec().into()
}

/// The bytes that a state machine keeps of the membership in the entry `log_id`, given the highest
/// id that any member had before.
pub(crate) fn encode_kept(log_id: LogId, membership: &Membership, highest: u64) -> Bytes {
    let kept = rpc::Membership {
        log_id: Some(rpc::LogId { term: log_id.term.0, index: log_id.index.0 }),
        highest_node_id: highest.max(highest_of(membership)),
        ..message(membership)
    };
    kept.encode_to_vec().into()
}

/// 0 when nobody belongs to it.
pub(crate) fn highest_of(membership: &Membership) -> u64 {
    membership.nodes().map(|(id, _)| *id).max().unwrap_or(0)
}

fn message(membership: &Membership) -> rpc::Membership {
    let voters = membership.get_joint_config().iter();
    rpc::Membership {
        log_id: None,
        voters: voters
            .map(|set| rpc::VoterSet { node_ids: set.iter().copied().collect() })
            .collect(),
        nodes: membership
            .nodes()
            .map(|(id, node)| rpc::MemberNode {
                node_id: *id,
                raft_addr: node.raft_addr.clone(),
                client_addr: node.client_addr.clone(),
            })
            .collect(),
        highest_node_id: 0,
    }
}

/// A membership as it was encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// The entry that holds it, where that was kept.
    pub(crate) log_id: Option<LogId>,
    pub(crate) membership: Membership,
    /// No member ever had a higher id.
    pub(crate) highest: u64,
}

pub(crate) fn decode(body: Bytes) -> Result<Decoded, DecodeError> {
    let message = rpc::Membership::decode(body)?;
    let log_id = message.log_id.map(|id| LogId { term: Term(id.term), index: LogIndex(id.index) });
    let voters: Vec<BTreeSet<u64>> =
        message.voters.into_iter().map(|set| set.node_ids.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, Node> = message
        .nodes
        .into_iter()
        .map(|node| {
            let address = Node { raft_addr: node.raft_addr, client_addr: node.client_addr };
            (node.node_id, address)
        })
        .collect();
    let membership =
        Membership::new(voters, nodes).map_err(|_invalid| DecodeError::Inconsistent)?;
    let highest = message.highest_node_id.max(highest_of(&membership));
    Ok(Decoded { log_id, membership, highest })
}

/// The members by ascending id.
pub(crate) fn members(membership: &Membership) -> Vec<Member> {
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    membership
        .nodes()
        .map(|(id, node)| Member {
            node_id: NodeId(*id),
            raft_addr: node.raft_addr.clone(),
            client_addr: node.client_addr.clone(),
            voter: voters.contains(id),
        })
        .collect()
}

/// Whether `nodes` hold a majority of every set of voters.
pub(crate) fn is_quorum(membership: &Membership, nodes: &BTreeSet<u64>) -> bool {
    let sets = membership.get_joint_config();
    !sets.is_empty() && sets.iter().all(|set| set.intersection(nodes).count() > set.len() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Membership {
        let node =
            |id: u64| (id, Node { raft_addr: format!("r{id}"), client_addr: format!("c{id}") });
        Membership::new(
            vec![BTreeSet::from([1, 2, 3])],
            (1..=4).map(node).collect::<BTreeMap<_, _>>(),
        )
        .unwrap()
    }

    #[test]
    fn a_membership_survives_its_encoding() {
        let log_id = LogId { term: Term(3), index: LogIndex(9) };
        let bare = Decoded { log_id: None, membership: three(), highest: 4 };
        assert_eq!(decode(encode(&three())).unwrap(), bare);
        let kept = Decoded { log_id: Some(log_id), membership: three(), highest: 9 };
        assert_eq!(decode(encode_kept(log_id, &three(), 9)).unwrap(), kept);
        assert_eq!(decode(encode_kept(log_id, &three(), 1)).unwrap().highest, 4);
    }

    #[test]
    fn the_bytes_of_a_membership_do_not_change() {
        let nodes = BTreeMap::from([(2, Node { raft_addr: "r".into(), client_addr: "c".into() })]);
        let one = Membership::new(vec![BTreeSet::from([2])], nodes).unwrap();
        assert_eq!(&encode(&one)[..], b"\x12\x03\x0a\x01\x02\x1a\x08\x08\x02\x12\x01r\x1a\x01c");
        let kept = encode_kept(LogId { term: Term(3), index: LogIndex(9) }, &one, 5);
        let expected =
            b"\x0a\x04\x08\x03\x10\x09\x12\x03\x0a\x01\x02\x1a\x08\x08\x02\x12\x01r\x1a\x01c\x20\x05";
        assert_eq!(&kept[..], expected);
    }

    #[test]
    fn a_learner_is_a_member_without_a_vote() {
        let voters: Vec<bool> = members(&three()).iter().map(|member| member.voter).collect();
        assert_eq!(voters, [true, true, true, false]);
    }

    #[test]
    fn a_quorum_is_a_majority_of_the_voters() {
        assert!(!is_quorum(&three(), &BTreeSet::from([1])));
        assert!(!is_quorum(&three(), &BTreeSet::from([1, 4])));
        assert!(is_quorum(&three(), &BTreeSet::from([1, 3])));
    }

    #[test]
    fn voters_without_an_address_are_refused() {
        let message = rpc::Membership {
            log_id: None,
            voters: vec![rpc::VoterSet { node_ids: vec![1] }],
            nodes: vec![],
            highest_node_id: 0,
        };
        let error = decode(message.encode_to_vec().into()).unwrap_err();
        assert_eq!(error, DecodeError::Inconsistent);
    }
}
