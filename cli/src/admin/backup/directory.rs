//! The directory that keeps a backup.
//!
//! What the manifest names is never changed but by bytes behind those that count, and the manifest
//! is replaced in one step when everything that the new one names is durable. So an attempt that
//! ends half way leaves the backup before it as it was, and is continued by the next.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use proto::backup::{
    LOG, MANIFEST, STATE, decode_manifest, encode_manifest, segment_name, state_name,
};
use proto::backup_rpc::{Manifest, Part};

use crate::failure::Failure;

const LOCK: &str = "lock";
const FRESH: &str = "MANIFEST.new";
/// Bytes read at once.
const CHUNK: usize = 1 << 20;

pub(super) struct Directory {
    path: PathBuf,
    /// The backup that is there already.
    before: Option<Manifest>,
    _lock: File,
}

/// What of an offer has to be fetched.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) wants: Vec<Part>,
    /// Bytes that the directory has.
    pub(super) reused: u64,
    /// Checksums of segments that are not fetched, by their place in the offer.
    known: BTreeMap<usize, u32>,
}

/// A file that is being fetched.
pub(super) struct Fetched {
    path: PathBuf,
    file: File,
    at: u64,
    len: u64,
    hasher: crc32fast::Hasher,
}

impl Directory {
    /// Creates the directory if need be. Nobody else writes into it as long as this lives.
    pub(super) fn open(path: &Path) -> Result<Directory> {
        for part in [path.to_owned(), path.join(STATE), path.join(LOG)] {
            fs::create_dir_all(&part).with_context(|| format!("create {}", part.display()))?;
        }
        let at = path.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&at);
        let lock = lock.with_context(|| format!("open {}", at.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another backup is being written to {}", path.display())
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock {}", at.display()));
            }
        }
        let before = load(path)?;
        Ok(Directory { path: path.to_owned(), before, _lock: lock })
    }

    /// Compares an offer with what is there.
    pub(super) fn plan(&self, offer: &Manifest) -> Result<Plan> {
        if let Some(before) = &self.before
            && before.group_id != offer.group_id
        {
            bail!(Failure::Rejected(format!(
                "{} keeps a backup of another group of {}: name another directory",
                self.path.display(),
                before.broker_name
            )));
        }
        let mut plan = Plan::default();
        for (file, wanted) in offer.state.iter().enumerate() {
            let path = self.path.join(STATE).join(state_name(wanted));
            match len_of(&path)? {
                Some(len) if len == wanted.len => plan.reused += len,
                _ => plan.want(file, 0),
            }
        }
        let kept = self.before.iter().flat_map(|before| &before.segments);
        let kept: BTreeMap<u64, _> = kept.map(|segment| (segment.base, segment)).collect();
        for (place, wanted) in offer.segments.iter().enumerate() {
            let file = offer.state.len() + place;
            let there = len_of(&self.path.join(LOG).join(segment_name(wanted)))?.unwrap_or(0);
            let same = kept.get(&wanted.base).filter(|kept| {
                kept.len == wanted.len && kept.last_index == wanted.last_index && there >= kept.len
            });
            if let Some(same) = same {
                plan.reused += same.len;
                plan.known.insert(place, same.crc);
                continue;
            }
            // Committed bytes are the same in every log of the group: any beginning can be continued.
            let from = there.min(wanted.len);
            plan.reused += from;
            plan.want(file, from);
        }
        Ok(plan)
    }

    /// Opens a file of the offer that is fetched from the byte `from` on.
    pub(super) fn fetch(&self, offer: &Manifest, file: usize, from: u64) -> Result<Fetched> {
        let (path, len) = match file.checked_sub(offer.state.len()) {
            None => {
                let wanted = &offer.state[file];
                (self.path.join(STATE).join(state_name(wanted)), wanted.len)
            }
            Some(place) => {
                let wanted = &offer.segments[place];
                (self.path.join(LOG).join(segment_name(wanted)), wanted.len)
            }
        };
        let mut options = OpenOptions::new();
        options.create(true).truncate(from == 0).read(true).write(true);
        let opened = options.open(&path);
        let file = opened.with_context(|| format!("create {}", path.display()))?;
        let mut fetched = Fetched { path, file, at: 0, len, hasher: crc32fast::Hasher::new() };
        fetched.take_in(from)?;
        Ok(fetched)
    }

    /// Makes what `manifest` names the backup, and removes what it does not name.
    pub(super) fn commit(&mut self, manifest: &Manifest) -> Result<()> {
        for part in [STATE, LOG] {
            sync_dir(&self.path.join(part))?;
        }
        let fresh = self.path.join(FRESH);
        let write = || {
            let mut file = File::create(&fresh)?;
            file.write_all(&encode_manifest(manifest))?;
            file.sync_all()?;
            fs::rename(&fresh, self.path.join(MANIFEST))
        };
        write().with_context(|| format!("write {}", self.path.join(MANIFEST).display()))?;
        sync_dir(&self.path)?;
        self.before = Some(manifest.clone());
        let state = manifest.state.iter().map(state_name).collect();
        let log = manifest.segments.iter().map(segment_name).collect();
        remove_others(&self.path.join(STATE), &state)?;
        remove_others(&self.path.join(LOG), &log)
    }
}

