//! Between what travels and what openraft takes.

use commitlog::position::{LogId, LogIndex, LogOffset, Term};
use commitlog::{Bug, Kind};
use openraft::raft::{AppendEntriesRequest, StreamAppendError, TransferLeaderRequest};
use proto::raft_rpc as rpc;

use crate::membership;
use crate::types::{
    Batch, EntryPayload, LogEntry, MembershipBody, RaftLogId, RaftVote, TypeConfig, from_raft,
    to_raft,
};

/// A message that no correct peer sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("no {0}")]
    Missing(&'static str),
    #[error("unknown kind of record {0}")]
    Kind(u32),
    #[error("record {index} has checksum {found:08x}, not {expected:08x}")]
    Checksum { index: u64, expected: u32, found: u32 },
    #[error(transparent)]
    Membership(#[from] membership::DecodeError),
}

pub(crate) fn log_id(id: &RaftLogId) -> rpc::LogId {
    let id = from_raft(id);
    rpc::LogId { term: id.term.0, index: id.index.0 }
}

pub(crate) fn to_log_id(id: rpc::LogId) -> RaftLogId {
    to_raft(LogId { term: Term(id.term), index: LogIndex(id.index) })
}

pub(crate) fn vote(vote: &RaftVote) -> rpc::Vote {
    let leader = vote.leader_id();
    rpc::Vote { term: leader.term, node_id: leader.voted_for, committed: vote.is_committed() }
}

pub(crate) fn to_vote(vote: Option<rpc::Vote>) -> Result<RaftVote, Malformed> {
    let vote = vote.ok_or(Malformed::Missing("vote"))?;
    Ok(if vote.committed {
        RaftVote::new_committed(vote.term, vote.node_id)
    } else {
        RaftVote::new(vote.term, vote.node_id)
    })
}

pub(crate) fn append_request(
    request: AppendEntriesRequest<TypeConfig>,
    boot_id: u64,
) -> rpc::AppendRequest {
    rpc::AppendRequest {
        vote: Some(vote(&request.vote)),
        previous: request.prev_log_id.as_ref().map(log_id),
        leader_commit: request.leader_commit.as_ref().map(log_id),
        records: request.entries.into_iter().map(log_record).collect(),
        boot_id,
    }
}

fn log_record(entry: LogEntry) -> rpc::LogRecord {
    let id = from_raft(&entry.log_id);
    let (kind, body, body_crc) = match entry.payload {
        EntryPayload::Blank => (Kind::Blank, bytes::Bytes::new(), 0),
        EntryPayload::Batch(batch) => (Kind::Batch, batch.body, batch.body_crc),
        EntryPayload::Membership(body) => {
            let crc = crc32fast::hash(&body.body);
            (Kind::Membership, body.body, crc)
        }
    };
    rpc::LogRecord {
        term: id.term.0,
        index: id.index.0,
        kind: kind_number(kind),
        stamp: entry.stamp,
        body_crc,
        body,
    }
}

fn kind_number(kind: Kind) -> u32 {
    match kind {
        Kind::Blank => 0,
        Kind::Batch => 1,
        Kind::Membership => 2,
    }
}

/// Checks every body against its checksum.
pub(crate) fn to_append_request(
    request: rpc::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, Malformed> {
    let entries: Vec<LogEntry> =
        request.records.into_iter().map(to_entry).collect::<Result<_, _>>()?;
    let committed = request.leader_commit.map(to_log_id);
    let last = entries.last().map(|entry| entry.log_id).filter(|_| Bug::B06.is_sown());
    Ok(AppendEntriesRequest {
        vote: to_vote(request.vote)?,
        prev_log_id: request.previous.map(to_log_id),
        leader_commit: last.or(committed),
        entries,
    })
}

fn to_entry(record: rpc::LogRecord) -> Result<LogEntry, Malformed> {
    let found = crc32fast::hash(&record.body);
    if found != record.body_crc {
        let (index, expected) = (record.index, record.body_crc);
        return Err(Malformed::Checksum { index, expected, found });
    }
    let payload = match record.kind {
        0 => EntryPayload::Blank,
        1 => EntryPayload::Batch(Batch {
            stamp: record.stamp,
            body: record.body,
            body_crc: record.body_crc,
        }),
        2 => {
            let membership = membership::decode(record.body.clone())?.membership;
            EntryPayload::Membership(MembershipBody { membership, body: record.body })
        }
        other => return Err(Malformed::Kind(other)),
    };
    let log_id = to_log_id(rpc::LogId { term: record.term, index: record.index });
    Ok(LogEntry { log_id, stamp: record.stamp, payload, position: None })
}

pub(crate) fn segment(extent: &commitlog::Extent) -> rpc::SnapshotSegment {
    rpc::SnapshotSegment {
        base: extent.base.0,
        len: extent.len,
        last: Some(rpc::LogId { term: extent.last.term.0, index: extent.last.index.0 }),
    }
}

pub(crate) fn snapshot_offer(
    leader: &RaftVote,
    boot_id: u64,
    manifest: rpc::SnapshotManifest,
    segments: &[commitlog::Extent],
    segment_size: u64,
) -> rpc::SnapshotOffer {
    rpc::SnapshotOffer {
        vote: Some(vote(leader)),
        boot_id,
        manifest: Some(manifest),
        segments: segments.iter().map(segment).collect(),
        segment_size,
    }
}

pub(crate) fn to_extent(segment: &rpc::SnapshotSegment) -> Result<commitlog::Extent, Malformed> {
    let last = segment.last.ok_or(Malformed::Missing("last entry"))?;
    Ok(commitlog::Extent {
        base: LogOffset(segment.base),
        len: segment.len,
        last: LogId { term: Term(last.term), index: LogIndex(last.index) },
    })
}

/// What a replica answered to an append: how far it matches, or why not.
pub(crate) type AppendResult = Result<Option<RaftLogId>, StreamAppendError<TypeConfig>>;

pub(crate) fn append_response(result: &AppendResult) -> rpc::AppendResponse {
    use rpc::append_response::Result as Answer;
    let answer = match result {
        Ok(matched) => Answer::Matched(rpc::Matched { log_id: matched.as_ref().map(log_id) }),
        Err(StreamAppendError::Conflict(at)) => Answer::Conflict(log_id(at)),
        Err(StreamAppendError::HigherVote(higher)) => Answer::HigherVote(vote(higher)),
    };
    rpc::AppendResponse { result: Some(answer) }
}

pub(crate) fn to_append_result(response: rpc::AppendResponse) -> Result<AppendResult, Malformed> {
    use rpc::append_response::Result as Answer;
    match response.result.ok_or(Malformed::Missing("result"))? {
        Answer::Matched(matched) => Ok(Ok(matched.log_id.map(to_log_id))),
        Answer::Conflict(at) => Ok(Err(StreamAppendError::Conflict(to_log_id(at)))),
        Answer::HigherVote(higher) => {
            Ok(Err(StreamAppendError::HigherVote(to_vote(Some(higher))?)))
        }
    }
}

pub(crate) fn vote_request(request: &openraft::raft::VoteRequest<TypeConfig>) -> rpc::VoteRequest {
    rpc::VoteRequest {
        vote: Some(vote(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn to_vote_request(
    request: rpc::VoteRequest,
) -> Result<openraft::raft::VoteRequest<TypeConfig>, Malformed> {
    let last_log_id = request.last_log_id.map(to_log_id);
    let mut converted = openraft::raft::VoteRequest::new(to_vote(request.vote)?, last_log_id);
    converted.leadership_transfer = request.leadership_transfer;
    Ok(converted)
}

pub(crate) fn vote_response(
    response: &openraft::raft::VoteResponse<TypeConfig>,
) -> rpc::VoteResponse {
    rpc::VoteResponse {
        vote: Some(vote(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(log_id),
    }
}

pub(crate) fn to_vote_response(
    response: rpc::VoteResponse,
) -> Result<openraft::raft::VoteResponse<TypeConfig>, Malformed> {
    Ok(openraft::raft::VoteResponse {
        vote: to_vote(response.vote)?,
        vote_granted: response.granted,
        last_log_id: response.last_log_id.map(to_log_id),
    })
}

pub(crate) fn transfer_request(
    request: &TransferLeaderRequest<TypeConfig>,
) -> rpc::TransferLeaderRequest {
    rpc::TransferLeaderRequest {
        from_leader: Some(vote(request.from_leader())),
        to: *request.to_node_id(),
        last_log_id: request.last_log_id().map(log_id),
    }
}

pub(crate) fn to_transfer_request(
    request: rpc::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, Malformed> {
    let last_log_id = request.last_log_id.map(to_log_id);
    Ok(TransferLeaderRequest::new(to_vote(request.from_leader)?, request.to, last_log_id))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use super::*;

    fn request() -> AppendEntriesRequest<TypeConfig> {
        let id = |term, index| to_log_id(rpc::LogId { term, index });
        let body = Bytes::from_static(b"some commands");
        let batch = Batch { stamp: 77, body_crc: crc32fast::hash(&body), body };
        let entry = |index, stamp, payload| LogEntry {
            log_id: id(3, index),
            stamp,
            payload,
            position: None,
        };
        AppendEntriesRequest {
            vote: RaftVote::new_committed(3, 1),
            prev_log_id: Some(id(2, 4)),
            leader_commit: Some(id(2, 3)),
            entries: vec![
                entry(5, 70, EntryPayload::Blank),
                entry(6, 77, EntryPayload::Batch(batch)),
            ],
        }
    }

    #[test]
    fn an_append_arrives_as_it_was_sent() {
        let sent = request();
        let arrived = to_append_request(append_request(sent.clone(), 9)).unwrap();
        assert_eq!(arrived.vote, sent.vote);
        assert_eq!(arrived.prev_log_id, sent.prev_log_id);
        assert_eq!(arrived.leader_commit, sent.leader_commit);
        assert_eq!(arrived.entries, sent.entries);
        assert_eq!(arrived.entries[0].stamp, 70);
    }

    #[test]
    fn a_body_is_not_copied_when_it_is_decoded() {
        let wire: Bytes = append_request(request(), 9).encode_to_vec().into();
        let message = rpc::AppendRequest::decode(wire.clone()).unwrap();
        assert!(wire.as_ptr_range().contains(&message.records[1].body.as_ptr()));
    }

    #[test]
    fn a_flipped_bit_in_a_body_is_noticed() {
        let mut message = append_request(request(), 9);
        message.records[1].body = Bytes::from_static(b"some commandz");
        let error = to_append_request(message).unwrap_err();
        assert!(matches!(error, Malformed::Checksum { index: 6, .. }), "{error:?}");
    }

    #[test]
    fn every_answer_to_an_append_survives_its_encoding() {
        let id = to_log_id(rpc::LogId { term: 3, index: 6 });
        let answers = [
            Ok(Some(id)),
            Ok(None),
            Err(StreamAppendError::Conflict(id)),
            Err(StreamAppendError::HigherVote(RaftVote::new(4, 2))),
        ];
        for answer in answers {
            let arrived = to_append_result(append_response(&answer)).unwrap();
            assert_eq!(arrived, answer);
        }
        assert!(to_append_result(rpc::AppendResponse { result: None }).is_err());
    }
}
