//! Opens a directory: whose it is, what is in it, where the log ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{Config, GroupId, Identity};
use crate::cursor::{corrupt, size};
use crate::disk::{Disk, DiskFile};
use crate::error::{Check, Error};
use crate::frame::Mismatch;
use crate::hard_state::{FILE, HardState, HardStateFile};
use crate::header::{
    SEGMENT_HEADER, SEGMENT_HEADER_LEN, SegmentHeader, segment_base, segment_name,
};
use crate::log::inner_at;
use crate::position::{LogId, LogIndex, LogOffset};
use crate::recovery::{Known, scan};
use crate::segment::Segment;
use crate::shared::Inner;
use crate::spares::{Active, Spares, write_zeros};
use crate::tail::Tail;

/// What was found when the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    pub last: Option<LogId>,
    pub purged: Option<LogId>,
    /// Nothing that was ever written can be missing: the log was closed in order, or only the
    /// process had died, not the machine.
    pub clean: bool,
    /// A tail that was torn, never acknowledged, and cut.
    pub cut: Option<Cut>,
    pub segments: usize,
    /// Bytes whose checksums were compared.
    pub checked_bytes: u64,
}

/// A torn tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub at: LogOffset,
    /// Up to the last byte that was not zero.
    pub bytes: u64,
}

pub(crate) struct Opened {
    pub(crate) hard: HardStateFile,
    pub(crate) inner: Inner,
    pub(crate) active: Option<Active>,
    pub(crate) recovered: Recovered,
}

type Files = Vec<(SegmentHeader, Arc<dyn DiskFile>)>;

pub(crate) fn open(
    config: &Config,
    disk: &Arc<dyn Disk>,
    identity: Identity,
) -> Result<Opened, Error> {
    let names = disk.list().map_err(|e| Error::io("list", ".", e))?;
    let bases: Vec<LogOffset> = names.iter().filter_map(|name| segment_base(name)).collect();
    let has_hard_state = names.iter().any(|name| name == FILE);
    let mut hard = hard_state(&**disk, has_hard_state, bases.is_empty(), identity)?;
    let before = identify(hard.state(), identity)?;
    let files = segment_files(config, &**disk, &bases, &before)?;
    let clean = before.clean || same_boot(&before, identity);
    let known = Known {
        synced: before.synced,
        // A process that died leaves a prefix of its last write; a machine may leave any part.
        torn_reach: if clean { 0 } else { config.unsynced_bound() },
    };
    let found = find_end(disk, &files, known)?;
    let (active, cut) = settle(&files, found.tail, config)?;
    let recovered = Recovered {
        last: found.tail.last.max(before.purged),
        purged: before.purged,
        clean,
        cut: if before.clean { None } else { cut },
        segments: files.len(),
        checked_bytes: found.checked_bytes,
    };
    let synced = found.tail.end;
    hard.save(HardState { boot_id: identity.boot_id, clean: false, synced, ..before })?;
    let spares = Spares::start(disk.clone(), config)?;
    let inner = inner_at(found.tail, &before, found.segments, spares, config.tail_cache_bytes);
    inner.assert_marks();
    Ok(Opened { hard, inner, active, recovered })
}

/// The hard state; that of a directory never used before if there is none.
fn hard_state(
    disk: &dyn Disk,
    exists: bool,
    no_segments: bool,
    identity: Identity,
) -> Result<HardStateFile, Error> {
    let new = HardState {
        node_id: identity.node_id,
        group_id: identity.group_id,
        boot_id: identity.boot_id,
        clean: true,
        ..HardState::default()
    };
    match (exists, no_segments) {
        (true, _) => HardStateFile::open(disk, no_segments, new),
        (false, true) => HardStateFile::create(disk, new),
        (false, false) => Err(Error::Missing { file: FILE.to_owned() }),
    }
}

/// Checks whose log it is.
fn identify(state: HardState, identity: Identity) -> Result<HardState, Error> {
    if state.node_id != identity.node_id {
        return Err(Error::ForeignNode { expected: identity.node_id, found: state.node_id });
    }
    match (state.group_id, identity.group_id) {
        (Some(found), Some(expected)) if found != expected => {
            Err(Error::ForeignGroup { expected, found })
        }
        (found, given) => Ok(HardState { group_id: found.or(given), ..state }),
    }
}

fn same_boot(before: &HardState, identity: Identity) -> bool {
    before.boot_id.is_some() && before.boot_id == identity.boot_id
}

/// Headers and handles of all segments, checked to follow each other.
fn segment_files(
    config: &Config,
    disk: &dyn Disk,
    bases: &[LogOffset],
    before: &HardState,
) -> Result<Files, Error> {
    let mut files: Files = Vec::with_capacity(bases.len());
    for &base in bases {
        let (header, file) = segment_file(config, disk, base, before.group_id)?;
        let expected = match files.last() {
            Some((previous, _)) => previous.base + config.segment_size,
            None => base,
        };
        if base != expected {
            return Err(Error::Missing { file: segment_name(expected) });
        }
        files.push((header, file));
    }
    let needed = before.purged.map_or(LogIndex(0), |purged| purged.index.next());
    match files.first() {
        Some((first, _)) if first.first_index > needed => {
            let expected = LogOffset(first.base.0.saturating_sub(config.segment_size));
            Err(Error::Missing { file: segment_name(expected) })
        }
        None if before.synced > LogOffset(0) => {
            let base = before.synced.0 - before.synced.0 % config.segment_size;
            Err(Error::Missing { file: segment_name(LogOffset(base)) })
        }
        _ => Ok(files),
    }
}

