//! The file that says whose data a directory holds, kept twice: either copy will do.
//!
//! Written when the node takes on a group, before anything else is stored, and once more when the
//! log was created, so that a log which vanished later is missed. Whether everything that the node
//! acknowledged was synced is kept up to date from then on:
//! ```text
//! raftmq identity 1
//! broker broker-a
//! group 0123456789abcdef0123456789abcdef
//! node 1
//! origin founded
//! log yes
//! synced always
//! checksum 89abcdef
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::{Config, Error, GroupId, NodeId, Refusal};

const FILE: &str = "identity";
/// Both copies, so that one can be lost.
const FILES: [&str; 2] = [FILE, "identity.copy"];
const HEADING: &str = "raftmq identity 1";
const VERSION: u32 = 1;
/// Where the replicated log lives within the data directory.
pub(crate) const LOG_DIR: &str = "log";
/// What the log's directory may hold before it holds a log.
const LOG_LOCK: &str = "LOCK";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) broker_name: String,
    pub(crate) group: GroupId,
    pub(crate) node: NodeId,
    /// It came to a group that existed, and must not help to form one.
    pub(crate) joined: bool,
    /// The log was created: its directory is not empty any more.
    pub(crate) has_log: bool,
    pub(crate) synced: Synced,
}

/// Whether the log holds everything that the node acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Synced {
    /// It was synced before it was acknowledged.
    Always,
    /// It was synced some time later: after an unclean stop and a new run of the operating system
    /// its end may be missing.
    Lazily,
    /// Its end may be missing, and no leader has brought the node up to date since.
    Doubtful,
    /// The same, because the disk did not keep it.
    Damaged,
}

impl Synced {
    const ALL: [Synced; 4] = [Synced::Always, Synced::Lazily, Synced::Doubtful, Synced::Damaged];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Synced::Always => "always",
            Synced::Lazily => "lazily",
            Synced::Doubtful => "doubtful",
            Synced::Damaged => "damaged",
        }
    }
}

impl Identity {
    /// What the data directory says; `None` when it holds nothing.
    ///
    /// # Errors
    /// The directory belongs to another broker or node, is damaged, or cannot be read.
    pub(crate) fn load(config: &Config) -> Result<Option<Identity>, Error> {
        let path = config.data_dir.join(FILE);
        let Some(identity) = read_either(&config.data_dir)? else {
            let path = config.data_dir.join(LOG_DIR);
            return match holds_files(&path)? {
                true => Err(Refusal::LogWithoutIdentity { path }.into()),
                false => Ok(None),
            };
        };
        if identity.broker_name != config.broker_name {
            let (found, expected) = (identity.broker_name, config.broker_name.clone());
            return Err(Refusal::OtherBroker { path, found, expected }.into());
        }
        if identity.node != config.node_id {
            let (found, expected) = (identity.node, config.node_id);
            return Err(Refusal::OtherNode { path, found, expected }.into());
        }
        let log = config.data_dir.join(LOG_DIR);
        if identity.has_log && !holds_files(&log)? {
            return Err(Refusal::LogGone { path: log }.into());
        }
        Ok(Some(identity))
    }

    /// Durable in both copies when it returns; the first counts where they differ.
    pub(crate) fn store(&self, data_dir: &Path) -> Result<(), Error> {
        FILES.iter().try_for_each(|name| self.write(data_dir, name))
    }

    fn write(&self, data_dir: &Path, name: &str) -> Result<(), Error> {
        let path = data_dir.join(name);
        let fresh = data_dir.join("identity.new");
        let mut file = File::create(&fresh).map_err(failed("create", &fresh))?;
        file.write_all(self.text().as_bytes()).map_err(failed("write", &fresh))?;
        file.sync_all().map_err(failed("sync", &fresh))?;
        fs::rename(&fresh, &path).map_err(failed("rename to", &path))?;
        // The name must be durable too, or a crash forgets which group this node joined.
        let dir = File::open(data_dir).map_err(failed("open", data_dir))?;
        dir.sync_all().map_err(failed("sync", data_dir))
    }

    fn text(&self) -> String {
        let Identity { broker_name, group, node, joined, has_log, synced } = self;
        let origin = if *joined { "joined" } else { "founded" };
        let log = if *has_log { "yes" } else { "no" };
        let synced = synced.word();
        let text = format!(
            "{HEADING}\nbroker {broker_name}\ngroup {group}\nnode {node}\n\
             origin {origin}\nlog {log}\nsynced {synced}\n"
        );
        let checksum = crc32fast::hash(text.as_bytes());
        format!("{text}checksum {checksum:08x}\n")
    }

