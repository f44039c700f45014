//! Connections to access points.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tonic::transport::{Channel, Endpoint};

/// How long one address may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Enough that a batch of large messages is not held up by flow control.
const WINDOW_BYTES: u32 = 8 << 20;

/// The addresses in a list such as `a:9876;b:9876`; RocketMQ's tools use `;`, ours `,` as well.
pub fn addresses(list: &str) -> Vec<&str> {
    list.split([';', ',']).map(str::trim).filter(|address| !address.is_empty()).collect()
}

/// Connects to the first address of the list that accepts, and says which it was.
pub async fn dial(list: &str) -> Result<(Channel, String)> {
    let mut refusals = Vec::new();
    for address in addresses(list) {
        match dial_one(address).await {
            Ok(channel) => return Ok((channel, address.to_owned())),
            Err(error) => refusals.push(format!("{error:#}")),
        }
    }
    if refusals.is_empty() {
        bail!("no address given; an address is HOST:PORT, for instance 127.0.0.1:9876");
    }
    bail!(
        "{}; is a NameServer or a broker listening there? (`broker --dev` starts one)",
        refusals.join("; ")
    )
}

/// Connects to `HOST:PORT` over plaintext HTTP/2.
pub async fn dial_one(address: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .with_context(|| format!("{address:?} is not an address such as 127.0.0.1:9876"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    endpoint.connect().await.with_context(|| format!("connect to {address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_addresses_is_split_at_either_mark() {
        assert_eq!(addresses("a:1;b:2, c:3"), ["a:1", "b:2", "c:3"]);
        assert!(addresses(" ; ").is_empty());
    }

    #[tokio::test]
    async fn a_refused_connection_says_what_to_do() {
        // A port that was free a moment ago and has no listener.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = dial(&format!("127.0.0.1:{port}")).await.unwrap_err().to_string();
        assert!(error.contains(&port.to_string()) && error.contains("broker --dev"), "{error}");
        assert!(dial("").await.unwrap_err().to_string().contains("HOST:PORT"));
        assert!(dial("not an address").await.is_err());
    }
}
