//! Decides what follows when an attempt to reach a leader failed. No clock, no network.
//!
//! One request goes through rounds. In a round each place that might lead is asked once; then the
//! request waits until the directory changes or a tick passes, and a new round begins. It ends with
//! an answer, at its deadline, or when it was held long enough without a leader.
//!
//! Invariant: once an attempt may have been executed, the request never ends as *not done*.

use std::time::{Duration, Instant};

use proto::BrokerName;

use crate::{GroupView, status::Refusal};

/// Why an attempt gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The node said that nothing was done, and perhaps who leads.
    NotDone { leader: Option<String> },
    /// The request never left this node.
    NotSent,
    /// The connection broke, or another node took the lead, after the request had left.
    Broken,
    /// The node said that the outcome is unknown.
    Unknown,
    /// No answer before the deadline.
    Late,
    /// The node does not take the caller for an operator, and did nothing.
    Unauthenticated { message: String },
    /// The node answered with something that no repetition mends.
    Answered { message: String },
}

/// Whether a request may be sent again after it may have been executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Reads, idempotent requests, and sends that the leader recognises when they come again.
    Safe,
    /// Only when it is certain that nothing was done.
    NotDoneOnly,
}

/// Where to send a request next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Local,
    Remote(String),
}

/// What to do after a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask for the next target.
    Again,
    /// Answer this.
    GiveUp(Refusal),
}

/// Pauses between rounds while nothing changes; the last one repeats. A new leader is announced, so
/// these only cover announcements that were lost.
const TICKS: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(120), Duration::from_millis(250)];

/// At most this share of the time left is kept for the way back.
const MARGIN_SHARE: u32 = 10;

/// The state of one request.
#[derive(Debug)]
pub(crate) struct Attempts {
    group: BrokerName,
    repeat: Repeat,
    hold: Duration,
    /// Another group can take the request as long as this one certainly has not.
    elsewhere: bool,
    /// The last moment at which an answer is of use.
    pub(crate) until: Instant,
    /// First failure since which there is no answer.
    failing_since: Option<Instant>,
    /// An attempt may have been executed.
    tainted: bool,
    tried: Vec<Target>,
    hint: Option<String>,
    round: usize,
    probed: usize,
}

impl Attempts {
    pub(crate) fn new(
        group: BrokerName,
        repeat: Repeat,
        hold: Duration,
        now: Instant,
        deadline: Instant,
        margin: Duration,
    ) -> Self {
        let left = deadline.saturating_duration_since(now);
        let margin = (left / MARGIN_SHARE).min(margin);
        Self {
            group,
            repeat,
            hold,
            elsewhere: false,
            until: now + (left - margin),
            failing_since: None,
            tainted: false,
            tried: Vec::new(),
            hint: None,
            round: 0,
            probed: 0,
        }
    }

    /// Gives up at once while nothing was done, because another group can take the request. Once
    /// it may have been executed here, only this group can tell, and it is held as usual.
    pub(crate) fn unless_tainted_go_elsewhere(mut self, elsewhere: bool) -> Self {
        self.elsewhere = elsewhere;
        self
    }

    fn hold(&self) -> Duration {
        if self.elsewhere && !self.tainted { Duration::ZERO } else { self.hold }
    }

    /// Whether this is not the first attempt.
    pub(crate) fn has_failed(&self) -> bool {
        self.failing_since.is_some()
    }

    pub(crate) fn repeat(&self) -> Repeat {
        self.repeat
    }

    /// The next place to ask in this round; `None` when all were asked.
    pub(crate) fn target(&mut self, own: bool, view: Option<&GroupView>) -> Option<Target> {
        let hint = self.hint.take().map(Target::Remote);
        let leader = view.and_then(|view| view.leader.clone()).map(Target::Remote);
        let target = own
            .then_some(Target::Local)
            .into_iter()
            .chain(hint)
            .chain(leader)
            .find(|target| !self.tried.contains(target))
            .or_else(|| self.probe(view))?;
        self.tried.push(target.clone());
        Some(target)
    }

