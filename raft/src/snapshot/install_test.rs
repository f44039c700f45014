//! One directory sends to another, without a network in between.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use commitlog::{Config, FileDisk, GroupId, Identity, Kind, Record};
use tempfile::TempDir;

use super::super::manifest::tests::manifest;
use super::super::stage::{Offer, OwnLog, Part, Stage};
use super::super::store::Stored;
use super::*;
use crate::Checkpoint;

const GROUP: GroupId = GroupId(7);
const SEGMENT: u64 = 64 << 10;
const LOG_DIR: &str = "log";

/// A replica at rest: its log, its snapshots, and a state that is a number in a file.
struct Replica {
    dir: TempDir,
    log: Option<CommitLog>,
    store: Store,
    state: Number,
}

/// A state that has applied so many entries.
#[derive(Debug)]
struct Number {
    path: PathBuf,
    installed: usize,
}

impl Number {
    fn get(&self) -> Option<u64> {
        fs::read_to_string(&self.path).ok()?.parse().ok()
    }

    fn set(&self, last: u64) {
        fs::write(&self.path, last.to_string()).unwrap();
    }
}

impl Installs for Number {
    fn applied(&self) -> Applied {
        let log_id = self.get().map(|index| LogId::new(1, index));
        Applied { log_id, membership: Some(manifest().membership) }
    }

    fn install(&mut self, from: &Path) -> Result<(), ApplyError> {
        fs::copy(from.join("number"), &self.path).map_err(ApplyError::new)?;
        self.installed += 1;
        Ok(())
    }
}

fn open_log(dir: &Path) -> CommitLog {
    let config = Config { max_body: 16 << 10, ..Config::with_segment_size(SEGMENT) };
    let identity = Identity { node_id: 1, group_id: Some(GROUP), boot_id: None };
    CommitLog::open(config, FileDisk::new(dir.join(LOG_DIR)).unwrap(), identity).unwrap().0
}

fn record(index: u64) -> Record {
    let body: Bytes = (0..4000_u64).map(|i| (index * 31 + i).to_le_bytes()[0]).collect();
    Record::new(LogId::new(1, index), Kind::Batch, 1000 + index, body)
}

fn wait(queue: impl FnOnce(commitlog::Done) -> Result<(), commitlog::Error>) {
    let (sender, done) = mpsc::channel();
    queue(Box::new(move |result| sender.send(result).unwrap())).unwrap();
    done.recv().unwrap().unwrap();
}

impl Replica {
    /// Of the group's entries up to `last`.
    fn with(last: u64) -> Replica {
        let dir = tempfile::tempdir().unwrap();
        let log = open_log(dir.path());
        wait(|done| log.append((0..=last).map(record).collect(), done));
        log.set_committed(LogId::new(1, last).index);
        let state = Number { path: dir.path().join("number"), installed: 0 };
        state.set(last);
        let store = Store::open(dir.path(), GROUP).unwrap();
        Replica { dir, log: Some(log), store, state }
    }

    fn log(&self) -> &CommitLog {
        self.log.as_ref().unwrap()
    }

    fn log_dir(&self) -> PathBuf {
        self.dir.path().join(LOG_DIR)
    }

    /// Its oldest segments go.
    fn forget(&self, below: u64) {
        let removable = self.log().removable_below(LogOffset(below)).unwrap();
        wait(|done| self.log().purge_to(removable.purge, done));
        wait(|done| self.log().remove_below(removable.below, done));
    }

    fn snapshot(&self) -> std::sync::Arc<Stored> {
        let (number, applied) = (self.state.path.clone(), self.state.applied());
        let checkpoint: Checkpoint = Box::new(move |into| {
            fs::create_dir(into).unwrap();
            fs::copy(number, into.join("number")).unwrap();
            Ok(applied)
        });
        self.store.build(checkpoint).unwrap()
    }

    fn offer(&self, stored: &Stored) -> Offer {
        let segments = self.log().reader().extents(stored.manifest.last).unwrap();
        Offer { manifest: stored.manifest.clone(), segments, segment_size: SEGMENT }
    }

    fn begin(&self, offer: Offer) -> (Stage, Vec<Part>) {
        let dir = self.log_dir();
        let own = OwnLog { log: self.log(), dir: &dir };
        Stage::begin(&self.store, &own, SEGMENT, offer).unwrap()
    }

    /// Starts over, as after a kill.
    fn restart(&mut self) {
        self.log = None;
        self.log = Some(open_log(self.dir.path()));
        self.store = Store::open(self.dir.path(), GROUP).unwrap();
    }

    fn target<'a>(&'a mut self, log_dir: &'a Path) -> Target<'a> {
        let log = self.log.as_ref().unwrap();
        Target { store: &self.store, log, log_dir, state: &mut self.state }
    }

