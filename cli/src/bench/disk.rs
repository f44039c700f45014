//! How long this machine's disk takes to make a write durable: the floor under every acknowledged
//! send.

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::fs::{FallocateFlags, fallocate};
use serde::Serialize;

use super::recorder::Latencies;

const WRITE_BYTES: usize = 4096;
/// Enough for a p99.
const SAMPLES: u32 = 300;
/// On a slow disk fewer samples must do.
const LONGEST: Duration = Duration::from_secs(3);

/// The time of `write` and `fdatasync`, one at a time, into a preallocated file.
///
/// Waiting for a processor is part of it: where all are busy with something else, the median can be
/// a scheduler's tick (4 ms) on a disk that takes a tenth of that.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct DiskFigure {
    pub(super) samples: u64,
    pub(super) write_bytes: usize,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// Measures in a file of its own in this directory, which goes away afterwards.
pub(super) async fn measure(directory: &Path) -> Result<DiskFigure> {
    let directory = directory.to_owned();
    tokio::task::spawn_blocking(move || measure_now(&directory)).await?
}

fn measure_now(directory: &Path) -> Result<DiskFigure> {
    let doing = || format!("measure fdatasync in {} (--disk)", directory.display());
    let mut file = tempfile::tempfile_in(directory).with_context(doing)?;
    preallocate(&file).with_context(doing)?;
    let block = [0x5a; WRITE_BYTES];
    let mut latencies = Latencies::new();
    let began = Instant::now();
    for _ in 0..SAMPLES {
        let start = Instant::now();
        file.write_all(&block).and_then(|()| file.sync_data()).with_context(doing)?;
        latencies.record(start.elapsed());
        if began.elapsed() > LONGEST {
            break;
        }
    }
    let found = latencies.summary().expect("at least one sample");
    Ok(DiskFigure {
        samples: found.samples,
        write_bytes: WRITE_BYTES,
        p50_ms: found.p50_ms,
        p99_ms: found.p99_ms,
    })
}

/// As the log does, so that the file's size is not written each time.
fn preallocate(file: &File) -> Result<()> {
    let bytes = u64::from(SAMPLES) * WRITE_BYTES as u64;
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => {}
        // Some file systems cannot; then the size is part of what is measured.
        Err(rustix::io::Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    file.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disk_is_measured() {
        let directory = tempfile::tempdir().unwrap();
        let figure = measure(directory.path()).await.unwrap();
        assert!(figure.samples > 0 && figure.p50_ms > 0.0 && figure.p50_ms <= figure.p99_ms);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_named() {
        let error = measure(Path::new("/no/such/directory")).await.unwrap_err();
        assert!(format!("{error:#}").contains("/no/such/directory"), "{error:#}");
    }
}
