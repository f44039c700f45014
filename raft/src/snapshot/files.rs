//! Files and directories, made durable.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Error, failed};

/// Bytes read at once.
const CHUNK: usize = 1 << 20;

pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    let opened = File::open(dir).map_err(failed("open", dir))?;
    opened.sync_all().map_err(failed("sync", dir))
}

pub(crate) fn create_dir(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(failed("create", dir))
}

/// Removes a directory with everything in it, if it is there.
pub(crate) fn remove_dir(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(failed("remove", dir)),
    }
}

/// Removes a file, if it is there.
pub(crate) fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(failed("remove", path)),
    }
}

/// Gives a file a second name. Where that one is on another file system it becomes a durable copy,
/// which a crash may leave incomplete.
pub(crate) fn link(from: &Path, to: &Path) -> Result<(), Error> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            fs::copy(from, to).map_err(failed("copy to", to))?;
            let copied = File::open(to).map_err(failed("open", to))?;
            copied.sync_all().map_err(failed("sync", to))
        }
        linked => linked.map_err(failed("link", to)),
    }
}

/// Renames durably; both must be in the same directory.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(failed("rename", from))?;
    sync_dir(to.parent().expect("what is renamed lies in a directory"))
}

/// The plain files in `dir` by name; none if it is not there.
pub(crate) fn list(dir: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed("list", dir)(source)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("list", dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        found.push((name, entry.path()));
    }
    found.sort_unstable();
    Ok(found)
}

pub(crate) fn len(path: &Path) -> Result<u64, Error> {
    Ok(fs::metadata(path).map_err(failed("look at", path))?.len())
}

/// CRC-32 of a whole file.
pub(crate) fn crc(path: &Path) -> Result<u32, Error> {
    let mut file = File::open(path).map_err(failed("open", path))?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buf = vec![0; CHUNK];
    loop {
        match file.read(&mut buf).map_err(failed("read", path))? {
            0 => return Ok(hasher.finalize()),
            read => hasher.update(&buf[..read]),
        }
    }
}
