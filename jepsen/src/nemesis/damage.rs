//! Bits that flip and files that lose their end, in each kind of file of a node.
//!
//! Only a fixed minority of the nodes is hit in a run, whatever the class: beyond that nobody
//! promises anything.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rand::RngExt;
use rand::rngs::StdRng;

use super::{Class, Effect, Tools, backup, processes};
use crate::db::Member;
use crate::run::note;

/// Bytes of a segment's header; frames begin there.
const SEGMENT_HEADER: u64 = 4096;
/// Where the two slots of the hard state are, and a byte of what each holds.
const HARD_STATE_SLOTS: [u64; 2] = [60, 4096 + 60];

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    /// One bit at this byte.
    Flip(u64),
    /// Everything from this byte on is gone.
    Truncate(u64),
}

/// Whether only some nodes of a run may be hit by it.
pub(super) fn is_damage(class: Class) -> bool {
    class.package() == "bitflip" || class.package() == "truncate"
}

/// The nodes that this run damages: a minority, by chance but always the same.
pub(super) fn fragile(nodes: usize, seed: u64) -> BTreeSet<usize> {
    let minority = nodes.saturating_sub(1) / 2;
    let from = usize::try_from(seed % nodes.max(1) as u64).unwrap_or(0);
    (0..minority).map(|nth| (from + nth) % nodes).collect()
}

/// Damages a file of the nodes, which are killed for it: what is written meanwhile would hide it.
pub(super) async fn damage(
    tools: &Arc<Tools>,
    class: Class,
    places: &BTreeSet<usize>,
    random: &mut StdRng,
) -> Result<Effect> {
    for place in places {
        // There is a snapshot then, and a state that is not only in memory.
        backup::of(&tools.cluster.nodes[*place], tools.cluster.broker_name()).await;
    }
    processes::kill(tools, places).await?;
    let mut effect = Effect { skipped: true, ..Effect::default() };
    for place in places {
        let node = &tools.cluster.nodes[*place];
        let chance = random.random_range(0.0..1.0);
        let Some((path, harm)) = choose(class, node, chance)? else { continue };
        harm.apply(&path).with_context(|| path.display().to_string())?;
        effect.skipped = false;
        let name = path.strip_prefix(node.disk()?.data()).unwrap_or(&path).display().to_string();
        note(&format!("{}: {harm:?} in {name} of {}", class.name(), node.name));
    }
    Ok(effect)
}

impl Harm {
    fn apply(self, path: &Path) -> Result<()> {
        let file = fs::File::options().read(true).write(true).open(path)?;
        match self {
            Self::Flip(at) => {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at)?;
                byte[0] ^= 4;
                file.write_all_at(&byte, at)?;
            }
            Self::Truncate(to) => file.set_len(to)?,
        }
        Ok(file.sync_all()?)
    }
}

/// The file and what is done to it; `None` where there is no such file yet.
fn choose(class: Class, node: &Member, chance: f64) -> Result<Option<(PathBuf, Harm)>> {
    let data = node.disk()?.data();
    let (log, state) = (data.join("raft/log"), data.join("state"));
    let inside = |path: PathBuf| {
        let written = written(&path)?;
        Ok(share(written, SEGMENT_HEADER, chance).map(|at| (path, at)))
    };
    let anywhere = |path: Option<PathBuf>| -> Result<Option<(PathBuf, u64)>> {
        let Some(path) = path else { return Ok(None) };
        let len = fs::metadata(&path)?.len();
        Ok(share(len, 0, chance).map(|at| (path, at)))
    };
    let place = match class {
        Class::FlipLog | Class::TruncateLog => match pick(files(&log, ".seg"), chance) {
            Some(path) => inside(path),
            None => Ok(None),
        },
        Class::FlipState | Class::TruncateState => anywhere(longest(files(&state, ".sst"))),
        Class::FlipSnapshot | Class::TruncateSnapshot => {
            anywhere(longest(snapshot(&data.join("raft/snapshot"))))
        }
        Class::FlipHardState => {
            let slot = HARD_STATE_SLOTS[usize::from(0.5 < chance)];
            let path = log.join("hardstate");
            Ok((slot < fs::metadata(&path).map_or(0, |m| m.len())).then_some((path, slot)))
        }
        Class::FlipIdentity => {
            let name = if chance < 0.5 { "identity" } else { "identity.copy" };
            anywhere(Some(data.join("raft").join(name)).filter(|path| path.exists()))
        }
        other => bail!("{} damages no file", other.name()),
    }?;
    let truncates = class.package() == "truncate";
    Ok(place.map(|(path, at)| (path, if truncates { Harm::Truncate(at) } else { Harm::Flip(at) })))
}

/// A byte at this share of the way from `from` to the end; none where nothing is there.
fn share(len: u64, from: u64, chance: f64) -> Option<u64> {
    let room = len.checked_sub(from).filter(|room| 0 < *room)?;
    // Thousandths are fine enough, and exact.
    let thousandths = (chance * 1000.0).clamp(0.0, 999.0).round();
    let thousandths: u64 = format!("{thousandths}").parse().ok()?;
    Some(from + (room - 1) * thousandths / 1000)
}

/// How far a file has been written: what was only set aside is zeros.
fn written(path: &Path) -> Result<u64> {
    let bytes = fs::read(path)?;
    let last = bytes.iter().rposition(|byte| *byte != 0);
    Ok(last.map_or(0, |last| last as u64 + 1))
}

fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> =
        paths.filter(|path| path.is_file() && path.to_string_lossy().ends_with(ending)).collect();
    found.sort();
    found
}

/// The files of the newest snapshot that is whole.
fn snapshot(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut whole: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    whole.retain(|path| path.join("MANIFEST").exists());
    whole.sort();
    let Some(newest) = whole.pop() else { return Vec::new() };
    let mut found = files(&newest.join("state"), ".sst");
    found.push(newest.join("MANIFEST"));
    found
}

fn longest(files: Vec<PathBuf>) -> Option<PathBuf> {
    files.into_iter().max_by_key(|path| fs::metadata(path).map_or(0, |meta| meta.len()))
}

fn pick(mut files: Vec<PathBuf>, chance: f64) -> Option<PathBuf> {
    let last = files.len().checked_sub(1)?;
    let nth = share(last as u64 + 1, 0, chance)?;
    Some(files.swap_remove(usize::try_from(nth).unwrap_or(last).min(last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_minority_is_hit_all_the_time() {
        assert_eq!(fragile(3, 7), BTreeSet::from([1]));
        assert_eq!(fragile(5, 4), BTreeSet::from([4, 0]));
        assert_eq!(fragile(1, 9), BTreeSet::new());
    }

    #[test]
    fn one_bit_flips_and_the_end_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        fs::write(&path, [7; 100]).expect("a file");
        Harm::Flip(50).apply(&path).expect("a byte");
        let bytes = fs::read(&path).expect("a file");
        assert_eq!(bytes.iter().filter(|byte| **byte != 7).count(), 1);
        assert_eq!((bytes[50] ^ 7).count_ones(), 1);
        Harm::Truncate(20).apply(&path).expect("it is longer");
        assert_eq!(fs::read(&path).expect("a file").len(), 20);
        assert!(Harm::Flip(20).apply(&path).is_err(), "beyond its end");
    }

    #[test]
    fn places_lie_inside() {
        assert_eq!(share(100, 0, 0.0), Some(0));
        assert!(share(100, 90, 0.9999).is_some_and(|at| (90..100).contains(&at)));
        assert_eq!(share(90, 90, 0.5), None);
        assert_eq!(pick(Vec::new(), 0.3), None);
    }
}
