//! The snapshots of this node: at most one that counts, and one that is still being sent.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use commitlog::GroupId;
use commitlog::position::LogId;

use super::manifest::{Manifest, StateFile};
use super::{Error, failed, files};
use crate::Checkpoint;

/// Where snapshots live within the data directory.
pub(crate) const DIR: &str = "snapshot";
/// The copy of the state within a snapshot's directory.
pub(crate) const STATE: &str = "state";
/// The segments that came along, until they are part of the log.
pub(crate) const LOG: &str = "log";
const BUILDING: &str = "building";
const INCOMING: &str = "incoming";
const ASSEMBLED: &str = "assembled";
const INSTALLING: &str = "installing";

#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    group: GroupId,
    current: Mutex<Option<Arc<Stored>>>,
    /// Held by the one that builds.
    building: Mutex<()>,
}

/// A snapshot in a directory of its own, which goes once a newer one counts and nobody sends this
/// one any more.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) dir: PathBuf,
    pub(crate) manifest: Manifest,
    obsolete: AtomicBool,
    suspect: AtomicBool,
}

impl Stored {
    fn new(dir: PathBuf, manifest: Manifest) -> Arc<Stored> {
        let (obsolete, suspect) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Stored { dir, manifest, obsolete, suspect })
    }

    /// Somebody has found it damaged.
    pub(crate) fn suspect(&self) {
        self.suspect.store(true, Ordering::Release);
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join(STATE)
    }

    /// Reads every file, and compares it with its checksum. Blocks.
    ///
    /// # Errors
    /// `Checksum` for what is not what it was, `Io` for what cannot be read.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.manifest.files.iter().try_for_each(|file| self.check_file(file))
    }

    pub(crate) fn check_file(&self, file: &StateFile) -> Result<(), Error> {
        let found = files::crc(&self.state().join(&file.name))?;
        if found == file.crc {
            return Ok(());
        }
        let (file, expected) = (file.name.clone(), file.crc);
        Err(Error::Checksum { file, expected, found })
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire)
            && let Err(error) = files::remove_dir(&self.dir)
        {
            // The next start tries again.
            tracing::warn!(%error, "remove an old snapshot");
        }
    }
}

impl Store {
    /// Finds the newest snapshot in `data_dir`, and removes what an earlier run left unfinished. An
    /// installation that was begun stays to be finished.
    ///
    /// # Errors
    /// `NewerVersion`, or `Io`. A snapshot that is damaged is removed: it can be made anew.
    pub(crate) fn open(data_dir: &Path, group: GroupId) -> Result<Store, Error> {
        let dir = data_dir.join(DIR);
        files::create_dir(&dir)?;
        files::sync_dir(data_dir)?;
        for unfinished in [BUILDING, ASSEMBLED] {
            files::remove_dir(&dir.join(unfinished))?;
        }
        let mut newest: Option<Arc<Stored>> = None;
        for (name, path) in files::list(&dir)? {
            if name == INCOMING || name == INSTALLING {
                continue;
            }
            let manifest = match look_at(&path, group) {
                Ok(manifest) => manifest,
                Err(error @ Error::NewerVersion { .. }) => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, %name, "a snapshot cannot be used and is removed");
                    files::remove_dir(&path)?;
                    continue;
                }
            };
            let found = Stored::new(path, manifest);
            let older = match newest.take() {
                Some(other) if other.manifest.last >= found.manifest.last => {
                    newest = Some(other);
                    Some(found)
                }
                other => {
                    newest = Some(found);
                    other
                }
            };
            if let Some(older) = older {
                older.obsolete.store(true, Ordering::Release);
            }
        }
        Ok(Store { dir, group, current: Mutex::new(newest), building: Mutex::new(()) })
    }

    pub(crate) fn current(&self) -> Option<Arc<Stored>> {
        self.current.lock().expect("no holder panics").clone()
    }

    /// The last entry in the snapshot that counts.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.current().map(|stored| stored.manifest.last)
    }

    pub(crate) fn group(&self) -> GroupId {
        self.group
    }

    /// Where files arrive.
    pub(crate) fn incoming(&self) -> PathBuf {
        self.dir.join(INCOMING)
    }

    /// Where what has arrived is put together.
    pub(crate) fn assembled(&self) -> PathBuf {
        self.dir.join(ASSEMBLED)
    }

    /// What is being installed.
    pub(crate) fn installing(&self) -> PathBuf {
        self.dir.join(INSTALLING)
    }

    /// Forgets a snapshot that is damaged, if it is the one that counts.
    pub(crate) fn discard(&self, damaged: &Arc<Stored>) {
        let mut current = self.current.lock().expect("no holder panics");
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, damaged)) {
            *current = None;
        }
        damaged.obsolete.store(true, Ordering::Release);
    }

    /// Makes a snapshot, which counts when this returns. Blocks.
    pub(crate) fn build(&self, checkpoint: Checkpoint) -> Result<Arc<Stored>, Error> {
        self.build_beside(checkpoint, None)
    }

    /// The same in the place of one that is damaged. Files that both have keep their checksums, so
    /// that damage which the state shares with it shows.
    pub(crate) fn rebuild(
        &self,
        checkpoint: Checkpoint,
        damaged: &Arc<Stored>,
    ) -> Result<Arc<Stored>, Error> {
        self.build_beside(checkpoint, Some(damaged))
    }

    fn build_beside(
        &self,
        checkpoint: Checkpoint,
        damaged: Option<&Arc<Stored>>,
    ) -> Result<Arc<Stored>, Error> {
        let _building = self.building.lock().expect("no holder panics");
        let dir = self.dir.join(BUILDING);
        files::remove_dir(&dir)?;
        files::create_dir(&dir)?;
        let applied = checkpoint(&dir.join(STATE))?;
        let last = applied.log_id.ok_or(Error::Malformed("an empty state"))?;
        let before = self.current();
        let is_damaged =
            |now: &Arc<Stored>| damaged.is_some_and(|damaged| Arc::ptr_eq(now, damaged));
        if let Some(current) =
            before.clone().filter(|current| current.manifest.last >= last && !is_damaged(current))
        {
            files::remove_dir(&dir)?;
            return Ok(current);
        }
        let membership = applied.membership.ok_or(Error::Malformed("a state of nobody"))?;
        let state = state_files(&dir.join(STATE), before.as_deref())?;
        let manifest =
            Manifest { group: self.group, last, membership, files: state, log_end: None };
        files::sync_dir(&dir.join(STATE))?;
        manifest.store(&dir)?;
        self.adopt(&dir, manifest)
    }

    /// Makes the snapshot in `dir`, a sibling of the one that counts, the one that counts.
    pub(crate) fn adopt(&self, dir: &Path, manifest: Manifest) -> Result<Arc<Stored>, Error> {
        let path = self.dir.join(name(manifest.last));
        // One that was damaged.
        files::remove_dir(&path)?;
        files::rename(dir, &path)?;
        let stored = Stored::new(path, manifest);
        let mut current = self.current.lock().expect("no holder panics");
        if let Some(older) = current.replace(stored.clone())
            && older.dir != stored.dir
        {
            older.obsolete.store(true, Ordering::Release);
        }
        Ok(stored)
    }
}

