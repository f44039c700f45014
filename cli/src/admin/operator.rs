//! Calls that say who makes them.

use std::path::Path;

use anyhow::{Context, Result};
use proto::{
    clock,
    operator::{OperatorSecret, PROOF},
};
use tonic::Request;

use super::CALL_TIMEOUT;

/// Proves with each call that it knows the operators' secret, if it was given one.
#[derive(Debug, Clone)]
pub(super) struct Operator(Option<OperatorSecret>);

impl Operator {
    /// # Errors
    /// The file holds no secret.
    pub(super) fn new(secret_file: Option<&Path>) -> Result<Self> {
        let read = |path: &Path| {
            OperatorSecret::read(path).with_context(|| format!("read {}", path.display()))
        };
        Ok(Self(secret_file.map(read).transpose()?))
    }

    /// A call that is to be answered soon.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = self.lasting_request(message);
        request.set_timeout(CALL_TIMEOUT);
        request
    }

    /// A call that takes as long as it takes.
    pub(super) fn lasting_request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(secret) = &self.0 {
            let proof = secret.proof(clock::wall_now());
            request.metadata_mut().insert(PROOF, proof.parse().expect("digits are ASCII"));
        }
        request
    }
}
