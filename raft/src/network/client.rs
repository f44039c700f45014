//! Calls to other replicas, as openraft makes them.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use commitlog::{Bug, CommitLog};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use openraft::alias::{SnapshotOf, VoteOf};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes};
use proto::raft_rpc as rpc;
use tokio::time::{Instant, timeout};
use tonic::{Code, Status, Streaming};

use super::auth::Method;
use super::convert;
use super::links::{Link, Links};
use crate::NodeId;
use crate::failure::Chain;
use crate::membership::Node;
use crate::snapshot::Snapshot;
use crate::snapshot::send::{ShipError, Shipment, Source};
use crate::types::{RaftLogId, TypeConfig};
use crate::upkeep::Counters;

type RpcError = RPCError<TypeConfig>;
type AppendStream<'s> = BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>;

/// Makes the clients that openraft asks for.
pub(crate) struct Factory {
    pub(crate) links: Arc<Links>,
    pub(crate) node: NodeId,
    pub(crate) boot_id: u64,
    /// How long a request on a stream may stay unanswered.
    pub(crate) append_deadline: Duration,
    pub(crate) log: Arc<CommitLog>,
    pub(crate) segment_size: u64,
    /// Bytes per second of a snapshot.
    pub(crate) snapshot_rate: u64,
    pub(crate) upkeep: Arc<Counters>,
}

impl Factory {
    fn client(&self, target: u64, node: &Node, lane: Lane) -> Client {
        Client {
            links: self.links.clone(),
            target: NodeId(target),
            addr: node.raft_addr.clone(),
            node: self.node,
            boot_id: self.boot_id,
            append_deadline: self.append_deadline,
            log: self.log.clone(),
            segment_size: self.segment_size,
            snapshot_rate: self.snapshot_rate,
            upkeep: self.upkeep.clone(),
            lane,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &Node) -> Client {
        self.client(target, node, Lane::Bulk)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Node) -> Client {
        self.client(target, node, Lane::Heartbeat)
    }
}

/// What a client's appends are.
#[derive(Debug, Clone, Copy)]
enum Lane {
    /// Entries, as a stream.
    Bulk,
    /// Single messages without entries.
    Heartbeat,
}

/// Calls one peer.
pub(crate) struct Client {
    links: Arc<Links>,
    target: NodeId,
    /// Where it was when this client was made.
    addr: String,
    node: NodeId,
    boot_id: u64,
    append_deadline: Duration,
    log: Arc<CommitLog>,
    segment_size: u64,
    snapshot_rate: u64,
    upkeep: Arc<Counters>,
    lane: Lane,
}

impl Client {
    /// The way to the peer. It may have moved since this client was made.
    fn link(&self) -> Link {
        self.links.latest(self.target).unwrap_or_else(|| self.links.to(self.target, &self.addr))
    }

    fn failed(&self, status: &Status) -> RpcError {
        match status.code() {
            // Nobody is there: give it time.
            Code::Unavailable => RPCError::Unreachable(Unreachable::new(status)),
            _ => RPCError::Network(NetworkError::new(status)),
        }
    }

    fn timed_out(&self, action: RPCTypes, after: Duration) -> RpcError {
        let (id, target) = (self.node.0, self.target.0);
        RPCError::Timeout(Timeout { action, id, target, timeout: after })
    }

    /// How long an answer may take.
    fn patience(&self) -> Duration {
        if Bug::B01.is_sown() { Duration::from_millis(100) } else { self.append_deadline }
    }

    /// Sends one message and awaits its answer for as long as openraft does.
    async fn call<T>(
        &self,
        action: RPCTypes,
        option: &RPCOption,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, RpcError> {
        match timeout(option.hard_ttl(), call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failed(&status)),
            Err(_) => Err(self.timed_out(action, option.hard_ttl())),
        }
    }

