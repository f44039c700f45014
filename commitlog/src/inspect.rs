//! A log's directory as it lies there, for who has to look at one: nothing is written or repaired.

use std::sync::Arc;

use crate::cursor::Cursor;
use crate::disk::Disk;
use crate::error::Error;
use crate::frame::FrameKind;
use crate::hard_state::{FILE, HardState, SLOT_LEN, SLOTS, VOTE_LEN};
use crate::header::{SEGMENT_HEADER_LEN, SegmentHeader, segment_base, segment_name};
use crate::mend::first_frame;
use crate::position::{LogId, LogIndex, LogOffset};
use crate::record::Kind;
use crate::tail::Tail;

/// One copy of the hard state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    pub seq: u64,
    pub node_id: u64,
    pub group_id: Option<crate::GroupId>,
    pub vote: Option<[u8; VOTE_LEN]>,
    pub purged: Option<LogId>,
    pub committed: Option<LogIndex>,
    pub synced: LogOffset,
    /// Closed in order, and not written to since.
    pub clean: bool,
    /// A cut, or a replacement by another log, was begun and is not finished.
    pub unfinished: bool,
}

/// One segment.
#[derive(Clone, Debug)]
pub struct Found {
    pub base: LogOffset,
    /// The entry before its first one.
    pub prev: Option<LogId>,
    pub first: LogIndex,
    /// The last entry that was found, and where it ends.
    pub last: Option<LogId>,
    pub end: LogOffset,
    pub entries: u64,
    /// The first damage, and where it is. Behind a damaged header nothing can be read.
    pub problem: Option<(LogOffset, Error)>,
}

/// An entry without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    pub log_id: LogId,
    pub kind: Kind,
    pub stamp: u64,
    pub offset: LogOffset,
    pub body_len: u32,
    /// Whether the body is what its checksum says.
    pub sound: bool,
}

/// Both copies of the hard state; `None` for one that is damaged or missing.
///
/// # Errors
/// `NewerVersion`, `Io`.
pub fn hard_state(disk: &dyn Disk) -> Result<[Option<Slot>; 2], Error> {
    let io = |action| move |source| Error::io(action, FILE, source);
    let file = disk.open(FILE).map_err(io("open"))?;
    let mut found = [None; 2];
    for (slot, at) in found.iter_mut().zip(SLOTS) {
        let mut bytes = [0; SLOT_LEN];
        if file.read_at(&mut bytes, at).is_err() {
            continue;
        }
        *slot = HardState::decode(&bytes)?.map(|state| Slot {
            seq: state.seq,
            node_id: state.node_id,
            group_id: state.group_id,
            vote: state.vote,
            purged: state.purged,
            committed: state.committed,
            synced: state.synced,
            clean: state.clean,
            unfinished: state.cutting.is_some() || state.replacing.is_some(),
        });
    }
    Ok(found)
}

/// Bases of the segments, the oldest first.
///
/// # Errors
/// `Io`.
pub fn bases(disk: &dyn Disk) -> Result<Vec<LogOffset>, Error> {
    let names = disk.list().map_err(|source| Error::io("list", ".", source))?;
    Ok(names.iter().filter_map(|name| segment_base(name)).collect())
}

/// Walks a segment, and shows each of its entries until `visit` says false. Bodies are compared
/// with their checksums if `check`.
///
/// # Errors
/// The segment cannot be opened, or its header is damaged. What is wrong further on is in the
/// answer.
pub fn segment(
    disk: &Arc<dyn Disk>,
    base: LogOffset,
    check: bool,
    visit: &mut dyn FnMut(Listed) -> bool,
) -> Result<Found, Error> {
    let name = segment_name(base);
    let io = |action| move |source| Error::io(action, &segment_name(base), source);
    let file = disk.open(&name).map_err(io("open"))?;
    let mut bytes = vec![0; SEGMENT_HEADER_LEN];
    file.read_at(&mut bytes, 0).map_err(io("read"))?;
    let header = SegmentHeader::decode(&bytes, base)?;
    let limit = (base + header.segment_size).min(base + file.size().map_err(io("read"))?);
    let mut cursor = Cursor::reading(file, base, first_frame(base), limit);
    let mut tail = Tail::at_start_of(&header);
    let (mut entries, mut problem) = (0, None::<(LogOffset, Error)>);
    loop {
        let at = cursor.at();
        let entry = match cursor.next_sound() {
            Ok(Some(entry)) if entry.header.prev == tail.chain => entry,
            // Of another time, when the file was another segment's.
            Ok(Some(_)) | Ok(None) => break,
            Err(error) => {
                problem.get_or_insert((at, error));
                break;
            }
        };
        let checked = if check { entry.check() } else { Ok(()) };
        let FrameKind::Entry(kind) = entry.header.kind else { break };
        let listed = Listed {
            log_id: entry.header.log_id,
            kind,
            stamp: entry.header.stamp,
            offset: at,
            body_len: entry.header.body_len,
            sound: checked.is_ok(),
        };
        let go_on = visit(listed);
        if let Err(mismatch) = checked {
            problem.get_or_insert_with(|| (at, crate::cursor::corrupt(base, at, mismatch)));
        }
        entries += 1;
        tail = tail.behind(&entry.header, entry.chain);
        if !go_on {
            break;
        }
    }
    let last = tail.last.filter(|_| entries > 0);
    let (prev, first, end) = (header.prev, header.first_index, tail.end);
    Ok(Found { base, prev, first, last, end, entries, problem })
}
