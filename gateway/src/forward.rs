//! Gets a request to the leader of a broker group and its answer back.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use proto::{BrokerName, hop, operator};
use tokio::{sync::watch, time::timeout_at};
use tonic::{Request, metadata::MetadataMap};
use tracing::debug;

use crate::{
    Caller, Directory, Hops, Local,
    channels::Channels,
    operation::{Operation, classify},
    retry::{Attempts, Failure, Next, Repeat, Target},
    status::Refusal,
};

/// How long one of several groups may take that all know the answer: a dead one is in the directory
/// for a while.
const ANY_WAIT: Duration = Duration::from_millis(400);

/// What one request needs to be forwarded.
pub(crate) struct Passage<'a> {
    pub(crate) caller: &'a Caller,
    /// The client's own metadata, which travels along.
    pub(crate) metadata: &'a MetadataMap,
    pub(crate) group: &'a BrokerName,
    pub(crate) repeat: Repeat,
    /// How long to wait for a leader.
    pub(crate) hold: Duration,
    /// Do not wait as long as nothing was done: another group can take it.
    pub(crate) elsewhere: bool,
}

/// Reaches leaders: this node itself, or others over the network.
#[derive(Debug)]
pub(crate) struct Forwarder<L, D> {
    pub(crate) local: L,
    pub(crate) directory: D,
    pub(crate) channels: Channels,
    pub(crate) hops: Hops,
}

