//! When to try again, where, and after what pause. No IO.

use std::time::Duration;

use proto::v2;
use proto::v2::retry_policy::Strategy;

use crate::{Code, Error, Fate, address::Address, route::Placed};

/// The pauses of a producer until the server says otherwise.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// Factors are kept below this, so that nothing overflows.
const MOST_DOUBLINGS: u32 = 30;

/// Pauses between attempts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Backoff {
    Exponential {
        initial: Duration,
        max: Duration,
        multiplier: f32,
    },
    /// Never empty.
    Customized(Vec<Duration>),
}

impl Default for Backoff {
    fn default() -> Self {
        Self::Exponential { initial: FIRST_PAUSE, max: LAST_PAUSE, multiplier: 2.0 }
    }
}

impl Backoff {
    /// What the server said; `None` when it said nothing that makes sense.
    pub(crate) fn from_wire(policy: Option<&v2::RetryPolicy>) -> Option<Self> {
        let wait = |wire: &prost_types::Duration| proto::clock::duration(wire);
        match policy?.strategy.as_ref()? {
            Strategy::ExponentialBackoff(wire) => {
                let initial = wire.initial.as_ref().and_then(wait)?;
                let max = wire.max.as_ref().and_then(wait)?;
                let multiplier = wire.multiplier;
                (multiplier.is_finite() && multiplier >= 1.0).then_some(Self::Exponential {
                    initial,
                    max,
                    multiplier,
                })
            }
            Strategy::CustomizedBackoff(wire) => {
                let next: Vec<_> = wire.next.iter().filter_map(wait).collect();
                (!next.is_empty()).then_some(Self::Customized(next))
            }
        }
    }

    /// The pause after the attempt of this number, the first being 1.
    pub(crate) fn after(&self, attempt: u32) -> Duration {
        let done = attempt.max(1) - 1;
        match self {
            Self::Exponential { initial, max, multiplier } => {
                let power = i32::try_from(done.min(MOST_DOUBLINGS)).expect("small");
                let seconds = initial.as_secs_f64() * f64::from(multiplier.powi(power));
                if seconds < max.as_secs_f64() { Duration::from_secs_f64(seconds) } else { *max }
            }
            Self::Customized(next) => {
                let at = usize::try_from(done).unwrap_or(usize::MAX);
                next.get(at).or(next.last()).copied().unwrap_or_default()
            }
        }
    }
}

/// What to do after a failed attempt.
#[derive(Debug)]
pub(crate) enum Next {
    Again { pause: Duration },
    GiveUp(Error),
}

/// The attempts of one call.
#[derive(Debug)]
pub(crate) struct Attempts {
    max: u32,
    made: u32,
    /// Whether a call of unknown outcome may be repeated.
    repeatable: bool,
    unknown: bool,
}

impl Attempts {
    pub(crate) fn new(max: u32, repeatable: bool) -> Self {
        Self { max: max.max(1), made: 0, repeatable, unknown: false }
    }

    /// How many have failed.
    pub(crate) fn made(&self) -> u32 {
        self.made
    }

    pub(crate) fn failed(&mut self, error: Error, backoff: &Backoff) -> Next {
        self.made += 1;
        let fate = error.fate();
        let again = self.made < self.max
            && match fate {
                Fate::Rejected => false,
                Fate::NotDone => !matches!(error, Error::Closed | Error::Overloaded { .. }),
                Fate::Unknown => self.repeatable,
            };
        if !again {
            let hides = self.unknown && fate != Fate::Unknown;
            let error = if hides { Error::AfterUnknown { last: Box::new(error) } } else { error };
            return Next::GiveUp(error);
        }
        self.unknown |= fate == Fate::Unknown;
        Next::Again { pause: self.pause(&error, backoff) }
    }

    /// An overloaded server is given time. Another address is tried at once, because it may know
    /// better; after the first time with a pause, because they may all be in the same trouble.
    fn pause(&self, error: &Error, backoff: &Backoff) -> Duration {
        if error.code() == Some(Code::TooManyRequests) {
            return backoff.after(self.made);
        }
        if self.made == 1 { Duration::ZERO } else { backoff.after(self.made - 1) }
    }
}

