//! The directory of one run.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::history::{Event, Plan, Record, events, read};

/// A recorded run. Its events are paired while they are read, so that a long history is held once.
#[derive(Debug)]
pub struct RunDir {
    pub path: PathBuf,
    pub plan: Plan,
    pub record: Record,
}

impl RunDir {
    /// Reads the plan and the history.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.join("test.json");
        let plan = fs::read_to_string(&name).with_context(|| format!("read {}", name.display()))?;
        let plan: Plan = serde_json::from_str(&plan).with_context(|| name.display().to_string())?;
        let (name, file) = history(path)?;
        let mut broken = None;
        let sound = events(file).map_while(|event| event.map_err(|e| broken = Some(e)).ok());
        let record = Record::of(sound);
        if let Some(error) = broken {
            return Err(error).with_context(|| name.display().to_string());
        }
        let record = record.with_context(|| name.display().to_string())?;
        Ok(Self { path: path.to_owned(), plan, record })
    }

    /// The events themselves, for those who show or export them.
    pub fn events(&self) -> Result<Vec<Event>> {
        let (name, file) = history(&self.path)?;
        read(file).with_context(|| name.display().to_string())
    }
}

fn history(run: &Path) -> Result<(PathBuf, BufReader<File>)> {
    let name = run.join("history.jsonl");
    let file = File::open(&name).with_context(|| format!("open {}", name.display()))?;
    Ok((name, BufReader::new(file)))
}
