//! Links that are cut, lossy or reset.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rand::RngExt;
use rand::rngs::StdRng;

use super::{Class, Tools};
use crate::net::{Cut, run_input};

/// Whatever a machine gets by TCP is answered with a reset.
const RESETS: &str = "table inet resets {
  chain answers {
    type filter hook input priority 0
    iifname eth0 meta l4proto tcp reject with tcp reset
  }
}
";
/// Packets that are lost, of a hundred.
const LOSS: std::ops::Range<u8> = 5..31;

/// Installs the cuts of a class; all of them in one step.
pub(super) async fn cut(
    tools: &Arc<Tools>,
    fault: u64,
    class: Class,
    places: &BTreeSet<usize>,
    random: &mut StdRng,
) -> Result<()> {
    let nodes: Vec<Ipv4Addr> = tools.cluster.nodes.iter().map(|node| node.address).collect();
    let percent = random.random_range(LOSS);
    let cuts = cuts(class, &nodes, places, tools.cluster.switch.here(), percent);
    set(tools, fault, cuts).await
}

pub(super) async fn mend(tools: &Arc<Tools>, fault: u64) -> Result<()> {
    set(tools, fault, Vec::new()).await
}

async fn set(tools: &Arc<Tools>, fault: u64, cuts: Vec<Cut>) -> Result<()> {
    let tools = Arc::clone(tools);
    tokio::task::spawn_blocking(move || tools.rules.set(fault, cuts)).await?
}

fn cuts(
    class: Class,
    nodes: &[Ipv4Addr],
    places: &BTreeSet<usize>,
    clients: Ipv4Addr,
    percent: u8,
) -> Vec<Cut> {
    let count = nodes.len();
    let pairs = (0..count).flat_map(|one| (one + 1..count).map(move |other| (one, other)));
    let both = |(one, other): (usize, usize)| Cut::between(nodes[one], nodes[other]);
    let inside = |place: usize| places.contains(&place);
    match class {
        Class::PartClients => {
            places.iter().flat_map(|place| Cut::between(nodes[*place], clients)).collect()
        }
        Class::PartOneWay => {
            let others = |from: usize| (0..count).filter(move |to| *to != from);
            let from = places.iter().copied();
            from.flat_map(|from| others(from).map(move |to| (from, to)))
                .map(|(from, to)| Cut::one_way(nodes[from], nodes[to]))
                .collect()
        }
        // Neighbours in a ring see each other.
        Class::PartRing => pairs
            .filter(|(one, other)| other - one != 1 && other - one != count - 1)
            .flat_map(both)
            .collect(),
        // The one in the middle sees everybody.
        Class::PartBridge => {
            let middle = count / 2;
            pairs.filter(|(one, other)| *one < middle && middle < *other).flat_map(both).collect()
        }
        Class::Loss => pairs.flat_map(both).map(|cut| Cut { percent, ..cut }).collect(),
        // The chosen ones on one side, the others on the other.
        _ => pairs.filter(|(one, other)| inside(*one) != inside(*other)).flat_map(both).collect(),
    }
}

/// Answers whatever a node gets by TCP with a reset, for so long.
pub(super) async fn reset(
    tools: &Arc<Tools>,
    places: &BTreeSet<usize>,
    lasts_ms: u64,
) -> Result<()> {
    let machines: Vec<Vec<String>> =
        places.iter().map(|place| tools.cluster.switch.on(tools.cluster.machine(*place))).collect();
    let rules = |script: &'static str| {
        let machines = machines.clone();
        tokio::task::spawn_blocking(move || {
            machines.iter().try_for_each(|on| {
                let arguments = format!("{} nft -f -", on[1..].join(" "));
                run_input(&on[0], &arguments, script).map(drop)
            })
        })
    };
    rules(RESETS).await??;
    tokio::time::sleep(Duration::from_millis(lasts_ms)).await;
    rules("delete table inet resets\n").await?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> Vec<Ipv4Addr> {
        (1..=5).map(|last| Ipv4Addr::new(10, 77, 0, last)).collect()
    }

    fn reaches(cuts: &[Cut], from: usize, to: usize) -> bool {
        let nodes = nodes();
        !cuts.iter().any(|cut| cut.from == nodes[from] && cut.to == nodes[to])
    }

    fn of(class: Class, places: &[usize]) -> Vec<Cut> {
        let places = places.iter().copied().collect();
        cuts(class, &nodes(), &places, Ipv4Addr::new(10, 77, 0, 254), 20)
    }

    #[test]
    fn cuts_separate_whom_they_should() {
        let leader = of(Class::PartLeader, &[1]);
        assert!(!reaches(&leader, 1, 0) && !reaches(&leader, 3, 1) && reaches(&leader, 0, 2));
        let halves = of(Class::PartHalves, &[0, 4]);
        assert!(reaches(&halves, 0, 4) && reaches(&halves, 1, 3) && !reaches(&halves, 4, 1));
        let one_way = of(Class::PartOneWay, &[2]);
        assert!(!reaches(&one_way, 2, 0) && reaches(&one_way, 0, 2));
    }

    #[test]
    fn in_a_ring_and_over_a_bridge_each_sees_a_majority() {
        let ring = of(Class::PartRing, &[]);
        let bridge = of(Class::PartBridge, &[]);
        for from in 0..5 {
            let sees = |cuts: &[Cut]| (0..5).filter(|to| reaches(cuts, from, *to)).count();
            assert_eq!(sees(&ring), 3);
            assert_eq!(sees(&bridge), if from == 2 { 5 } else { 3 });
        }
        assert!(!reaches(&bridge, 0, 3) && reaches(&bridge, 0, 2));
    }
}
