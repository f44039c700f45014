//! How a client reaches the cluster, and how patient it is.

use std::time::Duration;

use proto::{ClientId, v2};

use crate::{
    ConfigError, Credentials, Discovery, Error, Tls,
    address::{self, Address},
    ids,
};

/// How long one attempt of a call may take, long polls aside: what the official clients use.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const HEARTBEAT: Duration = Duration::from_secs(10);
const ROUTE_REFRESH: Duration = Duration::from_secs(30);

/// Set-up that producers and consumers share. Clones can be given to several of them.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub(crate) discovery: Discovery,
    pub(crate) namespace: String,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) tls: Tls,
    pub(crate) request_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) heartbeat: Duration,
    pub(crate) route_refresh: Duration,
    pub(crate) client_id: Option<String>,
    pub(crate) direct: bool,
}

impl ClientConfig {
    /// A client of these access points (NameServers, brokers or proxies), for instance
    /// `10.0.0.1:9876;10.0.0.2:9876`. When one fails the next is asked.
    ///
    /// # Errors
    /// When one of them is not `host:port`.
    pub fn new(access_points: &str) -> Result<Self, Error> {
        Ok(Self::discovered_by(Discovery::fixed(access_points)?))
    }

    /// A client that finds its access points as RocketMQ's do: in `option` if the user gave one,
    /// else in the environment variable `NAMESRV_ADDR`, else at the HTTP endpoint that
    /// `ROCKETMQ_NAMESRV_DOMAIN` names.
    ///
    /// # Errors
    /// When none of them is there, or what is there cannot be read.
    pub fn discover(option: Option<&str>) -> Result<Self, Error> {
        Ok(Self::discovered_by(Discovery::of_user(option)?))
    }

    /// A client that finds its access points this way.
    #[must_use]
    pub fn discovered_by(discovery: Discovery) -> Self {
        Self {
            discovery,
            namespace: String::new(),
            credentials: None,
            tls: Tls::Off,
            request_timeout: REQUEST_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            heartbeat: HEARTBEAT,
            route_refresh: ROUTE_REFRESH,
            client_id: None,
            direct: true,
        }
    }

    /// Topics and consumer groups are those of this namespace. Default: none.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Signs every request. Default: anonymous.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Default: plaintext.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// How long one attempt of a call may take, long polls aside. Default: 3 s.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long a connection may take to be made. Default: 2 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Default: 10 s.
    #[must_use]
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.heartbeat = interval;
        self
    }

    /// How often routes are asked for anew. They are also asked for when a call fails. Default: 30 s.
    #[must_use]
    pub fn route_refresh_interval(mut self, interval: Duration) -> Self {
        self.route_refresh = interval;
        self
    }

    /// What the client calls itself. It must differ from that of every other client. Default: the
    /// machine, the process and a random number.
    #[must_use]
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = Some(id.into());
        self
    }

    /// Whether to ask for the cluster's topology and talk to leaders directly, where the access
    /// point tells it; one that does not is used as it is. Turn it off when brokers' own addresses
    /// cannot be reached from here. Default: on.
    #[must_use]
    pub fn direct(mut self, direct: bool) -> Self {
        self.direct = direct;
        self
    }

    pub(crate) fn check(&self) -> Result<ClientId, Error> {
        let durations = [
            ("the request timeout", self.request_timeout),
            ("the connect timeout", self.connect_timeout),
            ("the heartbeat interval", self.heartbeat),
            ("the route refresh interval", self.route_refresh),
        ];
        if let Some((setting, _)) = durations.iter().find(|(_, wait)| wait.is_zero()) {
            return Err(ConfigError::Zero { setting }.into());
        }
        let id = self.client_id.clone().unwrap_or_else(ids::client_id);
        Ok(id.parse()?)
    }

    /// A name within the client's namespace, as it is on the wire.
    pub(crate) fn resource(&self, name: &str) -> v2::Resource {
        v2::Resource { resource_namespace: self.namespace.clone(), name: name.to_owned() }
    }
}

impl Discovery {
    /// These access points, for as long as the client lives.
    ///
    /// # Errors
    /// When one of them is not `host:port`.
    pub fn fixed(access_points: &str) -> Result<Self, Error> {
        let addresses: Vec<Address> = address::list(access_points)?;
        Ok(Self::of_list(addresses))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let config = ClientConfig::new("127.0.0.1:9876").unwrap();
        assert!(config.check().is_ok());
        assert!(config.clone().heartbeat_interval(Duration::ZERO).check().is_err());
        assert!(config.client_id(" ").check().is_err());
        assert!(ClientConfig::new("nonsense").is_err());
    }
}
