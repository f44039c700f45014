//! What a node must remember apart from the log: its vote, its marks, and whose log this is.
//!
//! One file with two slots of 512 bytes, one page apart. A change is written to the first slot and
//! synced, then to the second and synced, and counts only then. So a crash leaves one of the two
//! whole, and a damaged slot always has a twin that is no older than anything that counted.

use std::io::{self, IoSlice};
use std::sync::Arc;

use crate::bug::Bug;
use crate::config::{BootId, GroupId};
use crate::disk::{Disk, DiskFile};
use crate::error::Error;
use crate::frame::{u32_at, u64_at};
use crate::position::{LogId, LogIndex, LogOffset, Term};

/// Name of the file.
pub(crate) const FILE: &str = "hardstate";
/// Versions of the file's layout: the second is that of a log which is being replaced. Older releases
/// do not know of that and must not touch it.
const VERSION: u32 = 1;
const VERSION_REPLACING: u32 = 2;
/// `RMQH` in file order.
const MAGIC: u32 = u32::from_le_bytes(*b"RMQH");
/// Bytes of one slot: a sector, so that disks write it whole.
pub(crate) const SLOT_LEN: usize = 512;
/// Where the slots start.
pub(crate) const SLOTS: [u64; 2] = [0, 4096];
/// Bytes of a vote, which is opaque here.
pub const VOTE_LEN: usize = 24;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HardState {
    /// Grows with every change.
    pub(crate) seq: u64,
    pub(crate) node_id: u64,
    pub(crate) group_id: Option<GroupId>,
    pub(crate) vote: Option<[u8; VOTE_LEN]>,
    pub(crate) purged: Option<LogId>,
    /// Known to be committed; may be older than the truth.
    pub(crate) committed: Option<LogIndex>,
    /// The log is durable below this; may be older than the truth.
    pub(crate) synced: LogOffset,
    /// The run of the operating system that wrote last.
    pub(crate) boot_id: Option<BootId>,
    /// The log was closed in order, and nothing was written since.
    pub(crate) clean: bool,
    /// A cut that was begun; the next start finishes it before it looks at anything else.
    pub(crate) cutting: Option<Cutting>,
    /// Another replica's log takes this one's place; the next start finishes it.
    pub(crate) replacing: Option<Replacing>,
    /// How far unsynced bytes could reach in the run that wrote last; 0 if it did not say.
    pub(crate) unsynced_bound: u64,
}

/// The log ends at `at`; up to `dirty_end` its files may still hold what is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cutting {
    pub(crate) at: LogOffset,
    pub(crate) dirty_end: LogOffset,
}

/// The log becomes what stands in the incoming segments from `first` on; it ends at `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replacing {
    pub(crate) first: LogOffset,
    pub(crate) end: LogOffset,
}

const HAS_GROUP: u8 = 1;
const HAS_VOTE: u8 = 2;
const HAS_PURGED: u8 = 4;
const HAS_COMMITTED: u8 = 8;
const HAS_BOOT: u8 = 16;
const CLEAN: u8 = 32;
const CUTTING: u8 = 64;
const REPLACING: u8 = 128;

fn flag(present: bool, bit: u8) -> u8 {
    if present { bit } else { 0 }
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(bytes[at..at + 16].try_into().expect("slice of sixteen bytes"))
}

