//! What access points tell this leader about their clients, and what they are told.

use std::{collections::HashSet, pin::Pin, sync::Arc, time::Instant};

use futures::Stream;
use proto::{
    ClientId, ConsumerGroup, Topic, hop,
    session::{
        DescribeGroupRequest, DescribeTopicRequest, DescribeTopicResponse, Down, Gone,
        GroupSettings, ListMembersRequest, ListMembersResponse, Placement, Up, down,
        sessions_server::Sessions, up,
    },
    wire,
};
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, warn};

use super::local::miss;
use crate::{
    Error,
    ops::{Broker, LONGEST_LOOK_UP},
    sessions::SessionId,
};

/// Messages on their way to an access point that does not read.
const DOWN_MAX: usize = 64;

/// Serves access points, this node's own included.
#[derive(Debug, Clone)]
pub struct SessionService {
    broker: Arc<Broker>,
}

impl SessionService {
    /// Serves for `broker`.
    pub fn new(broker: Arc<Broker>) -> Self {
        SessionService { broker }
    }
}

/// Access points are nodes: they are told the fate, not a RocketMQ code.
fn refuse(error: &Error) -> Status {
    gateway::status::refusal(&miss(error))
}

/// A name that no node of ours would send.
fn bad_name(error: &proto::InvalidName) -> Status {
    Status::invalid_argument(error.to_string())
}

#[tonic::async_trait]
impl Sessions for SessionService {
    type OpenStream = Pin<Box<dyn Stream<Item = Result<Down, Status>> + Send>>;

