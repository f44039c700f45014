//! Answers to receive calls that are on their way: what each of them carries, until its access point
//! says what became of it. Knows no clock and no network.
//!
//! An access point whose session ended is given a moment to come back; then nobody will say it, and
//! its answers count as lost. Everything here is this leader's own: the next one knows nothing of
//! it, and trusts nothing that was handed out before it led, see `ops/doubt`.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use proto::{ClientId, ConsumerGroup, Timestamp, Topic, hop::CallId};

use super::SessionId;
use crate::command::{Handle, Returned};

/// An access point that lives opens its next session within this.
const COMES_BACK: Duration = Duration::from_secs(2);
/// The same for one that has none yet: it may be busy with a whole cluster that lost its leader.
const INTRODUCES_ITSELF: Duration = Duration::from_secs(10);
/// Ends that are remembered of calls that are not known yet, for each access point: the news may
/// be faster than the call.
const EARLY: usize = 16_384;

/// What one answer carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// On whose behalf it was received.
    pub group: ConsumerGroup,
    /// Of what.
    pub topic: Topic,
    /// Whose it is.
    pub client: ClientId,
    /// In the order in which they are written.
    pub deliveries: Vec<Outgoing>,
}

/// One delivery in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// Names it.
    pub handle: Handle,
    /// When it was handed out.
    pub since: Timestamp,
    /// Attempts with this one.
    pub attempt: u32,
    /// And without it.
    pub before: u32,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Messages that went out to the client.
    pub passed: usize,
    /// The client has these; otherwise it makes nothing of them.
    pub read: bool,
}

impl End {
    /// Nobody knows.
    pub const UNKNOWN: Self = End { passed: usize::MAX, read: false };
}

impl Parcel {
    /// What has to go back. A message that may have been seen counts as attempted: it might be what
    /// ends its consumers.
    pub fn left_by(&self, end: End) -> Vec<Returned> {
        let (seen, unseen) = self.deliveries.split_at(end.passed.min(self.deliveries.len()));
        let seen = seen.iter().filter(|_| !end.read).map(|out| out.returned(out.attempt));
        seen.chain(unseen.iter().map(|out| out.returned(out.before))).collect()
    }
}

impl Outgoing {
    fn returned(&self, attempt: u32) -> Returned {
        Returned { handle: self.handle, since: self.since, attempt }
    }
}

/// All answers on their way.
#[derive(Debug)]
pub struct HandedOut {
    bound: usize,
    count: usize,
    points: HashMap<u64, Point>,
}

/// An access point.
#[derive(Debug)]
struct Point {
    sessions: HashSet<SessionId>,
    /// When its answers are lost, unless it has a session by then.
    lost_at: Option<Instant>,
    parcels: HashMap<u64, (Parcel, Instant)>,
    early: Early,
}

/// Ends of calls that are not known yet, up to [`EARLY`] of the latest.
#[derive(Debug, Default)]
struct Early {
    ends: HashMap<u64, End>,
    /// Of these and of some that were asked for meanwhile, in the order in which they came.
    order: VecDeque<u64>,
}

impl HandedOut {
    /// Nothing is on its way. Over the bound nothing should be handed out.
    pub fn new(bound: usize) -> Self {
        HandedOut { bound, count: 0, points: HashMap::new() }
    }

    /// As much is on its way as may be.
    pub fn is_full(&self) -> bool {
        self.count >= self.bound
    }

    /// Answers on their way.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True when nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Another node leads.
    pub fn clear(&mut self) {
        self.points.clear();
        self.count = 0;
    }

    /// An access point speaks.
    pub fn open(&mut self, point: u64, session: SessionId, now: Instant) {
        let point = self.points.entry(point).or_insert_with(|| Point::new(now));
        point.sessions.insert(session);
        point.lost_at = None;
    }

    /// It was cut off.
    pub fn close(&mut self, point: u64, session: SessionId, now: Instant) {
        if let Some(point) = self.points.get_mut(&point)
            && point.sessions.remove(&session)
            && point.sessions.is_empty()
        {
            point.lost_at = Some(now + COMES_BACK);
        }
    }

    /// An answer goes out. Returns its end if the access point was faster.
    pub fn send(&mut self, call: CallId, parcel: Parcel, now: Instant) -> Option<(Parcel, End)> {
        let point = self.points.entry(call.access_point).or_insert_with(|| Point::new(now));
        if let Some(end) = point.early.ends.remove(&call.number) {
            return Some((parcel, end));
        }
        if let Some((before, _)) = point.parcels.insert(call.number, (parcel, now)) {
            // No access point of ours gives a name twice.
            return Some((before, End::UNKNOWN));
        }
        self.count += 1;
        None
    }

    /// An access point says how an answer ended. Returns what it carried.
    pub fn ended(&mut self, point: u64, number: u64, end: End, now: Instant) -> Option<Parcel> {
        let point = self.points.entry(point).or_insert_with(|| Point::new(now));
        if let Some((parcel, _)) = point.parcels.remove(&number) {
            self.count -= 1;
            return Some(parcel);
        }
        point.early.add(number, end);
        None
    }

    /// The answers of access points that did not come back.
    pub fn lost(&mut self, now: Instant) -> Vec<Parcel> {
        let lost: Vec<Parcel> = self
            .points
            .extract_if(|_, point| point.lost_at.is_some_and(|at| at <= now))
            .flat_map(|(_, point)| point.parcels.into_values().map(|(parcel, _)| parcel))
            .collect();
        self.count -= lost.len();
        lost
    }

