//! Where a broadcasting client keeps how far it has read.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::MessageQueue;

/// Offsets that belong to one client and not to its group. Calls are short and must not block for
/// long.
pub trait OffsetStore: Send + Sync + 'static {
    /// The offset to go on with, if this client has read of the queue before.
    ///
    /// # Errors
    /// When that cannot be told: nothing is read then, because it might be read twice.
    fn load(&self, queue: &MessageQueue) -> io::Result<Option<i64>>;

    /// Everything below the offset has been read. When this returns it is safe.
    ///
    /// # Errors
    /// When it could not be kept: it is tried again with the next commit.
    fn save(&self, queue: &MessageQueue, offset: i64) -> io::Result<()>;
}

/// Offsets that last as long as the process.
#[derive(Debug, Default)]
pub struct MemoryOffsets(Mutex<BTreeMap<String, i64>>);

impl OffsetStore for MemoryOffsets {
    fn load(&self, queue: &MessageQueue) -> io::Result<Option<i64>> {
        let offsets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(offsets.get(&queue.to_string()).copied())
    }

    fn save(&self, queue: &MessageQueue, offset: i64) -> io::Result<()> {
        let mut offsets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        offsets.insert(queue.to_string(), offset);
        Ok(())
    }
}

/// Offsets in a file, a line for each queue. One process uses it at a time.
#[derive(Debug)]
pub struct FileOffsets {
    path: PathBuf,
    offsets: Mutex<BTreeMap<String, i64>>,
}

impl FileOffsets {
    /// Reads the file, which need not exist yet.
    ///
    /// # Errors
    /// When it cannot be read, or holds something else.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let offsets = text.lines().map(line).collect::<Option<_>>();
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "not a file of offsets");
        Ok(Self { path, offsets: Mutex::new(offsets.ok_or_else(wrong)?) })
    }
}

/// `queue offset`
fn line(line: &str) -> Option<(String, i64)> {
    let (queue, offset) = line.rsplit_once(' ')?;
    Some((queue.to_owned(), offset.parse().ok()?))
}

impl OffsetStore for FileOffsets {
    fn load(&self, queue: &MessageQueue) -> io::Result<Option<i64>> {
        let offsets = self.offsets.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(offsets.get(&queue.to_string()).copied())
    }

    fn save(&self, queue: &MessageQueue, offset: i64) -> io::Result<()> {
        let mut offsets = self.offsets.lock().unwrap_or_else(PoisonError::into_inner);
        offsets.insert(queue.to_string(), offset);
        let text: String =
            offsets.iter().map(|(queue, offset)| format!("{queue} {offset}\n")).collect();
        replace(&self.path, text.as_bytes())
    }
}

/// Either the old file or the new one is there, whole, after a crash.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut file = fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_offsets_across_processes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("offsets");
        let (one, other) = (MessageQueue::new("t", "a", 0), MessageQueue::new("t", "a", 1));
        let store = FileOffsets::open(&path).unwrap();
        assert_eq!(store.load(&one).unwrap(), None);
        store.save(&one, 7).unwrap();
        store.save(&one, 8).unwrap();
        store.save(&other, 1).unwrap();
        let again = FileOffsets::open(&path).unwrap();
        assert_eq!((again.load(&one).unwrap(), again.load(&other).unwrap()), (Some(8), Some(1)));
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("offsets");
        fs::write(&path, "t@a:0 seven\n").unwrap();
        assert_eq!(FileOffsets::open(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
