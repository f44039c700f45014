//! The lines that the demo sends: a log that every Debian or Ubuntu machine has, or any text file.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;

/// What package managers leave behind.
const LOGS: [&str; 4] = [
    "/var/log/dpkg.log",
    "/var/log/dpkg.log.1",
    "/var/log/apt/history.log",
    "/var/log/apt/term.log",
];
/// Messages to send unless `COUNT` says otherwise.
const COUNT: usize = 100_000;
/// The largest body that the broker takes.
const MAX_LINE: usize = 4 << 20;

/// Lines of a file, repeated until there are as many as wanted.
#[derive(Debug)]
pub(crate) struct Input {
    path: PathBuf,
    lines: Vec<Bytes>,
    count: usize,
}

impl Input {
    /// Reads `INPUT`, or the package manager's log; `COUNT` is the number of messages.
    pub(crate) fn open() -> Result<Self> {
        let path = match std::env::var_os("INPUT").filter(|path| !path.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => package_log()?,
        };
        let count = match std::env::var("COUNT").ok().filter(|count| !count.is_empty()) {
            Some(count) => count.parse().context("COUNT is a number of messages")?,
            None => COUNT,
        };
        ensure!(count > 0, "COUNT is at least 1");
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let lines: Vec<Bytes> = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(Bytes::copy_from_slice)
            .collect();
        ensure!(!lines.is_empty(), "{} has no line that is not empty", path.display());
        if let Some(long) = lines.iter().position(|line| line.len() > MAX_LINE) {
            bail!("{}: line {} is longer than 4 MiB", path.display(), long + 1);
        }
        Ok(Self { path, lines, count })
    }

    /// The body of the message with this number.
    pub(crate) fn line(&self, number: u64) -> Bytes {
        let lines = self.lines.len() as u64;
        self.lines[usize::try_from(number % lines).expect("an index into lines")].clone()
    }

    /// How many messages to send.
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

fn package_log() -> Result<PathBuf> {
    let found = LOGS.iter().map(Path::new).find(|path| {
        fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0)
    });
    match found {
        Some(path) => Ok(path.to_owned()),
        None => bail!("none of {LOGS:?} has a line; name a text file with INPUT=FILE"),
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, lines, count) = (self.path.display(), self.lines.len(), self.count);
        write!(f, "{path}: {lines} lines, a message each")?;
        if lines < count {
            write!(f, ", repeated up to {count} messages")?;
        } else if lines > count {
            write!(f, "; the first {count} of them")?;
        }
        Ok(())
    }
}