    /// It has the log from `first` to `last`, and the state to it, and goes on.
    fn check(&self, first: u64, last: u64, case: &str) {
        assert_eq!(self.state.get(), Some(last), "{case}");
        assert_eq!(self.log().state().last, Some(LogId::new(1, last)), "{case}");
        let range = LogId::new(1, first).index..LogId::new(1, last + 1).index;
        let frames = self.log().reader().frames(range, usize::MAX).unwrap();
        let found: Vec<Record> = frames.into_iter().map(|frame| frame.record).collect();
        assert!(found == (first..=last).map(record).collect::<Vec<_>>(), "{case}");
        assert_eq!(self.store.last(), Some(LogId::new(1, last)), "{case}");
        assert!(!self.store.installing().exists() && !self.store.incoming().exists(), "{case}");
        wait(|done| self.log().append(vec![record(last + 1)], done));
    }
}

/// The bytes of `part` that `from` sends, up to `most`.
fn send(from: &Replica, stored: &Stored, offer: &Offer, part: Part, stage: &mut Stage, most: u64) {
    let end = offer.len_of(part.file).unwrap().min(part.from.saturating_add(most));
    let mut at = part.from;
    while at < end {
        let len = 10_000.min(end - at);
        let data = match part.file.checked_sub(offer.manifest.files.len()) {
            Some(segment) => {
                from.log().reader().raw(offer.segments[segment].base, at, len).unwrap()
            }
            None => {
                let path = stored.state().join(&offer.manifest.files[part.file].name);
                let bytes = fs::read(path).unwrap();
                {
                    let size = |n: u64| usize::try_from(n).unwrap();
                    Bytes::from(bytes).slice(size(at)..size(at + len))
                }
            }
        };
        stage.write(part.file, at, &data, crc32fast::hash(&data)).unwrap();
        at += len;
    }
}

/// Everything arrives.
fn transfer(from: &Replica, to: &Replica) -> (PathBuf, Offer, u64) {
    let stored = from.snapshot();
    let offer = from.offer(&stored);
    let (mut stage, parts) = to.begin(offer.clone());
    let mut sent = 0;
    for part in parts {
        sent += offer.len_of(part.file).unwrap() - part.from;
        send(from, &stored, &offer, part, &mut stage, u64::MAX);
    }
    (stage.assemble().unwrap(), offer, sent)
}

/// The first entry that the log of an offer holds.
fn first(offer: &Offer, from: &Replica) -> u64 {
    let purged = from.log().state().purged.map_or(0, |purged| purged.index.0 + 1);
    assert!(offer.segments[0].base > LogOffset(0));
    purged
}

#[test]
fn a_crash_at_any_step_of_an_installation_is_made_good_by_the_next_start() {
    let from = Replica::with(99);
    from.forget(3 * SEGMENT);
    for stop in Step::ALL {
        let mut to = Replica::with(20);
        let (arrived, offer, _) = transfer(&from, &to);
        let log_dir = to.log_dir();
        let stopped = install_in_steps(to.target(&log_dir), &arrived, &mut |step| {
            if step == stop { Err(Error::Stopped) } else { Ok(()) }
        });
        assert!(matches!(stopped, Err(Error::Stopped)), "{stop:?}: {stopped:?}");
        to.restart();
        let finished = finish(to.target(&log_dir)).unwrap();
        assert_eq!(finished.is_some(), stop != Step::Adopted, "{stop:?}");
        assert!(finished.is_none_or(|installed| installed.log_stamp == 1099), "{stop:?}");
        to.check(first(&offer, &from), 99, &format!("{stop:?}"));
        to.restart();
        assert_eq!(finish(to.target(&log_dir)).unwrap(), None);
        assert_eq!(to.log().state().last, Some(LogId::new(1, 100)));
    }
}

#[test]
fn a_second_crash_while_finishing_is_made_good_too() {
    let from = Replica::with(60);
    from.forget(2 * SEGMENT);
    for stop in Step::ALL {
        let mut to = Replica::with(3);
        let (arrived, offer, _) = transfer(&from, &to);
        let log_dir = to.log_dir();
        let _ = install_in_steps(to.target(&log_dir), &arrived, &mut |_| Err(Error::Stopped));
        to.restart();
        let _ = finish_in_steps(to.target(&log_dir), &mut |step| {
            if step == stop { Err(Error::Stopped) } else { Ok(()) }
        });
        to.restart();
        finish(to.target(&log_dir)).unwrap();
        to.check(first(&offer, &from), 60, &format!("{stop:?}"));
    }
}

