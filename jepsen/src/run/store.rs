//! Where runs are kept, and what dead ones left behind.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use proto::clock::wall_now;

use super::inside::is_run;

/// The directory of a run: `store/WORKLOAD/NEMESIS/UTC-SEED`, and `store/latest` for it.
pub fn directory(store: &Path, workload: &str, nemesis: &str, seed: u64) -> Result<PathBuf> {
    let name = format!("{}-{seed}", utc(wall_now().0 / 1000));
    let nemesis = if nemesis.len() < 60 { nemesis } else { "many" };
    let path = store.join(workload).join(nemesis).join(name);
    fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    let latest = store.join("latest");
    // A link to nowhere is there all the same.
    if latest.symlink_metadata().is_ok() {
        fs::remove_file(&latest).with_context(|| latest.display().to_string())?;
    }
    let relative = path.strip_prefix(store)?;
    std::os::unix::fs::symlink(relative, &latest).with_context(|| latest.display().to_string())?;
    Ok(path)
}

/// A time in seconds since the epoch as 20260131T123456Z.
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March: leap days come last.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// A process, so that another one of the same number is not taken for it: its number and when it
/// began.
pub(super) fn identity(pid: u32) -> Result<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may hold anything: the state is field 3, the start field 22.
    let rest = stat.rsplit_once(')').context("a process has a name")?.1;
    let start = rest.split_whitespace().nth(19).context("a process has begun")?;
    Ok(format!("{pid} {start}"))
}

/// Directories of runs below `disks` whose process is gone.
pub fn stale(disks: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(disks).with_context(|| disks.display().to_string())? {
        let entry = entry?;
        if !is_run(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let owner = fs::read_to_string(entry.path().join("owner")).unwrap_or_default();
        let pid = owner.split(' ').next().and_then(|pid| pid.parse().ok());
        let lives = pid.and_then(|pid| identity(pid).ok()).is_some_and(|now| now == owner);
        if !lives {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_dates() {
        assert_eq!(utc(0), "19700101T000000Z");
        assert_eq!(utc(951_782_400), "20000229T000000Z");
        assert_eq!(utc(1_790_000_000), "20260921T141320Z");
    }

    #[test]
    fn what_a_living_process_made_is_not_stale() {
        let disks = tempfile::tempdir().expect("a directory");
        let make = |name: &str, owner: &str| {
            fs::create_dir(disks.path().join(name)).expect("a directory");
            fs::write(disks.path().join(name).join("owner"), owner).expect("a file");
        };
        make("rj-mine", &identity(std::process::id()).expect("this process"));
        make("rj-older", &format!("{} 1", std::process::id()));
        make("rj-nobody", "");
        make("others", "");
        let mut found = stale(disks.path()).expect("a list");
        found.sort();
        assert_eq!(found, ["rj-nobody", "rj-older"].map(|name| disks.path().join(name)));
    }
}
