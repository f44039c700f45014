//! Messages that differ only in their ids and stamps, made by copying and patching one that is
//! already encoded: the load generator should not be the bottleneck.

use std::time::Instant;

use anyhow::{Result, ensure};
use bytes::Bytes;
use prost::Message;
use proto::{Topic, clock, v2};
use rand::Rng;

/// At the beginning of each body: which run sent it, which message it is, and when it was due.
pub(super) const STAMP_BYTES: usize = 32;

/// Long like the ids of official clients, and found nowhere else in a message.
const ID_PLACEHOLDER: &str = "01\u{7e}\u{7e}\u{7e}\u{7e}mqbench-id-placeholder-of-34";
const MAGIC: [u8; 8] = *b"mqbench1";

/// One run of this program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    id: u64,
    /// What the times in stamps are counted from.
    anchor: Instant,
}

/// What a message of this run says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) number: u64,
    pub(super) due: Instant,
}

impl Run {
    pub(super) fn new() -> Self {
        Self { id: rand::rng().next_u64(), anchor: Instant::now() }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    fn stamp(&self, stamp: Stamp) -> [u8; STAMP_BYTES] {
        let nanos = stamp.due.saturating_duration_since(self.anchor).as_nanos();
        let nanos = u64::try_from(nanos).expect("a run is shorter than 584 years");
        let mut bytes = [0; STAMP_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.id.to_be_bytes());
        bytes[16..24].copy_from_slice(&stamp.number.to_be_bytes());
        bytes[24..].copy_from_slice(&nanos.to_be_bytes());
        bytes
    }

    /// The stamp of a body; `None` when another run or another program made it.
    pub(super) fn read(&self, body: &[u8]) -> Option<Stamp> {
        let (stamp, _) = body.split_first_chunk::<STAMP_BYTES>()?;
        let number =
            |at: usize| u64::from_be_bytes(stamp[at..at + 8].try_into().expect("eight bytes"));
        if stamp[..8] != MAGIC || number(8) != self.id {
            return None;
        }
        let due = self.anchor.checked_add(std::time::Duration::from_nanos(number(24)))?;
        Some(Stamp { number: number(16), due })
    }
}

/// An encoded message with the places where messages differ.
#[derive(Clone, Debug)]
pub(super) struct Template {
    run: Run,
    encoded: Vec<u8>,
    ids_at: Vec<usize>,
    body_at: usize,
}

/// How all messages of a load look.
#[derive(Clone, Debug)]
pub(super) struct Look<'a> {
    pub(super) topic: &'a Topic,
    pub(super) size: usize,
    pub(super) tag: Option<&'a str>,
    /// Each message has its own id as its key.
    pub(super) keys: bool,
    /// The queue that the sender chose.
    pub(super) queue_id: i32,
}

impl Template {
    pub(super) fn new(run: Run, look: &Look<'_>) -> Result<Self> {
        ensure!(look.size >= STAMP_BYTES, "a body has at least {STAMP_BYTES} bytes");
        let mut body = vec![0; look.size];
        // Nothing on the way should find it easy to compress.
        rand::rng().fill_bytes(&mut body);
        let message = v2::Message {
            topic: Some(look.topic.to_resource()),
            user_properties: [].into(),
            system_properties: Some(v2::SystemProperties {
                tag: look.tag.map(str::to_owned),
                keys: look.keys.then(|| ID_PLACEHOLDER.to_owned()).into_iter().collect(),
                message_id: ID_PLACEHOLDER.to_owned(),
                body_encoding: v2::Encoding::Identity as i32,
                message_type: v2::MessageType::Normal as i32,
                born_timestamp: Some(clock::wall_now().into()),
                born_host: "mqbench".into(),
                queue_id: look.queue_id,
                ..v2::SystemProperties::default()
            }),
            body: body.into(),
        };
        let encoded = message.encode_to_vec();
        let body_at = encoded.len() - look.size;
        let ids_at: Vec<_> = encoded[..body_at]
            .windows(ID_PLACEHOLDER.len())
            .enumerate()
            .filter(|(_, window)| *window == ID_PLACEHOLDER.as_bytes())
            .map(|(at, _)| at)
            .collect();
        assert_eq!(ids_at.len(), 1 + usize::from(look.keys), "an id for each place");
        Ok(Self { run, encoded, ids_at, body_at })
    }

    /// The encoded message of this number.
    pub(super) fn message(&self, stamp: Stamp) -> Bytes {
        let mut encoded = self.encoded.clone();
        // "01" is the version of the ids that official clients make.
        let id = format!("01{:016X}{:016X}", self.run.id, stamp.number);
        for &at in &self.ids_at {
            encoded[at..at + id.len()].copy_from_slice(id.as_bytes());
        }
        encoded[self.body_at..self.body_at + STAMP_BYTES].copy_from_slice(&self.run.stamp(stamp));
        encoded.into()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proto::message;

    use super::*;

    fn template(run: Run, keys: bool) -> Template {
        let topic = "orders".parse().unwrap();
        let look = Look { topic: &topic, size: 100, tag: Some("t"), keys, queue_id: 3 };
        Template::new(run, &look).unwrap()
    }

    #[test]
    fn every_message_passes_the_checks_of_a_broker_and_has_its_own_id() {
        let run = Run::new();
        let template = template(run, true);
        let number = |number| {
            let encoded = template.message(Stamp { number, due: Instant::now() });
            let message = v2::Message::decode(encoded).unwrap();
            message::check(&message, &message::Rules::default(), clock::wall_now()).unwrap();
            assert_eq!(message.body.len(), 100);
            let system = message.system_properties.unwrap();
            assert_eq!(system.queue_id, 3);
            assert_eq!(system.keys, std::slice::from_ref(&system.message_id));
            system.message_id
        };
        assert_eq!(number(0).len(), 34);
        assert_ne!(number(0), number(1));
    }

    #[test]
    fn a_stamp_is_read_back_by_its_own_run_only() {
        let run = Run::new();
        let due = run.anchor + Duration::from_micros(1234);
        let stamp = Stamp { number: 7, due };
        let encoded = template(run, false).message(stamp);
        let body = v2::Message::decode(encoded).unwrap().body;
        assert_eq!(run.read(&body), Some(stamp));
        assert_eq!(Run { id: run.id ^ 1, ..run }.read(&body), None);
        assert_eq!(run.read(b"somebody else's"), None);
        assert_eq!(run.read(&[0; 100]), None);
    }
}
