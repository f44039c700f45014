//! `host:port`, as text and on the wire.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use proto::v2;

use crate::ConfigError;

/// Where a server is reached. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Address(Arc<str>);

impl Address {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the port and without brackets.
    pub(crate) fn host(&self) -> &str {
        let host = self.0.rsplit_once(':').map_or(&*self.0, |(host, _)| host);
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    fn port(&self) -> i32 {
        self.0.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default()
    }

    /// The first usable one of several.
    pub(crate) fn from_wire(endpoints: Option<&v2::Endpoints>) -> Option<Self> {
        endpoints?.addresses.iter().find_map(|address| {
            let host = &address.host;
            let text = match host.contains(':') {
                true => format!("[{host}]:{}", address.port),
                false => format!("{host}:{}", address.port),
            };
            text.parse().ok()
        })
    }

    pub(crate) fn to_wire(&self) -> v2::Endpoints {
        let scheme = match self.host().parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => v2::AddressScheme::IPv4,
            Ok(IpAddr::V6(_)) => v2::AddressScheme::IPv6,
            Err(_) => v2::AddressScheme::DomainName,
        };
        let address = v2::Address { host: self.host().to_owned(), port: self.port() };
        v2::Endpoints { scheme: scheme.into(), addresses: vec![address] }
    }
}

impl FromStr for Address {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let wrong = || ConfigError::Address { text: text.to_owned() };
        let text = text.trim();
        let text = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let port = port.parse::<u16>().map_err(|_| wrong())?;
        let odd = |c: char| c.is_whitespace() || matches!(c, '/' | '@' | ';' | ',' | '?' | '#');
        let host_is_wrong = match bare {
            Some(bare) => bare.parse::<IpAddr>().is_err(),
            None => host.is_empty() || host.contains(':') || host.contains(odd),
        };
        if host_is_wrong || port == 0 { Err(wrong()) } else { Ok(Self(text.into())) }
    }
}

/// The addresses of a list; RocketMQ separates them by `;`, `,` works as well.
pub(crate) fn list(text: &str) -> Result<Vec<Address>, ConfigError> {
    let mut found = Vec::new();
    for one in text.split([';', ',']).map(str::trim).filter(|one| !one.is_empty()) {
        let address = one.parse()?;
        if !found.contains(&address) {
            found.push(address);
        }
    }
    if found.is_empty() { Err(ConfigError::NoAccessPoint) } else { Ok(found) }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_at_either_mark_and_hold_each_address_once() {
        let found = list("10.0.0.1:9876; mq.example:9876,10.0.0.1:9876").unwrap();
        let found: Vec<_> = found.iter().map(Address::as_str).collect();
        assert_eq!(found, ["10.0.0.1:9876", "mq.example:9876"]);
        assert_eq!(list(" ; "), Err(ConfigError::NoAccessPoint));
    }

    #[test]
    fn what_is_not_host_and_port_is_refused() {
        for wrong in
            ["", "host", "host:", ":1", "host:0", "host:70000", "a b:1", "::1:9876", "[x]:1"]
        {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
        assert!("http://mq.example:8080".parse::<Address>().is_ok());
    }

    #[test]
    fn an_address_survives_the_wire() {
        for text in ["10.0.0.1:9876", "[::1]:8081", "mq.example:80"] {
            let address: Address = text.parse().unwrap();
            assert_eq!(Address::from_wire(Some(&address.to_wire())), Some(address));
        }
        assert_eq!(Address::from_wire(None), None);
        assert_eq!(Address::from_wire(Some(&v2::Endpoints::default())), None);
    }
}
