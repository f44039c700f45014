//! Calls from other replicas.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use openraft::raft::StreamAppendResult;
use proto::raft_rpc as rpc;
use proto::raft_rpc::raft_server::{Raft, RaftServer};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server as TonicServer;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::auth::{Credentials, Method};
use super::convert;
use super::presence::Presence;
use super::{
    CONNECTION_WINDOW, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, MESSAGE_BYTES_MAX, STREAM_WINDOW,
};
use crate::bootstrap::adoption::Adoption;
use crate::bootstrap::stopped;
use crate::change::changer::Changer;
use crate::change::reception::Reception;
use crate::detector::Detector;
use crate::local::{self, Local, group_id};
use crate::machine::Machine;
use crate::repair::fetch;
use crate::repair::refill::Giver;
use crate::snapshot::receive::Receiver;
use crate::space::{Claim, Full, Space};
use crate::suspect::Suspicion;
use crate::types::TypeConfig;
use crate::upkeep::Counters;
use crate::{Config, DiskSpace, NodeId};

/// Answers about a snapshot that wait to be sent: there are few, and signs of life.
const SNAPSHOT_ANSWERS: usize = 4;
/// How often a watched connection carries a sign of life.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) type RaftNode = openraft::Raft<TypeConfig, Machine>;

/// What takes part in consensus, once the node has a group and its log is open.
pub(crate) struct Consensus {
    pub(crate) raft: RaftNode,
    pub(crate) detector: Arc<Detector>,
    pub(crate) suspicion: Arc<Suspicion>,
    pub(crate) space: Arc<Space>,
    pub(crate) receiver: Arc<Receiver>,
    pub(crate) changer: Changer,
}

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) local: Arc<Local>,
    pub(crate) credentials: Credentials,
    pub(crate) presence: Arc<Presence>,
    pub(crate) adoption: Arc<Adoption>,
    pub(crate) reception: Arc<Reception>,
    pub(crate) consensus: Arc<OnceLock<Consensus>>,
    pub(crate) log: Arc<OnceLock<Arc<commitlog::CommitLog>>>,
    pub(crate) upkeep: Arc<Counters>,
    pub(crate) config: Arc<Config>,
    pub(crate) stop: watch::Receiver<bool>,
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Server {
    /// Serves until the node stops, then lets its peers' connections end.
    pub(crate) async fn run(self, listener: TcpListener) {
        let stop = self.stop.clone();
        let service = RaftServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let served = TonicServer::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, stopped(stop));
        if let Err(error) = served.await {
            tracing::error!(%error, "the raft port stopped serving");
        }
    }

    /// Whether a caller of this very group was a member and is none any more.
    fn has_removed(&self, caller: NodeId, from: Option<&rpc::Introduction>) -> bool {
        let ours = self.local.group.get();
        let theirs = from.and_then(|from| group_id(&from.group_id));
        ours.is_some() && ours == theirs.as_ref() && self.local.roster.has_removed(caller)
    }

    /// A node that was removed and does not know it yet must not hold elections up.
    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn may_stand(&self, caller: NodeId) -> Result<(), Status> {
        if self.local.roster.has_removed(caller) {
            return Err(Status::failed_precondition("the caller was removed from the group"));
        }
        Ok(())
    }

    fn consensus(&self) -> Result<&Consensus, Status> {
        self.consensus.get().ok_or_else(|| Status::unavailable("the group has not formed yet"))
    }

    /// A peer's introduction, if it is a peer of ours.
    fn introduced(&self, caller: NodeId, from: Option<&rpc::Introduction>) -> Result<(), Status> {
        let from = from.ok_or_else(|| Status::invalid_argument("no introduction"))?;
        if from.node_id != caller.0 {
            return Err(Status::invalid_argument("introduced as another node than it signed as"));
        }
        local::check_wire(from).map_err(Status::failed_precondition)?;
        // A node's own id can come from an address that is on the list twice.
        if self.local.knows(caller) && caller != self.local.node {
            self.presence.introduced(caller, from);
            self.presence.heard_from(caller, from.boot_id);
        }
        Ok(())
    }
}

fn malformed(error: &convert::Malformed) -> Status {
    Status::data_loss(error.to_string())
}

fn fatal(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("consensus has stopped: {error}"))
}

/// Space for what a leader wants to have appended here.
fn claim(space: &Arc<Space>, message: &rpc::AppendRequest) -> Result<Claim, Status> {
    let bytes = message.records.iter().map(|record| record.body.len()).sum();
    space
        .claim(bytes, message.records.len())
        .map_err(|Full| Status::resource_exhausted("the disk of this replica is full"))
}

