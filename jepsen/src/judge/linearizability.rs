//! Linearizability of a register by search, for histories with compare-and-set, whose values do not
//! tell which write they come from.
//!
//! After Wing and Gong with Lowe's memory: orders are tried depth first, and a set of operations
//! that was tried with the same register before is not tried again. The search is exponential at
//! worst, so that it is bounded, and gives up rather than guess.

use std::collections::HashSet;

/// Operations that one search takes.
const OPS_MAX: usize = 256;
/// Configurations that one search visits before it gives up.
const STEPS_MAX: usize = 3_000_000;

/// What was asked of the register, and what it answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisterCall {
    Write(u64),
    /// `None` where nothing was written yet.
    Read(Option<u64>),
    /// `done` is what it answered; unknown if it did not answer.
    Cas {
        expected: u64,
        value: u64,
        done: Answered,
    },
}

/// What a compare-and-set said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    Done,
    Refused,
    Unknown,
}

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisterOp {
    pub call: RegisterCall,
    pub began: u64,
    /// `u64::MAX` for one of unknown outcome, which need not have happened.
    pub ended: u64,
}

/// What the search found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linearizable {
    Yes,
    No,
    /// Too many operations or too many orders.
    GaveUp,
}

type Set = [u64; OPS_MAX / 64];

fn has(set: &Set, place: usize) -> bool {
    set[place / 64] >> (place % 64) & 1 == 1
}

fn with(mut set: Set, place: usize) -> Set {
    set[place / 64] |= 1 << (place % 64);
    set
}

/// The register after `call`, if it can answer so.
fn after(state: Option<u64>, call: RegisterCall) -> Option<Option<u64>> {
    match call {
        RegisterCall::Write(value) => Some(Some(value)),
        RegisterCall::Read(value) => (state == value).then_some(state),
        RegisterCall::Cas { expected, value, done } => {
            let matches = state == Some(expected);
            match done {
                Answered::Done => matches.then_some(Some(value)),
                Answered::Refused => (!matches).then_some(state),
                Answered::Unknown => Some(if matches { Some(value) } else { state }),
            }
        }
    }
}

/// Whether some order of `ops` that respects real time explains the answers.
#[must_use]
pub fn linearizable(ops: &[RegisterOp]) -> Linearizable {
    if OPS_MAX < ops.len() {
        return Linearizable::GaveUp;
    }
    let mut ops = ops.to_vec();
    ops.sort_by_key(|op| op.began);
    let mut tried: HashSet<(Set, Option<u64>)> = HashSet::new();
    let mut stack = vec![([0; OPS_MAX / 64], None)];
    while let Some((done, state)) = stack.pop() {
        if !tried.insert((done, state)) {
            continue;
        }
        if STEPS_MAX < tried.len() {
            return Linearizable::GaveUp;
        }
        let left = ops.iter().enumerate().filter(|(place, _)| !has(&done, *place));
        // What ended first has to come before everything that began later.
        let first_end = left.clone().map(|(_, op)| op.ended).min().unwrap_or(u64::MAX);
        if first_end == u64::MAX {
            return Linearizable::Yes;
        }
        for (place, op) in left.take_while(|(_, op)| op.began <= first_end) {
            if let Some(state) = after(state, op.call) {
                stack.push((with(done, place), state));
            }
        }
    }
    Linearizable::No
}
