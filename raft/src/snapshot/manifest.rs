//! The file that says what a snapshot's directory holds. `docs/protocol/snapshot-format.md` has the
//! picture.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use commitlog::GroupId;
use commitlog::position::{LogId, LogIndex, LogOffset, Term};
use openraft::alias::{SnapshotMetaOf, StoredMembershipOf};
use proto::framed::Kind;
use proto::raft_rpc as rpc;

use super::{Error, failed};
use crate::local::group_id;
use crate::membership;
use crate::types::{TypeConfig, to_raft};

pub(crate) const FILE: &str = "MANIFEST";
const KIND: Kind = Kind { magic: *b"RMQM", version: 1 };

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) group: GroupId,
    /// The state is as of this entry.
    pub(crate) last: LogId,
    /// As a state machine keeps it.
    pub(crate) membership: Bytes,
    pub(crate) files: Vec<StateFile>,
    /// Where the log ends that came along; none does with a snapshot of this node's own.
    pub(crate) log_end: Option<LogOffset>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateFile {
    pub(crate) name: String,
    pub(crate) len: u64,
    pub(crate) crc: u32,
}

impl Manifest {
    pub(crate) fn message(&self) -> rpc::SnapshotManifest {
        rpc::SnapshotManifest {
            group_id: Bytes::copy_from_slice(&self.group.0.to_be_bytes()),
            last_log_id: Some(rpc::LogId { term: self.last.term.0, index: self.last.index.0 }),
            membership: self.membership.clone(),
            files: self
                .files
                .iter()
                .map(|file| rpc::SnapshotFile {
                    name: file.name.clone(),
                    len: file.len,
                    crc: file.crc,
                })
                .collect(),
            log_end: self.log_end.map_or(0, |end| end.0),
        }
    }

    /// # Errors
    /// `Malformed`: something is missing, or a file's name could lead elsewhere.
    pub(crate) fn from_message(message: rpc::SnapshotManifest) -> Result<Manifest, Error> {
        let group = group_id(&message.group_id).ok_or(Error::Malformed("no group id"))?;
        let last = message.last_log_id.ok_or(Error::Malformed("no entry"))?;
        let files = message.files.into_iter().map(|file| {
            let plain = !file.name.is_empty()
                && file
                    .name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
                && !file.name.starts_with('.');
            if !plain {
                return Err(Error::Malformed("a file's name is no plain name"));
            }
            Ok(StateFile { name: file.name, len: file.len, crc: file.crc })
        });
        Ok(Manifest {
            group,
            last: LogId { term: Term(last.term), index: LogIndex(last.index) },
            membership: message.membership,
            files: files.collect::<Result<_, _>>()?,
            log_end: Some(LogOffset(message.log_end)).filter(|end| end.0 > 0),
        })
    }

    /// As openraft takes it.
    pub(crate) fn meta(&self) -> Result<SnapshotMetaOf<TypeConfig>, Error> {
        let kept = membership::decode(self.membership.clone())
            .map_err(|_| Error::Malformed("membership"))?;
        let (log_id, membership) = (kept.log_id, kept.membership);
        Ok(SnapshotMetaOf::<TypeConfig> {
            last_log_id: Some(to_raft(self.last)),
            last_membership: StoredMembershipOf::<TypeConfig>::new(log_id.map(to_raft), membership),
        })
    }

    fn encode(&self) -> Vec<u8> {
        KIND.encode(&self.message())
    }

    fn decode(bytes: &[u8]) -> Result<Manifest, Error> {
        Manifest::from_message(KIND.decode(bytes)?)
    }

    /// Durable when it returns, the name in `dir` included.
    pub(crate) fn store(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(FILE);
        let mut file = File::create(&path).map_err(failed("create", &path))?;
        file.write_all(&self.encode()).map_err(failed("write", &path))?;
        file.sync_all().map_err(failed("sync", &path))?;
        super::files::sync_dir(dir)
    }

    /// # Errors
    /// `Malformed` or `NewerVersion` for what this release cannot take; `Io`.
    pub(crate) fn load(dir: &Path) -> Result<Manifest, Error> {
        let path = dir.join(FILE);
        Manifest::decode(&fs::read(&path).map_err(failed("read", &path))?)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::membership::{Membership, Node};

    pub(crate) fn manifest() -> Manifest {
        let nodes =
            BTreeMap::from([(1, Node { raft_addr: "r1".into(), client_addr: "c1".into() })]);
        let membership = Membership::new(vec![BTreeSet::from([1])], nodes).unwrap();
        let last = LogId::new(3, 99);
        Manifest {
            group: GroupId(0xabc),
            last,
            membership: membership::encode_kept(LogId::new(1, 0), &membership, 0),
            files: vec![StateFile { name: "000007.sst".into(), len: 12, crc: 0x1234_5678 }],
            log_end: None,
        }
    }

    #[test]
    fn a_manifest_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        manifest().store(dir.path()).unwrap();
        assert_eq!(Manifest::load(dir.path()).unwrap(), manifest());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = manifest().encode();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            assert!(Manifest::decode(&bytes).is_err(), "byte {at}");
        }
        assert!(Manifest::decode(&good[..good.len() - 1]).is_err());
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let mut bytes = manifest().encode();
        bytes[8] = 9;
        let crc = crc32fast::hash(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        let error = Manifest::decode(&bytes).unwrap_err();
        assert!(matches!(error, Error::NewerVersion { found: 9, supported: 1 }), "{error}");
    }

    #[test]
    fn a_file_cannot_lead_out_of_the_directory() {
        for name in ["../x", "a/b", "", ".hidden", "..", "x\0"] {
            let mut message = manifest().message();
            message.files[0].name = name.into();
            assert!(Manifest::from_message(message).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_bytes_of_a_manifest_are_fixed() {
        let bytes = manifest().encode();
        assert_eq!(&bytes[0..4], b"RMQM");
        assert_eq!(&bytes[8..12], &[1, 0, 0, 0]);
        assert_eq!(crc32fast::hash(&bytes), GOLDEN);
    }

    const GOLDEN: u32 = 0xd0fe_6f34;
}
