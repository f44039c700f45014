//! Who may call: every call names its sender, its addressee and its group in metadata, and with a
//! shared secret proves it.
//!
//! The code is `HMAC-SHA256(secret, method, from, to, broker, group, nonce)`, each field preceded
//! by its length. It keeps strangers and misconfigured nodes out. It does not hide or protect what
//! travels: a network that others can read or write needs a tunnel.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use crate::{GroupId, NodeId, Secret};

const FROM: &str = "raftmq-from";
const TO: &str = "raftmq-to";
const BROKER: &str = "raftmq-broker";
const GROUP: &str = "raftmq-group";
const NONCE: &str = "raftmq-nonce";
const CODE: &str = "raftmq-code";

/// Bytes of randomness in a nonce.
pub(crate) const NONCE_LEN: usize = 16;

/// The calls of the Raft service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Hello,
    Invite,
    Join,
    Watch,
    Append,
    Heartbeat,
    Vote,
    PreVote,
    TransferLeader,
    Snapshot,
    Fetch,
    Refill,
    Witness,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Method::Hello => "Hello",
            Method::Invite => "Invite",
            Method::Join => "Join",
            Method::Watch => "Watch",
            Method::Append => "Append",
            Method::Heartbeat => "Heartbeat",
            Method::Vote => "Vote",
            Method::PreVote => "PreVote",
            Method::TransferLeader => "TransferLeader",
            Method::Snapshot => "Snapshot",
            Method::Fetch => "Fetch",
            Method::Refill => "Refill",
            Method::Witness => "Witness",
        }
    }

    /// Nodes that do not share a group yet use these to find out; they judge by the content.
    fn before_group(self) -> bool {
        match self {
            Method::Hello | Method::Invite | Method::Join => true,
            Method::Watch
            | Method::Append
            | Method::Heartbeat
            | Method::Vote
            | Method::PreVote
            | Method::TransferLeader
            | Method::Snapshot
            | Method::Fetch
            | Method::Refill
            | Method::Witness => false,
        }
    }
}

/// Signs calls of this node, and judges calls to it.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    node: NodeId,
    broker_name: Arc<str>,
    secret: Option<Secret>,
    /// Set once the node belongs to a group.
    group: Arc<OnceLock<GroupId>>,
}

impl Credentials {
    pub(crate) fn new(
        node: NodeId,
        broker_name: &str,
        secret: Option<Secret>,
        group: Arc<OnceLock<GroupId>>,
    ) -> Credentials {
        Credentials { node, broker_name: broker_name.into(), secret, group }
    }

    /// Adds the metadata of a call to `to`.
    pub(crate) fn sign<T>(&self, request: &mut Request<T>, to: NodeId, method: Method) {
        let claim = Claim {
            method,
            from: self.node.to_string(),
            to: to.to_string(),
            broker: self.broker_name.to_string(),
            group: self.group.get().map(GroupId::to_string).unwrap_or_default(),
            nonce: hex(&nonce()),
        };
        let code = self.secret.as_ref().map(|secret| hex(&claim.code(secret)));
        let metadata = request.metadata_mut();
        let fields = [
            (FROM, Some(claim.from)),
            (TO, Some(claim.to)),
            (BROKER, Some(claim.broker)),
            (GROUP, Some(claim.group)),
            (NONCE, Some(claim.nonce)),
            (CODE, code),
        ];
        for (name, value) in fields {
            // A broker name that is no ASCII cannot be put here; the peer then refuses the call.
            if let Some(Ok(value)) = value.map(|value| value.parse()) {
                metadata.insert(name, value);
            }
        }
    }