    fn parse(text: &str) -> Result<Identity, &'static str> {
        let rest = text.strip_prefix(HEADING).and_then(|rest| rest.strip_prefix('\n'));
        let mut lines = rest.ok_or("not an identity file of version 1")?.lines();
        let mut field = |name: &str| {
            let line = lines.next()?.strip_prefix(name)?;
            line.strip_prefix(' ').map(str::to_owned)
        };
        let broker_name = field("broker").ok_or("no broker name")?;
        let group = field("group").ok_or("no group id")?;
        let node = field("node").ok_or("no node id")?;
        let joined = match field("origin").as_deref() {
            Some("joined") => true,
            Some("founded") => false,
            Some(_) | None => return Err("does not say how the node came to its group"),
        };
        let has_log = match field("log").as_deref() {
            Some("yes") => true,
            Some("no") => false,
            Some(_) | None => return Err("does not say whether there is a log"),
        };
        let synced = field("synced").ok_or("does not say how the log was synced")?;
        let synced = Synced::ALL.into_iter().find(|known| known.word() == synced);
        let synced = synced.ok_or("unreadable word for how the log was synced")?;
        let group = u128::from_str_radix(&group, 16).map_err(|_invalid| "unreadable group id")?;
        let node = node.parse().map_err(|_invalid| "unreadable node id")?;
        let group = GroupId(group);
        let identity = Identity { broker_name, group, node, joined, has_log, synced };
        if identity.text() == text { Ok(identity) } else { Err("checksum does not match") }
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

/// What one copy is.
enum Copied {
    Sound(Identity),
    Missing,
    Damaged(&'static str),
}

fn read(path: &Path) -> Result<Copied, Error> {
    match fs::read(path) {
        Ok(bytes) => {
            let text = std::str::from_utf8(&bytes).map_err(|_| "not text");
            if let Some(found) = text.ok().and_then(version_of).filter(|found| *found > VERSION) {
                let (path, supported) = (path.to_owned(), VERSION);
                return Err(Refusal::NewerIdentity { path, found, supported }.into());
            }
            Ok(text.and_then(Identity::parse).map_or_else(Copied::Damaged, Copied::Sound))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Copied::Missing),
        Err(source) => Err(failed("read", path)(source)),
    }
}

/// Both copies, for who looks at them.
pub(crate) fn copies(data_dir: &Path) -> [(&'static str, Result<Identity, String>); 2] {
    FILES.map(|name| {
        let copy = match read(&data_dir.join(name)) {
            Ok(Copied::Sound(identity)) => Ok(identity),
            Ok(Copied::Missing) => Err("it is missing".to_owned()),
            Ok(Copied::Damaged(reason)) => Err(reason.to_owned()),
            Err(error) => Err(error.to_string()),
        };
        (name, copy)
    })
}

/// The first copy that is sound. One that is not is written anew.
///
/// # Errors
/// Neither is sound, and there is one; or they cannot be read or written.
pub(crate) fn read_either(data_dir: &Path) -> Result<Option<Identity>, Error> {
    let mut sound = None;
    let mut damage = None;
    for name in FILES {
        let path = data_dir.join(name);
        match read(&path)? {
            Copied::Sound(identity) => sound = sound.or(Some(identity)),
            Copied::Missing => damage = damage.or(Some((name, path, "it is missing"))),
            Copied::Damaged(reason) => damage = Some((name, path, reason)),
        }
    }
    match (sound, damage) {
        (Some(sound), Some((name, path, reason))) => {
            tracing::warn!(path = %path.display(), reason, "identity is written anew from its copy");
            sound.write(data_dir, name)?;
            Ok(Some(sound))
        }
        (Some(sound), None) => Ok(Some(sound)),
        (None, Some((_, path, reason)))
            if FILES.iter().any(|name| data_dir.join(name).exists()) =>
        {
            Err(Refusal::DamagedIdentity { path, reason }.into())
        }
        (None, _) => Ok(None),
    }
}

/// The version in a heading that looks like ours.
fn version_of(text: &str) -> Option<u32> {
    text.lines().next()?.strip_prefix("raftmq identity ")?.parse().ok()
}

/// Whether the log's directory holds more than the lock, which is created first.
fn holds_files(log: &Path) -> Result<bool, Error> {
    let failed = |source| Error::Io { action: "list", path: log.to_owned(), source };
    let entries = match fs::read_dir(log) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(failed(source)),
    };
    for entry in entries {
        if entry.map_err(failed)?.file_name() != LOG_LOCK {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn config(dir: &Path) -> Config {
        let peers = BTreeMap::from([(NodeId(1), "127.0.0.1:1".into())]);
        Config::new(NodeId(1), "broker-a", peers, "127.0.0.1:2", dir)
    }

    fn identity() -> Identity {
        Identity {
            broker_name: "broker-a".into(),
            group: GroupId(0xabc),
            node: NodeId(1),
            joined: false,
            has_log: false,
            synced: Synced::Always,
        }
    }

    fn refusal(result: Result<Option<Identity>, Error>) -> Refusal {
        match result {
            Err(Error::Refused(refusal)) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn an_identity_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Identity::load(&config(dir.path())).unwrap(), None);
        identity().store(dir.path()).unwrap();
        assert_eq!(Identity::load(&config(dir.path())).unwrap(), Some(identity()));
    }

    #[test]
    fn another_brokers_and_another_nodes_directory_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        identity().store(dir.path()).unwrap();
        let mut other = config(dir.path());
        other.broker_name = "broker-b".into();
        assert!(matches!(refusal(Identity::load(&other)), Refusal::OtherBroker { .. }));
        let mut other = config(dir.path());
        other.node_id = NodeId(2);
        assert!(matches!(refusal(Identity::load(&other)), Refusal::OtherNode { .. }));
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let good = identity().text();
        for at in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[at] ^= 1;
            for name in FILES {
                fs::write(dir.path().join(name), &bytes).unwrap();
            }
            let loaded = Identity::load(&config(dir.path()));
            assert!(loaded.is_err(), "byte {at}: {loaded:?}");
        }
    }

    #[test]
    fn one_copy_may_be_damaged_or_lost_and_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let good = identity().text();
        identity().store(dir.path()).unwrap();
        for name in FILES {
            let path = dir.path().join(name);
            for at in 0..good.len() {
                let mut bytes = good.clone().into_bytes();
                bytes[at] ^= 0x80;
                fs::write(&path, &bytes).unwrap();
                let loaded = Identity::load(&config(dir.path())).unwrap();
                assert_eq!(loaded, Some(identity()), "{name}, byte {at}");
                assert_eq!(fs::read_to_string(&path).unwrap(), good);
            }
            fs::remove_file(&path).unwrap();
            assert_eq!(Identity::load(&config(dir.path())).unwrap(), Some(identity()));
            assert_eq!(fs::read_to_string(&path).unwrap(), good);
        }
    }

