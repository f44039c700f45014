//! Makes a replica of a new group from a backup. Works on files alone: nothing runs meanwhile.
//!
//! ```text
//!   check every file of the backup ─▶ copy, check frames ─▶ log of the new group ─▶ one more entry:
//!   the new members ─▶ the state as a snapshot ─▶ identity
//! ```
//! The identity comes last, and a start refuses a directory without one, so half a restoration is
//! never mistaken for a whole one.
//!
//! Replicas that are restored from the same backup with the same peer list are equal, and belong to
//! the same group: its id follows from both. From another backup, or for another peer list, comes
//! another group, and the two refuse each other. A restored node lacks what its group decided since;
//! so it does not vote before a leader has brought it up to date, or there is none for a while, which
//! is what makes it harmless to restore a node of a group that has long gone on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use commitlog::position::{LogId, LogIndex, LogOffset, Term};
use commitlog::{
    CommitLog, Disk, Extent, FileDisk, GroupId, Identity as LogIdentity, Kind, Record, Replacement,
    adopt_segment, check_segment, incoming_name, segment_name,
};
use proto::backup as layout;
use proto::backup_rpc::{Manifest, Segment};
use proto::framed::Unreadable;
use sha2::{Digest as _, Sha256};

use crate::bootstrap::identity::{Identity, LOG_DIR, Synced};
use crate::consensus::log_config;
use crate::local::group_id;
use crate::membership::{self, Membership, Node};
use crate::snapshot::store::Store;
use crate::types::RaftVote;
use crate::{Applied, CheckpointError, Config, Error, NodeId, snapshot, vote};

/// Where segments are until they have been checked.
const STAGING: &str = "restoring";
/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// Why a backup was not restored. The data directory is as it was, unless the error names it.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{path} is not empty (it holds {found}): restore into a directory of its own")]
    NotEmpty { path: PathBuf, found: String },
    #[error("{path} is no usable backup: {source}")]
    Manifest { path: PathBuf, source: Unreadable },
    #[error("{path} is damaged: {problem}")]
    Damaged { path: PathBuf, problem: String },
    #[error(
        "{path} is a backup of broker {found}, which its topics name; restore it under that name, \
         not as {expected}"
    )]
    OtherBroker { path: PathBuf, found: String, expected: String },
    #[error("{action} {path}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("write the log")]
    Log(#[from] commitlog::Error),
    #[error("write the state")]
    State(#[from] snapshot::Error),
    #[error(transparent)]
    Replica(#[from] Error),
}

/// What is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreStep {
    /// Checking the backup: bytes so far, of all.
    Checking { done: u64, total: u64 },
    /// Copying it.
    Copying { done: u64, total: u64 },
}

/// A new replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    pub group: GroupId,
    /// The last entry of the backup.
    pub last: LogId,
    /// What the replica has to be started with.
    pub segment_size: u64,
    /// When the backup was taken, ms since the Unix epoch.
    pub taken_at_ms: u64,
}

/// Makes the replica that `config` describes from the backup in the directory `backup`. Blocks.
///
/// # Errors
/// See [`RestoreError`].
pub fn restore(
    backup: &Path,
    config: &Config,
    tell: &mut dyn FnMut(RestoreStep),
) -> Result<Restored, RestoreError> {
    config.validate()?;
    refuse_occupied(&config.data_dir)?;
    let source = Source::open(backup)?;
    let found = &source.manifest.broker_name;
    if *found != config.broker_name {
        let (found, expected) = (found.clone(), config.broker_name.clone());
        return Err(RestoreError::OtherBroker { path: backup.to_owned(), found, expected });
    }
    source.check(tell)?;
    let made = Target { source: &source, config, group: source.new_group(config) }.make(tell);
    if made.is_err() {
        // What was begun is of no use; the error that is told is the first one.
        let _ = remove_begun(&config.data_dir);
    }
    made
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    let path = path.to_owned();
    move |source| RestoreError::Io { action, path, source }
}

fn refuse_occupied(dir: &Path) -> Result<(), RestoreError> {
    let mut entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed("list", dir)(source)),
    };
    match entries.next() {
        None => Ok(()),
        Some(entry) => {
            let found = entry.map_err(failed("list", dir))?.file_name();
            let found = found.to_string_lossy().into_owned();
            Err(RestoreError::NotEmpty { path: dir.to_owned(), found })
        }
    }
}

