//! What came of the runs.

use std::path::PathBuf;

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::table::{Case, Elsewhere, Setup};
use crate::judge::{Judgement, Kind};

const INVALID: u8 = 1;
const UNKNOWN: u8 = 2;

/// One run.
#[derive(Debug)]
pub struct Tried {
    pub seed: u64,
    /// Its exit code.
    pub code: u8,
    pub seconds: u64,
    pub judgement: Option<Judgement>,
    /// Where it is kept.
    pub store: PathBuf,
}

impl Tried {
    /// The anomalies that it showed.
    #[must_use]
    pub fn kinds(&self) -> Vec<Kind> {
        self.judgement.iter().flat_map(|j| j.kinds().into_keys()).collect()
    }

    fn names(&self) -> Vec<&'static str> {
        self.kinds().into_iter().map(Kind::name).collect()
    }

    /// In a word, with what was found.
    #[must_use]
    pub fn verdict(&self) -> String {
        match self.code {
            0 => "valid".into(),
            INVALID => format!("INVALID ({})", self.names().join(", ")),
            UNKNOWN => format!("unknown, see {}", self.store.display()),
            _ => format!("harness failure, see {}", self.store.display()),
        }
    }
}

/// What came of a case.
#[derive(Debug)]
pub struct Outcome {
    pub case: &'static Case,
    /// In their order; the last one decides.
    pub tries: Vec<Tried>,
}

impl Outcome {
    /// Whether the last run was invalid for the right reason.
    #[must_use]
    pub fn is_caught(&self) -> bool {
        self.tries.last().is_some_and(|tried| {
            tried.code == INVALID && tried.kinds().iter().any(|k| self.case.expects.contains(k))
        })
    }

    /// For people who wait.
    #[must_use]
    pub fn line(&self) -> String {
        let word = if self.is_caught() { "caught" } else { "NOT CAUGHT" };
        let last =
            self.tries.last().map(|tried| format!("{}, {} s", tried.verdict(), tried.seconds));
        format!("{} {word}: {}", self.case.name, last.unwrap_or_default())
    }
}

/// All of it.
#[derive(Debug, Default)]
pub struct Report {
    pub outcomes: Vec<Outcome>,
    /// The same runs without a bug.
    pub controls: Vec<(Setup, Tried)>,
    /// What was asked for and is found by other means.
    pub elsewhere: Vec<&'static Elsewhere>,
}

impl Report {
    fn control(&self, setup: &Setup) -> Option<&Tried> {
        self.controls.iter().find(|(of, _)| of == setup).map(|(_, tried)| tried)
    }

    /// 0 when everything was found and nothing else was; 1 when something was missed, or a run
    /// without a bug was invalid; 3 and 2 as for runs.
    #[must_use]
    pub fn code(&self) -> u8 {
        let missed = self.outcomes.iter().any(|outcome| !outcome.is_caught());
        let codes: Vec<u8> = self.controls.iter().map(|(_, tried)| tried.code).collect();
        match missed {
            true => INVALID,
            false => [INVALID, 3, UNKNOWN].into_iter().find(|c| codes.contains(c)).unwrap_or(0),
        }
    }

