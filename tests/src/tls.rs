//! A TLS client that does not verify, as the Java, Go, C++ and C# clients are by default.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use raftmq_client::Tls;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

async fn connect(address: SocketAddr) -> Result<TlsStream<TcpStream>> {
    let config = Tls::Unverified.config()?.context("no plaintext")?;
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::from(address.ip());
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    let protocol = stream.get_ref().1.alpn_protocol();
    ensure!(protocol == Some(b"h2"), "h2 is negotiated, not {protocol:?}");
    Ok(stream)
}

/// A channel over TLS that does not verify.
pub async fn channel(address: SocketAddr) -> Result<Channel> {
    let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| async move {
        let stream = connect(address).await.map_err(std::io::Error::other)?;
        Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint.connect_with_connector(connector).await?)
}

/// The certificate that the server at `address` shows, as PEM.
pub async fn certificate_of(address: SocketAddr) -> Result<String> {
    let stream = connect(address).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|all| all.first());
    let text = base64(shown.context("no certificate")?.as_ref());
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
        .collect();
    let body = lines.join("\n");
    Ok(format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"))
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte));
        let group = group << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let symbol = ALPHABET[(group >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(symbol) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_as_everywhere() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(super::base64(plain.as_bytes()), coded);
        }
    }
}