fn remove_begun(data_dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(data_dir)? {
        let path = entry?.path();
        if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
    }
    Ok(())
}

/// A backup.
struct Source {
    dir: PathBuf,
    manifest: Manifest,
    /// Of the manifest's bytes.
    fingerprint: [u8; 32],
    group: GroupId,
}

impl Source {
    fn open(dir: &Path) -> Result<Source, RestoreError> {
        let path = dir.join(layout::MANIFEST);
        let bytes = fs::read(&path).map_err(failed("read", &path))?;
        let manifest = layout::decode_manifest(&bytes)
            .map_err(|source| RestoreError::Manifest { path, source })?;
        let group = group_id(&manifest.group_id).expect("a manifest that was read has one");
        let fingerprint = Sha256::digest(&bytes).into();
        Ok(Source { dir: dir.to_owned(), manifest, fingerprint, group })
    }

    /// Every file with its length and its checksum.
    fn files(&self) -> impl Iterator<Item = (PathBuf, u64, u32)> + '_ {
        let state = self.dir.join(layout::STATE);
        let log = self.dir.join(layout::LOG);
        let files = self.manifest.state.iter();
        let files =
            files.map(move |file| (state.join(layout::state_name(file)), file.len, file.crc));
        let segments = self.manifest.segments.iter();
        files.chain(segments.map(move |s| (log.join(layout::segment_name(s)), s.len, s.crc)))
    }

    fn check(&self, tell: &mut dyn FnMut(RestoreStep)) -> Result<(), RestoreError> {
        let total = self.files().map(|(_, len, _)| len).sum();
        let mut done = 0;
        for (path, len, crc) in self.files() {
            let mut hasher = crc32fast::Hasher::new();
            each_part(&path, len, &mut |part| {
                hasher.update(part);
                done += part.len() as u64;
                tell(RestoreStep::Checking { done, total });
                Ok(())
            })?;
            let found = hasher.finalize();
            if found != crc {
                let problem = format!("its checksum is {found:08x}, and was {crc:08x}");
                return Err(RestoreError::Damaged { path, problem });
            }
        }
        Ok(())
    }

    /// The same for all replicas that are made of this backup for these peers.
    fn new_group(&self, config: &Config) -> GroupId {
        let mut hasher = Sha256::new();
        hasher.update(b"raftmq restored group 1");
        hasher.update(self.fingerprint);
        for (node, addr) in &config.peers {
            hasher.update(node.0.to_le_bytes());
            hasher.update((addr.len() as u64).to_le_bytes());
            hasher.update(addr.as_bytes());
        }
        let digest: [u8; 32] = hasher.finalize().into();
        GroupId(u128::from_le_bytes(digest[..16].try_into().expect("sixteen bytes")))
    }
}

/// Shows the first `len` bytes of a file.
fn each_part(
    path: &Path,
    len: u64,
    show: &mut dyn FnMut(&[u8]) -> Result<(), RestoreError>,
) -> Result<(), RestoreError> {
    let damaged = |problem: String| RestoreError::Damaged { path: path.to_owned(), problem };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged("it is missing".to_owned()));
        }
        Err(source) => return Err(failed("open", path)(source)),
    };
    let mut buf = vec![0; CHUNK];
    let mut left = len;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let read = file.read(&mut buf[..most]).map_err(failed("read", path))?;
        if read == 0 {
            return Err(damaged(format!("it has {} bytes, and had {len}", len - left)));
        }
        show(&buf[..read])?;
        left -= read as u64;
    }
    Ok(())
}

/// The replica that is made.
struct Target<'a> {
    source: &'a Source,
    config: &'a Config,
    group: GroupId,
}