impl Plan {
    fn want(&mut self, file: usize, from: u64) {
        self.wants.push(Part { file: u32::try_from(file).expect("few files"), from });
    }

    /// Notes the checksums of what was not fetched.
    pub(super) fn complete(&self, manifest: &mut Manifest) {
        for (&place, &crc) in &self.known {
            manifest.segments[place].crc = crc;
        }
    }
}

impl Fetched {
    /// Reads what is there of the file's beginning.
    fn take_in(&mut self, from: u64) -> Result<()> {
        let mut buf = vec![0; CHUNK];
        while self.at < from {
            let most = usize::try_from(from - self.at).unwrap_or(CHUNK).min(CHUNK);
            let read = self.file.read(&mut buf[..most]);
            let read = read.with_context(|| format!("read {}", self.path.display()))?;
            ensure!(read > 0, "{} became shorter", self.path.display());
            self.hasher.update(&buf[..read]);
            self.at += read as u64;
        }
        Ok(())
    }

    pub(super) fn write(&mut self, at: u64, data: &[u8]) -> Result<()> {
        ensure!(
            at == self.at && self.len - self.at >= data.len() as u64,
            "bytes of {} arrive out of order",
            self.path.display()
        );
        let written = self.file.write_all_at(data, at);
        written.with_context(|| format!("write {}", self.path.display()))?;
        self.hasher.update(data);
        self.at += data.len() as u64;
        Ok(())
    }

    /// Checks the whole file and makes it durable.
    pub(super) fn end(self, crc: u32) -> Result<u32> {
        let Fetched { path, file, at, len, hasher } = self;
        ensure!(at == len, "{} has {at} bytes of {len}", path.display());
        let found = hasher.finalize();
        if found != crc {
            // What an earlier attempt left is not what it should be. The next one starts over.
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            bail!(Failure::NotDone(format!(
                "{} was damaged: checksum {found:08x}, not {crc:08x}; it was removed and will be \
                 fetched anew",
                path.display()
            )));
        }
        file.sync_all().with_context(|| format!("sync {}", path.display()))?;
        Ok(crc)
    }
}

fn load(dir: &Path) -> Result<Option<Manifest>> {
    let path = dir.join(MANIFEST);
    match fs::read(&path) {
        Ok(bytes) => {
            let manifest = decode_manifest(&bytes);
            Ok(Some(manifest.with_context(|| format!("{} cannot be used", path.display()))?))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn len_of(path: &Path) -> Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("look at {}", path.display())),
    }
}

fn sync_dir(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|dir| dir.sync_all());
    synced.with_context(|| format!("sync {}", path.display()))
}

