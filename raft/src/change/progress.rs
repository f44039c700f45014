//! How far each replica has come, as its leader sees it, and how fast it comes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use commitlog::CommitLog;
use commitlog::position::{LogIndex, LogOffset, Term};
use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::rules::{Lag, Standing};
use crate::network::presence::Presence;
use crate::network::server::RaftNode;
use crate::{Member, NodeId, SnapshotProgress};

/// How often positions are noted.
const NOTE_EVERY: Duration = Duration::from_millis(500);
/// The rate is over so many notes: five seconds.
const NOTES: usize = 10;

/// A group's replication, as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replication {
    pub term: Term,
    pub leader: NodeId,
    /// The last entry of the leader's log.
    pub last: Option<LogIndex>,
    /// By ascending id.
    pub members: Vec<MemberProgress>,
    /// Nodes that wait to be added, by ascending id.
    pub waiting: Vec<Waiting>,
    /// The change of the membership that is being made, if one is.
    pub change: Option<String>,
    /// What the group survives as it is.
    pub survives: String,
}

/// How far a replica has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberProgress {
    pub member: Member,
    /// Stored there and equal to the leader's; `None` while nothing is known to be.
    pub matched: Option<LogIndex>,
    pub lag: Option<Lag>,
    /// Of the log, over the last seconds.
    pub bytes_per_second: u64,
    /// When it will have caught up if the rates stay; `None` if it does not come nearer.
    pub eta: Option<Duration>,
    /// Since it last answered; `None` if it never did, and zero for the leader itself.
    pub last_contact: Option<Duration>,
    pub connected: bool,
    /// It does not stand for election, and nobody hands over to it.
    pub drained: bool,
    /// The snapshot that is on its way to it, if one is.
    pub snapshot: Option<SnapshotProgress>,
}

/// A node that waits to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub node_id: NodeId,
    pub raft_addr: String,
    pub client_addr: String,
}

/// A replica's position over the last seconds.
#[derive(Debug, Default, Clone)]
struct Track {
    notes: VecDeque<(Instant, LogOffset)>,
    matched: Option<LogIndex>,
    lag: Option<Lag>,
}

impl Track {
    fn note(&mut self, now: Instant, at: LogOffset) {
        self.notes.push_back((now, at));
        if self.notes.len() > NOTES {
            self.notes.pop_front();
        }
    }

    fn rate(&self) -> u64 {
        let (Some((since, from)), Some((until, to))) = (self.notes.front(), self.notes.back())
        else {
            return 0;
        };
        let millis = u64::try_from((*until - *since).as_millis()).unwrap_or(u64::MAX);
        let bytes = to.0.saturating_sub(from.0);
        bytes.saturating_mul(1000).checked_div(millis).unwrap_or(0)
    }
}

/// The tracks of all members, while this node leads.
#[derive(Debug, Default)]
pub(crate) struct Tracks {
    members: Mutex<BTreeMap<NodeId, Track>>,
}

impl Tracks {
    /// How the members stand now, but for this node itself.
    pub(crate) fn standing(&self, presence: &Presence) -> BTreeMap<NodeId, Standing> {
        let members = self.members.lock().expect("no holder panics");
        let standing = |(node, track): (&NodeId, &Track)| {
            (*node, Standing { connected: presence.is_alive(*node), lag: track.lag })
        };
        members.iter().map(standing).collect()
    }

    /// A member's position, its lag, its rate and when it will have caught up.
    pub(crate) fn of(&self, node: NodeId, leader: NodeId) -> Tracked {
        let members = self.members.lock().expect("no holder panics");
        let Some(track) = members.get(&node) else { return Tracked::default() };
        let grows = members.get(&leader).map_or(0, Track::rate);
        let rate = track.rate();
        let nearer = rate.saturating_sub(grows);
        let eta = track.lag.and_then(|lag| match (lag.is_small(), nearer) {
            (true, _) => Some(Duration::ZERO),
            (false, 0) => None,
            (false, nearer) => Some(Duration::from_secs(lag.bytes.div_ceil(nearer))),
        });
        Tracked { matched: track.matched, lag: track.lag, rate, eta }
    }
}

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tracked {
    pub(crate) matched: Option<LogIndex>,
    pub(crate) lag: Option<Lag>,
    /// Bytes per second.
    pub(crate) rate: u64,
    pub(crate) eta: Option<Duration>,
}

