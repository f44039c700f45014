//! Every change to a right history that breaks a promise is found, and called by its name.

mod deliveries;
mod logs;
mod others;

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

use jepsen::history::Workload;
use jepsen::judge::{Kind, Validity};

use crate::edit::Edit;
use crate::sound::judged;
use crate::world::History;
use crate::world::runs::history;

/// A change that breaks a promise, and how the break is called.
pub struct Mutation {
    pub name: &'static str,
    pub workload: Workload,
    pub kind: Kind,
    pub change: fn(&mut Edit),
}

/// The recorded history of a workload; made once.
pub fn recorded(workload: Workload) -> History {
    static RECORDED: OnceLock<Mutex<BTreeMap<Workload, History>>> = OnceLock::new();
    let mut recorded = RECORDED.get_or_init(Mutex::default).lock().unwrap();
    recorded.entry(workload).or_insert_with(|| history(workload, 7)).clone()
}

fn all() -> Vec<Mutation> {
    [deliveries::mutations(), logs::mutations(), others::mutations()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn what_is_mutated_was_valid() {
    for workload in crate::world::runs::ALL {
        let judgement = judged(&recorded(workload));
        assert_eq!(judgement.valid, Validity::Valid, "{judgement}");
    }
}

#[test]
fn each_mutation_is_found_and_called_by_its_name() {
    let mutations = all();
    assert!(60 <= mutations.len(), "only {} mutations", mutations.len());
    let mut missed = Vec::new();
    for mutation in mutations {
        let mut edit = Edit::of(&recorded(mutation.workload));
        (mutation.change)(&mut edit);
        let judgement = judged(&edit.close());
        let found = judgement.kinds();
        if judgement.valid != Validity::Invalid || !found.contains_key(&mutation.kind) {
            let (name, kind, valid) = (mutation.name, mutation.kind, judgement.valid);
            missed.push(format!("{name}: {kind} expected, {valid} with {found:?}"));
        }
    }
    assert!(missed.is_empty(), "{} missed:\n{}", missed.len(), missed.join("\n"));
}

#[test]
fn every_kind_of_anomaly_has_a_mutation() {
    let covered: Vec<Kind> = all().iter().map(|m| m.kind).collect();
    let without: Vec<&Kind> = Kind::ALL.iter().filter(|k| !covered.contains(k)).collect();
    assert_eq!(without, Vec::<&Kind>::new());
}