fn segment_file(
    config: &Config,
    disk: &dyn Disk,
    base: LogOffset,
    group_id: Option<GroupId>,
) -> Result<(SegmentHeader, Arc<dyn DiskFile>), Error> {
    let name = segment_name(base);
    let io = |action| {
        let name = &name;
        move |source| Error::io(action, name, source)
    };
    let file = disk.open(&name).map_err(io("open"))?;
    let len = file.size().map_err(io("read"))?;
    if len < SEGMENT_HEADER {
        let mismatch = Mismatch::new(Check::Length, config.segment_size, len);
        return Err(corrupt(base, base, mismatch));
    }
    let mut bytes = vec![0; SEGMENT_HEADER_LEN];
    file.read_at(&mut bytes, 0).map_err(io("read"))?;
    let header = SegmentHeader::decode(&bytes, base)?;
    if let Some(expected) = group_id.filter(|&expected| expected != header.group_id) {
        return Err(Error::ForeignGroup { expected, found: header.group_id });
    }
    if header.segment_size != config.segment_size {
        let (expected, found) = (config.segment_size, header.segment_size);
        return Err(Error::SegmentSize { expected, found });
    }
    if len != config.segment_size {
        return Err(corrupt(base, base, Mismatch::new(Check::Length, config.segment_size, len)));
    }
    Ok((header, file))
}

struct Found {
    tail: Tail,
    segments: BTreeMap<u64, Arc<Segment>>,
    checked_bytes: u64,
}

/// Checks every frame from the segment of the synced mark on. Older segments were synced whole
/// before that one was begun; they are checked when they are read.
fn find_end(disk: &Arc<dyn Disk>, files: &Files, known: Known) -> Result<Found, Error> {
    let start = files.iter().rposition(|(header, _)| header.base <= known.synced).unwrap_or(0);
    let mut found = Found { tail: Tail::EMPTY, segments: BTreeMap::new(), checked_bytes: 0 };
    for (i, (header, file)) in files.iter().enumerate() {
        if i < start {
            let segment = Segment::sealed(disk.clone(), *header);
            found.segments.insert(header.base.0, Arc::new(segment));
            continue;
        }
        if i > start {
            continues(&found.tail, header)?;
        }
        let segment = Segment::growing(disk.clone(), *header, false);
        found.tail = scan(&segment, file, i + 1 == files.len(), known)?;
        found.checked_bytes += found.tail.end - header.base;
        found.segments.insert(header.base.0, Arc::new(segment));
    }
    Ok(found)
}

/// A segment starts where the one before ended, or behind a purge that went past the log's end.
fn continues(tail: &Tail, header: &SegmentHeader) -> Result<(), Error> {
    let gap = header.prev.map(|id| id.index) > tail.last.map(|id| id.index);
    if gap || (header.prev == tail.last && header.chain == tail.chain) {
        return Ok(());
    }
    let mismatch = Mismatch::new(Check::Chain, tail.chain, header.chain);
    Err(corrupt(header.base, header.base, mismatch))
}

/// Clears what a torn write left behind the end, and makes what is kept durable.
fn settle(
    files: &Files,
    tail: Tail,
    config: &Config,
) -> Result<(Option<Active>, Option<Cut>), Error> {
    let Some((header, file)) = files.last() else { return Ok((None, None)) };
    let base = header.base;
    let io = |action| move |source| Error::io(action, &segment_name(base), source);
    let limit = base + config.segment_size;
    let reach = limit.min(tail.end + config.unsynced_bound());
    let mut buf = vec![0; size(reach - tail.end)];
    file.read_at(&mut buf, tail.end - base).map_err(io("read"))?;
    let dirty = buf.iter().rposition(|&byte| byte != 0).map_or(0, |last| last as u64 + 1);
    let cut = (dirty > 0).then_some(Cut { at: tail.end, bytes: dirty });
    if dirty > 0 {
        write_zeros(&**file, tail.end - base, dirty).map_err(io("clear"))?;
    }
    // Also what only the page cache may have: from here on it counts as synced.
    file.sync_data().map_err(io("sync"))?;
    let active = Active { base, file: file.clone(), recycled: true };
    Ok((Some(active), cut))
}

/// Writes zeros in place of what stands between `from` and `to`.
pub(crate) fn clear(active: &Active, from: LogOffset, to: LogOffset) -> std::io::Result<()> {
    let len = to.0.saturating_sub(from.0);
    write_zeros(&*active.file, from - active.base, len)
}
