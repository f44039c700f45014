//! Puts what another replica has in the place of a segment that is damaged here.
//!
//! Segments are the same bytes on all replicas, so a copy of one is as good as the original. It is
//! written beside the damaged file under [`mending_name`], checked as a whole, and then takes its
//! place: by a rename where the segment is sealed, which leaves what readers hold as it is; byte by
//! byte where it is still being written. A copy that never got there is removed by the next start.

use std::io::IoSlice;
use std::sync::Arc;

use crate::config::GroupId;
use crate::cursor::{Cursor, corrupt, size};
use crate::disk::{Disk, DiskFile};
use crate::error::{Check, Error};
use crate::frame::Mismatch;
use crate::header::{SEGMENT_HEADER, SegmentHeader, mending_name, segment_name};
use crate::log::CommitLog;
use crate::position::LogOffset;
use crate::segment::Segment;
use crate::shared::{Done, Job};
use crate::ship::{Extent, Sound, look_through};
use crate::writer::Writer;

/// Bytes copied at once.
const CHUNK: u64 = 1 << 20;

/// Places at which a copy may be damaged itself, each of which costs another look at all of it.
const PATCHES: usize = 8;

/// A copy that arrives piece by piece.
#[derive(Debug)]
pub struct Mending {
    disk: Arc<dyn Disk>,
    group: GroupId,
    segment_size: u64,
    extent: Extent,
    file: Arc<dyn DiskFile>,
    name: String,
}

/// A copy that is whole, checked and durable.
#[derive(Debug)]
pub struct Mended {
    extent: Extent,
}

impl Mending {
    /// Begins a copy of `extent` in `disk`.
    ///
    /// # Errors
    /// `DiskFull`, `Io`.
    pub fn begin(
        disk: Arc<dyn Disk>,
        group: GroupId,
        segment_size: u64,
        extent: Extent,
    ) -> Result<Self, Error> {
        let name = mending_name(extent.base);
        let io = |action| move |source| Error::io(action, &mending_name(extent.base), source);
        if disk.list().map_err(io("list"))?.contains(&name) {
            disk.remove(&name).map_err(io("remove"))?;
        }
        let file = disk.create(&name).map_err(io("create"))?;
        file.preallocate(segment_size).map_err(|source| match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::DiskFull,
            _ => Error::io("reserve", &name, source),
        })?;
        Ok(Self { disk, group, segment_size, extent, file, name })
    }

    /// Writes a piece of it.
    ///
    /// # Errors
    /// `OutOfRange` for what is not part of the extent; `Io`.
    pub fn write(&self, at: u64, data: &[u8]) -> Result<(), Error> {
        let Extent { base, len, .. } = self.extent;
        let more = data.len() as u64;
        if at.checked_add(more).is_none_or(|end| end > len) {
            return Err(Error::OutOfRange {
                offset: LogOffset(base.0.saturating_add(at)),
                len: more,
                start: base,
                end: base + len,
            });
        }
        self.file
            .write_at(&mut [IoSlice::new(data)], at)
            .map_err(|e| Error::io("write", &self.name, e))
    }

    /// Checks every byte of it, and makes it durable. What is damaged in the copy as well, in another
    /// place, is taken from the segment that it is to replace.
    ///
    /// # Errors
    /// What is wrong with it, as [`check_segment`](crate::check_segment) says it; `Io`.
    pub fn finish(self) -> Result<Mended, Error> {
        let io = |action| {
            let name = &self.name;
            move |source| Error::io(action, name, source)
        };
        let (mut from, mut patches) = (None, 0);
        loop {
            let found =
                look_through(&self.disk, &self.name, self.group, self.segment_size, self.extent);
            match found {
                Ok(_) => break,
                // Each round has to get further than the one before.
                Err(Error::Corrupt { offset, .. })
                    if patches < PATCHES
                        && from.is_none_or(|before| offset > before)
                        && self.patch(offset).unwrap_or(false) =>
                {
                    patches += 1;
                    from = Some(offset);
                }
                Err(error) => return Err(error),
            }
        }
        self.file.sync_data().map_err(io("sync"))?;
        self.disk.sync_dir().map_err(io("sync the directory of"))?;
        Ok(Mended { extent: self.extent })
    }
}

