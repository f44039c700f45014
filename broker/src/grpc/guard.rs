//! Which calls take an operator, where `admin.secret_file` is set: those that change what others
//! rely on, and those that copy everything.
//!
//! It sits before all services, so that no call goes past it: neither one that came from another
//! node nor one that only says so.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::{Either, Ready, ready};
use proto::operator::{OperatorSecret, PROOF};
use tonic::{Status, body::Body};
use tower::{Layer, Service};
use tracing::warn;

/// `service/method` of each such call.
const GUARDED: [&str; 13] = [
    "/raftmq.admin.v1.Admin/PutTopic",
    "/raftmq.admin.v1.Admin/PutGroup",
    "/raftmq.admin.v1.Admin/RedriveDeadLetters",
    "/raftmq.admin.v1.Admin/Change",
    "/raftmq.admin.v1.Admin/TransferLeader",
    "/raftmq.admin.v1.Admin/ResolveTransaction",
    "/raftmq.admin.v1.Admin/ResetOffsets",
    "/raftmq.admin.v1.Admin/ChangeMembership",
    "/raftmq.admin.v1.Admin/Drain",
    "/raftmq.admin.v1.Admin/MakeSnapshot",
    "/raftmq.backup.v1.Backup/Mark",
    "/raftmq.backup.v1.Backup/Take",
    "/apache.rocketmq.v2.Admin/ChangeLogLevel",
];

/// Lets everything pass while there is no secret.
#[derive(Debug, Clone)]
pub struct Guard {
    secret: Option<Arc<OperatorSecret>>,
}

impl Guard {
    /// Asks for a proof of this secret.
    pub fn new(secret: Option<OperatorSecret>) -> Self {
        Guard { secret: secret.map(Arc::new) }
    }

    /// # Errors
    /// UNAUTHENTICATED: the call takes an operator, and this is none.
    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn admit(&self, request: &http::Request<Body>) -> Result<(), Status> {
        let Some(secret) = &self.secret else { return Ok(()) };
        let path = request.uri().path();
        if !GUARDED.contains(&path) {
            return Ok(());
        }
        let proof = request.headers().get(PROOF).map(|proof| proof.to_str().unwrap_or_default());
        secret.check_now(proof).map_err(|error| {
            warn!(path, %error, "a call was refused");
            Status::unauthenticated(error.to_string())
        })
    }
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, guard: self.clone() }
    }
}

/// A service behind a [`Guard`].
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    inner: S,
    guard: Guard,
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<Ready<Result<S::Response, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.guard.admit(&request) {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(status) => Either::Left(ready(Ok(status.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls of these services that anybody may make: they only look.
    const OPEN: [&str; 16] = [
        "ListTopics",
        "DescribeTopic",
        "ListGroups",
        "GroupProgress",
        "ListConnections",
        "ClusterStatus",
        "Digest",
        "ListQuotas",
        "ListTransactions",
        "ListTimers",
        "QueryMessages",
        "TrackMessage",
        "RaftStatus",
        "BrokerStats",
        "GetConfig",
        "ListInFlight",
    ];

    fn paths() -> Vec<String> {
        let set = prost_types::FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET);
        let files = set.expect("our own descriptors").file;
        let services = files.iter().flat_map(|file| {
            file.service.iter().map(|service| (file.package().to_owned(), service))
        });
        let guarded = ["raftmq.admin.v1", "raftmq.backup.v1"];
        services
            .filter(|(package, service)| {
                guarded.contains(&package.as_str())
                    || (package == "apache.rocketmq.v2" && service.name() == "Admin")
            })
            .flat_map(|(package, service)| {
                service
                    .method
                    .iter()
                    .map(move |method| format!("/{package}.{}/{}", service.name(), method.name()))
            })
            .collect()
    }

    use prost::Message as _;

    #[test]
    fn every_administrative_call_is_guarded_or_open_by_decision() {
        let paths = paths();
        for guarded in GUARDED {
            assert!(paths.iter().any(|path| path == guarded), "there is no {guarded}");
        }
        for path in paths {
            let method = path.rsplit('/').next().expect("a method");
            let guarded = GUARDED.contains(&path.as_str());
            assert!(guarded != OPEN.contains(&method), "{path}");
        }
    }

    #[test]
    fn without_a_secret_everything_passes_and_with_one_only_who_knows_it() {
        let secret = OperatorSecret::new("sixteen bytes or more").expect("long enough");
        let request = |path: &str, proof: Option<&str>| {
            let mut request = http::Request::builder().uri(path);
            if let Some(proof) = proof {
                request = request.header(PROOF, proof);
            }
            request.body(Body::empty()).expect("a request")
        };
        let proof = secret.proof(proto::clock::wall_now());
        let guard = Guard::new(Some(secret));
        for path in GUARDED {
            assert!(Guard::new(None).admit(&request(path, None)).is_ok());
            assert!(guard.admit(&request(path, Some(&proof))).is_ok());
            for bad in [None, Some("1.00"), Some("")] {
                let refused = guard.admit(&request(path, bad)).expect_err("no proof");
                assert_eq!(refused.code(), tonic::Code::Unauthenticated);
            }
        }
        let open = request("/apache.rocketmq.v2.MessagingService/SendMessage", None);
        assert!(guard.admit(&open).is_ok());
    }
}
