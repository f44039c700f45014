//! `broker inspect DIR`: what a data directory holds, and whether it is what was written, without a
//! broker. Reads with the same code as one.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use raft::{LogIndex, inspect::Part};
use serde_json::{Value, json};

use crate::{
    data_dir::{LOCK_FILE, RAFT_DIR, STATE_DIR},
    kv::{self, Family, Frontier, Kv, Rocks, RocksConfig},
};

/// Damage was found.
const DAMAGED: u8 = 3;
/// Bytes of the state that are read in one go.
const PIECE: u64 = 4 << 20;

/// Prints what a data directory holds. Ends with 0 if nothing is wrong, with 3 if something is
/// damaged, with 1 if the directory cannot be looked at.
#[derive(Debug, Clone, Args)]
pub struct Inspect {
    /// The data directory of a broker that does not run.
    pub dir: PathBuf,
    /// JSON instead of lines.
    #[arg(long)]
    pub json: bool,
    /// Compare everything with its checksums.
    #[arg(long)]
    pub check: bool,
    /// List entries of the log from this index on.
    #[arg(long, value_name = "INDEX")]
    pub from: Option<u64>,
    /// List at most so many entries.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
    /// Look although a broker uses the directory. What changes meanwhile may look damaged.
    #[arg(long)]
    pub force_read_only: bool,
}

impl Inspect {
    /// Prints to standard output.
    ///
    /// # Errors
    /// The directory is none of a broker's, is in use, or cannot be read.
    pub fn run(&self) -> Result<ExitCode> {
        let raft_dir = self.dir.join(RAFT_DIR);
        if !raft_dir.is_dir() {
            bail!("{} is not the data directory of a broker", self.dir.display());
        }
        let _lock = self.lock()?;
        let mut parts = raft::inspect::inspect(&raft_dir, self.check)?;
        parts.extend(self.state());
        let entries = match self.from {
            Some(from) => raft::inspect::list(&raft_dir, LogIndex(from), self.limit)?,
            None => Vec::new(),
        };
        let text = match self.json {
            true => format!("{:#}\n", as_json(&parts, &entries)),
            false => as_text(&parts, &entries),
        };
        std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
        let damaged = parts.iter().any(|part| part.problem.is_some());
        Ok(if damaged { ExitCode::from(DAMAGED) } else { ExitCode::SUCCESS })
    }

    /// Keeps a broker from starting meanwhile.
    fn lock(&self) -> Result<Option<std::fs::File>> {
        let path = self.dir.join(LOCK_FILE);
        let lock = OpenOptions::new().write(true).open(&path);
        let lock = match lock {
            Ok(lock) => lock,
            Err(_) if self.force_read_only => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
        };
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(_) if self.force_read_only => Ok(None),
            Err(_) => bail!(
                "{} is in use by a broker; stop it, or look all the same with --force-read-only",
                self.dir.display()
            ),
        }
    }

    fn state(&self) -> Vec<Part> {
        let path = self.dir.join(STATE_DIR);
        let part = Part::new("state");
        if !path.is_dir() {
            return vec![part.wrong("it is missing")];
        }
        match self.open_state(&path) {
            Ok(parts) => parts,
            Err(error) => vec![part.wrong(format!("{:#}", anyhow::Error::new(error)))],
        }
    }

    fn open_state(&self, path: &Path) -> Result<Vec<Part>, kv::Error> {
        let store = Rocks::open_read_only(&RocksConfig::new(path))?;
        let frontier = Frontier::load(&store)?;
        let applied = frontier.applied.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let mut parts = vec![Part::new("state").fact("applied", applied)];
        for family in Family::ALL {
            let mut part = Part::new(format!("state, {}", family.name()));
            match counts(&store, family) {
                Ok(counts) => {
                    for (kind, (records, bytes)) in counts {
                        part = part.fact(kind, format!("{records} records, {bytes} bytes"));
                    }
                }
                Err(error) => part = part.wrong(format!("{:#}", anyhow::Error::new(error))),
            }
            if self.check
                && let Err(error) = reread(&store, family)
            {
                part = part.wrong(format!("{:#}", anyhow::Error::new(error)));
            }
            parts.push(part);
        }
        Ok(parts)
    }
}

/// Records and bytes by kind.
fn counts(store: &Rocks, family: Family) -> Result<BTreeMap<&'static str, (u64, u64)>, kv::Error> {
    let mut counts: BTreeMap<&'static str, (u64, u64)> = BTreeMap::new();
    store.scan(family, &[], &[0xff; 32], &mut |key, value| {
        let (records, bytes) = counts.entry(kv::kind(family, key)).or_default();
        *records += 1;
        *bytes += (key.len() + value.len()) as u64;
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    Ok(counts)
}

fn reread(store: &Rocks, family: Family) -> Result<(), kv::Error> {
    let mut from = Some(Vec::new());
    while let Some(at) = from {
        (_, from) = store.reread(family, &at, PIECE)?;
    }
    Ok(())
}

type Entries = [commitlog::inspect::Listed];

fn as_text(parts: &[Part], entries: &Entries) -> String {
    let mut text = String::new();
    for part in parts {
        let facts: Vec<String> =
            part.facts.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let end = match &part.problem {
            Some(problem) => format!("  DAMAGED: {problem}"),
            None => String::new(),
        };
        writeln!(text, "{:<36} {}{end}", part.name, facts.join(", ")).expect("a String takes it");
    }
    for entry in entries {
        let sound = if entry.sound { "" } else { "  DAMAGED" };
        writeln!(
            text,
            "{:<12} {:?} at {}, {} bytes, stamp {}{sound}",
            entry.log_id, entry.kind, entry.offset, entry.body_len, entry.stamp
        )
        .expect("a String takes it");
    }
    text
}

fn as_json(parts: &[Part], entries: &Entries) -> Value {
    let part = |part: &Part| {
        let facts: serde_json::Map<String, Value> =
            part.facts.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        json!({ "name": part.name, "facts": facts, "problem": part.problem })
    };
    let entry = |entry: &commitlog::inspect::Listed| {
        json!({
            "term": entry.log_id.term.0,
            "index": entry.log_id.index.0,
            "kind": format!("{:?}", entry.kind),
            "offset": entry.offset.0,
            "bytes": entry.body_len,
            "stamp": entry.stamp,
            "sound": entry.sound,
        })
    };
    json!({
        "sound": parts.iter().all(|part| part.problem.is_none()),
        "parts": parts.iter().map(part).collect::<Vec<_>>(),
        "entries": entries.iter().map(entry).collect::<Vec<_>>(),
    })
}
