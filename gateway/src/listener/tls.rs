//! The certificate that this node shows.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

/// A certificate chain with its key, ready to accept connections.
#[derive(Clone)]
pub struct TlsConfig(Arc<ServerConfig>);

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read certificates from {path}")]
    Certificates { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{path} holds no certificate")]
    NoCertificate { path: PathBuf },
    #[error("read private key from {path}")]
    Key { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("generate a certificate for {names:?}")]
    Generate { names: Vec<String>, source: rcgen::Error },
    #[error("use the certificate")]
    Unusable(#[from] rustls::Error),
}

impl TlsConfig {
    /// Makes a certificate for these host names and addresses, valid as long as the process runs.
    /// Clients that verify cannot trust it; those that encrypt without verification can use it.
    pub fn self_signed(names: &[String]) -> Result<Self, TlsError> {
        let names: Vec<String> = names.to_vec();
        let made = rcgen::generate_simple_self_signed(names.clone())
            .map_err(|source| TlsError::Generate { names, source })?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        Self::of(vec![made.cert.der().clone()], key.into())
    }

    /// Reads a certificate chain, the leaf first, and its private key, both as PEM.
    pub fn from_files(certificates: &Path, key: &Path) -> Result<Self, TlsError> {
        let path = || certificates.to_owned();
        let chain = CertificateDer::pem_file_iter(certificates)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|source| TlsError::Certificates { path: path(), source })?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate { path: path() });
        }
        let key = PrivateKeyDer::from_pem_file(key)
            .map_err(|source| TlsError::Key { path: key.to_owned(), source })?;
        Self::of(chain, key)
    }

    fn of(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        // Go and .NET insist on a negotiated h2.
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    pub(super) fn into_acceptor(self) -> TlsAcceptor {
        TlsAcceptor::from(self.0)
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig").finish_non_exhaustive()
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}