impl Mending {
    /// Takes what stands at `offset` from the segment itself; false if it is no better there.
    fn patch(&self, offset: LogOffset) -> Result<bool, Error> {
        let base = self.extent.base;
        let name = segment_name(base);
        let io = |action| move |source| Error::io(action, &segment_name(base), source);
        let own = self.disk.open(&name).map_err(io("open"))?;
        let bytes = if offset < first_frame(base) {
            let mut header = vec![0; size(SEGMENT_HEADER)];
            own.read_at(&mut header, 0).map_err(io("read"))?;
            SegmentHeader::decode(&header, base)?;
            header
        } else {
            let end = base + self.extent.len;
            let mut cursor = Cursor::reading(own.clone(), base, offset, end);
            let Some(entry) = cursor.next_sound()? else { return Ok(false) };
            if entry.check().is_err() {
                return Ok(false);
            }
            let mut frame = vec![0; size(cursor.at() - offset)];
            own.read_at(&mut frame, offset - base).map_err(io("read"))?;
            frame
        };
        let at = if offset < first_frame(base) { 0 } else { offset - base };
        self.write(at, &bytes)?;
        tracing::warn!(%base, %offset, "a copy is damaged too, and was repaired from the original");
        Ok(true)
    }
}

/// Puts a copy into a log that is not open, because of what it replaces. What the copy does not
/// reach, of a segment that was still being written, is kept.
///
/// # Errors
/// `Io`, and then either file may be the segment's: both are valid as far as the copy goes.
pub fn mend_closed(disk: &Arc<dyn Disk>, segment_size: u64, mended: &Mended) -> Result<(), Error> {
    let Extent { base, len, .. } = mended.extent;
    let (copy, name) = (mending_name(base), segment_name(base));
    let io = |action| move |source| Error::io(action, &segment_name(base), source);
    let to = disk.open(&copy).map_err(io("open"))?;
    if len < segment_size && disk.list().map_err(io("list"))?.contains(&name) {
        let from = disk.open(&name).map_err(io("open"))?;
        let end = segment_size.min(from.size().map_err(io("read"))?);
        let mut at = len;
        while at < end {
            let mut buf = vec![0; size(CHUNK.min(end - at))];
            from.read_at(&mut buf, at).map_err(io("read"))?;
            to.write_at(&mut [IoSlice::new(&buf)], at).map_err(io("write"))?;
            at += buf.len() as u64;
        }
        to.sync_data().map_err(io("sync"))?;
    }
    disk.rename(&copy, &name).map_err(io("rename to"))?;
    disk.sync_dir().map_err(io("sync the directory of"))
}

impl CommitLog {
    /// Where a copy of one of this log's segments can be put together.
    ///
    /// # Errors
    /// `NoGroup`; as [`Mending::begin`].
    pub fn mending(&self, extent: Extent) -> Result<Mending, Error> {
        let shared = &self.shared;
        let group = shared.group_id.ok_or(Error::NoGroup)?;
        Mending::begin(shared.disk.clone(), group, shared.config.segment_size, extent)
    }

    /// Puts a copy in the place of this log's own segment. Its last entry must be committed, so
    /// that the copy holds what this log held. Durable when `done` is called.
    ///
    /// # Errors
    /// `Poisoned`, `Closed`. `done` gets `Missing` if the segment has gone meanwhile, `Corrupt` if
    /// the copy does not join its neighbours, `UnknownEntry` if it has entries that are not known
    /// to be committed here; the segment is then as it was.
    pub fn mend(&self, mended: Mended, done: Done) -> Result<(), Error> {
        let mut inner = self.shared.inner();
        inner.check_open()?;
        self.shared.enqueue(&mut inner, Job::Mend { mended, done });
        Ok(())
    }
}

