//! Which bug is found by which run.

use crate::judge::Kind;

/// A run, and what breaks the product in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    pub workload: &'static str,
    pub nemesis: &'static str,
    pub nodes: u8,
    /// Seconds of work under faults.
    pub seconds: u64,
    /// Faults as they come, as `schedule.json` has them; from the seed if empty.
    pub schedule: &'static str,
    /// Settings of the brokers.
    pub set: &'static [&'static str],
}

/// Something that has to be found.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// As `fault.bug` takes it, or `PC1`.
    pub name: &'static str,
    /// What is wrong.
    pub what: &'static str,
    pub setup: Setup,
    /// One of these has to be among the anomalies.
    pub expects: &'static [Kind],
}

impl Case {
    /// A positive control is a setting, and not a bug.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.name.starts_with("PC")
    }
}

/// A bug that takes a simulated disk to be found.
#[derive(Debug, Clone, Copy)]
pub struct Elsewhere {
    pub name: &'static str,
    pub what: &'static str,
    /// The test that finds it.
    pub test: &'static str,
}

/// The fast ones, over all layers.
pub const FAST: &[&str] = &["B02", "B05", "B09", "B15", "B33", "B26", "PC1"];

const fn setup(workload: &'static str, nemesis: &'static str, seconds: u64) -> Setup {
    Setup { workload, nemesis, nodes: 3, seconds, schedule: "", set: &[] }
}

const PART_LEADER: Setup = setup("log", "part-leader", 9);
const POWER_ALL: Setup = setup("log", "power-all", 5);
const TXN: Setup = setup("txn", "none", 5);
const TXN_RESTART: Setup = setup("txn", "restart", 9);
const DELAY_TRANSFER: Setup = setup("delay", "transfer", 9);
const IDEM_KILL: Setup = setup("idem", "kill", 9);
const LOG_KILL: Setup = setup("log", "kill", 9);

/// One handover, and then time for everybody to know of it.
const ONE_HANDOVER: &str = r#"{"steps":[{"at_ms":1000,"class":"transfer","target":"cluster",
"lasts_ms":1200,"seed":1}]}"#;

const fn case(
    name: &'static str,
    what: &'static str,
    setup: Setup,
    expects: &'static [Kind],
) -> Case {
    Case { name, what, setup, expects }
}

