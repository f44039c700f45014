//! Finds the end of the log after a stop of any kind.
//!
//! A torn tail, which was never acknowledged, is cut. Damage in what was once synced is an error
//! and never an end of the log. What tells them apart: the synced mark; later segments, which are
//! begun only when the one before is synced; and sound frames so far behind the damage that they
//! cannot belong to the same unsynced write.

use std::sync::Arc;

use crate::bug::Bug;
use crate::cursor::{Cursor, Stop, corrupt};
use crate::disk::DiskFile;
use crate::error::{Check, Error};
use crate::frame::{FRAME_ALIGN, FRAME_MAGIC, FrameHeader, HEADER_LEN, Mismatch, u32_at};
use crate::header::segment_name;
use crate::position::{LogIndex, LogOffset};
use crate::segment::Segment;
use crate::tail::Tail;

/// Bytes looked through at once for frames behind a damaged place.
const SEARCH_CHUNK: u64 = 1 << 20;

/// What was known before the scan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// The log is durable below this.
    pub(crate) synced: LogOffset,
    /// Behind a torn place, unsynced frames can reach this far at the most.
    pub(crate) torn_reach: u64,
    /// Sound frames are looked for this far behind that. Frames leave no gaps, so it need only be
    /// longer than the longest one.
    pub(crate) search: u64,
    /// Nothing was written behind the synced mark.
    pub(crate) closed: bool,
    /// The log may end at damage anywhere in its last segment.
    pub(crate) cut_damage: bool,
}

/// Walks a segment from its start, checks every frame, notes them in the segment's index, and
/// answers where it ends.
///
/// `is_last` tells that no segment follows, so that it may end anywhere.
///
/// # Errors
/// `Corrupt`, or `Io` if the disk refuses to read.
pub(crate) fn scan(
    segment: &Segment,
    file: &Arc<dyn DiskFile>,
    is_last: bool,
    known: Known,
) -> Result<Tail, Error> {
    let base = segment.base();
    let mut tail = Tail::at_start_of(&segment.header);
    let mut cursor = Cursor::reading(file.clone(), base, tail.end, segment.limit());
    loop {
        let at = cursor.at();
        let step = cursor.next().and_then(|entry| {
            let Some(entry) = entry else { return Ok(None) };
            follows(&tail, &entry.header).map_err(Stop::Damage)?;
            entry.check().map_err(Stop::Damage)?;
            Ok(Some(entry))
        });
        match step {
            Ok(Some(entry)) => {
                segment.note(entry.header.log_id.index, at);
                tail = tail.behind(&entry.header, entry.chain);
            }
            Ok(None) => return ended(tail, segment, is_last, known),
            Err(Stop::Io(source)) => return Err(Error::io("read", &segment_name(base), source)),
            Err(Stop::Damage(mismatch)) => {
                let damage = corrupt(base, at, mismatch);
                if is_last && (known.cut_damage || Bug::B21.is_sown()) {
                    return Ok(tail);
                }
                if !is_last || at < known.synced {
                    return Err(damage);
                }
                if !known.closed && has_later(file, segment, &tail, at, known)? {
                    return Err(damage);
                }
                return Ok(tail);
            }
        }
    }
}

/// Whether `header` can stand where the log ends so far.
fn follows(tail: &Tail, header: &FrameHeader) -> Result<(), Mismatch> {
    if header.prev != tail.chain {
        return Err(Mismatch::new(Check::Chain, tail.chain, header.prev));
    }
    let expected = tail.next.unwrap_or_default();
    let found = header.log_id.index;
    if found != expected {
        return Err(Mismatch::new(Check::Index, expected.0, found.0));
    }
    let floor = tail.last.map_or(0, |last| last.term.0);
    if header.log_id.term.0 < floor {
        return Err(Mismatch::new(Check::Term, floor, header.log_id.term.0));
    }
    Ok(())
}

/// The segment ended with filling, or for want of room.
fn ended(tail: Tail, segment: &Segment, is_last: bool, known: Known) -> Result<Tail, Error> {
    if is_last && known.cut_damage {
        return Ok(tail);
    }
    if is_last && known.synced > segment.limit() {
        return Err(Error::Missing { file: segment_name(segment.limit()) });
    }
    if is_last && tail.end < known.synced {
        let mismatch = Mismatch::new(Check::SyncedMark, known.synced.0, tail.end.0);
        return Err(corrupt(segment.base(), tail.end, mismatch));
    }
    Ok(tail)
}

/// Whether a sound frame stands further behind `at` than one unsynced write can reach.
fn has_later(
    file: &Arc<dyn DiskFile>,
    segment: &Segment,
    tail: &Tail,
    at: LogOffset,
    known: Known,
) -> Result<bool, Error> {
    let base = segment.base();
    let failed = |source| Error::io("read", &segment_name(base), source);
    let mut from = at + known.torn_reach.max(FRAME_ALIGN).next_multiple_of(FRAME_ALIGN);
    let next = tail.next.unwrap_or_default();
    let until = segment.limit().min(from + known.search);
    while from < until {
        let len = SEARCH_CHUNK.min(until - from);
        let mut buf = vec![0; crate::cursor::size(len)];
        file.read_at(&mut buf, from - base).map_err(failed)?;
        for (i, word) in buf.chunks_exact(crate::cursor::size(FRAME_ALIGN)).enumerate() {
            let here = from + i as u64 * FRAME_ALIGN;
            if u32_at(word, 0) == FRAME_MAGIC && is_sound(file, base, here, next).map_err(failed)? {
                return Ok(true);
            }
        }
        from = from + len;
    }
    Ok(false)
}

/// Whether the header at `here` is one that this very place was given, for an entry behind `next`.
fn is_sound(
    file: &Arc<dyn DiskFile>,
    base: LogOffset,
    here: LogOffset,
    next: LogIndex,
) -> std::io::Result<bool> {
    let mut raw = [0; HEADER_LEN];
    match file.read_at(&mut raw, here - base) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    }
    Ok(FrameHeader::decode(&raw)
        .is_ok_and(|header| header.offset == here && header.log_id.index >= next))
}
