//! A log on a simulated disk, driven step by step.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use commitlog::position::{LogId, LogIndex};
use commitlog::{
    CommitLog, Config, Error, GroupId, Identity, Kind, Record, Recovered, SimDisk, Writer,
};

pub(crate) const GROUP: GroupId = GroupId(0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00);

pub(crate) fn identity() -> Identity {
    // Without a boot id every start counts as one after a power failure.
    Identity { node_id: 1, group_id: Some(GROUP), boot_id: None }
}

/// Segments of 8 KiB: a header and 4 KiB of frames.
pub(crate) fn config() -> Config {
    Config { max_body: 1024, sync_group_bytes: 4096, ..Config::with_segment_size(8192) }
}

/// The body of an entry, different for each index and term.
pub(crate) fn body(term: u64, index: u64, len: usize) -> Bytes {
    (0..len).map(|i| (term * 31 + index * 7 + i as u64 + 1).to_le_bytes()[0]).collect()
}

pub(crate) fn record(term: u64, index: u64, len: usize) -> Record {
    Record::new(LogId::new(term, index), Kind::Batch, 1000 + index, body(term, index, len))
}

pub(crate) fn records(term: u64, indexes: std::ops::Range<u64>, len: usize) -> Vec<Record> {
    indexes.map(|index| record(term, index, len)).collect()
}

/// Where callbacks leave their results.
#[derive(Clone, Default)]
pub(crate) struct Outcomes(Arc<Mutex<Vec<Outcome>>>);

type Outcome = (u64, Result<(), Error>);

impl Outcomes {
    /// A callback that reports under `name`.
    pub(crate) fn named(&self, name: u64) -> commitlog::Done {
        let list = self.0.clone();
        Box::new(move |result| list.lock().unwrap().push((name, result)))
    }

    /// Names of what succeeded, in order.
    pub(crate) fn done(&self) -> Vec<u64> {
        let list = self.0.lock().unwrap();
        list.iter().filter(|(_, result)| result.is_ok()).map(|(name, _)| *name).collect()
    }

    pub(crate) fn failed(&self) -> Vec<Error> {
        let list = self.0.lock().unwrap();
        list.iter().filter_map(|(_, result)| result.clone().err()).collect()
    }
}

/// A log and its writer.
pub(crate) struct Node {
    pub(crate) log: CommitLog,
    pub(crate) writer: Writer,
    pub(crate) recovered: Recovered,
    pub(crate) outcomes: Outcomes,
}

impl Node {
    pub(crate) fn open(disk: &SimDisk) -> Result<Self, Error> {
        Self::open_with(disk, config())
    }

    pub(crate) fn open_with(disk: &SimDisk, config: Config) -> Result<Self, Error> {
        Self::open_as(disk, config, identity())
    }

    pub(crate) fn open_as(
        disk: &SimDisk,
        config: Config,
        identity: Identity,
    ) -> Result<Self, Error> {
        let (log, writer, recovered) =
            CommitLog::open_without_thread(config, disk.clone(), identity)?;
        Ok(Self { log, writer, recovered, outcomes: Outcomes::default() })
    }

    /// Does everything that is queued.
    pub(crate) fn settle(&mut self) {
        while self.writer.step() {}
    }

    /// Appends under the name of the last index, and settles.
    pub(crate) fn append(&mut self, records: Vec<Record>) -> Result<(), Error> {
        let name = records.last().unwrap().log_id.index.0;
        self.log.append(records, self.outcomes.named(name))?;
        self.settle();
        Ok(())
    }

    pub(crate) fn truncate(&mut self, after: Option<LogId>) -> Result<(), Error> {
        self.log.truncate_after(after, self.outcomes.named(u64::MAX))?;
        self.settle();
        Ok(())
    }

    pub(crate) fn vote(&mut self, vote: u8) -> Result<(), Error> {
        self.log.save_vote([vote; 24], self.outcomes.named(u64::from(vote) << 32))?;
        self.settle();
        Ok(())
    }

    /// All entries that are there, read in small pieces.
    pub(crate) fn all(&self) -> Result<Vec<Record>, Error> {
        let state = self.log.state();
        let mut next = state.purged.map_or(LogIndex(0), |purged| purged.index.next());
        let Some(last) = state.last else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        while next <= last.index {
            let frames = self.log.reader().frames(next..last.index.next(), 300)?;
            assert!(!frames.is_empty(), "entry {next} is missing before {last}");
            for frame in frames {
                next = frame.record.log_id.index.next();
                found.push(frame.record);
            }
        }
        Ok(found)
    }
}
