//! What the log asks of a disk: one flat directory of files, written in place.
//!
//! Synchronous on purpose: the log thread waits for its disk, and a simulated disk needs no
//! runtime. Implemented by [`FileDisk`](crate::FileDisk) and [`SimDisk`](crate::SimDisk).

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;

/// One directory.
pub trait Disk: Debug + Send + Sync {
    /// Takes the directory for this process until the guard is dropped.
    ///
    /// # Errors
    /// `WouldBlock` if another process, or another handle in this one, holds it.
    fn lock(&self) -> io::Result<Box<dyn DirLock>>;

    /// Creates an empty file. Its name is durable only after [`sync_dir`](Self::sync_dir).
    ///
    /// # Errors
    /// `AlreadyExists`, or what the disk answers.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound`, or what the disk answers.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Names of all files, sorted.
    ///
    /// # Errors
    /// What the disk answers.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Gives a file another name; a file that had it is gone, at once and for good with the next
    /// [`sync_dir`](Self::sync_dir). Open handles and maps of both stay valid.
    ///
    /// # Errors
    /// What the disk answers.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name. Open handles and maps stay valid.
    ///
    /// # Errors
    /// What the disk answers.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all creates, renames and removes so far durable.
    ///
    /// # Errors
    /// What the disk answers.
    fn sync_dir(&self) -> io::Result<()>;
}

/// One file.
pub trait DiskFile: Debug + Send + Sync {
    /// Length in bytes.
    ///
    /// # Errors
    /// What the disk answers.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buf` from `position`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file is shorter, or what the disk answers.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<()>;

    /// Writes all parts one behind the other, starting at `position`. After an error any part of
    /// them may have been written. `parts` is used up.
    ///
    /// # Errors
    /// What the disk answers.
    fn write_at(&self, parts: &mut [IoSlice<'_>], position: u64) -> io::Result<()>;

    /// Reserves space so that writes below `len` need none. New bytes read as zeros.
    ///
    /// # Errors
    /// `StorageFull`, or what the disk answers.
    fn preallocate(&self, len: u64) -> io::Result<()>;

    /// Makes everything written so far durable, the length included, the name not.
    ///
    /// # Errors
    /// What the disk answers. After an error the fate of unsynced writes is unknown, and asking
    /// again proves nothing.
    fn sync_data(&self) -> io::Result<()>;

    /// The whole file as memory, without a copy where the disk can. Only for files that nobody
    /// writes to any more.
    ///
    /// # Errors
    /// What the disk answers.
    fn map(&self) -> io::Result<Bytes>;
}

/// Holds a directory; dropping it lets go.
pub trait DirLock: Debug + Send + Sync {}
