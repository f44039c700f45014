//! Which fault comes when: from a seed, or from the file of an earlier run.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use super::{Class, Target};

/// One fault to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// When it begins, in ms since the start of the faults.
    pub at_ms: u64,
    pub class: Class,
    pub target: Target,
    pub lasts_ms: u64,
    /// For what the fault leaves to chance.
    pub seed: u64,
}

/// The faults of a run: `schedule.json`. It says what was asked for; what came of it is in the
/// history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    pub steps: Vec<Step>,
}

/// When the first fault comes, in ms: there has to be something to compare with.
const FIRST: u64 = 1_000;

impl Schedule {
    /// Faults of these classes for `time_ms`, `lanes` of them at a time at most, with about
    /// `interval_ms` between the end of one and the beginning of the next. Every class comes once
    /// before one comes twice.
    #[must_use]
    pub fn plan(seed: u64, classes: &[Class], time_ms: u64, interval_ms: u64, lanes: u64) -> Self {
        let mut steps = Vec::new();
        let mut random = StdRng::seed_from_u64(seed);
        let mut bag: Vec<Class> = Vec::new();
        // When each lane is free.
        let mut free: Vec<u64> = (0..lanes).map(|lane| FIRST + lane * interval_ms / 2).collect();
        while !classes.is_empty() {
            let Some(lane) = (0..free.len()).min_by_key(|lane| free[*lane]) else { break };
            if bag.is_empty() {
                bag.extend(classes);
            }
            let class = bag.swap_remove(random.random_range(0..bag.len()));
            let targets = class.targets();
            let target = targets[random.random_range(0..targets.len())];
            let lasts_ms = random.random_range(class.lasts());
            let at_ms = free[lane];
            if time_ms < at_ms + lasts_ms {
                break;
            }
            steps.push(Step { at_ms, class, target, lasts_ms, seed: random.random() });
            let pause = random.random_range(interval_ms / 2..interval_ms * 3 / 2 + 1);
            free[lane] = at_ms + lasts_ms + pause;
        }
        steps.sort_by_key(|step| step.at_ms);
        Self { steps }
    }

    /// The classes that it holds.
    #[must_use]
    pub fn classes(&self) -> Vec<Class> {
        let mut classes: Vec<Class> = self.steps.iter().map(|step| step.class).collect();
        classes.sort_unstable();
        classes.dedup();
        classes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_schedule_and_a_file_keeps_it() {
        let plan = |seed| Schedule::plan(seed, &[Class::Kill, Class::Pause], 30_000, 1_000, 1);
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
        assert_eq!(plan(7).classes(), [Class::Kill, Class::Pause]);
        let kept = serde_json::to_string(&plan(7)).expect("JSON");
        assert_eq!(serde_json::from_str::<Schedule>(&kept).expect("a schedule"), plan(7));
        for pair in plan(7).steps.windows(2) {
            assert!(pair[0].at_ms + pair[0].lasts_ms < pair[1].at_ms, "one lane: {pair:?}");
        }
    }

    #[test]
    fn every_class_comes_once_before_one_comes_twice() {
        let schedule = Schedule::plan(3, Class::ALL, 600_000, 500, 1);
        let first: Vec<Class> =
            schedule.steps.iter().take(Class::ALL.len()).map(|s| s.class).collect();
        for class in Class::ALL {
            assert!(first.contains(class), "{}", class.name());
        }
    }
}
