//! `jepsen index`: one page over all judged runs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::judge::Judgement;
use crate::report;

/// How deep runs may lie below the store.
const DEPTH: usize = 4;

pub(super) fn run(store: &Path) -> Result<u8> {
    let mut dirs = Vec::new();
    collect(store, DEPTH, &mut dirs)?;
    dirs.sort();
    let mut runs = Vec::new();
    for dir in dirs {
        let name = dir.join("results.json");
        let text = fs::read_to_string(&name).with_context(|| format!("read {}", name.display()))?;
        let judgement: Judgement =
            serde_json::from_str(&text).with_context(|| name.display().to_string())?;
        let below = dir.strip_prefix(store).unwrap_or(&dir).display().to_string();
        runs.push((below, judgement));
    }
    let page = report::index(&runs);
    let name = store.join("index.html");
    fs::write(&name, page).with_context(|| format!("write {}", name.display()))?;
    println!("{}: {} runs", name.display(), runs.len());
    Ok(0)
}

fn collect(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    if dir.join("results.json").is_file() {
        found.push(dir.to_owned());
    } else if 0 < depth {
        let entries = fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("read {}", dir.display()))?;
            // Links lead to runs that are found by themselves.
            if entry.file_type().with_context(|| dir.display().to_string())?.is_dir() {
                collect(&entry.path(), depth - 1, found)?;
            }
        }
    }
    Ok(())
}