/// Keeps the [`Tracks`] for as long as the node takes part.
#[derive(Clone)]
pub(crate) struct Tracker {
    pub(crate) raft: RaftNode,
    pub(crate) log: Arc<CommitLog>,
    pub(crate) tracks: Arc<Tracks>,
    pub(crate) node: NodeId,
}

impl Tracker {
    pub(crate) async fn run(self) {
        let mut looks = interval(NOTE_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.look(true);
        }
    }

    /// Brings the tracks up to date; `note` where it is time for that.
    pub(crate) fn look(&self, note: bool) {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let mut members = self.tracks.members.lock().expect("no holder panics");
        let Some(replication) = metrics.replication else {
            members.clear();
            return;
        };
        let now = Instant::now();
        let state = self.log.state();
        let last = state.last.map_or(0, |last| last.index.0);
        members.retain(|node, _| replication.contains_key(&node.0) || *node == self.node);
        let own = members.entry(self.node).or_default();
        if note {
            own.note(now, state.end);
        }
        for (id, matched) in replication.into_iter().filter(|(id, _)| *id != self.node.0) {
            let track = members.entry(NodeId(id)).or_default();
            let matched = matched.map(|matched| LogIndex(matched.index()));
            let at = self.end_of(matched, state.start);
            let entries = last.saturating_sub(matched.map_or(0, |matched| matched.0));
            let bytes = if entries == 0 { 0 } else { state.end.0.saturating_sub(at.0) };
            if note {
                track.note(now, at);
            }
            track.matched = matched;
            track.lag = matched.map(|_| Lag { entries, bytes });
        }
    }

    /// Where the entry lies; the start of the log for one that is not there any more.
    fn end_of(&self, index: Option<LogIndex>, start: LogOffset) -> LogOffset {
        let Some(index) = index else { return start };
        let frames = self.log.reader().frames(index..index.next(), 0);
        let frame = frames.ok().and_then(|frames| frames.into_iter().next());
        frame.map_or(start, |frame| {
            let len = u64::try_from(frame.record.body.len()).unwrap_or(0);
            LogOffset(frame.position.0 + len)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_over_the_last_notes() {
        let mut track = Track::default();
        assert_eq!(track.rate(), 0);
        let start = Instant::now();
        for second in 0..20_u64 {
            track.note(start + Duration::from_secs(second), LogOffset(second * second * 100));
        }
        // From 10 s, 10,000 bytes, to 19 s, 36,100 bytes.
        assert_eq!(track.rate(), 26_100 / 9);
    }

    #[test]
    fn who_does_not_come_nearer_has_no_eta() {
        let (leader, slow, fast) = (NodeId(1), NodeId(2), NodeId(3));
        let tracks = Tracks::default();
        let start = Instant::now();
        let end = start + Duration::from_secs(1);
        let track = |rate: u64, lag: u64| {
            let lag = Some(Lag { entries: 5_000, bytes: lag });
            let mut track = Track { lag, ..Track::default() };
            track.note(start, LogOffset(0));
            track.note(end, LogOffset(rate));
            track
        };
        let members = [(leader, track(10 << 20, 0)), (slow, track(10 << 20, 100 << 20))];
        let members = members.into_iter().chain([(fast, track(35 << 20, 100 << 20))]);
        *tracks.members.lock().unwrap() = members.collect();
        assert_eq!(tracks.of(slow, leader).eta, None);
        assert_eq!(tracks.of(fast, leader).eta, Some(Duration::from_secs(4)));
        assert_eq!(tracks.of(fast, leader).rate, 35 << 20);
    }
}
