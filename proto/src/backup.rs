//! A backup as a directory. `docs/protocol/backup-format.md` has the picture.
//!
//! ```text
//!   MANIFEST
//!   state/<crc>-<len>-<name>     files of the state, named by their content
//!   log/<base>.seg               segments; of the last one only its beginning counts
//! ```

use crate::backup_rpc::{File, Manifest, Segment};
use crate::framed::{Kind, Unreadable};

/// The file that says what the directory holds. What it does not name does not count.
pub const MANIFEST: &str = "MANIFEST";
/// Where the files of the state are.
pub const STATE: &str = "state";
/// Where the segments are.
pub const LOG: &str = "log";

/// Version of the manifest and of the layout.
const KIND: Kind = Kind { magic: *b"RMQB", version: 1 };

/// The bytes of the file [`MANIFEST`].
#[must_use]
pub fn encode_manifest(manifest: &Manifest) -> Vec<u8> {
    KIND.encode(manifest)
}

/// A manifest whose names lead nowhere else.
///
/// # Errors
/// It is damaged, or of a newer release.
pub fn decode_manifest(bytes: &[u8]) -> Result<Manifest, Unreadable> {
    let manifest: Manifest = KIND.decode(bytes)?;
    check(&manifest)?;
    Ok(manifest)
}

/// What has to be true of every manifest and every offer.
///
/// # Errors
/// What is not.
pub fn check(manifest: &Manifest) -> Result<(), Unreadable> {
    if manifest.group_id.len() != 16 {
        return Err(Unreadable::Damaged("it has no group id"));
    }
    if !manifest.state.iter().all(|file| is_plain(&file.name)) {
        return Err(Unreadable::Damaged("the name of a file is no plain name"));
    }
    let size = manifest.segment_size;
    let Some((last, whole)) = manifest.segments.split_last() else {
        return Err(Unreadable::Damaged("it has no log"));
    };
    let follow = |pair: &[Segment]| pair[0].base.checked_add(size) == Some(pair[1].base);
    let joined = manifest.segments.windows(2).all(follow);
    if size == 0 || !joined || whole.iter().any(|segment| segment.len != size) || last.len > size {
        return Err(Unreadable::Damaged("its segments do not follow each other"));
    }
    if (last.last_term, last.last_index) != (manifest.term, manifest.index) {
        return Err(Unreadable::Damaged("its log does not end where its state is"));
    }
    Ok(())
}

fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !name.is_empty() && name.bytes().all(plain) && !name.starts_with('.')
}

/// The name in [`STATE`] of a file with this content.
#[must_use]
pub fn state_name(file: &File) -> String {
    format!("{:08x}-{}-{}", file.crc, file.len, file.name)
}

/// The name in [`LOG`] of a segment.
#[must_use]
pub fn segment_name(segment: &Segment) -> String {
    format!("{:020}.seg", segment.base)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn manifest() -> Manifest {
        let segment =
            |base, len, last_index| Segment { base, len, last_term: 3, last_index, crc: 9 };
        Manifest {
            cluster: "DefaultCluster".into(),
            broker_name: "broker-a".into(),
            group_id: Bytes::from_static(&[7; 16]),
            node_id: 2,
            term: 3,
            index: 99,
            membership: Bytes::from_static(b"members"),
            state: vec![File { name: "000007.sst".into(), len: 12, crc: 0x1234_5678 }],
            segment_size: 4096,
            segments: vec![segment(4096, 4096, 50), segment(8192, 100, 99)],
            taken_at_ms: 1,
            program: "0.1.0".into(),
        }
    }

    #[test]
    fn a_manifest_survives() {
        assert_eq!(decode_manifest(&encode_manifest(&manifest())), Ok(manifest()));
    }

    #[test]
    fn what_cannot_be_a_backup_is_refused() {
        let refused = |change: fn(&mut Manifest)| {
            let mut manifest = manifest();
            change(&mut manifest);
            decode_manifest(&encode_manifest(&manifest)).unwrap_err();
        };
        refused(|m| m.group_id.clear());
        refused(|m| m.state[0].name = "../x".into());
        refused(|m| m.state[0].name = ".x".into());
        refused(|m| m.segments.clear());
        refused(|m| m.segments[1].base += 4096);
        refused(|m| m.segments[0].len -= 1);
        refused(|m| m.segments[1].len = 4097);
        refused(|m| m.index += 1);
    }

    #[test]
    fn golden() {
        let bytes = encode_manifest(&manifest());
        assert_eq!(&bytes[..4], b"RMQB");
        assert_eq!(&bytes[8..12], [1, 0, 0, 0]);
        assert_eq!(crc32fast::hash(&bytes), GOLDEN, "{:08x}", crc32fast::hash(&bytes));
        assert_eq!(state_name(&manifest().state[0]), "12345678-12-000007.sst");
        assert_eq!(segment_name(&manifest().segments[1]), "00000000000000008192.seg");
    }

    const GOLDEN: u32 = 0x4e22_44d1;
}
