//! A disk in memory that loses, tears and reorders what was not synced, and fails on cue.
//!
//! Everything it does follows from the calls it gets and the seed of [`Loss::Random`].
//! [`SimDisk::after_crash`] answers what a machine that lost power now could find.

mod crash;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

pub use self::crash::Loss;
use crate::disk::{DirLock, Disk, DiskFile};

/// A simulated directory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// What a call does instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `EIO`. A write may have been done in part. A sync loses for ever what it should have
    /// synced, while reads still show it, as page caches do.
    Eio,
    /// `ENOSPC`. A write may have been done in part.
    Enospc,
    /// The machine stops: this call happened but was not synced, every later one fails.
    Crash,
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// In the order in which they were made.
    pending: Vec<Change>,
    calls: u64,
    faults: BTreeMap<u64, Fault>,
    crashed: bool,
    capacity: Option<u64>,
    locked: bool,
    syncs: u64,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
}

/// Something done and not yet durable.
#[derive(Clone, Debug)]
enum Change {
    Write { inode: usize, position: usize, data: Vec<u8> },
    Grow { inode: usize, len: usize },
    Link { name: String, inode: usize },
    Rename { from: String, to: String, inode: usize },
    Unlink { name: String },
}

impl Change {
    fn inode(&self) -> Option<usize> {
        match self {
            Self::Write { inode, .. } | Self::Grow { inode, .. } => Some(*inode),
            Self::Link { .. } | Self::Rename { .. } | Self::Unlink { .. } => None,
        }
    }
}

fn grow(bytes: &mut Vec<u8>, len: usize) {
    if bytes.len() < len {
        bytes.resize(len, 0);
    }
}

fn write(bytes: &mut Vec<u8>, position: usize, data: &[u8]) {
    grow(bytes, position + data.len());
    bytes[position..position + data.len()].copy_from_slice(data);
}

/// Positions in a simulated file are small.
fn small(n: u64) -> usize {
    usize::try_from(n).expect("simulated files fit memory")
}

impl SimDisk {
    /// An empty disk without limits and faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the simulated disk panics")
    }

    /// Number of calls so far; reads, listings and syncs count too.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Number of successful data syncs so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Lets call number `call` fail; the first call is 0.
    pub fn fail_at(&self, call: u64, fault: Fault) {
        self.state().faults.insert(call, fault);
    }

    /// Lets the next call fail.
    pub fn fail_next(&self, fault: Fault) {
        let mut state = self.state();
        let call = state.calls;
        state.faults.insert(call, fault);
    }

    /// Total bytes that files may occupy; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Whether a [`Fault::Crash`] has happened.
    #[must_use]
    pub fn crashed(&self) -> bool {
        self.state().crashed
    }

    /// Sizes in bytes of what is not durable yet, oldest first; 0 for changes of names and sizes.
    #[must_use]
    pub fn pending(&self) -> Vec<usize> {
        let size = |change: &Change| match change {
            Change::Write { data, .. } => data.len(),
            Change::Grow { .. }
            | Change::Link { .. }
            | Change::Rename { .. }
            | Change::Unlink { .. } => 0,
        };
        self.state().pending.iter().map(size).collect()
    }

    /// The bytes of a file as a reader sees them; `None` if there is no such name.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(name).map(|&inode| state.inodes[inode].live.clone())
    }

    /// Names that a reader sees, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// Damages one byte at rest: it is xored with `mask`.
    ///
    /// # Panics
    /// If there is no such file or byte.
    pub fn flip(&self, name: &str, at: usize, mask: u8) {
        let mut state = self.state();
        let inode = state.names[name];
        let inode = &mut state.inodes[inode];
        inode.live[at] ^= mask;
        inode.durable[at] ^= mask;
    }

    /// Removes a file behind the log's back.
    pub fn lose(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.durable_names.remove(name);
    }
}

impl State {
    /// Counts a call and tells what is wrong with it.
    fn enter(&mut self) -> io::Result<Option<Fault>> {
        if self.crashed {
            return Err(io::Error::other("the machine has stopped"));
        }
        let fault = self.faults.remove(&self.calls);
        self.calls += 1;
        if fault == Some(Fault::Crash) {
            self.crashed = true;
        }
        Ok(fault)
    }

