//! What another replica needs to take over this log: which bytes of which segments count, those
//! bytes, and a check of what arrived.

use std::sync::Arc;

use bytes::Bytes;

use crate::config::GroupId;
use crate::cursor::{Cursor, corrupt, size};
use crate::cut::{Found, find};
use crate::disk::Disk;
use crate::error::{Check, Error};
use crate::frame::Mismatch;
use crate::header::{SEGMENT_HEADER, SegmentHeader, segment_name};
use crate::open::segment_header;
use crate::position::{LogId, LogOffset};
use crate::reader::Reader;
use crate::recovery::{Known, scan};
use crate::segment::Segment;
use crate::tail::Tail;

/// Bytes read at once for a checksum.
const CHUNK: u64 = 1 << 20;

/// The part of a segment that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub base: LogOffset,
    /// Bytes from the file's beginning, header included; the whole file for all but the last one.
    pub len: u64,
    /// The last entry in them.
    pub last: LogId,
}

/// How a segment joins those around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The entry before the first, and the checksum that the first carries of it.
    pub before: (Option<LogId>, u32),
    /// The last entry, and its checksum.
    pub after: (Option<LogId>, u32),
}

impl Reader {
    /// All segments, the oldest first, up to the entry `upto`.
    ///
    /// # Errors
    /// `UnknownEntry` if the log does not hold `upto`; `Corrupt` or `Io` if it cannot be read.
    pub fn extents(&self, upto: LogId) -> Result<Vec<Extent>, Error> {
        self.undisturbed(|| {
            let (segments, written) = {
                let inner = self.shared.inner();
                let wanted = |segment: &&Arc<Segment>| segment.header.first_index <= upto.index;
                let segments: Vec<_> = inner.segments.values().filter(wanted).cloned().collect();
                (segments, inner.written)
            };
            let unknown = |found| Error::UnknownEntry { wanted: upto, found };
            let Some(newest) = segments.last() else { return Err(unknown(None)) };
            let end = match find(newest, upto, written)? {
                Found::Wanted(tail) => tail.end,
                Found::Other(found) => return Err(unknown(Some(found))),
                Found::Nothing => return Err(unknown(None)),
            };
            let whole = segments.iter().zip(&segments[1..]).map(|(segment, newer)| {
                let last = newer.header.prev.ok_or_else(|| unknown(None))?;
                Ok(Extent { base: segment.base(), len: segment.header.segment_size, last })
            });
            let mut extents = whole.collect::<Result<Vec<_>, Error>>()?;
            extents.push(Extent { base: newest.base(), len: end - newest.base(), last: upto });
            Ok(extents)
        })
    }

    /// `len` bytes of the file of the segment `base`, from `at` on, as they are.
    ///
    /// # Errors
    /// `Missing` if there is no such segment, `Io` if it cannot be read that far.
    pub fn raw(&self, base: LogOffset, at: u64, len: u64) -> Result<Bytes, Error> {
        self.undisturbed(|| {
            let found = self.shared.inner().segments.get(&base.0).cloned();
            let segment = found.ok_or_else(|| Error::Missing { file: segment_name(base) })?;
            segment.raw(base + at, len)
        })
    }
}

impl Reader {
    /// Checks every frame and body of `extent`, and returns the CRC-32 of its bytes from the file's
    /// beginning on. Reads the file twice; the caller keeps it from being removed by a
    /// [`Pin`](crate::Pin).
    ///
    /// # Errors
    /// `Missing` if there is no such segment, `Corrupt` or `Io` if it cannot be read.
    pub fn checksum(&self, extent: Extent) -> Result<u32, Error> {
        let (base, name) = (extent.base, segment_name(extent.base));
        let found = self.shared.inner().segments.get(&base.0).cloned();
        let segment = found.ok_or_else(|| Error::Missing { file: name.clone() })?;
        let io = |action| {
            let name = name.clone();
            move |source| Error::io(action, &name, source)
        };
        let file = self.shared.disk.open(&name).map_err(io("open"))?;
        let first = base + SEGMENT_HEADER;
        let mut cursor = Cursor::reading(file.clone(), base, first, base + extent.len);
        let mut before = (segment.header.prev, segment.header.chain);
        loop {
            let at = cursor.at();
            let Some(entry) = cursor.next_sound()? else { break };
            entry.check().map_err(|mismatch| corrupt(base, at, mismatch))?;
            if entry.header.prev != before.1 {
                let mismatch = Mismatch::new(Check::Chain, before.1, entry.header.prev);
                return Err(corrupt(base, at, mismatch));
            }
            before = (Some(entry.header.log_id), entry.chain);
        }
        if before.0 != Some(extent.last) {
            let found = before.0.map_or(0, |last| last.index.0);
            let mismatch = Mismatch::new(Check::Index, extent.last.index.0, found);
            return Err(corrupt(base, cursor.at(), mismatch));
        }
        let mut hasher = crc32fast::Hasher::new();
        let mut buf = vec![0; size(extent.len.min(CHUNK))];
        let mut at = 0;
        while at < extent.len {
            let part = &mut buf[..size((extent.len - at).min(CHUNK))];
            file.read_at(part, at).map_err(io("read"))?;
            hasher.update(part);
            at += part.len() as u64;
        }
        Ok(hasher.finalize())
    }
}

/// Checks every frame and body of the segment file that `extent` describes in `disk`, and that it
/// holds nothing else. What is behind `extent.len` must not be a frame.
///
/// # Errors
/// `Corrupt`, `ForeignGroup`, `SegmentSize`, `NewerVersion`, `Io`.
pub fn check_segment(
    disk: &Arc<dyn Disk>,
    group: GroupId,
    segment_size: u64,
    extent: Extent,
) -> Result<Checked, Error> {
    let name = segment_name(extent.base);
    let found = look_through(disk, &name, group, segment_size, extent)?;
    let header = found.segment.header;
    Ok(Checked { before: (header.prev, header.chain), after: (found.tail.last, found.tail.chain) })
}

/// A segment that was checked, and where it ends.
pub(crate) struct Sound {
    pub(crate) segment: Segment,
    pub(crate) tail: Tail,
}

pub(crate) fn look_through(
    disk: &Arc<dyn Disk>,
    name: &str,
    group: GroupId,
    segment_size: u64,
    extent: Extent,
) -> Result<Sound, Error> {
    let base = extent.base;
    let header: SegmentHeader = segment_header(segment_size, &**disk, name, base, Some(group))?;
    let segment = Segment::growing(disk.clone(), header, false);
    let file = disk.open(name).map_err(|e| Error::io("open", name, e))?;
    let end = base + extent.len;
    let whole = extent.len == segment_size;
    // Everything up to the extent's end was synced where it comes from.
    let known = Known { synced: end, torn_reach: 0, search: 0, closed: true, cut_damage: false };
    let tail = scan(&segment, &file, !whole, known)?;
    if !whole && tail.end != end {
        let mismatch = Mismatch::new(Check::SyncedMark, end.0, tail.end.0);
        return Err(corrupt(base, tail.end, mismatch));
    }
    if tail.last != Some(extent.last) {
        let found = tail.last.map_or(0, |last| last.index.0);
        let mismatch = Mismatch::new(Check::Index, extent.last.index.0, found);
        return Err(corrupt(base, tail.end, mismatch));
    }
    Ok(Sound { segment, tail })
}
