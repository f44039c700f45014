//! What nodes add to a client's call when one forwards it to another.
//!
//! A call is forwarded once at most: whoever receives it with the mark serves it or refuses it.

use tonic::{
    Code, Status,
    metadata::{AsciiMetadataValue, MetadataMap},
};

use crate::{BrokerName, InvalidName};

/// On a request: the broker that the sender takes for the leader.
pub const HOP: &str = "x-raftmq-hop";
/// On a receive call: names it, see [`CallId`].
pub const CALL: &str = "x-raftmq-call";
/// On a refusal: how the request ended; `not-done` or `unknown`.
pub const FATE: &str = "x-raftmq-fate";
/// On a refusal: `host:port` of the leader's client port.
pub const LEADER: &str = "x-raftmq-leader";

/// Names a receive call, so that its access point can say what became of the answer. An attempt at
/// another node is another call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId {
    /// The boot id of the access point.
    pub access_point: u64,
    /// Differs from call to call.
    pub number: u64,
}

/// Names a forwarded call.
pub fn name_call(request: &mut MetadataMap, call: CallId) {
    let text = format!("{:x}-{:x}", call.access_point, call.number);
    request.insert(CALL, ascii(&text).expect("digits are ASCII"));
}

/// The name of a forwarded call; `None` when it has none that can be read.
pub fn call(request: &MetadataMap) -> Option<CallId> {
    let (access_point, number) = request.get(CALL)?.to_str().ok()?.split_once('-')?;
    let hex = |digits| u64::from_str_radix(digits, 16).ok();
    Some(CallId { access_point: hex(access_point)?, number: hex(number)? })
}

/// How a request ended that got no answer in RocketMQ's own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It had no effect and never will: it can be tried again, here or at the leader.
    NotDone,
    /// It may have had its effect, or may yet have it.
    Unknown,
}

impl Fate {
    fn as_str(self) -> &'static str {
        match self {
            Self::NotDone => "not-done",
            Self::Unknown => "unknown",
        }
    }
}

/// Marks a request as forwarded to the group of this name.
pub fn mark(request: &mut MetadataMap, asked: &BrokerName) {
    request.insert(HOP, ascii(asked.as_str()).expect("broker names are ASCII"));
}

/// The broker that a forwarded request is for; `None` when it comes from a client.
pub fn asked(request: &MetadataMap) -> Result<Option<BrokerName>, InvalidName> {
    match request.get(HOP) {
        // What is not text cannot be a name, and an empty name says so.
        Some(value) => value.to_str().unwrap_or_default().parse().map(Some),
        None => Ok(None),
    }
}

/// The refusal of a request that had no effect, with the leader's client address if it is known.
pub fn not_done(why: &str, leader: Option<&str>) -> Status {
    refuse(why, Fate::NotDone, leader)
}

/// The refusal of a request that may have had its effect.
pub fn unknown(why: &str) -> Status {
    refuse(why, Fate::Unknown, None)
}

fn refuse(why: &str, fate: Fate, leader: Option<&str>) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(FATE, AsciiMetadataValue::from_static(fate.as_str()));
    // An address that is not ASCII could not be dialled either.
    if let Some(leader) = leader.and_then(ascii) {
        metadata.insert(LEADER, leader);
    }
    Status::with_metadata(Code::Unavailable, why, metadata)
}

/// What a refusal says of the request's end; `None` when it says nothing, for instance because the
/// connection broke.
pub fn fate(refusal: &Status) -> Option<Fate> {
    let text = refusal.metadata().get(FATE)?.to_str().ok()?;
    [Fate::NotDone, Fate::Unknown].into_iter().find(|fate| fate.as_str() == text)
}

/// The leader's client address, if the refusal names it.
pub fn leader(refusal: &Status) -> Option<&str> {
    refusal.metadata().get(LEADER)?.to_str().ok()
}

fn ascii(text: &str) -> Option<AsciiMetadataValue> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back() {
        let broker: BrokerName = "broker-a".parse().unwrap();
        let mut request = MetadataMap::new();
        assert_eq!(asked(&request), Ok(None));
        mark(&mut request, &broker);
        assert_eq!(asked(&request), Ok(Some(broker)));
        request.insert(HOP, ascii("a/b").unwrap());
        assert!(asked(&request).is_err());
    }

    #[test]
    fn the_name_of_a_call_is_read_back() {
        let mut request = MetadataMap::new();
        assert_eq!(call(&request), None);
        let id = CallId { access_point: u64::MAX, number: 7 };
        name_call(&mut request, id);
        assert_eq!(call(&request), Some(id));
        for odd in ["7", "-", "x-1", "1-"] {
            request.insert(CALL, ascii(odd).unwrap());
            assert_eq!(call(&request), None, "{odd}");
        }
    }

    #[test]
    fn a_refusal_tells_its_fate_and_the_leader() {
        let refusal = not_done("not the leader", Some("10.0.0.2:8081"));
        assert_eq!(refusal.code(), Code::Unavailable);
        assert_eq!(fate(&refusal), Some(Fate::NotDone));
        assert_eq!(leader(&refusal), Some("10.0.0.2:8081"));

        let refusal = unknown("leadership lost while proposing");
        assert_eq!(fate(&refusal), Some(Fate::Unknown));
        assert_eq!(leader(&refusal), None);
    }

    #[test]
    fn a_broken_connection_tells_nothing() {
        assert_eq!(fate(&Status::unavailable("connection reset")), None);
        let mut odd = not_done("", None);
        odd.metadata_mut().insert(FATE, ascii("maybe").unwrap());
        assert_eq!(fate(&odd), None);
    }
}
