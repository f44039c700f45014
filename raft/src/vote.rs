//! How a vote is stored in the log's hard state.
//!
//! ```text
//!  0      8      16          17      24
//!  ┌──────┬──────┬───────────┬───────┐
//!  │ term │ node │ committed │ zeros │     little-endian
//!  └──────┴──────┴───────────┴───────┘
//! ```

use crate::types::RaftVote;

pub(crate) const LEN: usize = 24;

pub(crate) fn encode(vote: &RaftVote) -> [u8; LEN] {
    let leader = vote.leader_id();
    let mut bytes = [0; LEN];
    bytes[..8].copy_from_slice(&leader.term.to_le_bytes());
    bytes[8..16].copy_from_slice(&leader.voted_for.to_le_bytes());
    bytes[16] = u8::from(vote.is_committed());
    bytes
}

/// `None` for bytes that [`encode`] never makes.
pub(crate) fn decode(bytes: &[u8; LEN]) -> Option<RaftVote> {
    let number = |at: usize| {
        let mut field = [0; 8];
        field.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(field)
    };
    let (term, node) = (number(0), number(8));
    match bytes[16..] {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(RaftVote::new(term, node)),
        [1, 0, 0, 0, 0, 0, 0, 0] => Some(RaftVote::new_committed(term, node)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vote_survives_its_encoding() {
        for vote in [RaftVote::new(7, 2), RaftVote::new_committed(u64::MAX, 3)] {
            assert_eq!(decode(&encode(&vote)), Some(vote));
        }
    }

    #[test]
    fn other_bytes_are_no_vote() {
        let mut bytes = encode(&RaftVote::new(7, 2));
        bytes[16] = 2;
        assert_eq!(decode(&bytes), None);
        bytes[16] = 0;
        bytes[23] = 1;
        assert_eq!(decode(&bytes), None);
    }
}