    #[test]
    fn a_newer_identity_is_refused_by_name_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let newer = identity().text().replace("identity 1", "identity 7");
        identity().store(dir.path()).unwrap();
        fs::write(dir.path().join(FILE), &newer).unwrap();
        let refusal = refusal(Identity::load(&config(dir.path())));
        assert!(matches!(refusal, Refusal::NewerIdentity { found: 7, supported: 1, .. }));
        let text = refusal.to_string();
        assert!(text.contains("version 7") && text.contains("up to 1"), "{text}");
        assert_eq!(fs::read_to_string(dir.path().join(FILE)).unwrap(), newer);
    }

    #[test]
    fn a_log_that_vanished_is_missed() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join(LOG_DIR);
        fs::create_dir(&log).unwrap();
        fs::write(log.join("segment"), b"").unwrap();
        let identity = Identity { has_log: true, ..identity() };
        identity.store(dir.path()).unwrap();
        assert_eq!(Identity::load(&config(dir.path())).unwrap(), Some(identity));
        fs::remove_file(log.join("segment")).unwrap();
        fs::write(log.join(LOG_LOCK), b"").unwrap();
        let gone = refusal(Identity::load(&config(dir.path())));
        assert!(matches!(gone, Refusal::LogGone { .. }));
    }

    #[test]
    fn a_log_without_an_identity_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(LOG_DIR)).unwrap();
        assert_eq!(Identity::load(&config(dir.path())).unwrap(), None);
        fs::write(dir.path().join(LOG_DIR).join("x"), b"").unwrap();
        let refusal = refusal(Identity::load(&config(dir.path())));
        assert!(matches!(refusal, Refusal::LogWithoutIdentity { .. }));
    }
}