impl HardState {
    pub(crate) fn encode(&self) -> [u8; SLOT_LEN] {
        let mut out = [0; SLOT_LEN];
        let purged = self.purged.unwrap_or_default();
        let cutting = self.cutting.unwrap_or_default();
        let replacing = self.replacing.unwrap_or_default();
        let version = if self.replacing.is_some() { VERSION_REPLACING } else { VERSION };
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[8..12].copy_from_slice(&version.to_le_bytes());
        out[12] = flag(self.group_id.is_some(), HAS_GROUP)
            | flag(self.vote.is_some(), HAS_VOTE)
            | flag(self.purged.is_some(), HAS_PURGED)
            | flag(self.committed.is_some(), HAS_COMMITTED)
            | flag(self.boot_id.is_some(), HAS_BOOT)
            | flag(self.clean, CLEAN)
            | flag(self.cutting.is_some(), CUTTING)
            | flag(self.replacing.is_some(), REPLACING);
        out[16..24].copy_from_slice(&self.seq.to_le_bytes());
        out[24..32].copy_from_slice(&self.node_id.to_le_bytes());
        out[32..48].copy_from_slice(&self.group_id.map_or(0, |id| id.0).to_le_bytes());
        out[48..72].copy_from_slice(&self.vote.unwrap_or_default());
        out[72..80].copy_from_slice(&purged.term.0.to_le_bytes());
        out[80..88].copy_from_slice(&purged.index.0.to_le_bytes());
        out[88..96].copy_from_slice(&self.committed.unwrap_or_default().0.to_le_bytes());
        out[96..104].copy_from_slice(&self.synced.0.to_le_bytes());
        out[104..120].copy_from_slice(&self.boot_id.unwrap_or_default().0.to_le_bytes());
        out[120..128].copy_from_slice(&cutting.at.0.to_le_bytes());
        out[128..136].copy_from_slice(&cutting.dirty_end.0.to_le_bytes());
        out[136..144].copy_from_slice(&self.unsynced_bound.to_le_bytes());
        out[144..152].copy_from_slice(&replacing.first.0.to_le_bytes());
        out[152..160].copy_from_slice(&replacing.end.0.to_le_bytes());
        let crc = crc32fast::hash(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// `Ok(None)` for a damaged slot.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Self>, Error> {
        if u32_at(bytes, 0) != MAGIC || u32_at(bytes, 4) != crc32fast::hash(&bytes[8..SLOT_LEN]) {
            return Ok(None);
        }
        let found = u32_at(bytes, 8);
        if found > VERSION_REPLACING {
            let supported = VERSION_REPLACING;
            return Err(Error::NewerVersion { file: FILE.to_owned(), found, supported });
        }
        let has = |bit| bytes[12] & bit != 0;
        let purged = LogId { term: Term(u64_at(bytes, 72)), index: LogIndex(u64_at(bytes, 80)) };
        let (at, dirty_end) = (LogOffset(u64_at(bytes, 120)), LogOffset(u64_at(bytes, 128)));
        let replacing =
            Replacing { first: LogOffset(u64_at(bytes, 144)), end: LogOffset(u64_at(bytes, 152)) };
        let vote: [u8; VOTE_LEN] = bytes[48..72].try_into().expect("slice of a vote's length");
        Ok(Some(Self {
            seq: u64_at(bytes, 16),
            node_id: u64_at(bytes, 24),
            group_id: has(HAS_GROUP).then(|| GroupId(u128_at(bytes, 32))),
            vote: has(HAS_VOTE).then_some(vote),
            purged: has(HAS_PURGED).then_some(purged),
            committed: has(HAS_COMMITTED).then(|| LogIndex(u64_at(bytes, 88))),
            synced: LogOffset(u64_at(bytes, 96)),
            boot_id: has(HAS_BOOT).then(|| BootId(u128_at(bytes, 104))),
            clean: has(CLEAN),
            cutting: has(CUTTING).then_some(Cutting { at, dirty_end }),
            replacing: has(REPLACING).then_some(replacing),
            unsynced_bound: u64_at(bytes, 136),
        }))
    }
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::io(action, FILE, source)
}

/// The file, and what it says.
#[derive(Debug)]
pub(crate) struct HardStateFile {
    file: Arc<dyn DiskFile>,
    state: HardState,
}

impl HardStateFile {
    /// Writes the first state of a new directory. Its name is durable when this returns.
    pub(crate) fn create(disk: &dyn Disk, state: HardState) -> Result<Self, Error> {
        let file = disk.create(FILE).map_err(failed("create"))?;
        let mut new = Self { file, state };
        new.save(state)?;
        disk.sync_dir().map_err(failed("sync the directory of"))?;
        Ok(new)
    }

    /// Reads the newer of the two slots. A file whose creation was never finished, in a directory
    /// without segments, starts over with `new`.
    pub(crate) fn open(disk: &dyn Disk, may_be_new: bool, new: HardState) -> Result<Self, Error> {
        let file = disk.open(FILE).map_err(failed("open"))?;
        let size = file.size().map_err(failed("read"))?;
        let mut newest: Option<HardState> = None;
        for at in SLOTS {
            if at + SLOT_LEN as u64 > size {
                continue;
            }
            let mut slot = [0; SLOT_LEN];
            file.read_at(&mut slot, at).map_err(failed("read"))?;
            match HardState::decode(&slot)? {
                Some(state) if newest.is_none_or(|newest| state.seq > newest.seq) => {
                    newest = Some(state);
                }
                Some(_) => {}
                None => tracing::warn!(slot = at, "a slot of the hard state is torn or damaged"),
            }
        }
        if let Some(state) = newest {
            return Ok(Self { file, state });
        }
        // The second slot is written only when the first is durable.
        let created = size >= SLOTS[1] + SLOT_LEN as u64;
        if created || !may_be_new {
            return Err(Error::HardStateDamaged);
        }
        let mut hard = Self { file, state: new };
        hard.save(new)?;
        disk.sync_dir().map_err(failed("sync the directory of"))?;
        Ok(hard)
    }

    pub(crate) fn state(&self) -> HardState {
        self.state
    }

    /// Makes `state` the one that counts, under the next sequence number. Durable when this
    /// returns.
    pub(crate) fn save(&mut self, state: HardState) -> Result<(), Error> {
        let state = HardState { seq: self.state.seq + 1, ..state };
        let bytes = state.encode();
        for at in SLOTS {
            self.file.write_at(&mut [IoSlice::new(&bytes)], at).map_err(failed("write"))?;
            if !Bug::B04.is_sown() {
                self.file.sync_data().map_err(failed("sync"))?;
            }
        }
        self.state = state;
        Ok(())
    }
}
