//! The directory of one test: removed when the test passes, kept and named when it fails.

use std::path::{Path, PathBuf};

/// Sets another parent directory than the system's for temporary files.
const PARENT: &str = "RAFTMQ_TEST_DIR";

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
        let directory = match std::env::var_os(PARENT) {
            Some(parent) => builder.tempdir_in(parent),
            None => builder.tempdir(),
        };
        let directory = directory.expect("a temporary directory");
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
