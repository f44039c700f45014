//! Retry policies of consumer groups, in RocketMQ's JSON.

use anyhow::{Context, Result, bail};
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
    multiplier: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Customized {
    next: Vec<u64>,
}

/// The waits before each further attempt, in milliseconds; the last repeats. Never empty.
pub(super) fn steps(json: &str) -> Result<Vec<u64>> {
    let policy: Policy = serde_json::from_str(json).with_context(|| {
        format!(
            "{json} is no retry policy; write for instance \
             {{\"type\":\"CUSTOMIZED\",\"customizedRetryPolicy\":{{\"next\":[1000,5000]}}}} or \
             {{\"type\":\"EXPONENTIAL\",\"exponentialRetryPolicy\":{{\"initial\":5000,\"max\":7200000,\
             \"multiplier\":2}}}}"
        )
    })?;
    let steps = match policy {
        Policy::Customized { policy } => policy.next,
        Policy::Exponential { policy } => exponential(&policy)?,
    };
    if steps.is_empty() || steps.len() > MAX_STEPS {
        bail!("a retry policy has 1 to {MAX_STEPS} steps, not {}", steps.len());
    }
    Ok(steps)
}

fn exponential(policy: &Exponential) -> Result<Vec<u64>> {
    let Exponential { initial, max, multiplier } = *policy;
    if initial == 0 || multiplier < 2 || max < initial {
        bail!(
            "an exponential retry policy needs initial > 0, max >= initial and multiplier >= 2, \
             not initial {initial}, max {max}, multiplier {multiplier}"
        );
    }
    let mut steps = vec![initial];
    let mut last = initial;
    while last < max {
        last = last.saturating_mul(multiplier).min(max);
        steps.push(last);
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customized_policy_is_its_own_steps() {
        let json = r#"{"type":"CUSTOMIZED","customizedRetryPolicy":{"next":[1000,5000,10000]}}"#;
        assert_eq!(steps(json).unwrap(), [1000, 5000, 10_000]);
    }

    #[test]
    fn an_exponential_policy_grows_to_its_end() {
        let json = r#"{"type":"EXPONENTIAL","exponentialRetryPolicy":{"initial":5000,"max":7200000,"multiplier":2}}"#;
        let steps = steps(json).unwrap();
        assert_eq!(steps[..3], [5_000, 10_000, 20_000]);
        assert_eq!(steps.last(), Some(&7_200_000));
        assert_eq!(steps.len(), 12);
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
            assert!(steps(bad).is_err(), "{bad}");
        }
        let many = format!(
            r#"{{"type":"CUSTOMIZED","customizedRetryPolicy":{{"next":[{}1]}}}}"#,
            "1,".repeat(64)
        );
        assert!(steps(&many).is_err());
    }
}
