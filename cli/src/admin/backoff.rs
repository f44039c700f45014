//! Retry policies of consumer groups, in RocketMQ's JSON.

use anyhow::{Context, Result, bail};
use proto::admin::ExponentialBackoff;
use serde::Deserialize;

/// What a group gets that was never told otherwise: RocketMQ's own steps, in milliseconds.
pub(super) const DEFAULT_MS: [u64; 18] = [
    1_000, 5_000, 10_000, 30_000, 60_000, 120_000, 180_000, 240_000, 300_000, 360_000, 420_000,
    480_000, 540_000, 600_000, 1_200_000, 1_800_000, 3_600_000, 7_200_000,
];
/// Steps that one policy may have.
const MAX_STEPS: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "UPPERCASE", deny_unknown_fields)]
enum Policy {
    Exponential {
        #[serde(rename = "exponentialRetryPolicy")]
        policy: Exponential,
    },
    Customized {
        #[serde(rename = "customizedRetryPolicy")]
        policy: Customized,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exponential {
    initial: u64,
    max: u64,
    multiplier: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Customized {
    next: Vec<u64>,
}

/// A policy as the brokers take it: steps, or what grows.
pub(super) type Backoff = (Vec<u64>, Option<ExponentialBackoff>);

/// Reads RocketMQ's JSON.
pub(super) fn parse(json: &str) -> Result<Backoff> {
    let policy: Policy = serde_json::from_str(json).with_context(|| {
        format!(
            "{json} is no retry policy; write for instance \
             {{\"type\":\"CUSTOMIZED\",\"customizedRetryPolicy\":{{\"next\":[1000,5000]}}}} or \
             {{\"type\":\"EXPONENTIAL\",\"exponentialRetryPolicy\":{{\"initial\":5000,\"max\":7200000,\
             \"multiplier\":2}}}}"
        )
    })?;
    match policy {
        Policy::Customized { policy: Customized { next } } => {
            if next.is_empty() || next.len() > MAX_STEPS {
                bail!("a retry policy has 1 to {MAX_STEPS} steps, not {}", next.len());
            }
            Ok((next, None))
        }
        Policy::Exponential { policy } => Ok((vec![], Some(exponential(&policy)?))),
    }
}

fn exponential(policy: &Exponential) -> Result<ExponentialBackoff> {
    let Exponential { initial, max, multiplier } = *policy;
    if initial == 0 || multiplier < 2 || max < initial {
        bail!(
            "an exponential retry policy needs initial > 0, max >= initial and multiplier >= 2, \
             not initial {initial}, max {max}, multiplier {multiplier}"
        );
    }
    Ok(ExponentialBackoff { initial_ms: initial, max_ms: max, multiplier })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customized_policy_is_its_own_steps() {
        let json = r#"{"type":"CUSTOMIZED","customizedRetryPolicy":{"next":[1000,5000,10000]}}"#;
        assert_eq!(parse(json).unwrap(), (vec![1000, 5000, 10_000], None));
    }

    #[test]
    fn an_exponential_policy_is_told_as_it_is() {
        let json = r#"{"type":"EXPONENTIAL","exponentialRetryPolicy":{"initial":5000,"max":7200000,"multiplier":2}}"#;
        let grows = ExponentialBackoff { initial_ms: 5000, max_ms: 7_200_000, multiplier: 2 };
        assert_eq!(parse(json).unwrap(), (vec![], Some(grows)));
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for bad in [
            "",
            "{}",
            r#"{"type":"CUSTOMIZED","customizedRetryPolicy":{"next":[]}}"#,
            r#"{"type":"EXPONENTIAL","exponentialRetryPolicy":{"initial":0,"max":1,"multiplier":2}}"#,
            r#"{"type":"EXPONENTIAL","exponentialRetryPolicy":{"initial":1,"max":9,"multiplier":1}}"#,
            r#"{"type":"EXPONENTIAL","exponentialRetryPolicy":{"initial":9,"max":1,"multiplier":2}}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let many = format!(
            r#"{{"type":"CUSTOMIZED","customizedRetryPolicy":{{"next":[{}1]}}}}"#,
            "1,".repeat(64)
        );
        assert!(parse(&many).is_err());
    }
}
