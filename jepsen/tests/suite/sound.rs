//! Histories of a cluster that is right are valid, whatever happens to it.

use jepsen::history::{Record, Workload};
use jepsen::judge::{Judgement, Validity, judge};

use crate::world::History;
use crate::world::runs::{ALL, history};

pub fn judged(history: &History) -> Judgement {
    let record = Record::of(history.events.iter().cloned()).expect("a paired history");
    judge(&history.plan, &record)
}

#[test]
fn a_right_cluster_is_found_right_over_many_seeds() {
    for workload in ALL {
        for seed in 0..2 {
            let judgement = judged(&history(workload, seed));
            assert_eq!(judgement.valid, Validity::Valid, "{workload:?} {seed}: {judgement}");
        }
    }
}

#[test]
fn the_histories_are_rich_enough_to_be_worth_mutating() {
    for workload in ALL {
        let history = history(workload, 1);
        let judgement = judged(&history);
        assert!(1_500 < history.events.len(), "{workload:?}: {}", history.events.len());
        let unknown =
            history.events.iter().filter(|e| e.to_line().contains("\"info\",\"f\"")).count();
        assert!(3 < unknown, "{workload:?} has {unknown} operations of unknown outcome");
        assert_eq!(judgement.coverage.counts["leader changes"], 3);
        if workload == Workload::Queue {
            let counts = &judgement.property["queue"].counts;
            assert!(0 < counts["dead letters"] && 10 < counts["deliveries beyond the first"]);
            assert!(0 < counts["empty receives that count"], "{counts:?}");
        }
    }
}
