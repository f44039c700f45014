//! What another replica needs to take over this log: which bytes of which segments count, those
//! bytes, and a check of what arrived.

use std::sync::Arc;

use bytes::Bytes;

use crate::config::GroupId;
use crate::cursor::corrupt;
use crate::cut::{Found, find};
use crate::disk::Disk;
use crate::error::{Check, Error};
use crate::frame::Mismatch;
use crate::header::{SegmentHeader, segment_name};
use crate::open::segment_header;
use crate::position::{LogId, LogOffset};
use crate::reader::Reader;
use crate::recovery::{Known, scan};
use crate::segment::Segment;
use crate::tail::Tail;

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