/// All that are found by runs.
pub const CASES: &[Case] = &[
    case(
        "B01",
        "sends are acknowledged without a quorum",
        PART_LEADER,
        &[Kind::LostWrite, Kind::InconsistentOffset],
    ),
    case("B02", "the log is not synced", POWER_ALL, &[Kind::LostWrite, Kind::InconsistentOffset]),
    case(
        "B05",
        "reads do without the read index",
        PART_LEADER,
        &[Kind::StaleMaxOffset, Kind::StalePoll],
    ),
    case(
        "B06",
        "a replica takes for committed whatever it is sent",
        Setup { nodes: 5, ..setup("log", "part-halves", 12) },
        &[Kind::InconsistentOffset, Kind::Divergence, Kind::Panic, Kind::UnexpectedExit],
    ),
    case(
        "B07",
        "how far the state has come is durable before what was applied",
        LOG_KILL,
        &[Kind::Divergence, Kind::InconsistentOffset, Kind::Gap, Kind::LostWrite],
    ),
    case(
        "B08",
        "committed offsets are answered from a table of the leader's own",
        setup("offset", "none", 5),
        &[Kind::NonLinearizable],
    ),
    case("B09", "a half message is in its queue at once", TXN, &[Kind::EarlyHalf]),
    case("B10", "ends of a transaction are not compared", TXN, &[Kind::Conflict]),
    case(
        "B11",
        "the end of a transaction is not written to the store",
        TXN_RESTART,
        &[Kind::DoubleCommit, Kind::CheckAfterResolve, Kind::Divergence],
    ),
    case(
        "B12",
        "what is due is decided by the clock of each replica",
        setup("delay", "clock-bump", 9),
        &[Kind::Early, Kind::Divergence],
    ),
    case(
        "B13",
        "a new leader does not fire what another one set",
        DELAY_TRANSFER,
        &[Kind::Late, Kind::LostWrite, Kind::Stuck],
    ),
    case(
        "B14",
        "that a timer has fired is not written to the store",
        setup("delay", "restart", 9),
        &[Kind::Duplicate, Kind::Divergence],
    ),
    case(
        "B15",
        "acks are answered from memory",
        setup("queue", "kill", 8),
        &[Kind::RedeliveryAfterAck],
    ),
    case("B16", "deliveries end too early", setup("queue", "none", 5), &[Kind::DoubleLease]),
    case(
        "B17",
        "a message group that is held is handed out further",
        setup("fifo", "none", 5),
        &[Kind::HolViolation, Kind::FifoDoubleOwner],
    ),
    case("B24", "sends are forgotten too soon", IDEM_KILL, &[Kind::Duplicate]),
    case(
        "B26",
        "what was proposed is answered as not done",
        setup("log", "fsfreeze,pause", 10),
        &[Kind::AbortedRead],
    ),
    case("B27", "a batch is two entries", LOG_KILL, &[Kind::BatchTorn]),
    case(
        "B28",
        "reads trust a lease by the wall clock",
        PART_LEADER,
        &[Kind::StaleMaxOffset, Kind::StalePoll],
    ),
    case("B30", "a repeated send is answered wrongly", IDEM_KILL, &[Kind::OffsetMismatch]),
    case(
        "B31",
        "a member that left keeps its share",
        setup("rebalance", "none", 20),
        &[Kind::Unowned],
    ),
    case(
        "B32",
        "NameServers hear of the first leader alone",
        Setup { schedule: ONE_HANDOVER, ..setup("meta", "transfer", 18) },
        &[Kind::StaleRoute],
    ),
    case(
        "B33",
        "the state takes its time from the clock of each replica",
        setup("log", "none", 4),
        &[Kind::Divergence],
    ),
    case(
        "B34",
        "a new leader asks nobody about what it finds",
        setup("txn", "transfer", 9),
        &[Kind::CheckMissing, Kind::LostCommit],
    ),
    case(
        "PC1",
        "flush = async, and all lose power",
        Setup { set: &["flush=async"], ..POWER_ALL },
        &[Kind::LostWrite, Kind::InconsistentOffset],
    ),
    case(
        "PC2",
        "read.mode = follower, and a follower is cut off",
        Setup { set: &["read.mode=follower"], ..setup("log", "part-one", 8) },
        &[Kind::StalePoll],
    ),
    case(
        "PC3",
        "flush = async, and a replica without any other loses power",
        Setup { nodes: 1, set: &["flush=async"], ..POWER_ALL },
        &[Kind::LostWrite, Kind::InconsistentOffset],
    ),
];

/// All that are found by tests of a crate on a simulated disk.
pub const ELSEWHERE: &[Elsewhere] = &[
    elsewhere("B03", "the directory is not synced when a segment begins"),
    elsewhere("B04", "the hard state is not synced"),
    elsewhere("B20", "bodies are not compared with their checksums"),
    elsewhere("B21", "damage in what was synced is the end of the log"),
    elsewhere("B22", "a failed sync is ignored"),
    elsewhere("B25", "what was to be written before a segment begins is dropped"),
];

const fn elsewhere(name: &'static str, what: &'static str) -> Elsewhere {
    Elsewhere { name, what, test: "cargo test --workspace --test sown" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis::Schedule;

    #[test]
    fn names_are_there_once_and_schedules_can_be_read() {
        let mut names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        names.extend(ELSEWHERE.iter().map(|bug| bug.name));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(FAST.iter().all(|fast| names.contains(fast)));
        for case in CASES.iter().filter(|case| !case.setup.schedule.is_empty()) {
            serde_json::from_str::<Schedule>(case.setup.schedule).expect(case.name);
        }
    }
}
