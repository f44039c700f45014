//! Read-only maps of sealed segments: the only unsafe code of the crate.
#![expect(unsafe_code, reason = "memory maps are shared with the file system")]

use std::fs::File;
use std::io;

use bytes::Bytes;
use memmap2::MmapOptions;

/// The file as memory. Slices of the result keep the map alive, also after the file was unlinked.
#[cfg(not(miri))]
pub(crate) fn map(file: &File) -> io::Result<Bytes> {
    // SAFETY: the bytes must not change while the map lives. Only sealed, synced and committed
    // segments are mapped (`Segment::view`): the writer has moved on to the next file, truncation
    // never reaches committed entries, files are never shortened, a file is recycled only once
    // its map is unique, unlinking leaves maps valid, and the directory lock keeps other
    // processes of ours out.
    let map = unsafe { MmapOptions::new().map(file)? };
    Ok(Bytes::from_owner(map))
}

/// Miri cannot map files.
#[cfg(miri)]
pub(crate) fn map(mut file: &File) -> io::Result<Bytes> {
    use std::io::{Read, Seek, SeekFrom};
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes.into())
}