    /// From the second round on, one more living member is asked: it may know the leader although
    /// no directory does.
    fn probe(&mut self, view: Option<&GroupView>) -> Option<Target> {
        if self.round == 0 || self.probed == self.round {
            return None;
        }
        self.probed = self.round;
        let members = &view?.members;
        let turn = (0..members.len()).map(|step| &members[(self.round + step) % members.len()]);
        turn.filter(|member| member.alive && !member.client_address.is_empty())
            .map(|member| Target::Remote(member.client_address.clone()))
            .find(|target| !self.tried.contains(target))
    }

    /// Takes note of a failure.
    pub(crate) fn failed(&mut self, failure: Failure, now: Instant) -> Next {
        let since = *self.failing_since.get_or_insert(now);
        match failure {
            Failure::NotDone { leader } => self.hint = leader.or(self.hint.take()),
            Failure::NotSent => {}
            Failure::Broken | Failure::Unknown => {
                self.tainted = true;
                if self.repeat == Repeat::NotDoneOnly {
                    return Next::GiveUp(Refusal::Lost { group: self.group.clone() });
                }
            }
            Failure::Late => {
                return Next::GiveUp(Refusal::Timeout { group: self.group.clone() });
            }
            Failure::Unauthenticated { message } => {
                let group = self.group.clone();
                return Next::GiveUp(Refusal::Unauthenticated { group, message });
            }
            Failure::Answered { message } => {
                return Next::GiveUp(Refusal::Upstream { group: self.group.clone(), message });
            }
        }
        if self.may_go_on(since, now) { Next::Again } else { self.give_up(now) }
    }

    /// How long to wait for a change before the next round, or how it ends.
    pub(crate) fn pause(&mut self, now: Instant) -> Result<Duration, Refusal> {
        let since = *self.failing_since.get_or_insert(now);
        if !self.may_go_on(since, now) {
            return match self.give_up(now) {
                Next::GiveUp(refusal) => Err(refusal),
                Next::Again => unreachable!("giving up is final"),
            };
        }
        let tick = TICKS[self.round.min(TICKS.len() - 1)];
        self.round += 1;
        self.tried.clear();
        let left = self.until.min(since + self.hold()).saturating_duration_since(now);
        Ok(tick.min(left))
    }

    fn may_go_on(&self, since: Instant, now: Instant) -> bool {
        now < self.until && now < since + self.hold()
    }