    /// Whose answers have been on their way since then.
    pub fn clients_since(&self, then: Instant) -> HashSet<ClientId> {
        let parcels = self.points.values().flat_map(|point| point.parcels.values());
        parcels.filter(|(_, at)| *at <= then).map(|(parcel, _)| parcel.client.clone()).collect()
    }
}

impl Point {
    fn new(now: Instant) -> Self {
        Point {
            sessions: HashSet::new(),
            lost_at: Some(now + INTRODUCES_ITSELF),
            parcels: HashMap::new(),
            early: Early::default(),
        }
    }
}

impl Early {
    fn add(&mut self, number: u64, end: End) {
        if self.order.len() == EARLY
            && let Some(oldest) = self.order.pop_front()
        {
            self.ends.remove(&oldest);
        }
        self.ends.insert(number, end);
        self.order.push_back(number);
    }
}

#[cfg(test)]
mod tests {
    use proto::{QueueId, QueueOffset};

    use super::*;

    const POINT: u64 = 7;

    fn call(number: u64) -> CallId {
        CallId { access_point: POINT, number }
    }

    fn parcel(count: u64) -> Parcel {
        let outgoing = |offset| Outgoing {
            handle: Handle { queue: QueueId(0), offset: QueueOffset(offset), delivery: 9 },
            since: Timestamp(5),
            attempt: 3,
            before: 2,
        };
        Parcel {
            group: "g".parse().expect("valid"),
            topic: "t".parse().expect("valid"),
            client: "c".parse().expect("valid"),
            deliveries: (0..count).map(outgoing).collect(),
        }
    }

    fn session(number: u64) -> SessionId {
        SessionId(number)
    }

    fn end(passed: usize, read: bool) -> End {
        End { passed, read }
    }

    #[test]
    fn what_goes_back_is_what_the_client_does_not_have() {
        let left = |passed, read| -> Vec<(u64, u32)> {
            let left = parcel(3).left_by(end(passed, read));
            left.iter().map(|r| (r.handle.offset.0, r.attempt)).collect()
        };
        assert_eq!(left(3, true), []);
        assert_eq!(left(1, true), [(1, 2), (2, 2)]);
        assert_eq!(left(0, false), [(0, 2), (1, 2), (2, 2)]);
        assert_eq!(left(2, false), [(0, 3), (1, 3), (2, 2)]);
        assert_eq!(parcel(1).left_by(End::UNKNOWN)[0].attempt, 3);
    }

    #[test]
    fn an_end_finds_its_answer_whichever_comes_first() {
        let now = Instant::now();
        let mut out = HandedOut::new(9);
        assert_eq!(out.send(call(1), parcel(1), now), None);
        assert_eq!(out.ended(POINT, 1, end(1, true), now), Some(parcel(1)));
        assert_eq!(out.ended(POINT, 2, end(0, false), now), None);
        assert_eq!(out.send(call(2), parcel(2), now), Some((parcel(2), end(0, false))));
        assert!(out.is_empty());
        assert_eq!(out.ended(8, 3, end(0, false), now), None);
        assert_eq!(out.send(call(3), parcel(1), now), None, "another access point's call 3");
    }

    #[test]
    fn answers_are_lost_with_an_access_point_that_does_not_come_back() {
        let now = Instant::now();
        let mut out = HandedOut::new(9);
        out.open(POINT, session(1), now);
        out.send(call(1), parcel(1), now);
        assert!(out.lost(now + 2 * INTRODUCES_ITSELF).is_empty(), "it is there");
        out.open(POINT, session(2), now);
        out.close(POINT, session(1), now);
        assert!(out.lost(now + COMES_BACK).is_empty(), "it has another session");
        out.close(POINT, session(2), now);
        out.close(POINT, session(2), now + COMES_BACK);
        assert!(out.lost(now + COMES_BACK / 2).is_empty());
        assert_eq!(out.lost(now + COMES_BACK), [parcel(1)]);
        assert!(out.is_empty() && out.lost(now + 2 * COMES_BACK).is_empty());
    }

    #[test]
    fn an_access_point_has_time_to_introduce_itself() {
        let now = Instant::now();
        let mut out = HandedOut::new(9);
        out.send(call(1), parcel(1), now);
        assert!(out.lost(now + COMES_BACK).is_empty());
        out.open(POINT, session(1), now + COMES_BACK);
        assert!(out.lost(now + INTRODUCES_ITSELF).is_empty());
        let mut silent = HandedOut::new(9);
        silent.send(call(1), parcel(1), now);
        assert_eq!(silent.lost(now + INTRODUCES_ITSELF), [parcel(1)]);
    }

    #[test]
    fn it_has_a_bound_and_forgets_what_came_too_early_long_ago() {
        let now = Instant::now();
        let mut out = HandedOut::new(1);
        assert!(!out.is_full());
        out.send(call(1), parcel(1), now);
        assert!(out.is_full());
        out.clear();
        assert!(!out.is_full());
        for number in 0..=EARLY as u64 {
            out.ended(POINT, number, end(0, false), now);
        }
        assert_eq!(out.points[&POINT].early.ends.len(), EARLY);
        assert_eq!(out.send(call(0), parcel(1), now), None, "forgotten");
        assert!(out.send(call(1), parcel(1), now).is_some());
    }

    #[test]
    fn it_knows_who_has_waited_for_long() {
        let now = Instant::now();
        let mut out = HandedOut::new(9);
        out.send(call(1), parcel(1), now);
        assert!(out.clients_since(now - COMES_BACK).is_empty());
        assert_eq!(out.clients_since(now).len(), 1);
    }
}
