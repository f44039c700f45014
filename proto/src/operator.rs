//! Who may administer: whoever knows the operators' secret proves it with each call.
//!
//! The proof is `TIME.CODE` in the metadata [`PROOF`]: milliseconds since 1970, and the hexadecimal
//! HMAC-SHA256 of that time under the secret. The secret itself never travels; a proof that others
//! overhear is good for [`VALID`], so a network that others can read needs TLS or a tunnel.

use std::{fmt, fmt::Write as _, io, path::Path, time::Duration};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{Timestamp, clock};

/// On an administrative call: the proof.
pub const PROOF: &str = "x-raftmq-operator";
/// A proof is good for so long before and after its time, because clocks differ.
pub const VALID: Duration = Duration::from_secs(60);
/// Fewer bytes could be guessed.
const SHORTEST: usize = 16;

/// What operators and brokers share.
#[derive(Clone)]
pub struct OperatorSecret(Vec<u8>);

/// Why a file holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// It is too short.
    #[error("a secret of {bytes} bytes could be guessed; it takes {SHORTEST}")]
    Short {
        /// Its length.
        bytes: usize,
    },
}

/// Why a call is not an operator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAnOperator {
    /// There is no proof.
    #[error("this takes the operators' secret: give --secret-file")]
    NoProof,
    /// It was made with another secret, or is not one.
    #[error("the operators' secret is another one here")]
    OtherSecret,
    /// It was made too long ago, or is yet to be made.
    #[error("the proof is {} s off the clock here; it is good for {} s", off.as_secs(), VALID.as_secs())]
    OutOfTime {
        /// By how much the clocks differ.
        off: Duration,
    },
}

impl OperatorSecret {
    /// # Errors
    /// There are fewer than 16 bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, SecretError> {
        let bytes = bytes.into();
        if bytes.len() < SHORTEST {
            return Err(SecretError::Short { bytes: bytes.len() });
        }
        Ok(Self(bytes))
    }

    /// The secret in a file; white space around it does not count, as editors add line feeds.
    ///
    /// # Errors
    /// The file cannot be read, or holds fewer than 16 bytes.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        Self::new(std::fs::read(path)?.trim_ascii())
    }

    /// A proof as of this time.
    pub fn proof(&self, now: Timestamp) -> String {
        let time = now.0.to_string();
        let code = self.code(&time).finalize().into_bytes();
        let mut proof = time + ".";
        for byte in code {
            write!(proof, "{byte:02x}").expect("a String takes any text");
        }
        proof
    }

    /// # Errors
    /// The proof is missing, made with another secret, or of another time.
    pub fn check(&self, proof: Option<&str>, now: Timestamp) -> Result<(), NotAnOperator> {
        let (time, code) = proof.ok_or(NotAnOperator::NoProof)?.split_once('.').unwrap_or_default();
        let code = bytes_of(code).ok_or(NotAnOperator::OtherSecret)?;
        // In constant time, and before the time is believed.
        self.code(time).verify_slice(&code).map_err(|_other| NotAnOperator::OtherSecret)?;
        let made: u64 = time.parse().map_err(|_no_number| NotAnOperator::OtherSecret)?;
        let off = Duration::from_millis(now.0.abs_diff(made));
        if off > VALID { Err(NotAnOperator::OutOfTime { off }) } else { Ok(()) }
    }

    /// [`Self::check`] now.
    ///
    /// # Errors
    /// As there.
    pub fn check_now(&self, proof: Option<&str>) -> Result<(), NotAnOperator> {
        self.check(proof, clock::wall_now())
    }

    fn code(&self, time: &str) -> Hmac<Sha256> {
        let mut code = Hmac::<Sha256>::new_from_slice(&self.0).expect("any length will do");
        code.update(b"raftmq operator ");
        code.update(time.as_bytes());
        code
    }
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    if !hex.is_ascii() {
        return None;
    }
    let digits = hex.as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(str::from_utf8(two).ok()?, 16).ok()).collect()
}

impl fmt::Debug for OperatorSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OperatorSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn secret(text: &str) -> OperatorSecret {
        OperatorSecret::new(text).expect("long enough")
    }

    #[test]
    fn a_proof_holds_for_its_secret_and_its_time() {
        let (ours, theirs) = (secret("sixteen bytes or more"), secret("sixteen other bytes"));
        let proof = ours.proof(NOW);
        let check = |secret: &OperatorSecret, ms: u64| secret.check(Some(&proof), Timestamp(ms));
        assert_eq!(check(&ours, NOW.0), Ok(()));
        assert_eq!(check(&ours, NOW.0 + 60_000), Ok(()));
        assert_eq!(check(&theirs, NOW.0), Err(NotAnOperator::OtherSecret));
        let off = Duration::from_millis(60_001);
        assert_eq!(check(&ours, NOW.0 + 60_001), Err(NotAnOperator::OutOfTime { off }));
        assert_eq!(check(&ours, NOW.0 - 60_001), Err(NotAnOperator::OutOfTime { off }));
        assert_eq!(ours.check(None, NOW), Err(NotAnOperator::NoProof));
    }

    #[test]
    fn what_is_no_proof_is_refused() {
        let ours = secret("sixteen bytes or more");
        let proof = ours.proof(NOW);
        let later = proof.replacen("17", "18", 1);
        let cut = &proof[..proof.len() - 1];
        let long = format!("{proof}00");
        for bad in ["", ".", "1700000000000.", "x.00", "1.é", later.as_str(), cut, long.as_str()] {
            assert_eq!(ours.check(Some(bad), NOW), Err(NotAnOperator::OtherSecret), "{bad}");
        }
    }

    #[test]
    fn a_secret_is_not_short_and_not_shown() {
        assert!(matches!(OperatorSecret::new("short"), Err(SecretError::Short { bytes: 5 })));
        assert_eq!(format!("{:?}", secret("sixteen bytes or more")), "OperatorSecret(..)");
    }
}
