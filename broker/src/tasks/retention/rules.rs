//! How long what is kept: settings, the clock, and the space there is.

use std::{ops::Range, time::Duration};

use proto::{Timestamp, Topic, clock::millis};
use raft::LogOffset;

use crate::{
    command::{Retention, is_dead_letter_topic},
    ops::RetentionSettings,
    state::Kept,
};

/// Messages go in steps of this part of the time that they are kept, so that what is kept for days
/// does not cost a command every few seconds; and of this at most.
const STEP: u64 = 100;
const LONGEST_STEP: Duration = Duration::from_secs(5 * 60);
/// A topic that is over its bytes goes below them by this part.
const SLACK: u64 = 100;

/// What holds in one round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) settings: RetentionSettings,
    pub(super) now: Timestamp,
    /// Older messages go in any case: there is no space for them.
    pub(super) before: Option<Timestamp>,
}

impl Rules {
    /// How long messages of a topic are kept; `None` is for ever.
    fn time(&self, topic: &Topic, ms: u64) -> Option<u64> {
        let default = match is_dead_letter_topic(topic) {
            true => self.settings.dead_letter_time,
            false => self.settings.time,
        };
        match ms {
            0 => default.map(millis),
            Retention::FOR_EVER => None,
            ms => Some(ms),
        }
    }

    /// Messages that entered before the first go, in queues whose first message entered before the
    /// second.
    pub(super) fn bounds(&self, topic: &Topic, ms: u64) -> Option<(Timestamp, Timestamp)> {
        let by_time = self.time(topic, ms).map(|ms| {
            let since = self.now.0.saturating_sub(ms);
            let step = (ms / STEP).min(millis(LONGEST_STEP));
            (Timestamp(since), Timestamp(since.saturating_sub(step)))
        });
        let by_space = self.before.map(|before| (before, before));
        by_time.into_iter().chain(by_space).reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)))
    }

    /// Transactions that were given up before this are kept no longer.
    pub(super) fn parked_until(&self, topic: &Topic, ms: u64) -> Option<Timestamp> {
        self.time(topic, ms).map(|ms| Timestamp(self.now.0.saturating_sub(ms)))
    }
}

/// Bytes that a topic is to lose, if it holds more than it may.
pub(super) fn excess(kept: u64, bound: u64) -> Option<u64> {
    (kept > bound).then(|| kept - bound + bound / SLACK)
}

/// The first segment that there is space for; `None` when there is for all. The segment that is
/// written and the one before it are never without. `span` is the log on this node, `disk` how
/// many bytes its disk is over its bound.
pub(super) fn cut(
    settings: &RetentionSettings,
    kept: &Kept,
    span: Option<Range<LogOffset>>,
    disk: u64,
) -> Option<LogOffset> {
    let bytes = (kept.end.0 + kept.segment).saturating_sub(kept.floor.0);
    let over = match settings.bytes {
        0 => 0,
        bound => bytes.saturating_sub(bound),
    };
    // Files below the floor are about to go.
    let going = span.map_or(0, |span| kept.floor.0.saturating_sub(span.start.0));
    let over = over.max(disk.saturating_sub(going));
    let cut = kept.floor.0 + over.next_multiple_of(kept.segment);
    let last = kept.end.0.saturating_sub(kept.segment);
    let cut = LogOffset(cut.min(last));
    (over > 0 && cut > kept.floor).then_some(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 60 * 60 * 1000;

    fn settings() -> RetentionSettings {
        RetentionSettings {
            time: Some(Duration::from_hours(72)),
            dead_letter_time: Some(Duration::from_hours(168)),
            bytes: 0,
        }
    }

    fn rules() -> Rules {
        Rules { settings: settings(), now: Timestamp(1000 * HOUR), before: None }
    }

    fn topic(name: &str) -> Topic {
        name.parse().unwrap()
    }

    #[test]
    fn a_topic_keeps_what_it_says_or_what_the_broker_says() {
        let rules = rules();
        let since = |name, ms| rules.bounds(&topic(name), ms).map(|(since, _)| since.0);
        assert_eq!(since("t", 0), Some((1000 - 72) * HOUR));
        assert_eq!(since("%DLQ%g", 0), Some((1000 - 168) * HOUR));
        assert_eq!(since("t", HOUR), Some(999 * HOUR));
        assert_eq!(since("%DLQ%g", HOUR), Some(999 * HOUR));
        assert_eq!(since("t", Retention::FOR_EVER), None);
        let for_ever = RetentionSettings { time: None, ..settings() };
        assert_eq!(Rules { settings: for_ever, ..rules }.bounds(&topic("t"), 0), None);
    }

    #[test]
    fn what_is_kept_long_goes_in_steps() {
        let step = |ms| rules().bounds(&topic("t"), ms).map(|(since, before)| since.0 - before.0);
        assert_eq!(step(100), Some(1));
        assert_eq!(step(HOUR), Some(36_000));
        assert_eq!(step(0), Some(300_000));
    }

    #[test]
    fn a_lack_of_space_ends_messages_earlier_never_later() {
        let at = |before| Rules { before: Some(Timestamp(before)), ..rules() };
        let bounds = |before, ms| at(before).bounds(&topic("t"), ms).unwrap();
        let early = Timestamp(950 * HOUR);
        assert_eq!(bounds(early.0, 0), (early, early));
        assert_eq!(bounds(early.0, Retention::FOR_EVER), (early, early));
        assert_eq!(bounds(5, HOUR).0, Timestamp(999 * HOUR));
        assert_eq!(at(early.0).parked_until(&topic("t"), 0), Some(Timestamp(928 * HOUR)));
    }

    fn kept(floor: u64, end: u64) -> Kept {
        let (floor, end) = (LogOffset(floor), LogOffset(end));
        Kept { floor, end, segment: 100, ..Kept::default() }
    }

    #[test]
    fn a_log_is_cut_where_its_bytes_begin() {
        let by_bytes = |bytes, kept: Kept| {
            cut(&RetentionSettings { bytes, ..settings() }, &kept, None, 0).map(|at| at.0)
        };
        assert_eq!(by_bytes(0, kept(200, 900)), None);
        assert_eq!(by_bytes(800, kept(200, 900)), None);
        assert_eq!(by_bytes(799, kept(200, 900)), Some(300));
        assert_eq!(by_bytes(500, kept(200, 900)), Some(500));
        assert_eq!(by_bytes(1, kept(200, 900)), Some(800), "two segments stay");
        assert_eq!(by_bytes(1, kept(800, 900)), None);
        assert_eq!(by_bytes(1, kept(0, 0)), None);
    }

    #[test]
    fn a_full_disk_cuts_what_is_not_about_to_go_already() {
        let by_disk = |disk, start: u64| {
            let span = LogOffset(start)..LogOffset(950);
            cut(&settings(), &kept(400, 900), Some(span), disk).map(|at| at.0)
        };
        assert_eq!(by_disk(0, 400), None);
        assert_eq!(by_disk(150, 400), Some(600));
        assert_eq!(by_disk(150, 200), None, "200 are about to be freed");
        assert_eq!(by_disk(250, 200), Some(500));
    }

    #[test]
    fn a_topic_over_its_bytes_goes_a_little_below() {
        assert_eq!(excess(1000, 1000), None);
        assert_eq!(excess(1001, 1000), Some(11));
    }
}