    async fn open(
        &self,
        request: Request<Streaming<Up>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        self.broker.leading().map_err(|error| refuse(&error))?;
        if *self.broker.stopping().borrow() {
            return Err(refuse(&Error::Stopped));
        }
        let (down, outgoing) = mpsc::channel(DOWN_MAX);
        tokio::spawn(converse(Arc::clone(&self.broker), request.into_inner(), down));
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn describe_group(
        &self,
        request: Request<DescribeGroupRequest>,
    ) -> Result<Response<GroupSettings>, Status> {
        self.broker.leading().map_err(|error| refuse(&error))?;
        let group: ConsumerGroup = request.into_inner().group.parse().map_err(|e| bad_name(&e))?;
        Ok(Response::new(self.broker.group_settings(&group)))
    }

    async fn list_members(
        &self,
        request: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        self.broker.leading().map_err(|error| refuse(&error))?;
        let ListMembersRequest { group, topic } = request.into_inner();
        let group: ConsumerGroup = group.parse().map_err(|error| bad_name(&error))?;
        let topic: Topic = topic.parse().map_err(|error| bad_name(&error))?;
        let members = self.broker.clients().pulling(&group, &topic, Instant::now());
        let client_ids = members.iter().map(ToString::to_string).collect();
        Ok(Response::new(ListMembersResponse { client_ids }))
    }

    async fn describe_topic(
        &self,
        request: Request<DescribeTopicRequest>,
    ) -> Result<Response<DescribeTopicResponse>, Status> {
        self.broker.leading().map_err(|error| refuse(&error))?;
        let DescribeTopicRequest { topic, create } = request.into_inner();
        let topic: Topic = topic.parse().map_err(|error| bad_name(&error))?;
        let deadline = Instant::now() + LONGEST_LOOK_UP;
        let found = if create {
            self.broker.find_topic(&topic, deadline).await
        } else {
            self.broker.look_up_topic(&topic, deadline).await
        };
        let config = match found {
            Ok(Some(config)) => config,
            Ok(None) => return Ok(Response::new(DescribeTopicResponse::default())),
            Err(error) => return Err(refuse(&error)),
        };
        let placement = |(name, queues): (proto::BrokerName, u32)| Placement {
            broker_name: name.to_string(),
            queues,
        };
        Ok(Response::new(DescribeTopicResponse {
            exists: true,
            permission: config.permission.into(),
            accepts: config.accepts.iter().map(|kind| (*kind).into()).collect(),
            placement: config.placement.into_iter().map(placement).collect(),
            version: config.version,
        }))
    }
}

/// What is known of an access point that speaks.
struct Session {
    id: SessionId,
    /// Its boot id, once it has introduced itself.
    access_point: Option<u64>,
    clients: HashSet<ClientId>,
}

/// One access point, until it goes or another node leads.
async fn converse(
    broker: Arc<Broker>,
    incoming: Streaming<Up>,
    down: mpsc::Sender<Result<Down, Status>>,
) {
    let id = broker.couriers.open(down.clone());
    let mut session = Session { id, access_point: None, clients: HashSet::new() };
    follow(&broker, &mut session, incoming, &down).await;
    broker.couriers.close(id);
    if let Some(access_point) = session.access_point {
        broker.access_point_closed(access_point, id);
    }
    if !session.clients.is_empty() && broker.leading().is_ok() && !*broker.stopping().borrow() {
        // If it died, so did its connections to them, perhaps with answers that seemed to be read.
        broker.doubt(session.clients);
    }
}

async fn follow(
    broker: &Arc<Broker>,
    session: &mut Session,
    mut incoming: Streaming<Up>,
    down: &mpsc::Sender<Result<Down, Status>>,
) {
    let mut role = broker.role();
    let mut stopping = broker.stopping();
    let mut changes = broker.group_changes();
    loop {
        tokio::select! {
            said = incoming.message() => match said {
                Ok(Some(up)) => {
                    if let Err(mismatch) = understood(&up) {
                        warn!(%mismatch, "an access point cannot be talked to");
                        let end = Status::failed_precondition(mismatch.to_string());
                        // It may have gone itself.
                        let _ = down.try_send(Err(end));
                        return;
                    }
                    hear(broker, session, up);
                }
                Ok(None) => return,
                Err(error) => {
                    debug!(%error, "session with an access point broke");
                    return;
                }
            },
            changed = changes.recv() => match changed {
                Ok(group) => {
                    let settings = broker.group_settings(&group);
                    let event = Down { event: Some(down::Event::Settings(settings)) };
                    // An access point that does not read so much is better off with a new session.
                    if down.try_send(Ok(event)).is_err() {
                        return;
                    }
                }
                Err(RecvError::Lagged(_)) => return,
                Err(RecvError::Closed) => return,
            },
            Ok(now) = role.wait_for(|role| !role.is_leader()) => {
                drop(now);
                let leader = match broker.leading() {
                    Err(Error::NotLeader { leader }) => leader,
                    _ => None,
                };
                let end = hop::not_done("not the leader any more", leader.as_deref());
                // It may have gone itself.
                let _ = down.try_send(Err(end));
                return;
            }
            // Drops the guard at once: nothing may be held over an await.
            _ = async { stopping.wait_for(|stopping| *stopping).await.is_ok() } => return,
            () = down.closed() => return,
        }
    }
}

/// Whether an access point that introduces itself speaks a version of ours.
fn understood(up: &Up) -> Result<(), wire::Mismatch> {
    let Some(up::Event::Hello(hello)) = &up.event else { return Ok(()) };
    let theirs = wire::Versions::told(hello.wire_oldest, hello.wire_newest);
    wire::ours().meet(theirs).map(drop)
}

fn hear(broker: &Arc<Broker>, session: &mut Session, up: Up) {
    let now = Instant::now();
    match up.event {
        Some(up::Event::Hello(hello)) => {
            debug!(access_point = %hello.access_point, "session opened");
            session.access_point = Some(hello.boot_id);
            broker.access_point_opened(hello.boot_id, session.id);
        }
        Some(up::Event::Client(client)) => {
            if let Ok(id) = client.client_id.parse::<ClientId>() {
                session.clients.insert(id.clone());
                broker.couriers.met(session.id, id);
            }
            for conflict in broker.clients().announce(&client, now) {
                warn!(%conflict, "conflicting subscriptions");
            }
            // A producer can be asked about transactions.
            broker.view().check_alarm().ring();
        }
        Some(up::Event::Receipt(receipt)) => {
            broker.couriers.receipt(receipt.nonce, receipt.handed);
        }
        Some(up::Event::Alive(alive)) => {
            let mut clients = broker.clients();
            for id in alive.client_ids.iter().filter_map(|id| id.parse::<ClientId>().ok()) {
                clients.seen(&id, now);
            }
        }
        Some(up::Event::Gone(gone)) => {
            session.clients.remove(gone.client_id.as_str());
            if let Ok(id) = gone.client_id.parse() {
                broker.couriers.left(session.id, &id);
            }
            depart(broker, &gone, now);
        }
        Some(up::Event::Answered(answered)) => match session.access_point {
            Some(access_point) => broker.answered(access_point, &answered.answers),
            None => debug!("answers of an access point that has not said who it is"),
        },
        Some(up::Event::Lost(lost)) => broker.doubt(lost.client_id.parse::<ClientId>()),
        None => (),
    }
}

fn depart(broker: &Arc<Broker>, gone: &Gone, now: Instant) {
    let Ok(id) = gone.client_id.parse::<ClientId>() else { return };
    if !gone.terminated {
        // Its connection broke, perhaps with an answer that seemed to be read.
        broker.doubt([id.clone()]);
    }
    let departed = broker.clients().gone(&id, gone.terminated, now);
    let known = departed.and_then(|departed| departed.group);
    let said = gone.terminated.then(|| gone.group.parse().ok()).flatten();
    if let Some(group) = known.or(said) {
        broker.release(id, group);
    }
}

#[cfg(test)]
mod tests {
    use proto::session::Hello;

    use super::*;

    #[test]
    fn an_access_point_that_speaks_only_newer_versions_is_told_so() {
        let says = |wire_oldest, wire_newest| {
            let hello = Hello { wire_oldest, wire_newest, ..Hello::default() };
            understood(&Up { event: Some(up::Event::Hello(hello)) })
        };
        assert_eq!((says(0, 0), says(1, 2)), (Ok(()), Ok(())));
        let text = says(2, 2).expect_err("too new").to_string();
        assert!(text.contains("versions 2") && text.contains("this release 1"), "{text}");
    }
}
