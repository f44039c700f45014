//! Consumer offsets are registers, and a consumer that starts again goes on where it committed.

use std::collections::BTreeMap;

use crate::history::{Answer, Call, Key, Op};
use crate::judge::register::{Unique, Wrong, zones};
use crate::judge::{Case, Finding, Kind};

/// The operations on one offset.
#[derive(Default)]
struct Register<'a> {
    /// What was committed, in the order of the beginnings.
    commits: Vec<(&'a Op, u64)>,
    /// What was read: by asking, or by starting again there.
    queries: Vec<(&'a Op, Option<u64>)>,
}

pub(crate) fn check(case: &Case<'_>) -> Finding {
    let mut finding = Finding::default();
    for ((group, key), register) in registers(case) {
        finding.count("commits", register.commits.len());
        finding.count("queries", register.queries.len());
        let of = format!("the offset of {group} in {}", case.plan.queue(key));
        values(&of, &register, &mut finding);
    }
    finding
}

fn registers<'a>(case: &Case<'a>) -> BTreeMap<(&'a str, Key), Register<'a>> {
    let mut registers: BTreeMap<(&str, Key), Register<'_>> = BTreeMap::new();
    for op in &case.record.ops {
        match (&op.call, op.answer()) {
            (Call::Commit { group, key, offset }, _) => {
                registers.entry((group, *key)).or_default().commits.push((op, *offset));
            }
            (Call::Query { group, key }, Some(Answer::Query { offset })) => {
                registers.entry((group, *key)).or_default().queries.push((op, *offset));
            }
            (Call::Resume { group, key }, Some(Answer::Resume { offset })) => {
                // Where nothing was committed, a group begins at the beginning.
                let offset = Some(*offset).filter(|offset| *offset != 0);
                registers.entry((group, *key)).or_default().queries.push((op, offset));
            }
            _ => {}
        }
    }
    registers
}

fn values(of: &str, register: &Register<'_>, finding: &mut Finding) {
    let mut ops: Vec<&Op> = Vec::new();
    let mut unique: Vec<Unique> = Vec::new();
    let mut failed: BTreeMap<u64, &Op> = BTreeMap::new();
    let mut written: BTreeMap<u64, usize> = BTreeMap::new();
    for (op, offset) in &register.commits {
        if op.is_failed() {
            failed.insert(*offset, op);
            continue;
        }
        if written.insert(*offset, unique.len()).is_some() {
            finding.doubt(format!("{of} was set to {offset} twice, so it cannot be judged"));
            return;
        }
        let (began, ended) = (op.began, op.effective_until());
        let value = Some(*offset);
        unique.push(Unique { id: ops.len(), write: true, value, began, ended });
        ops.push(op);
    }
    for (op, value) in &register.queries {
        if let Some(value) = value.filter(|v| !written.contains_key(v)) {
            let refused = failed.get(&value).copied();
            let kind = if refused.is_some() { Kind::AbortedRead } else { Kind::PhantomValue };
            finding.add(kind, refused.into_iter().chain([*op]), || {
                let why = if refused.is_some() { "which was refused" } else { "which nobody set" };
                format!("{of} was {value}, {why}")
            });
            return;
        }
        let (began, ended) = (op.began, op.ended);
        unique.push(Unique { id: ops.len(), write: false, value: *value, began, ended });
        ops.push(op);
    }
    if let Err(wrong) = zones(&unique) {
        let shown: Vec<&Op> = wrong.ids().into_iter().map(|id| ops[id]).collect();
        let value = |id: &usize| unique[*id].value.map_or("unset".into(), |v| v.to_string());
        let started = shown.iter().any(|op| matches!(op.call, Call::Resume { .. }));
        let kind = if started { Kind::Regress } else { Kind::NonLinearizable };
        finding.add(kind, shown, || match &wrong {
            Wrong::NoWrite { value, .. } => format!("{of} was {value}, which nobody set"),
            Wrong::BeforeWrite { read, .. } => {
                format!("{of} was {} before anybody set it", value(read))
            }
            Wrong::Overlap { first, second } => {
                let (one, two) = (value(&first[0]), value(&second[0]));
                format!("{of} would have to be {one} and {two} at once")
            }
            Wrong::Within { inner, outer } => {
                let (one, two) = (value(&inner[0]), value(&outer[0]));
                format!("{of} was {one} at a time at which it was {two} throughout")
            }
        });
    }
}