#[test]
fn segments_that_are_here_already_are_not_sent_again() {
    let from = Replica::with(99);
    let stored = from.snapshot();
    let offer = from.offer(&stored);
    let mut to = Replica::with(50);
    let (_, parts) = to.begin(offer.clone());
    let whole = offer.segments.iter().filter(|extent| extent.last.index.0 < 50).count();
    assert!(whole >= 2);
    assert_eq!(parts.len(), 1 + offer.segments.len() - whole, "{parts:?}");
    // One of them has gone bad: it is fetched.
    let name = commitlog::segment_name(offer.segments[0].base);
    let mut bytes = fs::read(to.log_dir().join(&name)).unwrap();
    bytes[9000] ^= 4;
    fs::write(to.log_dir().join(&name), bytes).unwrap();
    let (_, again) = to.begin(offer.clone());
    assert_eq!(again.len(), parts.len() + 1);
    let (arrived, ..) = transfer(&from, &to);
    let log_dir = to.log_dir();
    install(to.target(&log_dir), &arrived).unwrap();
    to.check(0, 99, "with its own segments");
}

#[test]
fn a_transfer_goes_on_where_it_was_cut() {
    let from = Replica::with(99);
    from.forget(2 * SEGMENT);
    let mut to = Replica::with(5);
    let whole = {
        let stored = from.snapshot();
        let offer = from.offer(&stored);
        (0..=offer.segments.len()).map(|file| offer.len_of(file).unwrap()).sum::<u64>()
    };
    let mut sent = 0;
    // Cut again and again, at other places each time, and by restarts.
    for round in 1_u64.. {
        let stored = from.snapshot();
        let offer = from.offer(&stored);
        let (mut stage, parts) = to.begin(offer.clone());
        if parts.iter().all(|part| part.from == offer.len_of(part.file).unwrap()) {
            break;
        }
        let part = parts[usize::try_from(round).unwrap() % parts.len()];
        let most = 17_000 + 1000 * round;
        sent += most.min(offer.len_of(part.file).unwrap() - part.from);
        send(&from, &stored, &offer, part, &mut stage, most);
        drop(stage);
        to.restart();
        assert!(round < 200, "it never ends");
    }
    assert_eq!(sent, whole, "no byte is sent twice");
    // The log has grown meanwhile: what is missing of the last segment is all that is sent.
    wait(|done| from.log().append(vec![record(100)], done));
    from.log().set_committed(LogId::new(1, 100).index);
    from.state.set(100);
    let (arrived, offer, sent) = transfer(&from, &to);
    assert!(sent < 10_000, "{sent}");
    let log_dir = to.log_dir();
    install(to.target(&log_dir), &arrived).unwrap();
    to.check(first(&offer, &from), 100, "resumed");
    assert_eq!(to.state.installed, 1);
}

#[test]
fn what_arrives_damaged_does_not_count() {
    let from = Replica::with(60);
    from.forget(2 * SEGMENT);
    let to = Replica::with(5);
    let stored = from.snapshot();
    let offer = from.offer(&stored);
    let (mut stage, parts) = to.begin(offer.clone());
    let error = stage.write(0, 0, b"77", crc32fast::hash(b"78")).unwrap_err();
    assert!(matches!(error, Error::Checksum { .. }), "{error}");
    // Sound on the way, but not what the manifest says.
    let error = stage.write(0, 0, b"77", crc32fast::hash(b"77")).unwrap_err();
    assert!(matches!(error, Error::Checksum { .. }), "{error}");
    let error = stage.write(1, 8, b"x", crc32fast::hash(b"x")).unwrap_err();
    assert!(matches!(error, Error::Malformed(_)), "{error}");
    assert!(matches!(stage.assemble().unwrap_err(), Error::Io { .. } | Error::Malformed(_)));

    let (mut stage, parts_again) = to.begin(offer.clone());
    assert_eq!(parts, parts_again);
    let segment = parts.iter().find(|part| part.file == 1).unwrap();
    let extent = offer.segments[0];
    let mut bytes = from.log().reader().raw(extent.base, 0, extent.len).unwrap().to_vec();
    bytes[20_000] ^= 1;
    let error = stage.write(segment.file, 0, &bytes, crc32fast::hash(&bytes)).unwrap_err();
    assert!(matches!(error, Error::Log(commitlog::Error::Corrupt { .. })), "{error}");
    let (_, parts_again) = to.begin(offer);
    assert_eq!(parts, parts_again, "it is wanted again from the start");
}

#[test]
fn offers_that_cannot_be_a_log_are_refused() {
    let from = Replica::with(60);
    let to = Replica::with(5);
    let good = from.offer(&from.snapshot());
    let mut wrong = vec![good.clone(); 5];
    wrong[0].segments.pop();
    wrong[1].segments.remove(1);
    wrong[2].segments.clear();
    wrong[3].segment_size = 4096;
    wrong[4].manifest.group = GroupId(8);
    let dir = to.log_dir();
    for offer in wrong {
        let own = OwnLog { log: to.log(), dir: &dir };
        let refused = Stage::begin(&to.store, &own, SEGMENT, offer);
        assert!(matches!(refused, Err(Error::Malformed(_))), "{refused:?}");
    }
}