#[tonic::async_trait]
impl Raft for Server {
    async fn hello(
        &self,
        request: Request<rpc::HelloRequest>,
    ) -> Result<Response<rpc::HelloResponse>, Status> {
        let caller = self.credentials.admit(&request, Method::Hello)?;
        let message = request.into_inner();
        self.introduced(caller, message.from.as_ref())?;
        let proof = self.credentials.proof(&message.nonce).into();
        let from = Some(self.local.introduction());
        let removed = self.has_removed(caller, message.from.as_ref());
        Ok(Response::new(rpc::HelloResponse { from, proof, removed }))
    }

    async fn join(
        &self,
        request: Request<rpc::JoinRequest>,
    ) -> Result<Response<rpc::JoinResponse>, Status> {
        self.credentials.admit(&request, Method::Join)?;
        let message = request.into_inner();
        let proof = self.credentials.proof(&message.nonce).into();
        let answer = self.reception.receive(message).await?;
        let node_id = self.local.node.0;
        Ok(Response::new(rpc::JoinResponse { proof, node_id, ..answer }))
    }

    async fn invite(
        &self,
        request: Request<rpc::InviteRequest>,
    ) -> Result<Response<rpc::InviteResponse>, Status> {
        let caller = self.credentials.admit(&request, Method::Invite)?;
        let message = request.into_inner();
        self.introduced(caller, message.from.as_ref())?;
        let group = group_id(&message.group_id)
            .ok_or_else(|| Status::invalid_argument("a group id has 16 bytes"))?;
        let accepted = self.adoption.invited(caller, message.from.as_ref(), group);
        let from = Some(self.local.introduction());
        Ok(Response::new(rpc::InviteResponse { accepted, from }))
    }

    type WatchStream = Boxed<rpc::WatchResponse>;

    async fn watch(
        &self,
        request: Request<rpc::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = self.credentials.admit(&request, Method::Watch)?;
        let local = self.local.clone();
        let ticks = tokio::time::interval(WATCH_INTERVAL);
        let signs = stream::unfold((ticks, local), move |(mut ticks, local)| async move {
            ticks.tick().await;
            let DiskSpace { total: disk_total, free: disk_free } = local.disk();
            let sign = rpc::WatchResponse {
                boot_id: local.boot_id,
                removed: local.roster.has_removed(caller),
                drained: local.drain.is_on(),
                preferred: local.preferred,
                disk_total,
                disk_free,
            };
            Some((Ok(sign), (ticks, local)))
        });
        Ok(Response::new(signs.take_until(stopped(self.stop.clone())).boxed()))
    }

    type AppendStream = Boxed<rpc::AppendResponse>;

    async fn append(
        &self,
        request: Request<Streaming<rpc::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let caller = self.credentials.admit(&request, Method::Append)?;
        let consensus = self.consensus()?;
        let detector = consensus.detector.clone();
        let space = consensus.space.clone();
        let problem = Arc::new(OnceLock::new());
        let noted = problem.clone();
        // Each request is answered once, in order, and may be appended until then.
        let claims: Arc<Mutex<VecDeque<Claim>>> = Arc::default();
        let made = claims.clone();
        // A request that cannot be taken ends the stream: nothing after it may be taken either.
        let requests = request.into_inner().scan((), move |(), message| {
            let taken = message.and_then(|message| {
                detector.heard_leader(caller, message.vote.as_ref(), message.boot_id);
                let claim = claim(&space, &message)?;
                let request =
                    convert::to_append_request(message).map_err(|error| malformed(&error))?;
                Ok((request, claim))
            });
            std::future::ready(match taken {
                Ok((request, claim)) => {
                    made.lock().expect("no holder panics").push_back(claim);
                    Some(request)
                }
                Err(status) => {
                    tracing::debug!(%status, peer = %caller, "append stream ends");
                    // There is only one: the stream ends here.
                    let _ = noted.set(status);
                    None
                }
            })
        });
        let answers = consensus.raft.stream_append(requests).map(move |result| {
            claims.lock().expect("no holder panics").pop_front();
            match result {
                Ok(answer) => Ok(convert::append_response(&answer)),
                Err(error) => Err(fatal(error)),
            }
        });
        let end = stream::once(async move { problem.get().cloned() })
            .filter_map(|problem| std::future::ready(problem.map(Err)));
        let answers = answers.chain(end).take_until(stopped(self.stop.clone()));
        Ok(Response::new(answers.boxed()))
    }

    async fn heartbeat(
        &self,
        request: Request<rpc::AppendRequest>,
    ) -> Result<Response<rpc::AppendResponse>, Status> {
        let caller = self.credentials.admit(&request, Method::Heartbeat)?;
        let consensus = self.consensus()?;
        let message = request.into_inner();
        consensus.detector.heard_leader(caller, message.vote.as_ref(), message.boot_id);
        let message = convert::to_append_request(message).map_err(|error| malformed(&error))?;
        let previous = message.prev_log_id;
        let last = message.entries.last().map(|entry| entry.log_id).or(previous);
        let answer = consensus.raft.append_entries(message).await.map_err(fatal)?;
        let answer: StreamAppendResult<TypeConfig> = answer.into_stream_result(previous, last);
        Ok(Response::new(convert::append_response(&answer)))
    }

