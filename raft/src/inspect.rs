//! A replica's directory as it lies there: whose it is, its log and its snapshots. Nothing is
//! written or repaired.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use commitlog::inspect::{self, Listed};
use commitlog::position::LogIndex;
use commitlog::{Disk, FileDisk};

use crate::bootstrap::identity::{self, LOG_DIR};
use crate::failure::Chain;
use crate::snapshot::manifest::Manifest;
use crate::snapshot::store::{self, STATE};
use crate::snapshot::{Error as SnapshotError, files};
use crate::vote;

/// Something in a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// The file, from the data directory on.
    pub name: String,
    pub facts: Vec<(&'static str, String)>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

impl Part {
    pub fn new(name: impl Into<String>) -> Part {
        Part { name: name.into(), ..Part::default() }
    }

    #[must_use]
    pub fn fact(mut self, name: &'static str, value: impl Display) -> Part {
        self.facts.push((name, value.to_string()));
        self
    }

    #[must_use]
    pub fn wrong(mut self, problem: impl Display) -> Part {
        self.problem = Some(problem.to_string());
        self
    }
}

fn shown<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Everything that consensus keeps in `data_dir`; with `check`, all of it is compared with its
/// checksums.
///
/// # Errors
/// The log's directory cannot be listed.
pub fn inspect(data_dir: &Path, check: bool) -> Result<Vec<Part>, commitlog::Error> {
    let mut parts = identities(data_dir);
    let disk = log_disk(data_dir)?;
    parts.extend(hard_states(&*disk));
    parts.extend(segments(&disk, check)?);
    parts.extend(snapshots(data_dir, check));
    Ok(parts)
}

/// Entries of the log from `from` on, at most `limit`.
///
/// # Errors
/// A segment cannot be read.
pub fn list(
    data_dir: &Path,
    from: LogIndex,
    limit: usize,
) -> Result<Vec<Listed>, commitlog::Error> {
    let disk = log_disk(data_dir)?;
    let mut found = Vec::new();
    for base in inspect::bases(&*disk)? {
        if found.len() >= limit {
            break;
        }
        inspect::segment(&disk, base, true, &mut |listed| {
            if listed.log_id.index >= from {
                found.push(listed);
            }
            found.len() < limit
        })?;
    }
    found.truncate(limit);
    Ok(found)
}

fn log_disk(data_dir: &Path) -> Result<Arc<dyn Disk>, commitlog::Error> {
    let path = data_dir.join(LOG_DIR);
    match path.is_dir() {
        true => Ok(Arc::new(FileDisk::new(&path).map_err(|source| commitlog::Error::Io {
            action: "open",
            file: path.display().to_string(),
            source: Arc::new(source),
        })?)),
        false => Err(commitlog::Error::Missing { file: path.display().to_string() }),
    }
}

fn identities(data_dir: &Path) -> Vec<Part> {
    let copies = identity::copies(data_dir).into_iter();
    let part = |(name, copy): (&'static str, Result<identity::Identity, String>)| match copy {
        Ok(identity) => Part::new(name)
            .fact("broker", &identity.broker_name)
            .fact("node", identity.node)
            .fact("group", identity.group)
            .fact("synced", identity.synced.word()),
        Err(problem) => Part::new(name).wrong(problem),
    };
    copies.map(part).collect()
}

fn hard_states(disk: &dyn Disk) -> Vec<Part> {
    let slots = match inspect::hard_state(disk) {
        Ok(slots) => slots,
        Err(error) => return vec![Part::new("log/hardstate").wrong(Chain(&error))],
    };
    let part = |(number, slot): (usize, &Option<inspect::Slot>)| {
        let part = Part::new(format!("log/hardstate, slot {number}"));
        let Some(slot) = slot else { return part.wrong("damaged or never written") };
        let voted = slot.vote.and_then(|bytes| vote::decode(&bytes));
        part.fact("seq", slot.seq)
            .fact("node", slot.node_id)
            .fact("vote", shown(voted))
            .fact("purged", shown(slot.purged))
            .fact("committed", shown(slot.committed))
            .fact("synced", slot.synced)
            .fact("clean", slot.clean)
            .fact("unfinished", slot.unfinished)
    };
    slots.iter().enumerate().map(part).collect()
}

fn segments(disk: &Arc<dyn Disk>, check: bool) -> Result<Vec<Part>, commitlog::Error> {
    let slots = inspect::hard_state(&**disk).unwrap_or_default();
    let synced = slots.iter().flatten().map(|slot| slot.synced).max().unwrap_or_default();
    let bases = inspect::bases(&**disk)?;
    let mut parts = Vec::new();
    let mut before: Option<inspect::Found> = None;
    for (number, &base) in bases.iter().enumerate() {
        let part = Part::new(format!("log/{}", commitlog::segment_name(base)));
        let found = match inspect::segment(disk, base, check, &mut |_| true) {
            Ok(found) => found,
            Err(error) => {
                parts.push(part.wrong(Chain(&error)));
                before = None;
                continue;
            }
        };
        let mut part = part
            .fact("first", found.first)
            .fact("last", shown(found.last))
            .fact("entries", found.entries)
            .fact("end", found.end);
        let is_last = number + 1 == bases.len();
        if let Some(before) = &before
            && before.problem.is_none()
            && found.prev.is_some()
            && before.last.is_some()
            && found.prev != before.last
        {
            part = part.wrong(format!("follows {}, not {}", shown(found.prev), shown(before.last)));
        }
        // Behind what was synced a torn end is no damage.
        if let Some((at, problem)) = &found.problem
            && (!is_last || *at < synced)
        {
            part = part.wrong(Chain(problem));
        }
        parts.push(part);
        before = Some(found);
    }
    Ok(parts)
}

fn snapshots(data_dir: &Path, check: bool) -> Vec<Part> {
    let dir = data_dir.join(store::DIR);
    let Ok(found) = files::list(&dir) else { return Vec::new() };
    let part = |(name, path): (String, std::path::PathBuf)| {
        let part = Part::new(format!("snapshot/{name}"));
        let manifest = match Manifest::load(&path) {
            Ok(manifest) => manifest,
            // One that has not arrived yet has none.
            Err(SnapshotError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                return part.fact("state", "unfinished");
            }
            Err(error) => return part.wrong(Chain(&error)),
        };
        let bytes: u64 = manifest.files.iter().map(|file| file.len).sum();
        let part = part
            .fact("last", manifest.last)
            .fact("files", manifest.files.len())
            .fact("bytes", bytes);
        let damaged = manifest.files.iter().filter(|_| check).find_map(|file| {
            match files::crc(&path.join(STATE).join(&file.name)) {
                Ok(crc) if crc == file.crc => None,
                Ok(crc) => {
                    Some(format!("{} has checksum {crc:08x}, not {:08x}", file.name, file.crc))
                }
                Err(error) => Some(Chain(&error).to_string()),
            }
        });
        match damaged {
            None => part,
            Some(damage) => part.wrong(damage),
        }
    };
    found.into_iter().map(part).collect()
}
