//! How fast the log appends, next to what the disk gives for the bare writes and syncs, in one run.
//!
//! `cargo run -p commitlog --example append -- [DIR] [SECONDS]`
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use commitlog::position::{LogId, LogIndex};
use commitlog::{BootId, CommitLog, Config, FileDisk, GroupId, Identity, Kind, Record};

type Failure = Box<dyn std::error::Error>;

const BODIES: [usize; 3] = [4 << 10, 64 << 10, 256 << 10];
/// Appends that wait for their sync at the same time.
const IN_FLIGHT: [u64; 2] = [1, 4];

/// Sorted latencies of one run.
struct Run {
    latencies: Vec<Duration>,
    elapsed: Duration,
}

impl Run {
    fn new(mut latencies: Vec<Duration>, elapsed: Duration) -> Self {
        latencies.sort_unstable();
        Self { latencies, elapsed }
    }

    fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    fn print(&self, what: &str, body: usize, ceiling: f64) {
        let at = |share: usize| self.latencies[(self.latencies.len() - 1) * share / 100];
        println!(
            "{what:<24} {:>4} KiB  {:>7.0}/s  {:>7.1} MB/s  p50 {:>9.1?}  p99 {:>9.1?}  {:>5.2} of raw",
            body >> 10,
            self.per_second(),
            self.per_second() * body as f64 / 1e6,
            at(50),
            at(99),
            self.per_second() / ceiling,
        );
    }
}

/// One write and one sync after the other, in a file with reserved space, wrapping at its end.
fn raw(dir: &Path, body: usize, time: Duration) -> Result<Run, Failure> {
    let path = dir.join("raw");
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    let size = 256_u64 << 20;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size)?;
    let data = vec![7; body + 64];
    let (mut latencies, mut at, start) = (Vec::new(), 0, Instant::now());
    while start.elapsed() < time {
        let began = Instant::now();
        file.write_all_at(&data, at)?;
        file.sync_data()?;
        latencies.push(began.elapsed());
        at = (at + data.len() as u64) % (size - data.len() as u64);
    }
    let run = Run::new(latencies, start.elapsed());
    std::fs::remove_file(path)?;
    Ok(run)
}

fn identity() -> Identity {
    Identity { node_id: 1, group_id: Some(GroupId(1)), boot_id: BootId::current() }
}

/// Appends of one entry, `in_flight` of them waiting.
fn log(dir: &Path, body: usize, in_flight: u64, time: Duration) -> Result<Run, Failure> {
    let dir = dir.join("log");
    let (log, _) = CommitLog::open(Config::default(), FileDisk::new(&dir)?, identity())?;
    let body = Bytes::from(vec![7; body]);
    let (sender, done) = mpsc::channel();
    let (mut latencies, mut next, start) = (Vec::new(), 0, Instant::now());
    while start.elapsed() < time || (latencies.len() as u64) < next {
        if start.elapsed() < time && next - (latencies.len() as u64) < in_flight {
            let (sender, began) = (sender.clone(), Instant::now());
            let record = Record::new(LogId::new(1, next), Kind::Batch, 0, body.clone());
            log.append(
                vec![record],
                Box::new(move |result| {
                    // The receiver lives as long as the run.
                    let _ = sender.send(result.map(|()| began.elapsed()));
                }),
            )?;
            log.set_committed(LogIndex(next));
            next += 1;
        } else {
            latencies.push(done.recv()??);
        }
    }
    let run = Run::new(latencies, start.elapsed());
    log.close()?;
    drop(log);
    let began = Instant::now();
    let (log, recovered) = CommitLog::open(Config::default(), FileDisk::new(&dir)?, identity())?;
    println!(
        "{:<24} {} segments, {} MiB checked, in {:.1?}",
        "  opened again",
        recovered.segments,
        recovered.checked_bytes >> 20,
        began.elapsed()
    );
    drop(log);
    std::fs::remove_dir_all(dir)?;
    Ok(run)
}

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let given = args.next();
    let seconds = args.next().map_or(Ok(2), |text| text.parse())?;
    let time = Duration::from_secs(seconds);
    let own = std::env::temp_dir().join(format!("commitlog-append-{}", std::process::id()));
    let dir = given.map_or(own, Into::into);
    std::fs::create_dir_all(&dir)?;
    for body in BODIES {
        let ceiling = raw(&dir, body, time)?;
        ceiling.print("raw pwrite + fdatasync", body, ceiling.per_second());
        for in_flight in IN_FLIGHT {
            let run = log(&dir, body, in_flight, time)?;
            run.print(&format!("log, {in_flight} in flight"), body, ceiling.per_second());
        }
    }
    Ok(())
}