impl Target<'_> {
    fn make(&self, tell: &mut dyn FnMut(RestoreStep)) -> Result<Restored, RestoreError> {
        let manifest = &self.source.manifest;
        let data_dir = &self.config.data_dir;
        fs::create_dir_all(data_dir).map_err(failed("create", data_dir))?;
        let mut copied = Copied { done: 0, total: self.source.files().map(|f| f.1).sum(), tell };
        let log = self.open_log()?;
        self.bring_log(&log, &mut copied)?;
        self.bring_state(&mut copied)?;
        self.add_members(&log)?;
        log.close()?;
        let staging = data_dir.join(STAGING);
        fs::remove_dir_all(&staging).map_err(failed("remove", &staging))?;
        let identity = Identity {
            broker_name: self.config.broker_name.clone(),
            group: self.group,
            node: self.config.node_id,
            joined: false,
            has_log: true,
            synced: Synced::Doubtful,
        };
        identity.store(data_dir)?;
        Ok(Restored {
            group: self.group,
            last: self.last(),
            segment_size: manifest.segment_size,
            taken_at_ms: manifest.taken_at_ms,
        })
    }

    fn last(&self) -> LogId {
        let manifest = &self.source.manifest;
        LogId { term: Term(manifest.term), index: LogIndex(manifest.index) }
    }

    fn open_log(&self) -> Result<CommitLog, RestoreError> {
        let segment_size = self.source.manifest.segment_size;
        let config = log_config(&Config { segment_size, ..self.config.clone() })?;
        let path = self.config.data_dir.join(LOG_DIR);
        let disk = FileDisk::new(&path).map_err(failed("create", &path))?;
        let identity = LogIdentity {
            node_id: self.config.node_id.0,
            group_id: Some(self.group),
            boot_id: self.config.boot_id,
        };
        Ok(CommitLog::open(config, disk, identity)?.0)
    }

    /// Copies the segments, checks every frame, and makes them the log.
    fn bring_log(&self, log: &CommitLog, copied: &mut Copied<'_>) -> Result<(), RestoreError> {
        let manifest = &self.source.manifest;
        let staging = self.config.data_dir.join(STAGING);
        let disk = FileDisk::new(&staging).map_err(failed("create", &staging))?;
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let log_dir = self.config.data_dir.join(LOG_DIR);
        let mut joint = None;
        for segment in &manifest.segments {
            let from = self.source.dir.join(layout::LOG).join(layout::segment_name(segment));
            let name = segment_name(LogOffset(segment.base));
            self.copy_segment(&from, &staging.join(&name), segment, &disk, copied)?;
            let damaged = |problem: String| RestoreError::Damaged { path: from.clone(), problem };
            let size = manifest.segment_size;
            let checked = check_segment(&disk, self.source.group, size, extent(segment))
                .map_err(|error| damaged(error.to_string()))?;
            if joint.is_some_and(|after| after != checked.before) {
                return Err(damaged("it does not follow the segment before".to_owned()));
            }
            joint = Some(checked.after);
            let base = LogOffset(segment.base);
            adopt_segment(&disk, &name, base, size, (self.source.group, self.group))?;
            let to = log_dir.join(incoming_name(base));
            fs::rename(staging.join(&name), &to).map_err(failed("rename to", &to))?;
        }
        let (first, last) =
            (&manifest.segments[0], &manifest.segments[manifest.segments.len() - 1]);
        let (first, end) = (LogOffset(first.base), LogOffset(last.base + last.len));
        wait(|done| log.replace(Replacement { first, end, last: self.last() }, done))
    }

    fn copy_segment(
        &self,
        from: &Path,
        to: &Path,
        segment: &Segment,
        disk: &Arc<dyn Disk>,
        copied: &mut Copied<'_>,
    ) -> Result<(), RestoreError> {
        copied.copy(from, to, segment.len)?;
        let name = segment_name(LogOffset(segment.base));
        // It goes on being written, and must not run out of space in the middle.
        let fill = || {
            let file = disk.open(&name)?;
            file.preallocate(self.source.manifest.segment_size)?;
            file.sync_data()
        };
        fill().map_err(failed("fill", to))
    }

    /// The state, as a snapshot that the first start takes it from.
    fn bring_state(&self, copied: &mut Copied<'_>) -> Result<(), RestoreError> {
        let manifest = &self.source.manifest;
        let from = self.source.dir.join(layout::STATE);
        let staging = self.config.data_dir.join(STAGING);
        for file in &manifest.state {
            copied.copy(
                &from.join(layout::state_name(file)),
                &staging.join(&file.name),
                file.len,
            )?;
        }
        let names: Vec<String> = manifest.state.iter().map(|file| file.name.clone()).collect();
        let applied =
            Applied { log_id: Some(self.last()), membership: Some(manifest.membership.clone()) };
        let checkpoint = move |into: &Path| {
            let moved = || {
                fs::create_dir(into)?;
                names.iter().try_for_each(|name| fs::rename(staging.join(name), into.join(name)))
            };
            moved().map_err(|error: io::Error| CheckpointError::new(error))?;
            Ok(applied)
        };
        let store = Store::open(&self.config.data_dir, self.group)?;
        let stored = store.build(Box::new(checkpoint))?;
        for (file, kept) in manifest.state.iter().zip(self.sorted(&stored.manifest.files)) {
            if kept != Some((file.len, file.crc)) {
                let path = stored.state().join(&file.name);
                let problem = "the copy differs from the backup".to_owned();
                return Err(RestoreError::Damaged { path, problem });
            }
        }
        Ok(())
    }

    /// What was kept of each of the manifest's files.
    fn sorted<'a>(
        &'a self,
        kept: &[snapshot::manifest::StateFile],
    ) -> impl Iterator<Item = Option<(u64, u32)>> + use<'a> {
        let kept: BTreeMap<String, (u64, u32)> =
            kept.iter().map(|file| (file.name.clone(), (file.len, file.crc))).collect();
        self.source.manifest.state.iter().map(move |file| kept.get(&file.name).copied())
    }

    /// Ends the log with the entry that names the new members, the same on all of them, as if the
    /// lowest had led a term of its own.
    fn add_members(&self, log: &CommitLog) -> Result<(), RestoreError> {
        let last = self.last();
        let frames = log.reader().frames(last.index..last.index.next(), 0)?;
        let stamp = frames.first().map_or(0, |frame| frame.record.stamp);
        let peers = &self.config.peers;
        let nodes: BTreeMap<u64, Node> = peers
            .iter()
            .map(|(id, addr)| {
                let (raft_addr, client_addr) = (addr.clone(), String::new());
                (id.0, Node { raft_addr, client_addr })
            })
            .collect();
        let voters: BTreeSet<u64> = nodes.keys().copied().collect();
        let members = Membership::new(vec![voters], nodes)
            .map_err(|invalid| Error::Consensus { reason: invalid.to_string() })?;
        let log_id = LogId { term: Term(last.term.0 + 1), index: last.index.next() };
        let body = membership::encode(&members);
        let record = Record::new(log_id, Kind::Membership, stamp, body);
        wait(|done| log.append(vec![record], done))?;
        log.set_committed(log_id.index);
        let lowest = peers.keys().next().copied().unwrap_or(NodeId(0));
        let voted = RaftVote::new_committed(log_id.term.0, lowest.0);
        wait(|done| log.save_vote(vote::encode(&voted), done))
    }
}