impl<L: Local, D: Directory> Forwarder<L, D> {
    /// Performs the operation wherever the group is led. Ends at the caller's deadline at the
    /// latest.
    pub(crate) async fn call<O: Operation>(
        &self,
        passage: &Passage<'_>,
        request: O::Request,
    ) -> Result<O::Response, Refusal> {
        let own = self.local.broker_name() == Some(passage.group);
        let Passage { group, repeat, hold, elsewhere, caller, .. } = *passage;
        let now = Instant::now();
        let whole = caller.remaining(now);
        let mut attempts =
            Attempts::new(group.clone(), repeat, hold, now, caller.deadline, O::MARGIN)
                .unless_tainted_go_elsewhere(elsewhere);
        let mut changed = self.directory.changed();
        loop {
            // Looked at before the attempt, so that no change in between is missed.
            changed.mark_unchanged();
            let view = self.directory.group(group);
            let Some(target) = attempts.target(own, view.as_deref()) else {
                let pause = attempts.pause(Instant::now())?;
                wait(&mut changed, pause).await;
                continue;
            };
            if attempts.has_failed()
                && let Some(refusal) = O::too_late(caller.remaining(Instant::now()), whole)
            {
                return Err(refusal);
            }
            let failure = match &target {
                Target::Local => {
                    let perform = O::local(&self.local, caller, request.clone());
                    in_time(attempts.until, perform).await
                }
                Target::Remote(address) => {
                    self.remote::<O>(passage, &attempts, address, request.clone()).await
                }
            };
            let failure = match failure {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            debug!(%group, ?target, ?failure, "attempt failed");
            if let Failure::NotDone { leader: Some(leader) } = &failure {
                self.directory.report_leader(group, leader);
            }
            if let Next::GiveUp(refusal) = attempts.failed(failure, Instant::now()) {
                return Err(refusal);
            }
        }
    }

    /// Asks the groups that have a leader one after the other, then the first of all, until one
    /// answers: for what every group knows. Those named first are asked first.
    pub(crate) async fn ask_any<O: Operation>(
        &self,
        caller: &Caller,
        groups: &[BrokerName],
        request: O::Request,
        hold: Duration,
    ) -> Result<O::Response, Refusal> {
        let metadata = MetadataMap::new();
        let is_led =
            |name: &&BrokerName| self.directory.group(name).is_some_and(|v| v.leader.is_some());
        let mut led = groups.iter().filter(is_led).peekable();
        while let Some(group) = led.next() {
            let elsewhere = led.peek().is_some();
            let passage = Passage {
                caller,
                metadata: &metadata,
                group,
                repeat: Repeat::Safe,
                hold,
                elsewhere,
            };
            let wait = if elsewhere { ANY_WAIT } else { hold };
            let answer =
                tokio::time::timeout(wait, self.call::<O>(&passage, request.clone())).await;
            match answer {
                Ok(Err(Refusal::NoLeader { .. } | Refusal::Lost { .. })) | Err(_) if elsewhere => {}
                Ok(answer) => return answer,
                Err(_) => return Err(Refusal::NoLeader { group: group.clone(), waited: hold }),
            }
        }
        let Some(group) = groups.first() else { return Err(Refusal::NoGroup { waited: hold }) };
        let (repeat, elsewhere) = (Repeat::Safe, false);
        let passage = Passage { caller, metadata: &metadata, group, repeat, hold, elsewhere };
        self.call::<O>(&passage, request).await
    }

    /// One attempt at another node. Given up early when somebody else took the lead and the request
    /// may be repeated: a leader that was cut off answers nobody.
    async fn remote<O: Operation>(
        &self,
        passage: &Passage<'_>,
        attempts: &Attempts,
        address: &str,
        request: O::Request,
    ) -> Result<O::Response, Failure> {
        let term = self.directory.group(passage.group).map_or(0, |view| view.term);
        let attempt = async {
            let channel = self
                .channels
                .get(address, O::LANE)
                .await
                .map_err(|_not_connected| Failure::NotSent)?;
            self.hops.another();
            let request = with_metadata(passage, request);
            O::remote(channel, request).await.map_err(|status| {
                let failure = classify(&status);
                if matches!(failure, Failure::NotSent | Failure::Broken) {
                    debug!(%address, %status, "connection dropped");
                    self.channels.drop_connection(address, O::LANE);
                }
                failure
            })
        };
        let attempt = in_time(attempts.until, attempt);
        match attempts.repeat() {
            Repeat::NotDoneOnly => attempt.await,
            Repeat::Safe => tokio::select! {
                result = attempt => result,
                () = self.superseded(passage.group, address, term) => {
                    self.channels.drop_connection(address, O::LANE);
                    Err(Failure::Broken)
                }
            },
        }
    }

    /// Returns once another node than this one leads the group in a higher term.
    async fn superseded(&self, group: &BrokerName, address: &str, term: u64) {
        let mut changed = self.directory.changed();
        loop {
            changed.mark_unchanged();
            let view = self.directory.group(group);
            let deposed = view.is_some_and(|view| {
                view.term > term && view.leader.as_deref().is_some_and(|leader| leader != address)
            });
            if deposed {
                return;
            }
            if changed.changed().await.is_err() {
                // The directory is gone; nobody will tell of a new leader.
                return std::future::pending().await;
            }
        }
    }
}

/// Waits for news, at most this long.
pub(crate) async fn wait(changed: &mut watch::Receiver<u64>, pause: Duration) {
    tokio::select! {
        Ok(()) = changed.changed() => {}
        () = tokio::time::sleep(pause) => {}
    }
}

async fn in_time<T>(
    until: Instant,
    attempt: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout_at(until.into(), attempt).await.unwrap_or(Err(Failure::Late))
}

/// The request as the client sent it, marked as forwarded, with what is left of its time.
fn with_metadata<T>(passage: &Passage<'_>, message: T) -> Request<T> {
    let mut metadata = passage.metadata.clone();
    for key in CONNECTION_ONLY {
        metadata.remove(key);
    }
    if let Some(proof) = &passage.caller.operator {
        metadata.insert(operator::PROOF, proof.clone());
    }
    hop::mark(&mut metadata, passage.group);
    let mut request = Request::from_parts(metadata, tonic::Extensions::default(), message);
    request.set_timeout(passage.caller.remaining(Instant::now()));
    request
}

/// Metadata that belongs to the connection from the client and not to the request.
const CONNECTION_ONLY: [&str; 6] =
    ["grpc-timeout", "user-agent", "te", "content-type", "grpc-accept-encoding", "grpc-encoding"];