/// Where the next attempt of a send goes: the queue, and the address among those that lead to it.
///
/// `addresses` gives the addresses of a queue, best first. The first attempt goes to the queue that
/// was picked. A later one prefers another broker, then another address of the picked queue, and
/// only then what was tried before; a queue that was picked for a reason (`fixed`) is kept.
pub(crate) fn next_place(
    queues: &[Placed],
    picked: usize,
    fixed: bool,
    tried: &[(usize, Address)],
    addresses: &dyn Fn(&Placed) -> Vec<Address>,
) -> (usize, Address) {
    let was_tried = |address: &Address| tried.iter().any(|(_, tried)| tried == address);
    let broker_was_tried = |queue: &Placed| {
        let name = queue.queue.broker_name();
        tried.iter().any(|(at, _)| queues[*at].queue.broker_name() == name)
    };
    let others = (0..queues.len()).map(|step| (picked + step) % queues.len());
    let in_turn: Vec<usize> = if fixed { vec![picked] } else { others.collect() };
    let fresh = |at: usize| addresses(&queues[at]).into_iter().find(|a| !was_tried(a));
    let elsewhere = in_turn.iter().filter(|at| !broker_was_tried(&queues[**at]));
    for at in elsewhere.chain(&in_turn) {
        if let Some(address) = fresh(*at) {
            return (*at, address);
        }
    }
    // Everything was tried: the next queue, by the way that was tried longest ago.
    let at = in_turn[tried.len() % in_turn.len()];
    let last_tried = |address: &Address| tried.iter().rposition(|(_, tried)| tried == address);
    let oldest = addresses(&queues[at]).into_iter().min_by_key(last_tried);
    (at, oldest.unwrap_or_else(|| queues[at].address.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Route, tests::wire};

    fn refused(code: Code) -> Error {
        Error::Refused { code, message: String::new() }
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers make it on the spot")]
    fn pause(next: Next) -> Option<Duration> {
        if let Next::Again { pause } = next { Some(pause) } else { None }
    }

    #[test]
    fn a_rejected_call_is_not_repeated() {
        let mut attempts = Attempts::new(3, true);
        let next = attempts.failed(refused(Code::TopicNotFound), &Backoff::default());
        assert!(matches!(next, Next::GiveUp(error) if error.fate() == Fate::Rejected));
    }

    #[test]
    fn two_retries_the_first_of_them_at_once() {
        let (mut attempts, backoff) = (Attempts::new(3, true), Backoff::default());
        let error = || refused(Code::HaNotAvailable);
        assert_eq!(pause(attempts.failed(error(), &backoff)), Some(Duration::ZERO));
        assert_eq!(pause(attempts.failed(error(), &backoff)), Some(FIRST_PAUSE));
        let Next::GiveUp(end) = attempts.failed(error(), &backoff) else { panic!("a fourth") };
        assert_eq!(end.fate(), Fate::NotDone);
    }

    #[test]
    fn an_unknown_outcome_is_repeated_only_if_that_does_no_harm() {
        let backoff = Backoff::default();
        let error = || refused(Code::InternalServerError);
        assert!(pause(Attempts::new(3, false).failed(error(), &backoff)).is_none());
        assert!(pause(Attempts::new(3, true).failed(error(), &backoff)).is_some());
    }

    #[test]
    fn a_definite_end_does_not_hide_an_unknown_attempt() {
        let (mut attempts, backoff) = (Attempts::new(3, true), Backoff::default());
        assert!(pause(attempts.failed(refused(Code::ProxyTimeout), &backoff)).is_some());
        let next = attempts.failed(refused(Code::TopicNotFound), &backoff);
        let Next::GiveUp(end) = next else { panic!("repeated") };
        assert_eq!(end.fate(), Fate::Unknown);
        assert_eq!(end.code(), Some(Code::TopicNotFound));
    }

    #[test]
    fn an_overloaded_server_is_given_time() {
        let (mut attempts, backoff) = (Attempts::new(4, true), Backoff::default());
        let error = || refused(Code::TooManyRequests);
        assert_eq!(pause(attempts.failed(error(), &backoff)), Some(FIRST_PAUSE));
        assert_eq!(pause(attempts.failed(error(), &backoff)), Some(FIRST_PAUSE * 2));
    }

    #[test]
    fn pauses_grow_to_their_end() {
        let exponential = Backoff::default();
        assert_eq!(exponential.after(0), FIRST_PAUSE);
        assert_eq!(exponential.after(3), FIRST_PAUSE * 4);
        assert_eq!(exponential.after(u32::MAX), LAST_PAUSE);
        let custom = Backoff::Customized(vec![Duration::from_secs(1), Duration::from_secs(5)]);
        assert_eq!(custom.after(1), Duration::from_secs(1));
        assert_eq!(custom.after(9), Duration::from_secs(5));
    }

    #[test]
    fn senseless_policies_are_no_policies() {
        let policy = |strategy| v2::RetryPolicy { max_attempts: 3, strategy: Some(strategy) };
        let empty = v2::CustomizedBackoff { next: Vec::new() };
        assert_eq!(Backoff::from_wire(Some(&policy(Strategy::CustomizedBackoff(empty)))), None);
        let wait = proto::clock::to_wire(Duration::from_secs(1));
        let shrinking =
            v2::ExponentialBackoff { initial: Some(wait), max: Some(wait), multiplier: 0.5 };
        assert_eq!(
            Backoff::from_wire(Some(&policy(Strategy::ExponentialBackoff(shrinking)))),
            None
        );
        assert_eq!(Backoff::from_wire(None), None);
    }

    fn places(fixed: bool, brokers: &[(&str, &str)], attempts: usize) -> Vec<String> {
        let wires: Vec<_> = brokers
            .iter()
            .enumerate()
            .map(|(n, (name, address))| {
                wire(name, i32::try_from(n).unwrap(), v2::Permission::ReadWrite, address)
            })
            .collect();
        let route = Route::from_wire("t", &wires);
        let spare: Address = "spare:1".parse().unwrap();
        let addresses = |placed: &Placed| vec![placed.address.clone(), spare.clone()];
        let mut tried = Vec::new();
        for _ in 0..attempts {
            tried.push(next_place(&route.writable, 0, fixed, &tried, &addresses));
        }
        tried.iter().map(|(at, address)| format!("{at}@{address}")).collect()
    }

    #[test]
    fn a_retry_prefers_another_broker_then_another_address() {
        let brokers = [("a", "h:1"), ("a", "h:1"), ("b", "h:2")];
        assert_eq!(places(false, &brokers, 4), ["0@h:1", "2@h:2", "0@spare:1", "0@h:1"]);
    }

    #[test]
    fn a_queue_that_was_picked_for_a_reason_is_kept() {
        let brokers = [("a", "h:1"), ("b", "h:2")];
        assert_eq!(places(true, &brokers, 4), ["0@h:1", "0@spare:1", "0@h:1", "0@spare:1"]);
    }
}
