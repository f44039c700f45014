//! Where derived state is kept: an ordered key-value store, and the schema in it.
//!
//! The log is the truth; everything here can be rebuilt from a checkpoint and the log after it.
//! What one call of `apply` changes is written as one [`Batch`] together with the [`Frontier`]
//! that says how far it reaches, so that after a crash the store is as of some applied entry, and
//! the log from there on is applied again.
//!
//! | family | records |
//! |---|---|
//! | [`Family::State`] | [`frontier`], [`membership`], [`topic`], [`consumer_group`], [`queue_head`], [`progress`], [`in_flight`], [`dead_letter`], [`redrive`], [`timer`], [`timer_counts`], [`recalled`], [`reset`], [`half`], [`resolution`], [`retained`], [`setting`], [`level`] |
//! | [`Family::Queue`] | [`consume_queue`] |
//! | [`Family::Dedupe`] | [`dedupe`] |
//! | [`Family::KeyLog`] | [`key_log`] |
//! | [`Family::Keys`] | [`message_key`] |
//!
//! One file per kind of record; `docs/protocol/keys.md` has the pictures. Integers are big-endian,
//! so that bytes sort as numbers, and must remain so.

pub mod consume_queue;
pub mod consumer_group;
pub mod dead_letter;
pub mod dedupe;
pub mod forget;
pub mod frontier;
pub mod group_standing;
pub mod half;
mod ids;
pub mod in_flight;
pub mod key_log;
pub mod level;
pub mod live_setting;
pub mod membership;
mod memory;
pub mod message_key;
pub mod next_ids;
pub mod progress;
pub mod queue_head;
pub mod quota;
pub mod recalled;
pub mod redrive;
pub mod reset;
pub mod resolution;
pub mod retained;
mod rocks;
pub mod setting;
mod text;
pub mod timer;
pub mod timer_counts;
pub mod topic;
pub mod topic_standing;

use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

pub use frontier::Frontier;
pub use ids::{ConsumerGroupId, TopicId};
pub use memory::Memory;
pub use rocks::{Rocks, RocksConfig};

/// An ordered key-value store with named families.
///
/// Two implementations: [`Rocks`] on a disk, [`Memory`] for simulation.
pub trait Kv: fmt::Debug + Send + Sync + 'static {
    /// The value of `key`, as of the last [`Kv::write`].
    ///
    /// # Errors
    /// The store cannot be read.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// Shows the records with keys in `from..below` in ascending order, until `visit` breaks.
    ///
    /// # Errors
    /// The store cannot be read, or `visit` failed.
    fn scan(
        &self,
        family: Family,
        from: &[u8],
        below: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), Error>;

    /// Performs the whole batch or nothing. Visible when this returns; durable with the next
    /// [`Kv::flush`]. After a crash the store holds every batch up to some point and none after.
    ///
    /// # Errors
    /// The store cannot be written. What it holds then is unknown: stop using it.
    fn write(&self, batch: &Batch) -> Result<(), Error>;

    /// Makes every batch written so far durable, at once or soon.
    ///
    /// # Errors
    /// The store cannot be written.
    fn flush(&self, when: Durable) -> Result<(), Error>;

    /// The records of `family` below `key` are not needed any more. They may disappear now, later
    /// or never.
    ///
    /// # Errors
    /// The store cannot be written.
    fn trim(&self, family: Family, key: &[u8]) -> Result<(), Error>;

    /// Writes a durable copy into the directory `into`, which is created: every batch up to some
    /// point, at least those written before the call, and none after. Shows `look` what the copy
    /// holds. Writes go on meanwhile.
    ///
    /// # Errors
    /// The copy cannot be written or read, or `look` failed; the store itself is as it was.
    fn checkpoint(&self, into: &Path, look: &mut Look<'_>) -> Result<(), Error>;

    /// Reads about `bytes` bytes of `family` from the key `from` on, and compares what is on the disk
    /// with its checksums. Returns how many were read, and where to go on, if there is more.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn reread(
        &self,
        family: Family,
        from: &[u8],
        bytes: u64,
    ) -> Result<(u64, Option<Vec<u8>>), Error>;

    /// Puts the copy in the directory `from` in the place of everything in the store. Nobody may
    /// use the store meanwhile. If a crash interrupts it, the store may be empty.
    ///
    /// # Errors
    /// What the store holds then is unknown: stop using it.
    fn restore(&self, from: &Path) -> Result<(), Error>;
}

