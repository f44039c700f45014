//! Space for segments to come, reserved before it is needed.
//!
//! A file gets a segment's name only with a whole header in it. Until then it is a spare, and
//! spares mean nothing to recovery.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;

use crate::bug::Bug;
use crate::config::Config;
use crate::disk::{Disk, DiskFile};
use crate::error::Error;
use crate::header::{SegmentHeader, segment_name};
use crate::position::LogOffset;

const SUFFIX: &str = ".spare";
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A file with space for a segment.
#[derive(Debug)]
pub(crate) struct Spare {
    name: String,
    file: Arc<dyn DiskFile>,
    /// It still holds the bytes of the segment that it was.
    used: bool,
}

/// A segment's file that is being written.
#[derive(Clone, Debug)]
pub(crate) struct Active {
    pub(crate) base: LogOffset,
    pub(crate) file: Arc<dyn DiskFile>,
    /// What was never written here may be bytes of an older segment.
    pub(crate) recycled: bool,
}

/// The spares that are ready.
#[derive(Debug)]
pub(crate) struct Spares {
    disk: Arc<dyn Disk>,
    ready: VecDeque<Spare>,
    made: u64,
    segment_size: u64,
    zero_fill: bool,
}

impl Spares {
    /// Removes what an earlier run reserved: its state is not known.
    pub(crate) fn start(disk: Arc<dyn Disk>, config: &Config) -> Result<Self, Error> {
        for name in disk.list().map_err(|e| Error::io("list", ".", e))? {
            if name.ends_with(SUFFIX) {
                disk.remove(&name).map_err(|e| Error::io("remove", &name, e))?;
            }
        }
        Ok(Self {
            disk,
            ready: VecDeque::new(),
            made: 0,
            segment_size: config.segment_size,
            zero_fill: config.zero_fill,
        })
    }

    pub(crate) fn ready(&self) -> u64 {
        self.ready.len() as u64
    }

    /// How to make one more, without holding on to this.
    pub(crate) fn order(&mut self) -> Order {
        self.made += 1;
        Order {
            disk: self.disk.clone(),
            name: format!("{:06}{SUFFIX}", self.made),
            segment_size: self.segment_size,
            zero_fill: self.zero_fill,
        }
    }

    pub(crate) fn put(&mut self, spare: Spare) {
        self.ready.push_back(spare);
    }

    /// The next spare. There is one, because space is reserved before it is needed.
    pub(crate) fn take(&mut self) -> Spare {
        self.ready.pop_front().expect("space is reserved before it is needed")
    }

    /// Makes spares until `count` are ready. The log thread does so ahead of need, so that this
    /// rarely finds anything to do.
    ///
    /// # Errors
    /// `DiskFull` leaves things as they were; everything else is final.
    pub(crate) fn reserve(&mut self, count: u64) -> Result<(), Error> {
        while self.ready() < count {
            let spare = self.order().make()?;
            self.put(spare);
        }
        Ok(())
    }

    /// Takes a segment's file out of the log and keeps it for re-use.
    pub(crate) fn recycle(&mut self, base: LogOffset) -> Result<(), Error> {
        let (old, new) = (segment_name(base), self.order().name);
        self.disk.rename(&old, &new).map_err(|e| Error::io("rename", &old, e))?;
        let file = self.disk.open(&new).map_err(|e| Error::io("open", &new, e))?;
        self.put(Spare { name: new, file, used: true });
        Ok(())
    }
}

/// What it takes to make a spare.
#[derive(Debug)]
pub(crate) struct Order {
    disk: Arc<dyn Disk>,
    name: String,
    segment_size: u64,
    zero_fill: bool,
}

impl Order {
    /// Reserves the space.
    ///
    /// # Errors
    /// `DiskFull` leaves things as they were; everything else is final.
    pub(crate) fn make(self) -> Result<Spare, Error> {
        let Self { disk, name, .. } = &self;
        let file = disk.create(name).map_err(|e| refused("create", name, e))?;
        if let Err(error) = self.fill(&*file) {
            disk.remove(name).map_err(|e| Error::io("remove", name, e))?;
            return Err(error);
        }
        Ok(Spare { name: self.name, file, used: false })
    }

    fn fill(&self, file: &dyn DiskFile) -> Result<(), Error> {
        file.preallocate(self.segment_size).map_err(|e| refused("reserve", &self.name, e))?;
        if self.zero_fill {
            write_zeros(file, 0, self.segment_size).map_err(|e| refused("fill", &self.name, e))?;
        }
        file.sync_data().map_err(|e| refused("sync", &self.name, e))
    }
}

impl Spare {
    /// Turns the spare into the segment with this header, durably.
    pub(crate) fn promote(self, disk: &dyn Disk, header: &SegmentHeader) -> Result<Active, Error> {
        let name = segment_name(header.base);
        let io = |action| {
            let name = &name;
            move |source| Error::io(action, name, source)
        };
        let bytes = header.encode();
        self.file.write_at(&mut [IoSlice::new(&bytes)], 0).map_err(io("write"))?;
        self.file.sync_data().map_err(io("sync"))?;
        disk.rename(&self.name, &name).map_err(io("rename"))?;
        // The directory must be synced too, or a crash forgets that the segment exists.
        if !Bug::B03.is_sown() {
            disk.sync_dir().map_err(io("sync the directory of"))?;
        }
        Ok(Active { base: header.base, file: self.file, recycled: self.used })
    }
}

/// A full disk is no failure of the log as long as only space for later was asked for.
fn refused(action: &'static str, name: &str, source: std::io::Error) -> Error {
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::DiskFull,
        _ => Error::io(action, name, source),
    }
}

pub(crate) fn write_zeros(file: &dyn DiskFile, mut at: u64, len: u64) -> std::io::Result<()> {
    let end = at + len;
    while at < end {
        let now = usize::try_from(end - at).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        file.write_at(&mut [IoSlice::new(&ZEROS[..now])], at)?;
        at += now as u64;
    }
    Ok(())
}