    async fn heartbeat(
        &self,
        message: AppendEntriesRequest<TypeConfig>,
        option: &RPCOption,
    ) -> Result<StreamAppendResult<TypeConfig>, RpcError> {
        let message = convert::append_request(message, self.boot_id);
        let request = self.link().request(Method::Heartbeat, message);
        let mut client = self.link().control();
        let call = client.heartbeat(request);
        let response = self.call(RPCTypes::AppendEntries, option, call).await?;
        convert::to_append_result(response).map_err(|error| malformed(&error))
    }

    fn heartbeats<'s, S>(&'s self, input: S, option: RPCOption) -> AppendStream<'s>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let ended_by = |result: &Result<StreamAppendResult<TypeConfig>, RpcError>| {
            !matches!(result, Ok(Ok(_)))
        };
        let results = stream::unfold(Some(input), move |input| {
            let option = option.clone();
            async move {
                let mut input = input?;
                let message = input.next().await?;
                let result = self.heartbeat(message, &option).await;
                let next = if ended_by(&result) { None } else { Some(input) };
                Some((result, next))
            }
        });
        results.boxed()
    }

    /// Opens a stream once there is something to send; `None` if there is nothing any more.
    ///
    /// The first request is taken before the connection is tried: openraft paces its attempts to
    /// reach a dead replica by holding that request back.
    async fn open_stream<S>(&self, mut input: S) -> Result<Option<Answers>, RpcError>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let Some(first) = input.next().await else { return Ok(None) };
        let sent = Sent::default();
        let note = sent.clone();
        let boot_id = self.boot_id;
        let outbound = stream::iter([first]).chain(input).map(move |message| {
            note.push(Instant::now(), message.entries.last().map(|entry| entry.log_id));
            convert::append_request(message, boot_id)
        });
        let request = self.link().request(Method::Append, outbound);
        let mut client = self.link().bulk();
        match timeout(self.append_deadline, client.append(request)).await {
            Ok(Ok(response)) => Ok(Some(Answers { stream: response.into_inner(), sent })),
            Ok(Err(status)) => Err(self.failed(&status)),
            Err(_) => Err(self.timed_out(RPCTypes::AppendEntries, self.append_deadline)),
        }
    }

    /// The next answer. Waits as long as nothing is outstanding, but not for an answer that is
    /// overdue: a connection whose other end vanished would stall this replica for good.
    async fn next_answer(
        &self,
        answers: &mut Answers,
    ) -> Option<Result<StreamAppendResult<TypeConfig>, RpcError>> {
        loop {
            let deadline = answers.sent.oldest().unwrap_or_else(Instant::now) + self.patience();
            match tokio::time::timeout_at(deadline, answers.stream.message()).await {
                Ok(Ok(Some(response))) => {
                    answers.sent.pop();
                    return Some(
                        convert::to_append_result(response).map_err(|error| malformed(&error)),
                    );
                }
                Ok(Ok(None)) => return None,
                Ok(Err(status)) => return Some(Err(self.failed(&status))),
                Err(_) if answers.sent.is_overdue(self.patience()) => {
                    if Bug::B01.is_sown() {
                        return Some(Ok(Ok(answers.sent.pop())));
                    }
                    let action = RPCTypes::AppendEntries;
                    return Some(Err(self.timed_out(action, self.append_deadline)));
                }
                Err(_) => {}
            }
        }
    }
}

fn malformed(error: &convert::Malformed) -> RpcError {
    RPCError::Network(NetworkError::new(error))
}

/// Answers to the requests of one stream, in order.
struct Answers {
    stream: Streaming<rpc::AppendResponse>,
    sent: Sent,
}

/// When the requests that are not answered yet were sent, and their last entries.
#[derive(Debug, Clone, Default)]
struct Sent(Arc<Mutex<VecDeque<Unanswered>>>);

type Unanswered = (Instant, Option<RaftLogId>);

impl Sent {
    fn push(&self, at: Instant, last: Option<RaftLogId>) {
        self.0.lock().expect("no holder panics").push_back((at, last));
    }

