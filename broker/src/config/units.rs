//! Values with a unit or a grammar: sizes, address lists, the list of voters.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A number of bytes; written `512`, `64KiB`, `4MiB` or `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub u64);

const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Size {
    /// So many mebibytes.
    pub const fn mib(count: u64) -> Self {
        Size(count << 20)
    }

    /// The size in memory's own type; saturates where that is narrower.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, unit)| self.0 > 0 && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("{text:?} is not a size: write 512, 64KiB, 4MiB or 1GiB");
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| text.strip_suffix(name).map(|digits| (digits, *unit)))
            .unwrap_or((text, 1));
        let count: u64 = digits.trim().parse().map_err(|_| wanted())?;
        count.checked_mul(unit).map(Size).ok_or_else(wanted)
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Size> for String {
    fn from(size: Size) -> String {
        size.to_string()
    }
}

/// A list of `host:port`, separated by `,` or (as RocketMQ writes it) `;`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Addresses(pub Vec<String>);

impl FromStr for Addresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut found: Vec<String> = Vec::new();
        for address in text.split([',', ';']).map(str::trim).filter(|part| !part.is_empty()) {
            check_address(address)?;
            if !found.iter().any(|known| known == address) {
                found.push(address.to_owned());
            }
        }
        Ok(Addresses(found))
    }
}

impl TryFrom<String> for Addresses {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Addresses> for String {
    fn from(list: Addresses) -> String {
        list.0.join(",")
    }
}

/// The initial voters: `1=host:port,2=host:port,3=host:port`. Ids are positive and unique, and so
/// are the addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Peers(pub BTreeMap<u64, String>);

impl Peers {
    /// A group of one.
    pub fn one(node_id: u64, address: &str) -> Self {
        Peers(BTreeMap::from([(node_id, address.to_owned())]))
    }
}

impl FromStr for Peers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut peers = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let Some((id, address)) = part.split_once('=') else {
                return Err(format!("peer {part:?} is not ID=HOST:PORT"));
            };
            let id: u64 = match id.trim().parse() {
                Ok(0) | Err(_) => return Err(format!("peer id {id:?} is not a positive number")),
                Ok(id) => id,
            };
            let address = address.trim();
            check_address(address)?;
            if let Some((other, _)) = peers.iter().find(|(_, known)| *known == address) {
                return Err(format!("peers {other} and {id} share the address {address}"));
            }
            if peers.insert(id, address.to_owned()).is_some() {
                return Err(format!("peer id {id} is listed twice"));
            }
        }
        Ok(Peers(peers))
    }
}

impl TryFrom<String> for Peers {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Peers> for String {
    fn from(peers: Peers) -> String {
        let parts: Vec<String> = peers.0.iter().map(|(id, at)| format!("{id}={at}")).collect();
        parts.join(",")
    }
}

/// `host:port` with a host and a port number. Names are resolved when they are dialled.
pub fn check_address(text: &str) -> Result<(), String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(()),
        Some(_) | None => Err(format!("{text:?} is not HOST:PORT")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written_with_their_units() {
        assert_eq!("4MiB".parse(), Ok(Size(4 << 20)));
        assert_eq!("512".parse(), Ok(Size(512)));
        assert_eq!(Size(1 << 30).to_string(), "1GiB");
        assert_eq!(Size(1536).to_string(), "1536");
        assert!("4 apples".parse::<Size>().is_err());
        assert!("99999999999GiB".parse::<Size>().is_err());
    }

    #[test]
    fn a_peer_list_says_what_is_wrong_with_it() {
        let error = |text: &str| text.parse::<Peers>().expect_err("a bad list");
        assert!(error("127.0.0.1:1").contains("ID=HOST:PORT"));
        assert!(error("0=127.0.0.1:1").contains("positive"));
        assert!(error("1=127.0.0.1").contains("HOST:PORT"));
        assert!(error("1=a:1,1=b:1").contains("twice"));
        assert!(error("1=a:1,2=a:1").contains("share"));
        assert_eq!("2=b:2, 1=a:1".parse::<Peers>().map(String::from), Ok("1=a:1,2=b:2".into()));
    }

    #[test]
    fn name_servers_may_be_separated_as_rocketmq_does() {
        let list: Addresses = "a:1;b:2,a:1".parse().expect("two addresses");
        assert_eq!(list.0, ["a:1", "b:2"]);
    }
}
