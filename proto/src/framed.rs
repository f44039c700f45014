//! A message in a file of its own, which says what it is, in which version, and whether it is whole.
//!
//! ```text
//! magic 4 | crc32 of what follows 4 | version 4 | length 4 | message      integers little-endian
//! ```

use prost::Message;

const HEADER: usize = 16;

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The first four bytes.
    pub magic: [u8; 4],
    /// What is written, and the newest that is read.
    pub version: u32,
}

/// Bytes that are no such file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It ends early, is of another kind, is damaged, or holds something else.
    #[error("{0}")]
    Damaged(&'static str),
    /// A newer release wrote it.
    #[error(
        "it has format version {found}, and this release reads up to {supported}: use the release \
         that wrote it, or a newer one"
    )]
    Newer {
        /// Its version.
        found: u32,
        /// The newest that is read.
        supported: u32,
    },
}

impl Kind {
    /// The bytes of the file that holds `message`.
    ///
    /// # Panics
    /// The message is larger than 4 GiB.
    #[must_use]
    pub fn encode(self, message: &impl Message) -> Vec<u8> {
        let len = message.encoded_len();
        let mut out = vec![0; HEADER];
        out[8..12].copy_from_slice(&self.version.to_le_bytes());
        let short = u32::try_from(len).expect("such a message is small");
        out[12..16].copy_from_slice(&short.to_le_bytes());
        out.reserve(len);
        message.encode(&mut out).expect("a vector grows");
        let crc = crc32fast::hash(&out[8..]);
        out[0..4].copy_from_slice(&self.magic);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The message in the bytes of a file.
    ///
    /// # Errors
    /// See [`Unreadable`].
    pub fn decode<M: Message + Default>(self, bytes: &[u8]) -> Result<M, Unreadable> {
        let word = |at: usize| {
            let word = bytes.get(at..at + 4).ok_or(Unreadable::Damaged("it ends early"))?;
            Ok::<[u8; 4], Unreadable>(word.try_into().expect("four bytes"))
        };
        if word(0)? != self.magic {
            return Err(Unreadable::Damaged("it does not begin like one"));
        }
        let (version, len) = (u32::from_le_bytes(word(8)?), u32::from_le_bytes(word(12)?));
        if u32::from_le_bytes(word(4)?) != crc32fast::hash(&bytes[8..]) {
            return Err(Unreadable::Damaged("its checksum does not match"));
        }
        if version > self.version {
            return Err(Unreadable::Newer { found: version, supported: self.version });
        }
        let body = &bytes[HEADER..];
        if body.len() as u64 != u64::from(len) {
            return Err(Unreadable::Damaged("it has another length"));
        }
        M::decode(body).map_err(|_undecodable| Unreadable::Damaged("it holds something else"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_rpc::File;

    const KIND: Kind = Kind { magic: *b"TEST", version: 2 };

    fn file() -> File {
        File { name: "000007.sst".into(), len: 12, crc: 3 }
    }

    #[test]
    fn a_message_survives_and_every_flipped_bit_is_noticed() {
        let good = KIND.encode(&file());
        assert_eq!(KIND.decode::<File>(&good), Ok(file()));
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            assert!(KIND.decode::<File>(&bytes).is_err(), "byte {at}");
            assert!(KIND.decode::<File>(&good[..at]).is_err(), "the first {at} bytes");
        }
    }

    #[test]
    fn a_newer_file_is_refused_with_both_versions() {
        let newer = Kind { version: 3, ..KIND }.encode(&file());
        let error = KIND.decode::<File>(&newer).unwrap_err();
        assert_eq!(error, Unreadable::Newer { found: 3, supported: 2 });
        let text = error.to_string();
        assert!(text.contains('3') && text.contains('2') && text.contains("newer"), "{text}");
        let older = Kind { version: 1, ..KIND }.encode(&file());
        assert_eq!(KIND.decode::<File>(&older), Ok(file()));
    }
}
