//! What of this replica is compared with the others.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::Stream;
use proto::replicas::{
    Digest, MarkRequest, MarkResponse, ReadRequest, ReadResponse, Segment,
    read_response::Part,
    replicas_server::{Replicas, ReplicasServer},
};
use raft::LogIndex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::admin::deadline;
use crate::{
    command::{Command, Mark, Outcome},
    ops::{Broker, unexpected},
};

/// How long a replica may take to come as far as the mark.
const CATCH_UP: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);
/// Segments that were read and not taken yet.
const AHEAD: usize = 4;

/// Compares this node's replica.
#[derive(Debug, Clone)]
pub struct ReplicaService {
    broker: Arc<Broker>,
}

type Parts = mpsc::Sender<Result<ReadResponse, Status>>;

impl ReplicaService {
    /// Of `broker`.
    pub fn new(broker: Arc<Broker>) -> ReplicasServer<Self> {
        ReplicasServer::new(ReplicaService { broker })
    }

    async fn digest_at(&self, index: LogIndex) -> Result<String, Status> {
        let give_up = Instant::now() + CATCH_UP;
        loop {
            if let Some(digest) = self.broker.view().digest_at(index) {
                return Ok(digest);
            }
            let applied = self.broker.group.status().applied;
            if applied >= Some(index) {
                let text = "this replica has come past the mark without noting it";
                return Err(Status::not_found(text));
            }
            if Instant::now() >= give_up {
                let applied = applied.map_or(0, |applied| applied.0);
                let text = format!("this replica has applied {applied} of {index}");
                return Err(Status::deadline_exceeded(text));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn read_segments(&self, parts: &Parts) {
        for base in self.broker.group.sealed_segments() {
            let read = self.broker.group.read_segment(base).await;
            let segment = match read {
                Ok(None) => continue,
                Ok(Some(sum)) => Segment {
                    base: base.0,
                    last_index: sum.last.map_or(0, |last| last.index.0),
                    crc: sum.crc,
                    damage: String::new(),
                },
                Err(error) => {
                    Segment { base: base.0, last_index: 0, crc: 0, damage: error.to_string() }
                }
            };
            let part = ReadResponse { part: Some(Part::Segment(segment)) };
            if parts.send(Ok(part)).await.is_err() {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl Replicas for ReplicaService {
    async fn mark(&self, _: Request<MarkRequest>) -> Result<Response<MarkResponse>, Status> {
        let marked = self.broker.propose(&Command::Mark(Mark), deadline()).await;
        match marked.map_err(|error| Status::unavailable(error.to_string()))? {
            Outcome::Marked { index } => Ok(Response::new(MarkResponse { index: index.0 })),
            other => unexpected(&other),
        }
    }

    type ReadStream = std::pin::Pin<Box<dyn Stream<Item = Result<ReadResponse, Status>> + Send>>;

    async fn read(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let ReadRequest { index, digest_only } = request.into_inner();
        let digest = self.digest_at(LogIndex(index)).await?;
        let node_id = self.broker.group.status().node_id.0;
        let (sender, parts) = mpsc::channel(AHEAD);
        let first = ReadResponse { part: Some(Part::Digest(Digest { node_id, digest })) };
        // There is room for the first.
        let _ = sender.try_send(Ok(first));
        if !digest_only {
            let this = self.clone();
            tokio::spawn(async move { this.read_segments(&sender).await });
        }
        Ok(Response::new(Box::pin(ReceiverStream::new(parts))))
    }
}