fn extent(segment: &Segment) -> Extent {
    let last = LogId { term: Term(segment.last_term), index: LogIndex(segment.last_index) };
    Extent { base: LogOffset(segment.base), len: segment.len, last }
}

/// Does what the log's thread does, and waits for it.
fn wait(
    queue: impl FnOnce(commitlog::Done) -> Result<(), commitlog::Error>,
) -> Result<(), RestoreError> {
    let (sender, done) = mpsc::channel();
    // The receiver waits below.
    queue(Box::new(move |result| drop(sender.send(result))))?;
    Ok(done.recv().unwrap_or(Err(commitlog::Error::Closed))?)
}

/// How far the copy has come.
struct Copied<'a> {
    done: u64,
    total: u64,
    tell: &'a mut dyn FnMut(RestoreStep),
}

impl Copied<'_> {
    /// Copies the first `len` bytes. Durable when this returns, but for the name.
    fn copy(&mut self, from: &Path, to: &Path, len: u64) -> Result<(), RestoreError> {
        let mut file = File::create_new(to).map_err(failed("create", to))?;
        each_part(from, len, &mut |part| {
            file.write_all(part).map_err(failed("write", to))?;
            self.done += part.len() as u64;
            (self.tell)(RestoreStep::Copying { done: self.done, total: self.total });
            Ok(())
        })?;
        file.sync_all().map_err(failed("sync", to))
    }
}
