//! Connections by address: made on first use, kept, re-made by themselves when they break.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use proto::{limits, v2::messaging_service_client::MessagingServiceClient};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::{ClientConfig, ConfigError, Error, address::Address};

/// Enough that a batch of large messages is not held up by flow control.
const WINDOW_BYTES: u32 = 8 << 20;
/// A server that is silent is asked whether it lives this often...
const PING: Duration = Duration::from_secs(5);
/// ...and given up when it does not say so in time. A frozen machine resets no connection.
const PONG: Duration = Duration::from_secs(3);
/// Addresses that are kept. A cluster has fewer; one that has more loses the idle ones.
const ADDRESSES: usize = 1024;

/// The service of the official protocol at one address.
pub(crate) type Messaging = MessagingServiceClient<Channel>;

#[derive(Debug)]
pub(crate) struct Pool {
    channels: Mutex<HashMap<Address, Channel>>,
    connect_timeout: Duration,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Pool {
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, Error> {
        let (tls, connect_timeout) = (config.tls.config()?, config.connect_timeout);
        Ok(Self { channels: Mutex::default(), connect_timeout, tls })
    }

    pub(crate) fn messaging(&self, address: &Address) -> Result<Messaging, Error> {
        Ok(MessagingServiceClient::new(self.channel(address)?)
            .max_decoding_message_size(limits::GRPC_BYTES)
            .max_encoding_message_size(limits::GRPC_BYTES))
    }

    /// Calls over it fail as long as the address does not answer, and dial it again each time.
    pub(crate) fn channel(&self, address: &Address) -> Result<Channel, Error> {
        let mut channels = self.channels.lock().expect("no holder panics");
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        if channels.len() >= ADDRESSES {
            channels.clear();
        }
        let channel = self.dial(address)?;
        channels.insert(address.clone(), channel.clone());
        Ok(channel)
    }

    fn dial(&self, address: &Address) -> Result<Channel, Error> {
        let wrong = |_| ConfigError::Address { text: address.as_str().to_owned() };
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(wrong)?
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .keep_alive_while_idle(true);
        let Some(tls) = &self.tls else { return Ok(endpoint.connect_lazy()) };
        let name = ServerName::try_from(address.host().to_owned())
            .map_err(|_| ConfigError::Address { text: address.as_str().to_owned() })?;
        let connector = TlsConnector::from(Arc::clone(tls));
        let address = address.clone();
        Ok(endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
            let (connector, name, address) = (connector.clone(), name.clone(), address.clone());
            async move {
                let stream = TcpStream::connect(address.as_str()).await?;
                stream.set_nodelay(true)?;
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
            }
        })))
    }
}
