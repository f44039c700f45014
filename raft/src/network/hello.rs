//! Asks a node who it is. Its answer must prove that it knows the secret.

use proto::raft_rpc as rpc;
use tonic::Status;

use super::auth::{self, Credentials, Method};
use super::links::Link;
use crate::NodeId;
use crate::local::Local;

/// What a node says of itself, and of the caller.
#[derive(Debug, Clone)]
pub(crate) struct Greeting {
    pub(crate) from: rpc::Introduction,
    /// The caller was a member and is none any more.
    pub(crate) removed: bool,
}

/// # Errors
/// The node cannot be reached or refuses the call. `UNAUTHENTICATED`: it does not know the secret.
pub(crate) async fn hello(
    link: &Link,
    local: &Local,
    credentials: &Credentials,
) -> Result<Greeting, Status> {
    let nonce = auth::nonce();
    let message = rpc::HelloRequest {
        from: Some(local.introduction()),
        nonce: bytes::Bytes::copy_from_slice(&nonce),
    };
    let request = link.request(Method::Hello, message);
    let response = link.control().hello(request).await?.into_inner();
    let from = response.from.ok_or_else(|| Status::internal("no introduction"))?;
    if !credentials.is_proof(NodeId(from.node_id), &nonce, &response.proof) {
        return Err(Status::unauthenticated("no proof of the secret"));
    }
    Ok(Greeting { from, removed: response.removed })
}
