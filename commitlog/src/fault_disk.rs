//! The real disk with one fault in it, for tests of whole processes: what a broken disk answers.

use std::io::{self, IoSlice};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rustix::io::Errno;

use crate::disk::{DirLock, Disk, DiskFile};
use crate::file_disk::FileDisk;
use crate::hard_state::FILE;

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Sync,
}

/// `read 3`, `write 3` or `sync 3`: the third such call on a segment's file fails with EIO, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFault {
    kind: Kind,
    nth: u64,
}

impl FromStr for DiskFault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let &[kind, nth] = &words[..] else {
            return Err("expected \"read N\", \"write N\" or \"sync N\"".into());
        };
        let kind = match kind {
            "read" => Kind::Read,
            "write" => Kind::Write,
            "sync" => Kind::Sync,
            other => return Err(format!("{other:?} is neither read, write nor sync")),
        };
        let nth = nth.parse().ok().filter(|&nth| nth > 0);
        Ok(Self { kind, nth: nth.ok_or_else(|| format!("{:?} is no number of a call", words[1]))? })
    }
}

#[derive(Debug)]
struct Armed {
    fault: DiskFault,
    calls: AtomicU64,
}

impl Armed {
    fn meet(&self, kind: Kind) -> io::Result<()> {
        if self.fault.kind != kind
            || self.calls.fetch_add(1, Ordering::Relaxed) + 1 != self.fault.nth
        {
            return Ok(());
        }
        tracing::warn!(?kind, "a call fails as asked for");
        Err(Errno::IO.into())
    }
}

/// A [`FileDisk`], with a fault if one is asked for.
#[derive(Clone, Debug)]
pub struct FaultDisk {
    disk: FileDisk,
    armed: Option<Arc<Armed>>,
}

impl FaultDisk {
    #[must_use]
    pub fn new(disk: FileDisk, fault: Option<DiskFault>) -> Self {
        let armed = fault.map(|fault| Arc::new(Armed { fault, calls: AtomicU64::new(0) }));
        Self { disk, armed }
    }

    fn wrap(&self, name: &str, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        match &self.armed {
            // Segments, and spares that become some.
            Some(armed) if name != FILE => Arc::new(FaultFile { file, armed: armed.clone() }),
            _ => file,
        }
    }
}

impl Disk for FaultDisk {
    fn lock(&self) -> io::Result<Box<dyn DirLock>> {
        self.disk.lock()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(name, self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(name, self.disk.open(name)?))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
}

#[derive(Debug)]
struct FaultFile {
    file: Arc<dyn DiskFile>,
    armed: Arc<Armed>,
}

impl DiskFile for FaultFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<()> {
        self.armed.meet(Kind::Read)?;
        self.file.read_at(buf, position)
    }

    fn write_at(&self, parts: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        self.armed.meet(Kind::Write)?;
        self.file.write_at(parts, position)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.file.preallocate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.armed.meet(Kind::Sync)?;
        self.file.sync_data()
    }

    fn map(&self) -> io::Result<Bytes> {
        self.file.map()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_a_call_and_its_number() {
        let fault: DiskFault = "sync 3".parse().unwrap();
        assert_eq!(fault, DiskFault { kind: Kind::Sync, nth: 3 });
        for bad in ["", "sync", "sync 0", "seek 1", "read x", "read 1 2"] {
            assert!(bad.parse::<DiskFault>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_nth_call_fails_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FileDisk::new(dir.path()).unwrap();
        let disk = FaultDisk::new(disk, Some("write 2".parse().unwrap()));
        let file = disk.create("x").unwrap();
        let write = || file.write_at(&mut [IoSlice::new(b"x")], 0);
        let failed: Vec<bool> = (0..4).map(|_| write().is_err()).collect();
        assert_eq!(failed, [false, true, false, false]);
        file.sync_data().unwrap();
    }
}