    async fn vote(
        &self,
        request: Request<rpc::VoteRequest>,
    ) -> Result<Response<rpc::VoteResponse>, Status> {
        let caller = self.credentials.admit(&request, Method::Vote)?;
        self.may_stand(caller)?;
        let consensus = self.consensus()?;
        consensus.suspicion.may_vote()?;
        let mut message =
            convert::to_vote_request(request.into_inner()).map_err(|error| malformed(&error))?;
        // A leader whose process is gone needs no protection by the lease it once renewed.
        if consensus.detector.leader_is_gone() {
            message.leadership_transfer = true;
        }
        let answer = consensus.raft.vote(message).await.map_err(fatal)?;
        Ok(Response::new(convert::vote_response(&answer)))
    }

    async fn pre_vote(
        &self,
        request: Request<rpc::VoteRequest>,
    ) -> Result<Response<rpc::VoteResponse>, Status> {
        let caller = self.credentials.admit(&request, Method::PreVote)?;
        self.may_stand(caller)?;
        let consensus = self.consensus()?;
        consensus.suspicion.may_vote()?;
        let message =
            convert::to_vote_request(request.into_inner()).map_err(|error| malformed(&error))?;
        let answer = consensus.raft.pre_vote(message).await.map_err(fatal)?;
        Ok(Response::new(convert::vote_response(&answer)))
    }

    async fn transfer_leader(
        &self,
        request: Request<rpc::TransferLeaderRequest>,
    ) -> Result<Response<rpc::TransferLeaderResponse>, Status> {
        self.credentials.admit(&request, Method::TransferLeader)?;
        let consensus = self.consensus()?;
        let message = convert::to_transfer_request(request.into_inner())
            .map_err(|error| malformed(&error))?;
        tracing::info!(from = %message.from_leader().leader_id(), to = message.to_node_id(), "leadership is handed over");
        let answer = consensus.raft.handle_transfer_leader(message).await.map_err(fatal)?;
        let refused = answer.err().map(|refusal| refusal.to_string()).unwrap_or_default();
        Ok(Response::new(rpc::TransferLeaderResponse { refused }))
    }

    type SnapshotStream = Boxed<rpc::SnapshotResponse>;

    async fn snapshot(
        &self,
        request: Request<Streaming<rpc::SnapshotRequest>>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        self.credentials.admit(&request, Method::Snapshot)?;
        let receiver = self.consensus()?.receiver.clone();
        let (answers, outbound) = mpsc::channel(SNAPSHOT_ANSWERS);
        tokio::spawn(receiver.run(request.into_inner(), answers));
        let stopped = stopped(self.stop.clone());
        Ok(Response::new(ReceiverStream::new(outbound).take_until(stopped).boxed()))
    }

    type FetchStream = Boxed<rpc::FetchResponse>;

    async fn fetch(
        &self,
        request: Request<rpc::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        self.credentials.admit(&request, Method::Fetch)?;
        let log = self.log.get().ok_or_else(|| Status::unavailable("the log is not open"))?;
        let rate = self.config.snapshot_rate;
        let messages = fetch::serve(log.clone(), request.into_inner(), rate).await?;
        Ok(Response::new(messages.take_until(stopped(self.stop.clone())).boxed()))
    }

    type RefillStream = Boxed<rpc::SnapshotRequest>;

    async fn refill(
        &self,
        request: Request<Streaming<rpc::RefillRequest>>,
    ) -> Result<Response<Self::RefillStream>, Status> {
        let peer = self.credentials.admit(&request, Method::Refill)?;
        let consensus = self.consensus()?;
        let giver = Giver {
            peer,
            raft: consensus.raft.clone(),
            log: consensus.receiver.log.clone(),
            store: consensus.receiver.store.clone(),
            boot_id: self.local.boot_id,
            config: self.config.clone(),
            upkeep: self.upkeep.clone(),
        };
        let (answers, outbound) = mpsc::channel(SNAPSHOT_ANSWERS);
        tokio::spawn(giver.run(request.into_inner(), answers));
        let stopped = stopped(self.stop.clone());
        Ok(Response::new(ReceiverStream::new(outbound).take_until(stopped).boxed()))
    }

    async fn witness(
        &self,
        request: Request<rpc::WitnessRequest>,
    ) -> Result<Response<rpc::WitnessResponse>, Status> {
        self.credentials.admit(&request, Method::Witness)?;
        let consensus = self.consensus()?;
        let message = request.into_inner();
        Ok(Response::new(consensus.detector.testify(&message)))
    }
}
