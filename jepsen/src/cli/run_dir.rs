//! The directory of one run.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::history::{Event, Plan, Record, read};

/// A recorded run.
#[derive(Debug)]
pub struct RunDir {
    pub path: PathBuf,
    pub plan: Plan,
    pub events: Vec<Event>,
    pub record: Record,
}

impl RunDir {
    /// Reads the plan and the history.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.join("test.json");
        let plan = fs::read_to_string(&name).with_context(|| format!("read {}", name.display()))?;
        let plan: Plan = serde_json::from_str(&plan).with_context(|| name.display().to_string())?;
        let name = path.join("history.jsonl");
        let file = File::open(&name).with_context(|| format!("open {}", name.display()))?;
        let events = read(BufReader::new(file)).with_context(|| name.display().to_string())?;
        let record = Record::of(events.iter().cloned());
        let record = record.with_context(|| name.display().to_string())?;
        Ok(Self { path: path.to_owned(), plan, events, record })
    }
}