    fn give_up(&self, now: Instant) -> Next {
        let group = self.group.clone();
        if self.tainted {
            return Next::GiveUp(Refusal::Lost { group });
        }
        let waited = self.failing_since.map_or(Duration::ZERO, |since| now - since);
        Next::GiveUp(Refusal::NoLeader { group, waited })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemberView;

    const HOLD: Duration = Duration::from_millis(2500);
    const MARGIN: Duration = Duration::from_millis(150);

    fn attempts(repeat: Repeat, now: Instant) -> Attempts {
        let group = "broker-a".parse().expect("valid");
        Attempts::new(group, repeat, HOLD, now, now + Duration::from_secs(10), MARGIN)
    }

    fn view(leader: Option<&str>) -> GroupView {
        let members = [1, 2, 3].map(|node_id| MemberView {
            node_id,
            raft_address: String::new(),
            client_address: format!("c{node_id}"),
            voter: true,
            alive: node_id != 1,
        });
        GroupView {
            cluster: String::new(),
            broker_name: "broker-a".parse().expect("valid"),
            group_id: String::new(),
            term: 1,
            leader_id: None,
            leader: leader.map(str::to_owned),
            members: members.to_vec(),
        }
    }

    fn remote(address: &str) -> Option<Target> {
        Some(Target::Remote(address.to_owned()))
    }

    #[test]
    fn the_node_at_hand_is_asked_first_then_the_hint_then_the_leader() {
        let now = Instant::now();
        let view = view(Some("c1"));
        let mut attempts = attempts(Repeat::Safe, now);
        assert_eq!(attempts.target(true, Some(&view)), Some(Target::Local));
        let refused = Failure::NotDone { leader: Some("c2".into()) };
        assert_eq!(attempts.failed(refused, now), Next::Again);
        assert_eq!(attempts.target(true, Some(&view)), remote("c2"));
        assert_eq!(attempts.failed(Failure::NotSent, now), Next::Again);
        assert_eq!(attempts.target(true, Some(&view)), remote("c1"));
        assert_eq!(attempts.failed(Failure::NotSent, now), Next::Again);
        assert_eq!(attempts.target(true, Some(&view)), None);
    }

    #[test]
    fn later_rounds_ask_one_living_member_each() {
        let now = Instant::now();
        let view = view(None);
        let mut attempts = attempts(Repeat::Safe, now);
        assert_eq!(attempts.target(false, Some(&view)), None, "nobody known to ask");
        attempts.pause(now).expect("held");
        assert_eq!(attempts.target(false, Some(&view)), remote("c2"));
        assert_eq!(attempts.target(false, Some(&view)), None);
        attempts.pause(now).expect("held");
        assert_eq!(attempts.target(false, Some(&view)), remote("c3"));
    }

    #[test]
    fn without_a_leader_a_request_ends_as_not_done_after_the_hold() {
        let now = Instant::now();
        let mut attempts = attempts(Repeat::Safe, now);
        assert_eq!(attempts.failed(Failure::NotSent, now), Next::Again);
        let late = now + HOLD;
        let end = attempts.failed(Failure::NotDone { leader: None }, late);
        assert!(matches!(end, Next::GiveUp(Refusal::NoLeader { waited, .. }) if waited == HOLD));
    }

    #[test]
    fn the_hold_counts_from_the_first_failure() {
        let now = Instant::now();
        let mut attempts = attempts(Repeat::Safe, now);
        let failed = now + Duration::from_secs(8);
        assert_eq!(attempts.failed(Failure::Broken, failed), Next::Again);
        assert!(attempts.pause(failed).is_ok());
        assert!(attempts.pause(now + Duration::from_secs(10)).is_err(), "past the deadline");
    }

    #[test]
    fn what_may_have_been_executed_never_ends_as_not_done() {
        let now = Instant::now();
        let mut attempts = attempts(Repeat::Safe, now);
        assert_eq!(attempts.failed(Failure::Broken, now), Next::Again);
        let end = attempts.failed(Failure::NotDone { leader: None }, now + HOLD);
        assert!(matches!(end, Next::GiveUp(Refusal::Lost { .. })));
    }

    #[test]
    fn a_request_goes_elsewhere_only_while_it_was_certainly_not_done() {
        let now = Instant::now();
        let mut fresh = attempts(Repeat::Safe, now).unless_tainted_go_elsewhere(true);
        let end = fresh.failed(Failure::NotSent, now);
        assert!(matches!(end, Next::GiveUp(Refusal::NoLeader { .. })));
        let mut tainted = attempts(Repeat::Safe, now).unless_tainted_go_elsewhere(true);
        assert_eq!(tainted.failed(Failure::Broken, now), Next::Again);
        assert_eq!(tainted.failed(Failure::NotSent, now), Next::Again);
        assert!(tainted.pause(now).is_ok());
    }

    #[test]
    fn a_request_that_cannot_be_repeated_ends_as_unknown_at_once() {
        let now = Instant::now();
        for failure in [Failure::Broken, Failure::Unknown] {
            let mut attempts = attempts(Repeat::NotDoneOnly, now);
            assert_eq!(attempts.failed(Failure::NotSent, now), Next::Again);
            let end = attempts.failed(failure, now);
            assert!(matches!(end, Next::GiveUp(Refusal::Lost { .. })));
        }
    }

    #[test]
    fn a_missed_deadline_is_unknown() {
        let now = Instant::now();
        let end = attempts(Repeat::Safe, now).failed(Failure::Late, now);
        assert!(matches!(end, Next::GiveUp(Refusal::Timeout { .. })));
    }

    #[test]
    fn pauses_end_with_the_hold() {
        let now = Instant::now();
        let mut attempts = attempts(Repeat::Safe, now);
        assert_eq!(attempts.pause(now), Ok(TICKS[0]));
        assert_eq!(attempts.pause(now), Ok(TICKS[1]));
        assert_eq!(attempts.pause(now), Ok(TICKS[2]));
        let nearly = now + HOLD - Duration::from_millis(7);
        assert_eq!(attempts.pause(nearly), Ok(Duration::from_millis(7)));
    }
}