    fn pop(&self) -> Option<RaftLogId> {
        self.0.lock().expect("no holder panics").pop_front()?.1
    }

    fn oldest(&self) -> Option<Instant> {
        self.0.lock().expect("no holder panics").front().map(|(at, _)| *at)
    }

    fn is_overdue(&self, deadline: Duration) -> bool {
        self.oldest().is_some_and(|sent| sent.elapsed() >= deadline)
    }
}

impl NetStreamAppend<TypeConfig> for Client {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<AppendStream<'s>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let this = &*self;
        Box::pin(async move {
            match this.lane {
                Lane::Heartbeat => Ok(this.heartbeats(input, option)),
                Lane::Bulk => {
                    let answers = this.open_stream(input).await?;
                    let results = stream::unfold(answers, move |answers| async move {
                        let mut answers = answers?;
                        let result = this.next_answer(&mut answers).await?;
                        let go_on = matches!(result, Ok(Ok(_)));
                        Some((result, go_on.then_some(answers)))
                    });
                    Ok(results.boxed())
                }
            }
        })
    }
}

impl NetVote<TypeConfig> for Client {
    async fn vote(
        &mut self,
        message: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let request = self.link().request(Method::Vote, convert::vote_request(&message));
        let mut client = self.link().control();
        let response = self.call(RPCTypes::Vote, &option, client.vote(request)).await?;
        convert::to_vote_response(response).map_err(|error| malformed(&error))
    }

    async fn pre_vote(
        &mut self,
        message: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let request = self.link().request(Method::PreVote, convert::vote_request(&message));
        let mut client = self.link().control();
        let response = self.call(RPCTypes::Vote, &option, client.pre_vote(request)).await?;
        convert::to_vote_response(response).map_err(|error| malformed(&error))
    }
}

impl NetTransferLeader<TypeConfig> for Client {
    async fn transfer_leader(
        &mut self,
        message: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let wire = convert::transfer_request(&message);
        let request = self.link().request(Method::TransferLeader, wire);
        let mut client = self.link().control();
        let call = client.transfer_leader(request);
        let response = self.call(RPCTypes::TransferLeader, &option, call).await?;
        if response.refused.is_empty() {
            return Ok(Ok(()));
        }
        // The error that a replica answers with cannot be made outside of openraft.
        Err(RPCError::Network(NetworkError::from_string(response.refused)))
    }
}

impl NetBackoff<TypeConfig> for Client {
    /// The policy of the configuration.
    fn backoff(&self) -> Option<Backoff> {
        None
    }
}

impl NetSnapshot<TypeConfig> for Client {
    type SnapshotData = Snapshot;

    /// Takes as long as it takes: it goes on while the receiver says that it is at work, and ends
    /// when openraft wants it to.
    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, Snapshot>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let Snapshot::Own(stored) = snapshot.snapshot else {
            unreachable!("only what this node has stored is sent");
        };
        let source = Source {
            peer: self.target,
            vote,
            boot_id: self.boot_id,
            stored,
            log: self.log.clone(),
            segment_size: self.segment_size,
            rate: self.snapshot_rate,
            upkeep: self.upkeep.clone(),
        };
        let shipment = Shipment { link: self.link(), source };
        let sent = tokio::select! {
            sent = shipment.send() => sent,
            closed = cancel => return Err(closed.into()),
        };
        match sent {
            Ok(vote) => Ok(SnapshotResponse::new(vote)),
            Err(error) => {
                tracing::warn!(peer = %self.target, error = %Chain(&error), "snapshot not sent");
                Err(match &error {
                    // In its own time: what has arrived is kept.
                    ShipError::Refused(_) | ShipError::Silent | ShipError::Here(_) => {
                        StreamingError::Unreachable(Unreachable::new(&error))
                    }
                    ShipError::Malformed(_) => StreamingError::Network(NetworkError::new(&error)),
                })
            }
        }
    }
}
