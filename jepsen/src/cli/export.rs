//! `jepsen export`: a history for a checker of others.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};

use super::{Format, RunDir};
use crate::export::{edn, elle, porcupine};

pub(super) fn run(dir: &Path, format: Format, output: Option<&Path>) -> Result<u8> {
    let run = RunDir::open(dir)?;
    match output {
        Some(path) => {
            let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
            write(&run, format, &mut BufWriter::new(file))?;
        }
        None => write(&run, format, &mut BufWriter::new(io::stdout().lock()))?,
    }
    Ok(0)
}

fn write(run: &RunDir, format: Format, to: &mut impl Write) -> Result<()> {
    match format {
        Format::Porcupine => porcupine(&run.record, &mut *to)?,
        Format::Edn => edn(&run.events()?, &mut *to)?,
        Format::Elle => {
            let exported = elle(&run.record, &mut *to)?;
            let (appends, reads) = (exported.appends, exported.reads);
            eprintln!("{appends} appends, {reads} reads; {} reads left out", exported.left_out);
        }
    }
    to.flush().context("write the history")
}
