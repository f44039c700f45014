//! The checkers of registers against the definition: try every order.

use jepsen::judge::{
    Answered, Linearizable, RegisterCall, RegisterOp, Unique, linearizable, zones,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Whether some order explains the answers: tries all of them.
fn by_force(ops: &[RegisterOp]) -> bool {
    fn go(ops: &[RegisterOp], done: &mut Vec<bool>, state: Option<u64>) -> bool {
        let open = (0..ops.len()).filter(|n| !done[*n]);
        if open.clone().all(|n| ops[n].ended == u64::MAX) {
            return true;
        }
        let first_end = open.clone().map(|n| ops[n].ended).min().unwrap();
        for n in open.collect::<Vec<_>>() {
            if first_end < ops[n].began {
                continue;
            }
            let next = match ops[n].call {
                RegisterCall::Write(value) => Some(value),
                RegisterCall::Read(value) if value == state => state,
                RegisterCall::Cas { expected, value, done: Answered::Done }
                    if state == Some(expected) =>
                {
                    Some(value)
                }
                RegisterCall::Cas { expected, done: Answered::Refused, .. }
                    if state != Some(expected) =>
                {
                    state
                }
                RegisterCall::Cas { expected, value, done: Answered::Unknown } => {
                    if state == Some(expected) { Some(value) } else { state }
                }
                RegisterCall::Read(_) | RegisterCall::Cas { .. } => continue,
            };
            done[n] = true;
            if go(ops, done, next) {
                return true;
            }
            done[n] = false;
        }
        false
    }
    go(ops, &mut vec![false; ops.len()], None)
}

fn interval(random: &mut StdRng, unknown: bool) -> (u64, u64) {
    let began = random.random_range(1..40);
    let ended = began + random.random_range(1..20);
    (began, if unknown { u64::MAX } else { ended })
}

/// Up to seven operations whose written values are unique; reads return anything that was written.
fn unique(random: &mut StdRng) -> Vec<Unique> {
    let writes = random.random_range(1..4);
    let mut ops: Vec<Unique> = (0..writes)
        .map(|value| {
            let unknown = random.random_bool(0.2);
            let (began, ended) = interval(random, unknown);
            Unique { id: 0, write: true, value: Some(value), began, ended }
        })
        .collect();
    for _ in 0..random.random_range(1..4) {
        let value = random.random_range(0..=writes);
        let value = (value < writes).then_some(value);
        let (began, ended) = interval(random, false);
        ops.push(Unique { id: 0, write: false, value, began, ended });
    }
    ops
}

fn steps(ops: &[Unique]) -> Vec<RegisterOp> {
    let step = |op: &Unique| {
        let (began, ended) = (op.began, op.ended);
        let call = match (op.write, op.value) {
            (true, Some(value)) => RegisterCall::Write(value),
            (_, value) => RegisterCall::Read(value),
        };
        RegisterOp { call, began, ended }
    };
    ops.iter().map(step).collect()
}

#[test]
fn zones_agree_with_every_order_tried() {
    let mut random = StdRng::seed_from_u64(17);
    let (mut yes, mut no) = (0, 0);
    for round in 0..20_000 {
        let ops = unique(&mut random);
        let expected = by_force(&steps(&ops));
        assert_eq!(zones(&ops).is_ok(), expected, "round {round}: {ops:?}");
        if expected { yes += 1 } else { no += 1 }
    }
    assert!(2_000 < yes && 2_000 < no, "{yes} right and {no} wrong histories");
}

#[test]
fn the_search_agrees_with_every_order_tried() {
    let mut random = StdRng::seed_from_u64(18);
    let (mut yes, mut no) = (0, 0);
    for round in 0..20_000 {
        let count = random.random_range(2..8);
        let ops: Vec<RegisterOp> = (0..count)
            .map(|_| {
                let unknown = random.random_bool(0.15);
                let value = random.random_range(0..3);
                let call = match random.random_range(0..4) {
                    0 => RegisterCall::Write(value),
                    1 if !unknown => RegisterCall::Read((value < 2).then_some(value)),
                    _ => {
                        let expected = random.random_range(0..3);
                        let done = match (unknown, random.random_bool(0.5)) {
                            (true, _) => Answered::Unknown,
                            (false, true) => Answered::Done,
                            (false, false) => Answered::Refused,
                        };
                        RegisterCall::Cas { expected, value, done }
                    }
                };
                let (began, ended) = interval(&mut random, unknown);
                RegisterOp { call, began, ended }
            })
            .collect();
        let expected = by_force(&ops);
        let found = linearizable(&ops);
        let agreed = found == if expected { Linearizable::Yes } else { Linearizable::No };
        assert!(agreed, "round {round}: {found:?}, {expected} by force: {ops:?}");
        if expected { yes += 1 } else { no += 1 }
    }
    assert!(2_000 < yes && 2_000 < no, "{yes} right and {no} wrong histories");
}

#[test]
fn the_search_agrees_with_zones_on_longer_histories() {
    let mut random = StdRng::seed_from_u64(19);
    let (mut yes, mut no) = (0, 0);
    for _ in 0..400 {
        // A register that is right, of which one read may be changed.
        let mut ops = Vec::new();
        let mut now = 1;
        let mut value = None;
        for n in 0..60 {
            now += random.random_range(1..4);
            let (before, after) = (random.random_range(0..6), random.random_range(0..6));
            let (began, ended) = (now.max(before) - before, now + after);
            let write = random.random_bool(0.4);
            if write {
                value = Some(n);
            }
            ops.push(Unique { id: 0, write, value, began, ended });
        }
        if random.random_bool(0.6) {
            let reads: Vec<usize> = (0..60).filter(|n| !ops[*n].write).collect();
            let read = reads[random.random_range(0..reads.len())];
            ops[read].value = ops[random.random_range(0..60)].value;
        }
        let search = linearizable(&steps(&ops));
        assert_ne!(search, Linearizable::GaveUp);
        assert_eq!(zones(&ops).is_ok(), search == Linearizable::Yes, "{ops:?}");
        if search == Linearizable::Yes { yes += 1 } else { no += 1 }
    }
    assert!(50 < yes && 50 < no, "{yes} right and {no} wrong histories");
}

#[test]
fn a_long_history_is_judged_in_time() {
    let mut ops = Vec::new();
    for n in 0..200_000 {
        let (write, value) = (n % 3 == 0, Some(n - n % 3));
        ops.push(Unique { id: 0, write, value, began: 10 * n + 1, ended: 10 * n + 15 });
    }
    assert_eq!(zones(&ops), Ok(()));
    let search = linearizable(&steps(&ops));
    assert_eq!(search, Linearizable::GaveUp, "beyond its bound the search gives up");
}
