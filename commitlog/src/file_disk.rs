//! A directory of the operating system.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, fdatasync, flock};
use rustix::io::{Errno, pwritev};

use crate::disk::{DirLock, Disk, DiskFile};
use crate::mmap;
use crate::spares::write_zeros;

/// Linux takes at most this many buffers in one `pwritev`.
const PARTS_PER_WRITE: usize = 1024;
/// File that carries the directory lock.
const LOCK_FILE: &str = "LOCK";

/// The real disk.
#[derive(Clone, Debug)]
pub struct FileDisk {
    dir: PathBuf,
}

impl FileDisk {
    /// Uses `dir`, which is created with its parents if it is missing.
    ///
    /// # Errors
    /// What the operating system answers.
    pub fn new(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        let missing: Vec<&Path> = dir.ancestors().take_while(|path| !path.exists()).collect();
        std::fs::create_dir_all(&dir)?;
        // The names of new directories must survive a crash too.
        for new in missing {
            match new.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all()?,
                _ => File::open(".")?.sync_all()?,
            }
        }
        Ok(Self { dir })
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

#[derive(Debug)]
struct LockedFile(#[expect(dead_code, reason = "closing the file is what unlocks")] File);

impl DirLock for LockedFile {}

impl Disk for FileDisk {
    fn lock(&self) -> io::Result<Box<dyn DirLock>> {
        let path = self.path(LOCK_FILE);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(LockedFile(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path(name);
        let file = OpenOptions::new().create_new(true).read(true).write(true).open(path)?;
        Ok(Arc::new(RealFile { file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path(name))?;
        Ok(Arc::new(RealFile { file }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            // A name that is not text is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
}

impl DiskFile for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, position)
    }

    fn write_at(&self, mut parts: &mut [IoSlice<'_>], mut position: u64) -> io::Result<()> {
        // Empty parts would make a write of nothing look like a full disk.
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let now = &parts[..parts.len().min(PARTS_PER_WRITE)];
            match pwritev(&self.file, now, position) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    position += written as u64;
                    IoSlice::advance_slices(&mut parts, written);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        loop {
            return match fallocate(&self.file, FallocateFlags::empty(), 0, len) {
                Ok(()) => Ok(()),
                Err(Errno::INTR) => continue,
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.fill_up_to(len),
                Err(error) => Err(error.into()),
            };
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(fdatasync(&self.file)?)
    }

    fn map(&self) -> io::Result<Bytes> {
        mmap::map(&self.file)
    }
}

impl RealFile {
    /// Reserves space on file systems without `fallocate`, by writing it.
    fn fill_up_to(&self, len: u64) -> io::Result<()> {
        let size = self.size()?;
        write_zeros(self, size, len.saturating_sub(size))
    }
}
