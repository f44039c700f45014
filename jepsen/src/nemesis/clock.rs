//! Wall clocks that jump and drift, by libfaketime; monotonic clocks are left alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::RngExt;
use rand::rngs::StdRng;

use super::{Class, Effect, Step, Tools};

/// Where Debian and Ubuntu have the library.
const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
];
/// The largest jump, in ms: 2 to this power.
const LARGEST: u32 = 18;
/// How much too fast a clock may run, in percent.
const DRIFT: std::ops::Range<u64> = 2..40;

/// The library, where it is there.
#[must_use]
pub fn library() -> Option<PathBuf> {
    LIBRARIES.iter().map(PathBuf::from).find(|path| path.exists())
}

/// One file per node, which the library reads the clock's error from.
#[derive(Debug)]
pub struct ClockFiles {
    files: Vec<PathBuf>,
}

impl ClockFiles {
    /// Clocks that are right.
    pub fn create(directory: &Path, nodes: u8) -> Result<Self> {
        let files = (1..=nodes).map(|id| directory.join(format!("clock-{id}"))).collect();
        let all = Self { files };
        (0..usize::from(nodes)).try_for_each(|place| all.set(place, "+0"))?;
        Ok(all)
    }

    /// What has to be put before the program of each node.
    pub fn environment(&self) -> Result<Vec<Vec<String>>> {
        let library = library().context("libfaketime (package faketime)")?;
        let environment = self.files.iter().map(|file| {
            let variables = [
                format!("LD_PRELOAD={}", library.display()),
                format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
                "FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
                "FAKETIME_NO_CACHE=1".into(),
            ];
            ["env".to_owned()].into_iter().chain(variables).collect()
        });
        Ok(environment.collect())
    }

    /// A reader sees the old error or the new one, nothing between.
    fn set(&self, place: usize, error: &str) -> Result<()> {
        let (file, next) = (&self.files[place], self.files[place].with_extension("next"));
        fs::write(&next, format!("{error}\n"))?;
        fs::rename(&next, file).with_context(|| file.display().to_string())
    }
}

/// Moves the clocks. Drift and strobe go on for the fault's own time, a jump stays until it is
/// healed.
pub(super) async fn disturb(
    tools: &Arc<Tools>,
    step: &Step,
    places: &BTreeSet<usize>,
    random: &mut StdRng,
) -> Result<Effect> {
    let files = tools.clocks.as_ref().context("this run cannot move clocks")?;
    let lasts = Duration::from_millis(step.lasts_ms);
    let by = 1 << random.random_range(4..=LARGEST);
    let skew_ms = match step.class {
        Class::ClockBump => {
            let sign = if random.random_bool(0.5) { '+' } else { '-' };
            for place in places {
                files.set(*place, &seconds(sign, by))?;
            }
            by
        }
        Class::ClockStrobe => {
            let since = Instant::now();
            let (by, mut away) = (by.min(5_000), false);
            while since.elapsed() < lasts {
                away = !away;
                for place in places {
                    files.set(*place, &seconds('+', if away { by } else { 0 }))?;
                }
                tokio::time::sleep(Duration::from_millis(random.random_range(2..200))).await;
            }
            by
        }
        _ => {
            let percent = random.random_range(DRIFT);
            for place in places {
                files.set(*place, &format!("+0 x1.{percent:02}"))?;
            }
            step.lasts_ms * percent / 100
        }
    };
    Ok(Effect { skew_ms: Some(skew_ms), ..Effect::default() })
}

fn seconds(sign: char, ms: u64) -> String {
    format!("{sign}{}.{:03}", ms / 1000, ms % 1000)
}

/// Puts one clock so far ahead.
pub(super) fn set_ahead(tools: &Tools, place: usize, by: Duration) -> Result<()> {
    let files = tools.clocks.as_ref().context("this run cannot move clocks")?;
    files.set(place, &seconds('+', u64::try_from(by.as_millis())?))
}

pub(super) fn set_right(tools: &Tools, places: &BTreeSet<usize>) -> Result<()> {
    let files = tools.clocks.as_ref().context("this run cannot move clocks")?;
    places.iter().try_for_each(|place| files.set(*place, "+0"))
}
