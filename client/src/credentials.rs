//! Who the client is: RocketMQ's signature over the time of the request.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use proto::{Timestamp, header};
use sha1::Sha1;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

/// An access key and its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    access_key: String,
    secret_key: String,
    session_token: Option<String>,
}

impl Credentials {
    /// A key pair.
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self { access_key: access_key.into(), secret_key: secret_key.into(), session_token: None }
    }

    /// A temporary key pair comes with a token.
    #[must_use]
    pub fn with_session_token(mut self, token: impl Into<String>) -> Self {
        self.session_token = Some(token.into());
        self
    }

    /// Adds the headers that prove the identity at this moment. A key that is not ASCII cannot be
    /// sent, and the server will say that it is missing.
    pub(crate) fn sign(&self, headers: &mut MetadataMap, now: Timestamp) {
        let time = compact_utc(now);
        let signature = self.signature(&time);
        let authorization = format!(
            "MQv2-HMAC-SHA1 Credential={}, SignedHeaders=x-mq-date-time, Signature={signature}",
            self.access_key
        );
        insert(headers, header::DATE_TIME, &time);
        insert(headers, header::AUTHORIZATION, &authorization);
        if let Some(token) = &self.session_token {
            insert(headers, header::SESSION_TOKEN, token);
        }
    }

    fn signature(&self, text: &str) -> String {
        let mut mac = Hmac::<Sha1>::new_from_slice(self.secret_key.as_bytes())
            .expect("HMAC takes keys of any length");
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02X}")).collect()
    }
}

fn insert(headers: &mut MetadataMap, name: &'static str, value: &str) {
    if let Ok(value) = value.parse::<MetadataValue<Ascii>>() {
        headers.insert(name, value);
    }
}

/// `yyyyMMddTHHmmssZ`.
fn compact_utc(now: Timestamp) -> String {
    let seconds = now.0 / 1000;
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Year, month and day of a number of days since 1970-01-01, by Howard Hinnant's algorithm.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.access_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(compact_utc(Timestamp(0)), "19700101T000000Z");
        assert_eq!(compact_utc(Timestamp(951_782_400_000)), "20000229T000000Z");
        assert_eq!(compact_utc(Timestamp(1_767_312_245_678)), "20260102T000405Z");
    }

    #[test]
    fn the_signature_is_that_of_rfc_2202() {
        let credentials = Credentials::new("ak", "Jefe");
        let signature = credentials.signature("what do ya want for nothing?");
        assert_eq!(signature, "EFFCDF6AE5EB2FA2D27416D5F184DF9C259A7C79");
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", Credentials::new("ak", "hush")), "Credentials(ak)");
    }
}
