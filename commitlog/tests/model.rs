//! Random lives of a log against a list of records.

mod common;

use commitlog::position::{LogId, LogIndex};
use commitlog::{Loss, Record, SimDisk};
use common::{Node, config, record};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    /// That many entries of that size.
    Append {
        count: u64,
        len: usize,
    },
    /// Cuts that many of the entries that are not committed.
    Truncate {
        entries: u64,
    },
    /// Commits that many of the entries that are not.
    Commit {
        entries: u64,
    },
    /// Purges that many of the committed entries, and removes their files.
    Purge {
        entries: u64,
    },
    Vote(u8),
    /// Ends the process in order, by a kill, or with the machine.
    Reopen(Stop),
    /// Reads a part of an entry.
    Read {
        entry: u64,
        from: u32,
        len: u32,
    },
}

#[derive(Clone, Copy, Debug)]
enum Stop {
    Close,
    Kill,
    PowerLoss,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1..6_u64, 0..1024_usize).prop_map(|(count, len)| Step::Append { count, len }),
        2 => (0..20_u64).prop_map(|entries| Step::Truncate { entries }),
        3 => (0..20_u64).prop_map(|entries| Step::Commit { entries }),
        1 => (0..20_u64).prop_map(|entries| Step::Purge { entries }),
        1 => any::<u8>().prop_map(Step::Vote),
        2 => prop_oneof![Just(Stop::Close), Just(Stop::Kill), Just(Stop::PowerLoss)]
            .prop_map(Step::Reopen),
        4 => (any::<u64>(), 0..1024_u32, 0..1024_u32)
            .prop_map(|(entry, from, len)| Step::Read { entry, from, len }),
    ];
    proptest::collection::vec(step, 1..60)
}

/// The naive log: all records ever appended and not cut, and how many are committed and purged.
#[derive(Default)]
struct Model {
    records: Vec<Record>,
    committed: usize,
    purged: usize,
    term: u64,
    vote: Option<u8>,
}

struct Pair {
    disk: SimDisk,
    cache_bytes: u64,
    node: Option<Node>,
    model: Model,
}

impl Pair {
    fn new(cache_bytes: u64) -> Self {
        let mut pair = Self {
            disk: SimDisk::new(),
            cache_bytes,
            node: None,
            model: Model { term: 1, ..Model::default() },
        };
        pair.open();
        pair
    }

    fn open(&mut self) {
        let mut config = config();
        config.tail_cache_bytes = self.cache_bytes;
        self.node = Some(Node::open_with(&self.disk, config).unwrap());
    }

    fn node(&mut self) -> &mut Node {
        self.node.as_mut().unwrap()
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Append { count, len } => self.append(count, len),
            Step::Truncate { entries } => self.truncate(entries),
            Step::Commit { entries } => self.commit(entries),
            Step::Purge { entries } => self.purge(entries),
            Step::Vote(vote) => {
                self.node().vote(vote).unwrap();
                self.model.vote = Some(vote);
            }
            Step::Reopen(stop) => self.reopen(stop),
            Step::Read { entry, from, len } => self.read(entry, from, len),
        }
        assert!(self.node().outcomes.failed().is_empty(), "{:?}", self.node().outcomes.failed());
    }

    fn append(&mut self, count: u64, len: usize) {
        let first = self.model.records.len() as u64;
        let records: Vec<Record> =
            (first..first + count).map(|index| record(self.model.term, index, len)).collect();
        self.node().append(records.clone()).unwrap();
        self.model.records.extend(records);
    }

    fn truncate(&mut self, entries: u64) {
        let most = self.model.records.len() - self.model.committed;
        let keep = self.model.records.len() - most.min(usize::try_from(entries).unwrap());
        let after = keep.checked_sub(1).map(|last| self.model.records[last].log_id);
        self.node().truncate(after).unwrap();
        self.model.records.truncate(keep);
        self.model.term += 1;
    }

    fn commit(&mut self, entries: u64) {
        let entries = usize::try_from(entries).unwrap();
        let committed = self.model.records.len().min(self.model.committed + entries);
        if let Some(last) = committed.checked_sub(1) {
            self.node().log.set_committed(LogIndex(last as u64));
        }
        self.model.committed = committed;
    }

    fn purge(&mut self, entries: u64) {
        let entries = usize::try_from(entries).unwrap();
        let purged = self.model.committed.min(self.model.purged + entries);
        let Some(last) = purged.checked_sub(1) else { return };
        let upto = self.model.records[last].log_id;
        let node = self.node();
        node.log.purge_to(upto, node.outcomes.named(0)).unwrap();
        node.log.remove_below(node.log.state().end, node.outcomes.named(0)).unwrap();
        node.settle();
        self.model.purged = purged;
    }

    fn reopen(&mut self, stop: Stop) {
        if let Stop::Close = stop {
            let node = self.node();
            node.log.close_with(node.outcomes.named(0)).unwrap();
            node.settle();
        }
        self.node = None;
        if let Stop::PowerLoss = stop {
            self.disk = self.disk.after_crash(Loss::Unsynced);
        }
        self.open();
        // Known lazily: what is not known any more has to be learned again.
        let committed = self.model.committed;
        if let Some(last) = committed.checked_sub(1) {
            self.node().log.set_committed(LogIndex(last as u64));
        }
    }

    fn read(&mut self, entry: u64, from: u32, len: u32) {
        let present = self.model.records.len() - self.model.purged;
        if present == 0 {
            return;
        }
        let entry = self.model.purged + usize::try_from(entry % present as u64).unwrap();
        let index = LogIndex(entry as u64);
        let expected = self.model.records[entry].clone();
        let reader = self.node().log.reader();
        let frame = reader.frames(index..index.next(), 1).unwrap().remove(0);
        assert_eq!(frame.record, expected);
        let size = u32::try_from(expected.body.len()).unwrap();
        let from = from.min(size);
        let len = len.min(size - from);
        let part = reader.bytes(frame.position + u64::from(from), len).unwrap();
        assert_eq!(part, expected.body.slice(from as usize..(from + len) as usize));
    }

    fn compare(&mut self) {
        let expected = self.model.records[self.model.purged..].to_vec();
        let purged = self.model.purged.checked_sub(1).map(|last| self.model.records[last].log_id);
        let last = self.model.records.last().map(|record| record.log_id);
        let vote = self.model.vote;
        let node = self.node();
        assert_eq!(node.all().unwrap(), expected);
        let state = node.log.state();
        assert_eq!(state.purged, purged);
        assert_eq!(state.last, last);
        assert_eq!(state.vote.map(|vote| vote[0]), vote);
        assert!(state.start <= state.synced && state.synced <= state.written);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_a_list_of_records(steps in steps(), cache in prop_oneof![Just(0), Just(3000), Just(1 << 20)]) {
        let mut pair = Pair::new(cache);
        for step in &steps {
            pair.step(step);
            pair.compare();
        }
    }
}

#[test]
fn log_ids_order_by_term_first() {
    assert!(LogId::new(1, 9) < LogId::new(2, 0));
}
