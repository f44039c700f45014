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

/// The bytes of a membership: the same for equal memberships.
pub(crate) fn encode(log_id: Option<LogId>, membership: &Membership) -> Bytes {
    let voters = membership.get_joint_config().iter();
    let message = rpc::Membership {
        log_id: log_id.map(|id| rpc::LogId { term: id.term.0, index: id.index.0 }),
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
    };
    message.encode_to_vec().into()
}

/// The membership in `body`, and the entry that holds it where `body` says so.
pub(crate) fn decode(body: Bytes) -> Result<(Option<LogId>, Membership), DecodeError> {
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
    Ok((log_id, membership))
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
        assert_eq!(decode(encode(None, &three())).unwrap(), (None, three()));
        assert_eq!(decode(encode(Some(log_id), &three())).unwrap(), (Some(log_id), three()));
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
        };
        let error = decode(message.encode_to_vec().into()).unwrap_err();
        assert_eq!(error, DecodeError::Inconsistent);
    }
}
