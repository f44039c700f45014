//! Connections under TLS.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use crate::{ConfigError, Error};

/// Whether connections are under TLS, and whom they trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Plaintext.
    Off,
    /// Encrypted, without a look at the server's certificate: protects against those who listen,
    /// not against those who stand in between. What the Java, Go, C++ and C# clients do.
    Unverified,
    /// The server must show a certificate that one of these signed, for the name that was dialled.
    Roots {
        /// Certificates in PEM.
        pem: Vec<u8>,
    },
}

impl Tls {
    /// The set-up for rustls, for HTTP/2; `None` for plaintext.
    ///
    /// # Errors
    /// The roots hold no certificate, or one that is none.
    pub fn config(&self) -> Result<Option<Arc<ClientConfig>>, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| refused(&error))?;
        let mut config = match self {
            Self::Off => return Ok(None),
            Self::Unverified => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anything(provider)))
                .with_no_client_auth(),
            Self::Roots { pem } => {
                builder.with_root_certificates(roots(pem)?).with_no_client_auth()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Some(Arc::new(config)))
    }
}

fn roots(pem: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| refused(&error))?;
        roots.add(certificate).map_err(|error| refused(&error))?;
    }
    if roots.is_empty() { Err(refused(&"no certificate in the PEM text")) } else { Ok(roots) }
}

fn refused(reason: &dyn std::fmt::Display) -> Error {
    ConfigError::Tls { reason: reason.to_string() }.into()
}

/// Accepts whatever the server shows, as long as it holds the key to it.
#[derive(Debug)]
struct Anything(Arc<CryptoProvider>);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_certificates_is_refused() {
        assert!(Tls::Roots { pem: b"hello".to_vec() }.config().is_err());
        assert!(Tls::Off.config().unwrap().is_none());
        assert!(Tls::Unverified.config().unwrap().is_some());
    }
}