impl Writer {
    pub(crate) fn mend(&mut self, mended: &Mended, done: Done) {
        let sound = match self.look_at_copy(mended) {
            Ok(sound) => sound,
            // Nothing was touched: what is wrong is wrong with the copy.
            Err(error) => {
                let _ = self.shared.disk.remove(&mending_name(mended.extent.base));
                return done(Err(error));
            }
        };
        let base = mended.extent.base;
        let result = match &self.active {
            Some(active) if active.base == base => self.write_over(mended.extent),
            _ => self.swap(&sound),
        };
        if result.is_ok() {
            tracing::info!(%base, last = %mended.extent.last, "segment repaired");
        }
        self.answer(result, done);
    }

    /// The copy, if it is one of this log's segment.
    fn look_at_copy(&self, mended: &Mended) -> Result<Sound, Error> {
        let shared = &self.shared;
        let extent = mended.extent;
        let group = shared.group_id.ok_or(Error::NoGroup)?;
        let (own, committed) = {
            let inner = shared.inner();
            (inner.segments.get(&extent.base.0).cloned(), inner.committed)
        };
        let own = own.ok_or_else(|| Error::Missing { file: segment_name(extent.base) })?;
        if committed < Some(extent.last.index) {
            return Err(Error::UnknownEntry { wanted: extent.last, found: None });
        }
        let size = shared.config.segment_size;
        let written_to = self.active.as_ref().is_some_and(|active| active.base == extent.base);
        if extent.len != size && !written_to {
            let mismatch = Mismatch::new(Check::Length, size, extent.len);
            return Err(corrupt(extent.base, extent.base, mismatch));
        }
        let name = mending_name(extent.base);
        let sound = look_through(&shared.disk, &name, group, size, extent)?;
        if sound.segment.header != own.header {
            let (expected, found) = (own.header.chain, sound.segment.header.chain);
            return Err(corrupt(
                extent.base,
                extent.base,
                Mismatch::new(Check::Chain, expected, found),
            ));
        }
        Ok(sound)
    }

    /// The copy becomes the segment's file. Who has mapped the old one keeps it.
    fn swap(&self, sound: &Sound) -> Result<(), Error> {
        let shared = &self.shared;
        let header = sound.segment.header;
        let name = segment_name(header.base);
        let copy = mending_name(header.base);
        shared.disk.rename(&copy, &name).map_err(|e| Error::io("rename", &copy, e))?;
        shared.disk.sync_dir().map_err(|e| Error::io("sync the directory of", &name, e))?;
        let fresh = Arc::new(Segment::sealed(shared.disk.clone(), header));
        let mut inner = shared.inner();
        inner.segments.insert(header.base.0, fresh);
        inner.changes += 1;
        Ok(())
    }

    /// The segment is being written: the part that the copy has is written once more.
    fn write_over(&self, extent: Extent) -> Result<(), Error> {
        let shared = &self.shared;
        let name = mending_name(extent.base);
        let copy = shared.disk.open(&name).map_err(|e| Error::io("open", &name, e))?;
        let active = self.active.as_ref().expect("the caller has looked");
        let mut at = 0;
        while at < extent.len {
            let mut buf = vec![0; size(CHUNK.min(extent.len - at))];
            copy.read_at(&mut buf, at).map_err(|e| Error::io("read", &name, e))?;
            let own = segment_name(extent.base);
            active
                .file
                .write_at(&mut [IoSlice::new(&buf)], at)
                .map_err(|e| Error::io("write", &own, e))?;
            at += buf.len() as u64;
        }
        let own = segment_name(extent.base);
        active.file.sync_data().map_err(|e| Error::io("sync", &own, e))?;
        shared.disk.remove(&name).map_err(|e| Error::io("remove", &name, e))?;
        let mut inner = shared.inner();
        if let Some(segment) = inner.segments.get(&extent.base.0) {
            segment.forget_verified();
        }
        inner.changes += 1;
        Ok(())
    }
}

/// Where frames of a segment may stand at the earliest.
pub(crate) fn first_frame(base: LogOffset) -> LogOffset {
    base + SEGMENT_HEADER
}
