//! Addresses as clients are given them: always exactly one, with its right scheme. Several clients
//! break on more.

use std::net::{IpAddr, SocketAddr};

use proto::v2::{Address, AddressScheme, Endpoints};

/// The `:authority` that a client sent: the address as it dialled it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialled(pub String);

/// One address as `Endpoints`; `None` when it is not `host:port`.
pub(crate) fn of_text(address: &str) -> Option<Endpoints> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return None;
    }
    Some(one(host, i32::from(port)))
}

fn one(host: &str, port: i32) -> Endpoints {
    let scheme = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => AddressScheme::IPv4,
        Ok(IpAddr::V6(_)) => AddressScheme::IPv6,
        Err(_) => AddressScheme::DomainName,
    };
    Endpoints { scheme: scheme.into(), addresses: vec![Address { host: host.to_owned(), port }] }
}

/// The address at which the client reached this node: by its own word, else by the `:authority` it
/// sent, else that of the socket. Of several that it names, the one that it is connected to.
pub(crate) fn dialled(
    said: Option<&Endpoints>,
    authority: Option<&Dialled>,
    local: SocketAddr,
) -> Endpoints {
    let said = said.and_then(|endpoints| {
        let addresses = &endpoints.addresses;
        let usable = |a: &&Address| !a.host.is_empty() && (1..=65535).contains(&a.port);
        let here = |a: &&Address| {
            i32::from(local.port()) == a.port && a.host.parse::<IpAddr>() == Ok(local.ip())
        };
        let connected = addresses.iter().filter(usable).find(here);
        connected.or_else(|| addresses.iter().find(usable)).map(|a| one(&a.host, a.port))
    });
    said.or_else(|| authority.and_then(|authority| of_text(&authority.0)))
        .unwrap_or_else(|| one(&local.ip().to_canonical().to_string(), i32::from(local.port())))
}

/// `host:port` of the only address.
pub(crate) fn to_text(endpoints: &Endpoints) -> String {
    endpoints.addresses.first().map_or_else(String::new, |a| match a.host.contains(':') {
        true => format!("[{}]:{}", a.host, a.port),
        false => format!("{}:{}", a.host, a.port),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> SocketAddr {
        "127.0.0.1:8081".parse().expect("an address")
    }

    fn many(addresses: &[(&str, i32)]) -> Endpoints {
        Endpoints {
            scheme: AddressScheme::IPv4.into(),
            addresses: addresses
                .iter()
                .map(|(host, port)| Address { host: (*host).to_owned(), port: *port })
                .collect(),
        }
    }

    #[test]
    fn the_scheme_follows_the_host() {
        let scheme = |text: &str| of_text(text).map(|endpoints| endpoints.scheme());
        assert_eq!(scheme("10.0.0.1:80"), Some(AddressScheme::IPv4));
        assert_eq!(scheme("[::1]:80"), Some(AddressScheme::IPv6));
        assert_eq!(scheme("mq.example:80"), Some(AddressScheme::DomainName));
        for text in ["", "host", "host:", ":80", "host:0", "host:99999"] {
            assert_eq!(scheme(text), None, "{text}");
        }
        assert_eq!(to_text(&of_text("[::1]:80").expect("valid")), "[::1]:80");
    }

    #[test]
    fn the_clients_word_counts_first() {
        let said = many(&[("mq.example", 9876)]);
        let authority = Dialled("other.example:1".into());
        let answer = dialled(Some(&said), Some(&authority), local());
        assert_eq!(to_text(&answer), "mq.example:9876");
        assert_eq!(answer.scheme(), AddressScheme::DomainName);
    }

    #[test]
    fn of_several_addresses_the_connected_one_is_given() {
        let said = many(&[("127.0.0.2", 8081), ("127.0.0.1", 8081)]);
        let answer = dialled(Some(&said), None, local());
        assert_eq!((answer.addresses.len(), to_text(&answer).as_str()), (1, "127.0.0.1:8081"));
        let elsewhere = many(&[("10.0.0.7", 1), ("10.0.0.8", 1)]);
        assert_eq!(to_text(&dialled(Some(&elsewhere), None, local())), "10.0.0.7:1");
    }

    #[test]
    fn without_a_word_the_authority_counts_and_then_the_socket() {
        let empty = many(&[]);
        let authority = Dialled("mq.example:9876".into());
        assert_eq!(to_text(&dialled(Some(&empty), Some(&authority), local())), "mq.example:9876");
        let literal = Dialled("IPAuthority".into());
        assert_eq!(to_text(&dialled(None, Some(&literal), local())), "127.0.0.1:8081");
    }
}
