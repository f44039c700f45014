//! Makes a copied segment of one group a segment of another, which begins with that group's log.

use std::io::IoSlice;
use std::sync::Arc;

use crate::config::GroupId;
use crate::disk::Disk;
use crate::error::Error;
use crate::header::SegmentHeader;
use crate::open::segment_header;
use crate::position::LogOffset;

/// Gives the segment file `name` in `disk`, whose first byte has the log offset `base`, from group
/// `from` to group `to`. Entries stay as they are: only the header names a group. Durable when this
/// returns; a crash on the way leaves a header that may be damaged, so work on a copy.
///
/// # Errors
/// `ForeignGroup`, `SegmentSize`, `NewerVersion`, `Corrupt`, `Io`; nothing was changed but by the
/// last.
pub fn adopt_segment(
    disk: &Arc<dyn Disk>,
    name: &str,
    base: LogOffset,
    segment_size: u64,
    (from, to): (GroupId, GroupId),
) -> Result<(), Error> {
    let header = segment_header(segment_size, &**disk, name, base, Some(from))?;
    let bytes = SegmentHeader { group_id: to, ..header }.encode();
    let io = |action| move |source| Error::io(action, name, source);
    let file = disk.open(name).map_err(io("open"))?;
    file.write_at(&mut [IoSlice::new(&bytes)], 0).map_err(io("write"))?;
    file.sync_data().map_err(io("sync"))
}