    /// The sender of a call, if it may make it.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`: another secret, or one side has none. `PERMISSION_DENIED`: no secret,
    /// and not a loopback address. `FAILED_PRECONDITION`: meant for another node or group.
    pub(crate) fn admit<T>(&self, request: &Request<T>, method: Method) -> Result<NodeId, Status> {
        let peer = request.remote_addr().map(|addr| addr.ip());
        self.judge(request.metadata(), peer, method)
    }

    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn judge(
        &self,
        metadata: &MetadataMap,
        peer: Option<IpAddr>,
        method: Method,
    ) -> Result<NodeId, Status> {
        let claim = Claim::read(metadata, method)?;
        self.check_secret(&claim, metadata, peer)?;
        let from = claim.from.parse().map_err(|_invalid| Status::invalid_argument(FROM))?;
        if method.before_group() {
            return Ok(NodeId(from));
        }
        let expected = [
            ("node", self.node.to_string(), &claim.to),
            ("broker", self.broker_name.to_string(), &claim.broker),
            ("group", self.group.get().map(GroupId::to_string).unwrap_or_default(), &claim.group),
        ];
        for (what, ours, theirs) in expected {
            if ours != *theirs || ours.is_empty() {
                let text = format!("this is {what} {ours:?}, the call is for {theirs:?}");
                return Err(Status::failed_precondition(text));
            }
        }
        Ok(NodeId(from))
    }

    fn check_secret(
        &self,
        claim: &Claim,
        metadata: &MetadataMap,
        peer: Option<IpAddr>,
    ) -> Result<(), Status> {
        let code = metadata.get(CODE).and_then(|code| code.to_str().ok());
        match (&self.secret, code) {
            (Some(secret), Some(code)) if claim.proven_by(secret, code) => Ok(()),
            (Some(_), Some(_)) => Err(Status::unauthenticated("another secret")),
            (Some(_), None) => Err(Status::unauthenticated("this node asks for a secret")),
            (None, Some(_)) => Err(Status::unauthenticated("this node has no secret")),
            (None, None) if peer.is_some_and(|peer| peer.is_loopback()) => Ok(()),
            (None, None) => Err(Status::permission_denied(
                "without a shared secret only peers on loopback addresses are accepted",
            )),
        }
    }

    /// Proves to the sender of `nonce` that this node knows the secret; empty without one.
    pub(crate) fn proof(&self, nonce: &[u8]) -> Vec<u8> {
        let Some(secret) = &self.secret else { return Vec::new() };
        self.proof_code(secret, self.node, nonce).finalize().into_bytes().to_vec()
    }

    /// Whether `proof` is what `peer` had to answer to `nonce`.
    pub(crate) fn is_proof(&self, peer: NodeId, nonce: &[u8], proof: &[u8]) -> bool {
        match &self.secret {
            Some(secret) => self.proof_code(secret, peer, nonce).verify_slice(proof).is_ok(),
            None => proof.is_empty(),
        }
    }

    fn proof_code(&self, secret: &Secret, node: NodeId, nonce: &[u8]) -> Hmac<Sha256> {
        keyed(secret, &[b"raftmq proof 1", node.to_string().as_bytes(), nonce])
    }
}

/// What a call says about itself.
#[derive(Debug)]
struct Claim {
    method: Method,
    from: String,
    to: String,
    broker: String,
    group: String,
    nonce: String,
}

impl Claim {
    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn read(metadata: &MetadataMap, method: Method) -> Result<Claim, Status> {
        let text = |name: &'static str| {
            let value = metadata.get(name).and_then(|value| value.to_str().ok());
            value.map(str::to_owned).ok_or_else(|| Status::unauthenticated(name))
        };
        Ok(Claim {
            method,
            from: text(FROM)?,
            to: text(TO)?,
            broker: text(BROKER)?,
            group: text(GROUP)?,
            nonce: text(NONCE)?,
        })
    }

    fn keyed(&self, secret: &Secret) -> Hmac<Sha256> {
        keyed(
            secret,
            &[
                b"raftmq call 1",
                self.method.name().as_bytes(),
                self.from.as_bytes(),
                self.to.as_bytes(),
                self.broker.as_bytes(),
                self.group.as_bytes(),
                self.nonce.as_bytes(),
            ],
        )
    }

    fn code(&self, secret: &Secret) -> Vec<u8> {
        self.keyed(secret).finalize().into_bytes().to_vec()
    }

    fn proven_by(&self, secret: &Secret, code: &str) -> bool {
        unhex(code).is_some_and(|code| self.keyed(secret).verify_slice(&code).is_ok())
    }
}

fn keyed(secret: &Secret, fields: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of every length");
    for field in fields {
        mac.update(&(field.len() as u64).to_le_bytes());
        mac.update(field);
    }
    mac
}

