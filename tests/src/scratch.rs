//! The directory of one test: removed when the test passes, kept and named when it fails.

use std::path::{Path, PathBuf};

use crate::binaries;

/// Sets another parent directory than the one below the target directory. It should be on a real
/// disk: the tests measure what is written.
const PARENT: &str = "MQTEST_DIR";

/// A temporary directory that outlives a failure.
#[derive(Debug)]
pub struct Scratch {
    directory: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Scratch {
    /// # Panics
    /// When the directory cannot be created.
    #[must_use]
    pub fn new() -> Self {
        let mut builder = tempfile::Builder::new();
        builder.prefix("raftmq-");
        let parent = std::env::var_os(PARENT)
            .map_or_else(|| binaries::target().join("scratch"), PathBuf::from);
        std::fs::create_dir_all(&parent).expect("a directory for scratch directories");
        let directory = builder.tempdir_in(parent).expect("a temporary directory");
        Self { path: directory.path().to_owned(), directory: Some(directory) }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the directory behind.
    pub fn keep(&mut self) {
        if let Some(directory) = self.directory.take() {
            let _ = directory.keep();
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep();
            eprintln!("kept {}", self.path.display());
        }
    }
}
