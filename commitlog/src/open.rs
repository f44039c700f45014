//! Opens a directory: whose it is, what is in it, where the log ends.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;

use crate::config::{Config, GroupId, Identity};
use crate::cursor::{corrupt, size};
use crate::disk::{Disk, DiskFile};
use crate::error::{Check, Error};
use crate::frame::{Mismatch, frame_len};
use crate::hard_state::{Cutting, FILE, HardState, HardStateFile};
use crate::header::{
    SEGMENT_HEADER, SEGMENT_HEADER_LEN, SegmentHeader, segment_base, segment_name,
};
use crate::log::inner_at;
use crate::position::{LogId, LogIndex, LogOffset};
use crate::recovery::{Known, scan};
use crate::replace::finish_replacement;
use crate::segment::Segment;
use crate::shared::Inner;
use crate::spares::{Active, Spares, write_zeros};
use crate::tail::Tail;

/// Bytes behind the end that are looked at together.
const CLEAR_CHUNK: u64 = 1 << 20;

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
    /// Bytes that were synced once and are not there, which only
    /// [`Config::cut_damage`](crate::Config) allows.
    pub lost: Option<u64>,
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

pub(crate) fn open(
    config: &Config,
    disk: &Arc<dyn Disk>,
    identity: Identity,
) -> Result<Opened, Error> {
    let names = disk.list().map_err(|e| Error::io("list", ".", e))?;
    let bases = segment_bases(&names);
    let has_hard_state = names.iter().any(|name| name == FILE);
    let mut hard = hard_state(&**disk, has_hard_state, bases.is_empty(), identity)?;
    identify(hard.state(), identity)?;
    finish_replacement(&**disk, &mut hard)?;
    let names = disk.list().map_err(|e| Error::io("list", ".", e))?;
    let bases = finish_cut(&**disk, segment_bases(&names), &mut hard)?;
    let before = identify(hard.state(), identity)?;
    let files = segment_headers(config, &**disk, &bases, &before)?;
    let clean = before.clean || same_boot(&before, identity);
    // The settings may have changed since the last run.
    let unsynced_bound = before.unsynced_bound.max(config.unsynced_bound());
    let known = Known {
        synced: before.synced,
        // A process that died leaves a prefix of its last write; a machine may leave any part.
        torn_reach: if clean { 0 } else { unsynced_bound },
        search: 2 * frame_len(config.max_body),
        closed: before.clean,
        cut_damage: config.cut_damage,
    };
    let found = find_end(disk, &files, known)?;
    let lost = found.tail.end < before.synced;
    let kept = Kept {
        tail: found.tail,
        synced: match same_boot(&before, identity) {
            true => before.synced.min(found.tail.end),
            false => found.tail.end,
        },
        reach: match (lost, before.clean) {
            // What is behind was whole once, and must not be found again.
            (true, _) => config.segment_size,
            (false, true) => 0,
            (false, false) => unsynced_bound,
        },
    };
    let (active, cut) = settle(&**disk, files.last(), &kept)?;
    let recovered = Recovered {
        last: found.tail.last.max(before.purged),
        purged: before.purged,
        clean,
        cut,
        segments: files.len(),
        checked_bytes: found.checked_bytes,
        lost: lost.then(|| before.synced - found.tail.end),
    };
    let synced = found.tail.end;
    let boot_id = identity.boot_id;
    let unsynced_bound = config.unsynced_bound();
    hard.save(HardState { boot_id, clean: false, synced, unsynced_bound, ..before })?;
    let spares = Spares::start(disk.clone(), config)?;
    let inner = inner_at(found.tail, &before, found.segments, spares, config.tail_cache_bytes);
    inner.assert_marks();
    Ok(Opened { hard, inner, active, recovered })
}