fn remove_others(dir: &Path, named: &BTreeSet<String>) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", dir.display()))?;
        if !named.contains(&*entry.file_name().to_string_lossy()) {
            let path = entry.path();
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proto::backup_rpc::{File as StateFile, Segment};

    use super::*;

    const SIZE: u64 = 64;

    /// Byte `i` of the log.
    fn byte(i: u64) -> u8 {
        (i % 251).to_le_bytes()[0]
    }

    fn offer(end: u64) -> Manifest {
        let whole = |base: u64| base + SIZE <= end;
        let segments: Vec<Segment> = (0..end)
            .step_by(64)
            .map(|base| Segment {
                base,
                len: if whole(base) { SIZE } else { end - base },
                last_term: 1,
                last_index: if whole(base) { base + SIZE } else { end },
                crc: 0,
            })
            .collect();
        let state = vec![StateFile { name: "s".into(), len: 1, crc: crc32fast::hash(b"s") }];
        Manifest {
            broker_name: "broker-a".into(),
            group_id: Bytes::from_static(&[7; 16]),
            term: 1,
            index: segments.last().map_or(0, |segment| segment.last_index),
            state,
            segment_size: SIZE,
            segments,
            ..Manifest::default()
        }
    }

    /// Fetches an offer, and returns how many bytes that took.
    fn fetch(directory: &mut Directory, mut offer: Manifest) -> u64 {
        let plan = directory.plan(&offer).unwrap();
        plan.complete(&mut offer);
        let mut received = 0;
        for part in &plan.wants {
            let file = usize::try_from(part.file).unwrap();
            let mut fetched = directory.fetch(&offer, file, part.from).unwrap();
            let data: Vec<u8> = match file.checked_sub(offer.state.len()) {
                None => b"s".to_vec(),
                Some(place) => {
                    let Segment { base, len, .. } = offer.segments[place];
                    (base..base + len).map(byte).collect()
                }
            };
            let from = usize::try_from(part.from).unwrap();
            fetched.write(part.from, &data[from..]).unwrap();
            received += (data.len() - from) as u64;
            let crc = fetched.end(crc32fast::hash(&data)).unwrap();
            if let Some(place) = file.checked_sub(offer.state.len()) {
                offer.segments[place].crc = crc;
            }
        }
        directory.commit(&offer).unwrap();
        received
    }

    #[test]
    fn a_second_backup_fetches_what_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let mut directory = Directory::open(dir.path()).unwrap();
        assert_eq!(fetch(&mut directory, offer(100)), 101);
        drop(directory);
        let mut directory = Directory::open(dir.path()).unwrap();
        assert_eq!(fetch(&mut directory, offer(100)), 0);
        assert_eq!(fetch(&mut directory, offer(150)), 50);
        let kept = load(dir.path()).unwrap().unwrap();
        assert!(kept.segments.iter().all(|segment| segment.crc != 0), "{kept:?}");
        // What the log has let go of goes here too.
        let mut later = offer(150);
        later.segments.remove(0);
        assert_eq!(fetch(&mut directory, later), 0);
        assert!(!dir.path().join(LOG).join("00000000000000000000.seg").exists());
    }

    #[test]
    fn what_an_attempt_left_is_continued_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let mut directory = Directory::open(dir.path()).unwrap();
        let path = dir.path().join(LOG).join("00000000000000000000.seg");
        fs::write(&path, (0..40).map(byte).collect::<Vec<_>>()).unwrap();
        assert_eq!(fetch(&mut directory, offer(100)), 61);

        let path = dir.path().join(LOG).join("00000000000000000128.seg");
        fs::write(&path, [0; 10]).unwrap();
        let offer = offer(150);
        let mut fetched = directory.fetch(&offer, 3, 10).unwrap();
        let data: Vec<u8> = (128..150).map(byte).collect();
        fetched.write(10, &data[10..]).unwrap();
        let error = fetched.end(crc32fast::hash(&data)).unwrap_err().to_string();
        assert!(error.contains("00000000000000000128.seg") && error.contains("damaged"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn another_groups_backup_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut directory = Directory::open(dir.path()).unwrap();
        fetch(&mut directory, offer(100));
        let other = Manifest { group_id: Bytes::from_static(&[8; 16]), ..offer(100) };
        let error = directory.plan(&other).unwrap_err().to_string();
        assert!(error.contains("another group"), "{error}");
        let error = Directory::open(dir.path()).map(drop).unwrap_err().to_string();
        assert!(error.contains("another backup is being written"), "{error}");
    }
}