pub(crate) fn nonce() -> [u8; NONCE_LEN] {
    rand::random()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
    }
    text
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    digits
        .chunks_exact(2)
        .map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    const LOOPBACK: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    const REMOTE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));

    fn node(id: u64, secret: Option<&str>, group: Option<u128>) -> Credentials {
        let cell = Arc::new(OnceLock::new());
        if let Some(group) = group {
            cell.set(GroupId(group)).unwrap();
        }
        let secret = secret.map(|text| Secret::new(text.as_bytes()).unwrap());
        Credentials::new(NodeId(id), "broker-a", secret, cell)
    }

    fn call(from: &Credentials, to: &Credentials, peer: Option<IpAddr>) -> Result<NodeId, Code> {
        let mut request = Request::new(());
        from.sign(&mut request, to.node, Method::Append);
        to.judge(request.metadata(), peer, Method::Append).map_err(|status| status.code())
    }

    const SECRET: &str = "0123456789abcdef";
    const OTHER_SECRET: &str = "fedcba9876543210";

    #[test]
    fn members_with_the_same_secret_are_admitted_from_everywhere() {
        let (one, two) = (node(1, Some(SECRET), Some(7)), node(2, Some(SECRET), Some(7)));
        assert_eq!(call(&one, &two, REMOTE), Ok(NodeId(1)));
    }

    #[test]
    fn without_a_secret_only_loopback_is_admitted() {
        let (one, two) = (node(1, None, Some(7)), node(2, None, Some(7)));
        assert_eq!(call(&one, &two, LOOPBACK), Ok(NodeId(1)));
        assert_eq!(call(&one, &two, REMOTE), Err(Code::PermissionDenied));
        assert_eq!(call(&one, &two, None), Err(Code::PermissionDenied));
    }

    #[test]
    fn a_wrong_a_missing_and_an_unexpected_secret_are_refused() {
        let group = Some(7);
        let with = node(2, Some(SECRET), group);
        let without = node(2, None, group);
        let wrong = call(&node(1, Some(OTHER_SECRET), group), &with, LOOPBACK);
        assert_eq!(wrong, Err(Code::Unauthenticated));
        assert_eq!(call(&node(1, None, group), &with, LOOPBACK), Err(Code::Unauthenticated));
        let unexpected = call(&node(1, Some(SECRET), group), &without, LOOPBACK);
        assert_eq!(unexpected, Err(Code::Unauthenticated));
    }

    #[test]
    fn another_group_and_a_node_without_one_are_refused() {
        let two = node(2, Some(SECRET), Some(7));
        let other = call(&node(1, Some(SECRET), Some(8)), &two, LOOPBACK);
        assert_eq!(other, Err(Code::FailedPrecondition));
        let none = call(&node(1, Some(SECRET), None), &node(2, Some(SECRET), None), LOOPBACK);
        assert_eq!(none, Err(Code::FailedPrecondition));
    }

    #[test]
    fn a_code_is_good_for_one_method_and_one_addressee() {
        let (one, two) = (node(1, Some(SECRET), Some(7)), node(2, Some(SECRET), Some(7)));
        let mut request = Request::new(());
        one.sign(&mut request, two.node, Method::Heartbeat);
        let refused = two.judge(request.metadata(), LOOPBACK, Method::Append).unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);

        let three = node(3, Some(SECRET), Some(7));
        let refused = three.judge(request.metadata(), LOOPBACK, Method::Heartbeat).unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
    }

    #[test]
    fn a_peer_proves_the_secret_for_the_callers_nonce() {
        let (one, two) = (node(1, Some(SECRET), None), node(2, Some(SECRET), None));
        let liar = node(2, Some(OTHER_SECRET), None);
        let asked = nonce();
        assert!(one.is_proof(NodeId(2), &asked, &two.proof(&asked)));
        assert!(!one.is_proof(NodeId(2), &nonce(), &two.proof(&asked)));
        assert!(!one.is_proof(NodeId(2), &asked, &liar.proof(&asked)));
        assert!(!one.is_proof(NodeId(2), &asked, b""));
    }
}
