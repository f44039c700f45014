//! Power that fails at the worst moments.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::scene::Scene;
use crate::nemesis::Class;

/// How soon after an election the power fails.
const AFTER_ELECTION: Duration = Duration::from_millis(50);
/// How long after their start nodes are still recovering.
const RECOVERING_MS: u64 = 60;

/// Who is away meanwhile makes a majority with who forgot what it did not sync.
async fn away_then_kill(scene: &mut Scene, away: Class) -> Result<bool> {
    let (others, leader, _) = scene.roles().await?;
    let (gone, crasher) = (others[0], others[1]);
    let first = scene.breaks(away, &[gone]).await?;
    scene.works(3_000).await;
    let (_, term) = scene.leader().await?;
    let power = scene.breaks(Class::Power, &[crasher]).await?;
    let second = scene.breaks(away, &[leader]).await?;
    scene.heals(first).await?;
    scene.heals(power).await?;
    let other_majority = scene.led_after(term, &[gone, crasher]).await;
    scene.works(3_000).await;
    scene.heals(second).await?;
    Ok(other_majority)
}

pub(super) async fn part_kill(scene: &mut Scene) -> Result<bool> {
    away_then_kill(scene, Class::PartOne).await
}

pub(super) async fn pause_kill(scene: &mut Scene) -> Result<bool> {
    away_then_kill(scene, Class::Pause).await
}

pub(super) async fn vote_amnesia(scene: &mut Scene) -> Result<bool> {
    let mut in_time = 0;
    for _ in 0..2 {
        scene.whole().await?;
        let (others, leader, term) = scene.roles().await?;
        let killed = scene.breaks(Class::Kill, &[leader]).await?;
        // Asked directly: the watch looks too rarely.
        let voter = loop {
            let nodes = &scene.tools.cluster.nodes;
            let elected = others.iter().copied().find(|place| {
                nodes[*place]
                    .status()
                    .is_ok_and(|s| term < s.term && s.leader_id == Some(s.node_id))
            });
            match elected {
                Some(elected) => break others.iter().copied().find(|place| *place != elected),
                None => scene.works(1).await,
            }
        };
        let since = Instant::now();
        let Some(voter) = voter else { return Ok(false) };
        in_time += u32::from(since.elapsed() < AFTER_ELECTION);
        let power = scene.breaks(Class::Power, &[voter]).await?;
        scene.works(200).await;
        scene.heals(power).await?;
        scene.heals(killed).await?;
    }
    Ok(in_time == 2)
}

pub(super) async fn rolling(scene: &mut Scene) -> Result<bool> {
    let mut lost = 0;
    for _ in 0..3 {
        for place in 0..scene.tools.cluster.nodes.len() {
            scene.whole().await?;
            let (power, effect) = scene.breaks_as(Class::Power, "power", &[place]).await?;
            lost += effect.lost_bytes.unwrap_or(0);
            scene.works(200).await;
            scene.heals(power).await?;
        }
    }
    Ok(0 < lost)
}

pub(super) async fn twice(scene: &mut Scene) -> Result<bool> {
    let all: Vec<usize> = (0..scene.tools.cluster.nodes.len()).collect();
    let first = scene.breaks(Class::PowerAll, &all).await?;
    scene.heals(first).await?;
    scene.works(RECOVERING_MS).await;
    // Nobody serves yet, so this is in the middle of it.
    let nodes = &scene.tools.cluster.nodes;
    let recovering = all.iter().filter(|place| !nodes[**place].is_ready()).count();
    let second = scene.breaks(Class::PowerAll, &all).await?;
    scene.works(100).await;
    scene.heals(second).await?;
    Ok(0 < recovering)
}
