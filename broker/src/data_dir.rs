//! The data directory: created, and held by one process at a time.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// Held as long as the process uses the directory; the kernel lets go when the process ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// The directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process holds it.
    #[error("data directory {path} is in use by another broker")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It holds files, and none of them are a broker's.
    #[error(
        "data directory {path} holds {found}, which is not a broker's: name a directory of its own"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the files.
        found: String,
    },
    /// The operating system refuses.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

pub(crate) const LOCK_FILE: &str = "lock";
pub(crate) const RAFT_DIR: &str = "raft";
pub(crate) const STATE_DIR: &str = "state";
/// The state is not to be used.
const CONDEMNED: &str = "state.damaged";
/// What else may be there: a file system has this one at its root.
const LOST_FOUND: &str = "lost+found";

impl DataDir {
    /// Creates the directory if need be and locks it.
    pub fn lock(path: &Path) -> Result<DataDir, DataDirError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { action, path, source }
        };
        std::fs::create_dir_all(path).map_err(failed("create data directory", path))?;
        if let Some(found) = foreign(path).map_err(failed("list", path))? {
            return Err(DataDirError::Foreign { path: path.to_owned(), found });
        }
        let lock_path = path.join(LOCK_FILE);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(failed("open lock file", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(DataDir { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => {
                Err(DataDirError::Io { action: "lock", path: lock_path, source })
            }
        }
    }

    /// The replicated log.
    pub fn raft(&self) -> PathBuf {
        self.path.join(RAFT_DIR)
    }

    /// Remembers that the state is damaged: the next start does without it.
    pub fn condemn_state(&self) -> io::Result<()> {
        let file = File::create(self.path.join(CONDEMNED))?;
        file.sync_all()?;
        File::open(&self.path)?.sync_all()
    }

    /// Whether [`DataDir::condemn_state`] was called since the state was last removed.
    pub fn state_is_condemned(&self) -> bool {
        self.path.join(CONDEMNED).exists()
    }

    /// Removes the state, which comes back from a snapshot and the log, or from another replica.
    pub fn remove_state(&self) -> io::Result<()> {
        let state = self.state();
        match empty(&state) {
            Ok(()) => File::open(&state)?.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match std::fs::remove_file(self.path.join(CONDEMNED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// What is derived from the log.
    pub fn state(&self) -> PathBuf {
        self.path.join(STATE_DIR)
    }
}

/// Removes what is in a directory, which itself may be where a file system is mounted.
pub(crate) fn empty(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true if entry.file_name() == LOST_FOUND => {}
            true => std::fs::remove_dir_all(entry.path())?,
            false => std::fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// A file in a directory that no broker has used, and that nobody meant for one.
fn foreign(path: &Path) -> io::Result<Option<String>> {
    let mut first = None;
    for entry in std::fs::read_dir(path)? {
        let name = entry?.file_name();
        if [LOCK_FILE, RAFT_DIR, STATE_DIR].iter().any(|ours| name == **ours) {
            return Ok(None);
        }
        if name != LOST_FOUND {
            first.get_or_insert_with(|| name.to_string_lossy().into_owned());
        }
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_full_of_something_else_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("lost+found")).expect("create");
        drop(DataDir::lock(dir.path()).expect("a new file system"));
        std::fs::write(dir.path().join("notes.txt"), b"x").expect("write");
        drop(DataDir::lock(dir.path()).expect("a broker's, with a note in it"));
        let other = tempfile::tempdir().expect("a directory");
        std::fs::write(other.path().join("thesis.tex"), b"x").expect("write");
        let error = DataDir::lock(other.path()).expect_err("somebody's work").to_string();
        assert!(error.contains("thesis.tex"), "{error}");
        assert!(!other.path().join("lock").exists());
    }

    #[test]
    fn a_directory_serves_one_process_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a").join("b");
        let held = DataDir::lock(&path).expect("free");
        let error = DataDir::lock(&path).expect_err("held").to_string();
        assert!(error.contains("in use"), "{error}");
        drop(held);
        DataDir::lock(&path).expect("free again");
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        std::fs::write(&path, b"x").expect("write");
        let error = DataDir::lock(&path).expect_err("no directory").to_string();
        assert!(error.contains("create data directory") && error.contains("file"), "{error}");
    }
}