fn segment_bases(names: &[String]) -> Vec<LogOffset> {
    names.iter().filter_map(|name| segment_base(name)).collect()
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

/// Finishes a cut that a crash interrupted: removes the segments behind it, the newest first, and
/// clears the rest. Answers which segments are left.
fn finish_cut(
    disk: &dyn Disk,
    mut bases: Vec<LogOffset>,
    hard: &mut HardStateFile,
) -> Result<Vec<LogOffset>, Error> {
    let before = hard.state();
    let Some(Cutting { at, dirty_end }) = before.cutting else { return Ok(bases) };
    while let Some(base) = bases.pop_if(|base| *base >= at) {
        let name = segment_name(base);
        disk.remove(&name).map_err(|e| Error::io("remove", &name, e))?;
        disk.sync_dir().map_err(|e| Error::io("sync the directory of", &name, e))?;
    }
    if let Some(&base) = bases.last() {
        let name = segment_name(base);
        let io = |action| {
            let name = &name;
            move |source| Error::io(action, name, source)
        };
        let file = disk.open(&name).map_err(io("open"))?;
        let limit = base + file.size().map_err(io("read"))?;
        let dirty = dirty_end.min(limit).0.saturating_sub(at.0);
        write_zeros(&*file, at - base, dirty).map_err(io("clear"))?;
        file.sync_data().map_err(io("sync"))?;
    }
    let synced = before.synced.min(at);
    hard.save(HardState { cutting: None, synced, ..before })?;
    Ok(bases)
}

/// Headers of all segments, checked to follow each other.
fn segment_headers(
    config: &Config,
    disk: &dyn Disk,
    bases: &[LogOffset],
    before: &HardState,
) -> Result<Vec<SegmentHeader>, Error> {
    let mut files: Vec<SegmentHeader> = Vec::with_capacity(bases.len());
    for &base in bases {
        // The file is closed again: a log has more segments than a process may open files.
        let name = segment_name(base);
        let header = segment_header(config.segment_size, disk, &name, base, before.group_id)?;
        let expected = match files.last() {
            Some(previous) => previous.base + config.segment_size,
            None => base,
        };
        if base != expected {
            return Err(Error::Missing { file: segment_name(expected) });
        }
        files.push(header);
    }
    let needed = before.purged.map_or(LogIndex(0), |purged| purged.index.next());
    match files.first() {
        Some(first) if first.first_index > needed => {
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

/// The header of the segment with this base in the file `name`, which must be whole.
pub(crate) fn segment_header(
    segment_size: u64,
    disk: &dyn Disk,
    name: &str,
    base: LogOffset,
    group_id: Option<GroupId>,
) -> Result<SegmentHeader, Error> {
    let io = |action| move |source| Error::io(action, name, source);
    let file = disk.open(name).map_err(io("open"))?;
    let len = file.size().map_err(io("read"))?;
    if len < SEGMENT_HEADER {
        let mismatch = Mismatch::new(Check::Length, segment_size, len);
        return Err(corrupt(base, base, mismatch));
    }
    let mut bytes = vec![0; SEGMENT_HEADER_LEN];
    file.read_at(&mut bytes, 0).map_err(io("read"))?;
    let header = SegmentHeader::decode(&bytes, base)?;
    if let Some(expected) = group_id.filter(|&expected| expected != header.group_id) {
        return Err(Error::ForeignGroup { expected, found: header.group_id });
    }
    if header.segment_size != segment_size {
        let (expected, found) = (segment_size, header.segment_size);
        return Err(Error::SegmentSize { expected, found });
    }
    if len != segment_size {
        return Err(corrupt(base, base, Mismatch::new(Check::Length, segment_size, len)));
    }
    Ok(header)
}

struct Found {
    tail: Tail,
    segments: BTreeMap<u64, Arc<Segment>>,
    checked_bytes: u64,
}

/// Checks every frame from the segment of the synced mark on. Older segments were synced whole
/// before that one was begun; they are checked when they are read.
fn find_end(disk: &Arc<dyn Disk>, files: &[SegmentHeader], known: Known) -> Result<Found, Error> {
    let start = files.iter().rposition(|header| header.base <= known.synced).unwrap_or(0);
    let mut found = Found { tail: Tail::EMPTY, segments: BTreeMap::new(), checked_bytes: 0 };
    for (i, header) in files.iter().enumerate() {
        if i < start {
            let segment = Segment::sealed(disk.clone(), *header);
            found.segments.insert(header.base.0, Arc::new(segment));
            continue;
        }
        if i > start {
            continues(&found.tail, header)?;
        }
        let segment = Segment::growing(disk.clone(), *header, false);
        let file = open_segment(&**disk, header.base)?;
        found.tail = scan(&segment, &file, i + 1 == files.len(), known)?;
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

fn open_segment(disk: &dyn Disk, base: LogOffset) -> Result<Arc<dyn DiskFile>, Error> {
    let name = segment_name(base);
    disk.open(&name).map_err(|e| Error::io("open", &name, e))
}

/// What of the last segment counts.
struct Kept {
    tail: Tail,
    /// From here on, only the page cache may have it.
    synced: LogOffset,
    /// A torn write may have left something this far behind the end.
    reach: u64,
}

/// Clears what a torn write may have left behind the end, and makes what is kept durable.
fn settle(
    disk: &dyn Disk,
    last: Option<&SegmentHeader>,
    kept: &Kept,
) -> Result<(Option<Active>, Option<Cut>), Error> {
    let &Kept { tail, synced, reach } = kept;
    let Some(header) = last else { return Ok((None, None)) };
    let base = header.base;
    let file = open_segment(disk, base)?;
    let io = |action| move |source| Error::io(action, &segment_name(base), source);
    let until = (base + header.segment_size).min(tail.end + reach);
    let mut cut = None;
    let mut at = tail.end;
    while at < until {
        let len = CLEAR_CHUNK.min(until - at);
        let mut buf = vec![0; size(len)];
        file.read_at(&mut buf, at - base).map_err(io("read"))?;
        if let Some(dirty) = buf.iter().rposition(|&byte| byte != 0) {
            let dirty = dirty as u64 + 1;
            write_zeros(&*file, at - base, dirty).map_err(io("clear"))?;
            cut = Some(Cut { at: tail.end, bytes: at + dirty - tail.end });
        }
        at = at + len;
    }
    write_again(&*file, base, synced, tail.end).map_err(io("write"))?;
    // From here on all of it counts as synced.
    file.sync_data().map_err(io("sync"))?;
    let active = Active { base, file, recycled: true };
    Ok((Some(active), cut))
}

/// Writes the bytes between `from` and `to` once more. After a failed sync the page cache may show
/// what the disk never got and what no further sync would bring there.
fn write_again(
    file: &dyn DiskFile,
    base: LogOffset,
    from: LogOffset,
    to: LogOffset,
) -> std::io::Result<()> {
    let mut at = from.max(base + SEGMENT_HEADER);
    while at < to {
        let mut buf = vec![0; size(CLEAR_CHUNK.min(to - at))];
        file.read_at(&mut buf, at - base)?;
        file.write_at(&mut [IoSlice::new(&buf)], at - base)?;
        at = at + buf.len() as u64;
    }
    Ok(())
}

/// Writes zeros in place of what stands between `from` and `to`.
pub(crate) fn clear(active: &Active, from: LogOffset, to: LogOffset) -> std::io::Result<()> {
    let len = to.0.saturating_sub(from.0);
    write_zeros(&*active.file, from - active.base, len)
}