/// Is shown a key and a value, and says whether to go on.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Error> + 'a;

/// Is shown a copy of a store.
pub type Look<'a> = dyn FnMut(&dyn Kv) -> Result<(), Error> + 'a;

/// When a flush has to be through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// When the call returns.
    Now,
    /// In the background.
    Soon,
}

/// Parts of the store that differ in how they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Small records that change in place.
    State,
    /// Consume queues: each queue grows at its end.
    Queue,
    /// Ascending keys; old ones are trimmed.
    Dedupe,
    /// Ascending keys; old ones are trimmed.
    KeyLog,
    /// Ascending keys.
    Keys,
}

impl Family {
    pub const ALL: [Self; 5] = [Self::State, Self::Queue, Self::Dedupe, Self::KeyLog, Self::Keys];

    /// Persisted.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Queue => "queue",
            Self::Dedupe => "dedupe",
            Self::KeyLog => "key-log",
            Self::Keys => "keys",
        }
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// First byte of the keys in [`Family::State`]. Persisted: never reuse one.
mod prefix {
    pub(super) const FRONTIER: u8 = 0;
    pub(super) const MEMBERSHIP: u8 = 1;
    pub(super) const TOPIC: u8 = 2;
    pub(super) const CONSUMER_GROUP: u8 = 3;
    pub(super) const QUEUE_HEAD: u8 = 4;
    pub(super) const PROGRESS: u8 = 5;
    pub(super) const IN_FLIGHT: u8 = 6;
    pub(super) const TOPIC_STANDING: u8 = 0x30;
    pub(super) const GROUP_STANDING: u8 = 0x31;
    pub(super) const NEXT_IDS: u8 = 0x32;
    pub(super) const QUOTA: u8 = 0x33;
    pub(super) const TIMER: u8 = 0x18;
    pub(super) const TIMER_COUNTERS: u8 = 0x19;
    pub(super) const TIMER_COUNT: u8 = 0x1a;
    pub(super) const RECALLED: u8 = 0x1b;
    pub(super) const RESET: u8 = 0x28;
    pub(super) const DEAD_LETTER: u8 = 0x10;
    pub(super) const REDRIVE: u8 = 0x11;
    pub(super) const HALF: u8 = 0x20;
    pub(super) const RESOLUTION: u8 = 0x21;
    pub(super) const RETAINED: u8 = 0x3c;
    pub(super) const SEGMENT_START: u8 = 0x3d;
    pub(super) const RETAINED_MARK: u8 = 0x3e;
    pub(super) const SETTING: u8 = 0x44;
    pub(super) const LIVE_SETTING: u8 = 0x45;
    pub(super) const LEVEL: u8 = 0x5f;
}

/// What kind of record a key is of, in words.
#[must_use]
pub fn kind(family: Family, key: &[u8]) -> &'static str {
    if family != Family::State {
        return family.name();
    }
    match key.first().copied().unwrap_or(u8::MAX) {
        prefix::FRONTIER => "frontier",
        prefix::MEMBERSHIP => "membership",
        prefix::TOPIC => "topic",
        prefix::CONSUMER_GROUP => "consumer-group",
        prefix::QUEUE_HEAD => "queue-head",
        prefix::PROGRESS => "progress",
        prefix::IN_FLIGHT => "in-flight",
        prefix::TOPIC_STANDING => "topic-standing",
        prefix::GROUP_STANDING => "group-standing",
        prefix::NEXT_IDS => "next-ids",
        prefix::QUOTA => "quota",
        prefix::TIMER => "timer",
        prefix::TIMER_COUNTERS => "timer-counters",
        prefix::TIMER_COUNT => "timer-count",
        prefix::RECALLED => "recalled",
        prefix::RESET => "reset",
        prefix::DEAD_LETTER => "dead-letter",
        prefix::REDRIVE => "redrive",
        prefix::HALF => "half",
        prefix::RESOLUTION => "resolution",
        prefix::RETAINED => "retained",
        prefix::SEGMENT_START => "segment-start",
        prefix::RETAINED_MARK => "retained-mark",
        prefix::SETTING => "setting",
        prefix::LIVE_SETTING => "live-setting",
        _ => "unknown",
    }
}

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{action} key-value store")]
    Store { action: &'static str, source: rocksdb::Error },
    #[error("{action} {path}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{record} record is damaged: {problem} (key {key})")]
    Corrupt { record: &'static str, problem: &'static str, key: Hex },
    #[error("{path} is no copy of a store: {problem}")]
    Copy { path: PathBuf, problem: &'static str },
    #[error(
        "the state has schema version {found}, this release reads {supported}: start the release \
         that wrote it, or a newer one that reads both; nothing was changed"
    )]
    Schema { found: u8, supported: u8 },
    #[error(
        "the group was raised to feature level {found}, this release understands up to \
         {supported}: start the release that this node ran before, or a newer one; nothing was \
         changed"
    )]
    Level { found: u32, supported: u32 },
}

