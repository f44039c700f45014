//! What is wrong with the network: packets that the switch drops.
//!
//! Who sends a packet that is dropped is not told: connections stay open, dials get no answer.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::sync::Mutex;

use anyhow::Result;

use super::tool::run_input;

/// Packets from one machine to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    /// How many of a hundred are dropped; all where it is 100.
    pub percent: u8,
}

impl Cut {
    /// Both ways, completely.
    #[must_use]
    pub fn between(one: Ipv4Addr, other: Ipv4Addr) -> [Self; 2] {
        [Self::one_way(one, other), Self::one_way(other, one)]
    }

    /// One way, completely.
    #[must_use]
    pub fn one_way(from: Ipv4Addr, to: Ipv4Addr) -> Self {
        Self { from, to, percent: 100 }
    }
}

/// The rules of the switch, of several faults at a time.
#[derive(Debug, Default)]
pub struct Rules {
    cuts: Mutex<BTreeMap<u64, Vec<Cut>>>,
}

impl Rules {
    /// The table in which the rules are. What this process sends and gets passes the bridge too.
    pub fn build() -> Result<Self> {
        let mut script = String::from("add table bridge cuts\nadd chain bridge cuts dropped\n");
        for hook in ["forward", "input", "output"] {
            let chain = format!("{{ type filter hook {hook} priority 0; }}");
            writeln!(script, "add chain bridge cuts {hook} {chain}")?;
            writeln!(script, "add rule bridge cuts {hook} jump dropped")?;
        }
        run_input("nft", "-f -", &script)?;
        Ok(Self::default())
    }

    /// Replaces the rules of one fault; all at once.
    pub fn set(&self, fault: u64, cuts: Vec<Cut>) -> Result<()> {
        let mut all = self.cuts.lock().expect("no holder panics");
        if cuts.is_empty() {
            all.remove(&fault);
        } else {
            all.insert(fault, cuts);
        }
        let mut script = String::from("flush chain bridge cuts dropped\n");
        for Cut { from, to, percent } in all.values().flatten() {
            let which = match percent {
                100 => String::new(),
                _ => format!("numgen random mod 100 < {percent} "),
            };
            writeln!(
                script,
                "add rule bridge cuts dropped ip saddr {from} ip daddr {to} {which}drop"
            )?;
        }
        run_input("nft", "-f -", &script).map(drop)
    }

    /// Mends everything.
    pub fn clear(&self) -> Result<()> {
        self.cuts.lock().expect("no holder panics").clear();
        run_input("nft", "-f -", "flush chain bridge cuts dropped\n").map(drop)
    }
}