    /// For calls that fail without a trace.
    fn enter_plain(&mut self) -> io::Result<()> {
        match self.enter()? {
            None => Ok(()),
            Some(fault) => Err(error_of(fault)),
        }
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn used(&self) -> u64 {
        let linked: BTreeSet<usize> = self.names.values().copied().collect();
        linked.iter().map(|&inode| self.inodes[inode].live.len() as u64).sum()
    }

    fn has_room_for(&self, inode: usize, len: usize) -> bool {
        let more = len.saturating_sub(self.inodes[inode].live.len()) as u64;
        more == 0 || self.capacity.is_none_or(|capacity| self.used() + more <= capacity)
    }

    fn apply_durably(&mut self, change: Change) {
        match change {
            Change::Write { inode, position, data } => {
                write(&mut self.inodes[inode].durable, position, &data);
            }
            Change::Grow { inode, len } => grow(&mut self.inodes[inode].durable, len),
            Change::Link { name, inode } => {
                self.durable_names.insert(name, inode);
            }
            Change::Rename { from, to, inode } => {
                self.durable_names.remove(&from);
                self.durable_names.insert(to, inode);
            }
            Change::Unlink { name } => {
                self.durable_names.remove(&name);
            }
        }
    }

    /// Takes the pending changes of a file, or of the directory.
    fn take_pending(&mut self, inode: Option<usize>) -> Vec<Change> {
        let all = std::mem::take(&mut self.pending);
        let (taken, left) = all.into_iter().partition(|change| change.inode() == inode);
        self.pending = left;
        taken
    }

    fn sync(&mut self, inode: Option<usize>) -> io::Result<()> {
        match self.enter()? {
            Some(Fault::Crash) => return Err(error_of(Fault::Crash)),
            Some(fault @ (Fault::Eio | Fault::Enospc)) => {
                self.take_pending(inode);
                return Err(error_of(fault));
            }
            None => {}
        }
        for change in self.take_pending(inode) {
            self.apply_durably(change);
        }
        Ok(())
    }

    fn change_names(&mut self, change: Change) -> io::Result<()> {
        let fault = self.enter()?;
        if matches!(fault, Some(Fault::Eio | Fault::Enospc)) {
            return Err(error_of(Fault::Eio));
        }
        match &change {
            Change::Link { name, inode } => {
                self.names.insert(name.clone(), *inode);
            }
            Change::Rename { from, to, inode } => {
                self.names.remove(from);
                self.names.insert(to.clone(), *inode);
            }
            Change::Unlink { name } => {
                self.names.remove(name);
            }
            Change::Write { .. } | Change::Grow { .. } => unreachable!("not a change of names"),
        }
        self.pending.push(change);
        fault.map_or(Ok(()), |fault| Err(error_of(fault)))
    }
}

fn error_of(fault: Fault) -> io::Error {
    match fault {
        Fault::Eio => io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()),
        Fault::Enospc => ErrorKind::StorageFull.into(),
        Fault::Crash => io::Error::other("the machine stops"),
    }
}

#[derive(Debug)]
struct SimLock(SimDisk);

impl DirLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.state().locked = false;
    }
}

impl Disk for SimDisk {
    fn lock(&self) -> io::Result<Box<dyn DirLock>> {
        let mut state = self.state();
        state.enter_plain()?;
        if std::mem::replace(&mut state.locked, true) {
            return Err(ErrorKind::WouldBlock.into());
        }
        drop(state);
        Ok(Box::new(SimLock(self.clone())))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        if state.names.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.change_names(Change::Link { name: name.to_owned(), inode })?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.enter_plain()?;
        let inode = state.find(name)?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.enter_plain()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.find(from)?;
        state.change_names(Change::Rename { from: from.to_owned(), to: to.to_owned(), inode })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.find(name)?;
        state.change_names(Change::Unlink { name: name.to_owned() })
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.state().sync(None)
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: usize,
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.enter_plain()?;
        Ok(state.inodes[self.inode].live.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.enter_plain()?;
        let start = small(position);
        let live = &state.inodes[self.inode].live;
        let from = live.get(start..start + buf.len()).ok_or(ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(from);
        Ok(())
    }

    fn write_at(&self, parts: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut data: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let mut state = self.disk.state();
        let position = small(position);
        let mut fault = state.enter()?;
        if !state.has_room_for(self.inode, position + data.len()) {
            fault = fault.or(Some(Fault::Enospc));
        }
        if matches!(fault, Some(Fault::Eio | Fault::Enospc)) {
            data.truncate(data.len() / 2);
        }
        write(&mut state.inodes[self.inode].live, position, &data);
        state.pending.push(Change::Write { inode: self.inode, position, data });
        fault.map_or(Ok(()), |fault| Err(error_of(fault)))
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let len = small(len);
        let mut fault = state.enter()?;
        if !state.has_room_for(self.inode, len) {
            fault = fault.or(Some(Fault::Enospc));
        }
        if let Some(fault @ (Fault::Eio | Fault::Enospc)) = fault {
            return Err(error_of(fault));
        }
        grow(&mut state.inodes[self.inode].live, len);
        state.pending.push(Change::Grow { inode: self.inode, len });
        fault.map_or(Ok(()), |fault| Err(error_of(fault)))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.sync(Some(self.inode))?;
        state.syncs += 1;
        Ok(())
    }

    fn map(&self) -> io::Result<Bytes> {
        let mut state = self.disk.state();
        state.enter_plain()?;
        Ok(Bytes::copy_from_slice(&state.inodes[self.inode].live))
    }
}