impl Error {
    /// What the store holds is not what was written to it. What a full disk or a failed write did
    /// is no damage.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Error::Store { source, .. } => {
                let text = source.as_ref();
                source.kind() == rocksdb::ErrorKind::Corruption
                    // What a disk answers that cannot read any more, or a name that damage changed.
                    || (source.kind() == rocksdb::ErrorKind::IOError
                        && ["Input/output error", "No such file"].iter().any(|why| text.contains(why)))
            }
            Error::Corrupt { .. } => true,
            Error::Io { .. } | Error::Copy { .. } | Error::Schema { .. } | Error::Level { .. } => {
                false
            }
        }
    }
}

/// Bytes for an error message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hex(Vec<u8>);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn corrupt(record: &'static str, problem: &'static str, key: &[u8]) -> Error {
    Error::Corrupt { record, problem, key: Hex(key.to_vec()) }
}

/// Changes that happen together, in order.
#[derive(Debug, Default, Clone)]
pub struct Batch {
    bytes: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Debug, Clone, Copy)]
struct Change {
    family: Family,
    start: usize,
    key_len: usize,
    what: What,
}

/// What happens to a key, and how many bytes follow it.
#[derive(Debug, Clone, Copy)]
enum What {
    Put(usize),
    Delete,
    /// The key is where the range begins; what follows is where it ends.
    DeleteRange(usize),
}

/// One of the changes of a batch.
#[derive(Debug, Clone, Copy)]
enum Edit<'a> {
    Put { key: &'a [u8], value: &'a [u8] },
    Delete { key: &'a [u8] },
    DeleteRange { from: &'a [u8], below: &'a [u8] },
}

impl Batch {
    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.changes.push(Change {
            family,
            start,
            key_len: key.len(),
            what: What::Put(value.len()),
        });
    }

    pub fn delete(&mut self, family: Family, key: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.changes.push(Change { family, start, key_len: key.len(), what: What::Delete });
    }

    /// Deletes every key in `from..below`.
    pub fn delete_range(&mut self, family: Family, from: &[u8], below: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(from);
        self.bytes.extend_from_slice(below);
        let what = What::DeleteRange(below.len());
        self.changes.push(Change { family, start, key_len: from.len(), what });
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Forgets the changes and keeps the memory for the next ones, up to a bound.
    pub fn clear(&mut self) {
        const KEPT_BYTES: usize = 1 << 20;
        const KEPT_CHANGES: usize = 1 << 14;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.changes.clear();
        self.changes.shrink_to(KEPT_CHANGES);
    }

    /// Each change and where it happens.
    fn changes(&self) -> impl Iterator<Item = (Family, Edit<'_>)> {
        self.changes.iter().map(|c| {
            let (key, rest) = self.bytes[c.start..].split_at(c.key_len);
            let edit = match c.what {
                What::Put(len) => Edit::Put { key, value: &rest[..len] },
                What::Delete => Edit::Delete { key },
                What::DeleteRange(len) => Edit::DeleteRange { from: key, below: &rest[..len] },
            };
            (c.family, edit)
        })
    }
}
