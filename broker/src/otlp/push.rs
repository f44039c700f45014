//! One push: a connection, a request, an answer.

use std::{fmt, str::FromStr, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

/// RocketMQ's.
const PATIENCE: Duration = Duration::from_secs(3);
/// Where collectors take metrics.
const PATH: &str = "/v1/metrics";

/// Where a collector listens: `http://HOST:PORT`, with a path if it is not the usual one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    path: String,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("http://").ok_or_else(|| {
            "must be http://HOST:PORT; for TLS, run a collector beside the broker".to_owned()
        })?;
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        crate::config::check_address(host)?;
        let path = if path.len() > 1 { path } else { PATH };
        Ok(Endpoint { host: host.to_owned(), path: path.to_owned() })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.host, self.path)
    }
}

/// Why a push did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Nobody accepts.
    #[error("connect: {0}")]
    Connect(std::io::Error),
    /// It broke off.
    #[error("send: {0}")]
    Send(#[from] hyper::Error),
    /// It did not want it.
    #[error("the collector answered {0}")]
    Refused(StatusCode),
    /// No answer within 3 s.
    #[error("no answer within {PATIENCE:?}")]
    TimedOut,
}

pub(super) async fn push(endpoint: &Endpoint, body: Vec<u8>) -> Result<(), PushError> {
    timeout(PATIENCE, try_push(endpoint, body)).await.unwrap_or(Err(PushError::TimedOut))
}

async fn try_push(endpoint: &Endpoint, body: Vec<u8>) -> Result<(), PushError> {
    let stream = TcpStream::connect(&endpoint.host).await.map_err(PushError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::post(&endpoint.path)
        .header(header::HOST, &endpoint.host)
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .body(Full::new(Bytes::from(body)))
        .expect("an endpoint is a valid header");
    // The connection works for as long as somebody polls it, and nobody needs it afterwards.
    let status = tokio::select! {
        answer = sender.send_request(request) => answer?.status(),
        ended = connection => return Err(ended.err().map_or(PushError::TimedOut, PushError::Send)),
    };
    if status.is_success() { Ok(()) } else { Err(PushError::Refused(status)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_and_perhaps_a_path() {
        let shown = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.to_string());
        assert_eq!(shown("http://h:4318").unwrap(), "http://h:4318/v1/metrics");
        assert_eq!(shown("http://h:4318/").unwrap(), "http://h:4318/v1/metrics");
        assert_eq!(shown("http://h:4318/x/y").unwrap(), "http://h:4318/x/y");
        assert!(shown("https://h:4318").unwrap_err().contains("TLS"));
        assert!(shown("http://h").is_err());
    }
}