/// Sorts like the entries.
fn name(last: LogId) -> String {
    format!("{:020}-{}", last.index.0, last.term.0)
}

/// The manifest of a directory in which every file is as long as it should be.
fn look_at(dir: &Path, group: GroupId) -> Result<Manifest, Error> {
    let manifest = Manifest::load(dir)?;
    if manifest.group != group {
        return Err(Error::Malformed("it belongs to another group"));
    }
    for file in &manifest.files {
        if files::len(&dir.join(STATE).join(&file.name))? != file.len {
            return Err(Error::Malformed("a file has another length"));
        }
    }
    Ok(manifest)
}

/// What lies in `dir`. A file that the snapshot before has too, being the same file under another
/// name, is not read again: such files never change.
fn state_files(dir: &Path, before: Option<&Stored>) -> Result<Vec<StateFile>, Error> {
    let mut known: BTreeMap<(u64, u64), u32> = BTreeMap::new();
    if let Some(before) = before {
        for file in &before.manifest.files {
            if let Ok(meta) = fs::metadata(before.state().join(&file.name)) {
                known.insert((meta.ino(), meta.len()), file.crc);
            }
        }
    }
    let found = files::list(dir)?;
    found
        .into_iter()
        .map(|(name, path)| {
            let meta = fs::metadata(&path).map_err(failed("look at", &path))?;
            let crc = match known.get(&(meta.ino(), meta.len())) {
                Some(&crc) => crc,
                None => files::crc(&path)?,
            };
            Ok(StateFile { name, len: meta.len(), crc })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::manifest;
    use super::*;
    use crate::Applied;

    fn checkpoint(index: u64, text: &'static str) -> Checkpoint {
        Box::new(move |into| {
            fs::create_dir(into).unwrap();
            fs::write(into.join("data"), text).unwrap();
            let membership = Some(manifest().membership);
            Ok(Applied { log_id: Some(LogId::new(1, index)), membership })
        })
    }

    const GROUP: GroupId = GroupId(7);

    #[test]
    fn the_newest_counts_and_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), GROUP).unwrap();
        assert!(store.current().is_none());
        let first = store.build(checkpoint(5, "five")).unwrap();
        let second = store.build(checkpoint(9, "nine")).unwrap();
        assert!(first.dir.exists(), "somebody still sends it");
        let gone = first.dir.clone();
        drop(first);
        assert!(!gone.exists());
        let older = store.build(checkpoint(7, "seven")).unwrap();
        assert_eq!(older.manifest.last, LogId::new(1, 9));
        drop((older, second, store));

        let store = Store::open(dir.path(), GROUP).unwrap();
        let found = store.current().unwrap();
        assert_eq!(found.manifest.last, LogId::new(1, 9));
        assert_eq!(fs::read_to_string(found.state().join("data")).unwrap(), "nine");
        let crc = crc32fast::hash(b"nine");
        assert_eq!(found.manifest.files, [StateFile { name: "data".into(), len: 4, crc }]);
    }

    #[test]
    fn what_is_unfinished_or_damaged_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), GROUP).unwrap();
        let good = store.build(checkpoint(5, "five")).unwrap().dir.clone();
        drop(store);
        let unfinished = dir.path().join(DIR).join(BUILDING);
        fs::create_dir(&unfinished).unwrap();
        let damaged = dir.path().join(DIR).join(name(LogId::new(1, 8)));
        fs::create_dir(&damaged).unwrap();
        let mut bytes = fs::read(good.join(super::super::manifest::FILE)).unwrap();
        bytes[20] ^= 1;
        fs::write(damaged.join(super::super::manifest::FILE), bytes).unwrap();
        let store = Store::open(dir.path(), GROUP).unwrap();
        assert_eq!(store.last(), Some(LogId::new(1, 5)));
        assert!(!unfinished.exists() && !damaged.exists());
    }

    #[test]
    fn a_file_of_another_length_is_no_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), GROUP).unwrap();
        let stored = store.build(checkpoint(5, "five")).unwrap();
        fs::write(stored.state().join("data"), "fiv").unwrap();
        drop((store, stored));
        assert!(Store::open(dir.path(), GROUP).unwrap().current().is_none());
    }
}
