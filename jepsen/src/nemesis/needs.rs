//! What the machine has to be able to do for a fault.

use super::Class;
use crate::cli::abilities;

/// What a fault needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Nothing,
    /// Rules in the switch.
    Network,
    /// A file system per node, which takes root.
    OwnDisk,
    /// Queues at the ports of the switch.
    Shaping,
    /// A library between a program and the clock.
    Clock,
}

impl Need {
    /// The names of the abilities that `jepsen doctor` tries.
    fn abilities(self) -> &'static [&'static str] {
        match self {
            Self::Nothing => &[],
            Self::Network => &["nftables"],
            Self::OwnDisk => &["root", "loop devices"],
            Self::Shaping => &["traffic control"],
            Self::Clock => &["libfaketime"],
        }
    }
}

/// Why this machine cannot make one of these faults: one line for each ability that is missing.
#[must_use]
pub fn missing(classes: &[Class]) -> Vec<String> {
    let all = abilities();
    let needed = classes.iter().map(|c| (c.name(), c.need().abilities())).chain([
        // Nodes are machines on a switch in every run.
        ("every run", ["network name spaces", "virtual cables", "nftables"].as_slice()),
    ]);
    let mut missing = Vec::new();
    for (who, names) in needed {
        for ability in all.iter().filter(|a| names.contains(&a.name) && !a.able) {
            missing.push(format!("{who} needs {}: {}", ability.name, ability.detail));
        }
    }
    missing
}
