//! What disks do to files.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Flips one bit, as a disk does it: the file stays the same one.
///
/// # Panics
/// When the file is not there, or not that long.
pub fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).expect("the file is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it is that long");
    byte[0] ^= 4;
    file.write_all_at(&byte, at).expect("it can be written");
}