    /// Passed, failed, skipped: cases and runs without a bug alike.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let caught = self.outcomes.iter().filter(|outcome| outcome.is_caught()).count();
        let valid = self.controls.iter().filter(|(_, tried)| tried.code == 0).count();
        let all = self.outcomes.len() + self.controls.len();
        (caught + valid, all - caught - valid, self.elsewhere.len())
    }

    /// In the order of their names.
    pub fn sort(&mut self) {
        self.outcomes.sort_by_key(|outcome| outcome.case.name);
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["", "bug", "run", "expected", "found", "seeds", "s", "without", ""]);
        for outcome in &self.outcomes {
            let (case, last) = (outcome.case, outcome.tries.last());
            let expected: Vec<&str> = case.expects.iter().map(|kind| kind.name()).collect();
            let without = self.control(&case.setup).map_or("", |tried| match tried.code {
                0 => "valid",
                1 => "INVALID",
                2 => "unknown",
                _ => "harness failure",
            });
            let seconds: u64 = outcome.tries.iter().map(|tried| tried.seconds).sum();
            table.add_row([
                case.name.to_owned(),
                case.what.to_owned(),
                case.setup.name(),
                expected.join(", "),
                last.map_or(String::new(), |tried| tried.names().join(", ")),
                outcome.tries.len().to_string(),
                seconds.to_string(),
                without.to_owned(),
                if outcome.is_caught() { "caught" } else { "MISSED" }.to_owned(),
            ]);
        }
        for bug in &self.elsewhere {
            let by = bug.test.to_owned();
            table.add_row([bug.name.to_owned(), bug.what.to_owned(), by, "skipped".into()]);
        }
        table.to_string()
    }

    /// `selftest.json`.
    #[must_use]
    pub fn json(&self) -> Value {
        let tried = |tried: &Tried| {
            json!({
                "seed": tried.seed, "code": tried.code, "seconds": tried.seconds,
                "anomalies": tried.names(), "store": tried.store,
            })
        };
        let outcomes = self.outcomes.iter().map(|outcome| {
            json!({
                "name": outcome.case.name, "what": outcome.case.what,
                "run": outcome.case.setup.name(),
                "expects": outcome.case.expects.iter().map(|k| k.name()).collect::<Vec<_>>(),
                "caught": outcome.is_caught(),
                "tries": outcome.tries.iter().map(tried).collect::<Vec<_>>(),
                "without": self.control(&outcome.case.setup).map(tried),
            })
        });
        let elsewhere = self
            .elsewhere
            .iter()
            .map(|bug| json!({ "name": bug.name, "what": bug.what, "test": bug.test }));
        json!({
            "code": self.code(),
            "cases": outcomes.collect::<Vec<_>>(),
            "elsewhere": elsewhere.collect::<Vec<_>>(),
        })
    }
}

impl Setup {
    /// Names it in tables and directories.
    #[must_use]
    pub fn name(&self) -> String {
        let set: String = self.set.iter().map(|set| format!(",{set}")).collect();
        format!("{}x{}", self.workload, self.nemesis) + &set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Anomaly, Finding, Found, Validity};
    use crate::selftest::CASES;

    fn tried(code: u8, kind: Option<Kind>) -> Tried {
        let mut property = Finding::default();
        if let Some(kind) = kind {
            let example = Anomaly { kind, what: "seen".into(), events: vec![] };
            property.anomalies.insert(kind, Found { count: 1, examples: vec![example] });
        }
        let judgement = Judgement {
            valid: Validity::Valid,
            property: [("messages".to_owned(), property)].into(),
            coverage: Finding::default(),
            lifecycle: Finding::default(),
            availability: Finding::default(),
            recoveries: vec![],
            run: "r".into(),
            seed: 1,
            version: "v".into(),
        };
        Tried { seed: 1, code, seconds: 9, judgement: Some(judgement), store: "s".into() }
    }

    fn report(of: Tried, without: u8) -> Report {
        let case = CASES.iter().find(|case| case.name == "B09").expect("it is there");
        Report {
            outcomes: vec![Outcome { case, tries: vec![of] }],
            controls: vec![(case.setup, tried(without, None))],
            elsewhere: vec![],
        }
    }

    #[test]
    fn a_bug_is_caught_by_its_own_anomaly_alone() {
        let early = report(tried(1, Some(Kind::EarlyHalf)), 0);
        assert_eq!((early.code(), early.counts()), (0, (2, 0, 0)));
        for other in [tried(1, Some(Kind::Late)), tried(0, None), tried(2, Some(Kind::EarlyHalf))] {
            let other = report(other, 0);
            assert_eq!((other.code(), other.counts()), (1, (1, 1, 0)));
        }
    }

    #[test]
    fn a_run_without_a_bug_has_to_pass() {
        for (without, code) in [(1, 1), (2, 2), (3, 3)] {
            let report = report(tried(1, Some(Kind::EarlyHalf)), without);
            assert_eq!((report.code(), report.counts()), (code, (1, 1, 0)));
            assert!(report.table().contains("caught"));
            assert_eq!(report.json()["code"], code);
        }
    }
}
