//! File systems of their own for parts of a node's directory. They take root.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// A file system in memory; unmounted when dropped.
#[derive(Debug)]
pub struct Mount(tempfile::TempDir);

impl Mount {
    /// # Panics
    /// When it cannot be mounted; see [`may_mount`].
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let point = tempfile::tempdir().expect("a mount point");
        run(&["mount", "-t", "tmpfs", "-o", &format!("size={bytes}"), "none"], point.path());
        Self(point)
    }

    /// Gives a directory that exists, and that nobody uses, a file system with all that is in it.
    ///
    /// # Panics
    /// When there is no such directory, or no room.
    #[must_use]
    pub fn instead_of(directory: &Path, bytes: u64) -> Self {
        let aside = directory.with_extension("aside");
        std::fs::rename(directory, &aside).expect("the directory moves");
        let mount = Self::new(bytes);
        run(&["cp", "-a", &format!("{}/.", aside.display())], mount.0.path());
        std::fs::remove_dir_all(&aside).expect("what was copied can go");
        mount.serve(directory);
        mount
    }

    /// Appears at this place, where nothing is yet.
    ///
    /// # Panics
    /// When something is.
    pub fn serve(&self, at: &Path) {
        std::fs::create_dir_all(at.parent().expect("a parent")).expect("a data directory");
        symlink(self.0.path(), at).expect("a link");
    }

    /// # Panics
    /// When it holds more than that.
    pub fn resize(&self, bytes: u64) {
        run(&["mount", "-o", &format!("remount,size={bytes}")], self.0.path());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a node that a failed test left may still hold it.
        run(&["umount", "-l"], self.0.path());
    }
}

fn run(command: &[&str], directory: &Path) {
    let status = Command::new(command[0]).args(&command[1..]).arg(directory).status();
    assert!(status.is_ok_and(|status| status.success()), "{command:?} {}", directory.display());
}

/// Whether this user may mount; if not, says so.
#[must_use]
pub fn may_mount() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not root: cannot give a node a file system of its own");
    }
    root
}
