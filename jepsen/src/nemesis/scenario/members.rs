//! Members that change while others fail.

use std::sync::atomic::Ordering;

use anyhow::Result;

use super::scene::Scene;
use crate::nemesis::Class;

/// Rounds of a storm, each with two changes.
const ROUNDS: usize = 6;

pub(super) async fn part_kill(scene: &mut Scene) -> Result<bool> {
    let (others, leader, _) = scene.roles().await?;
    let tools = scene.tools.clone();
    let before = tools.changes.load(Ordering::Relaxed);
    let cut = scene.breaks(Class::PartOne, &[others[0]]).await?;
    let killed = scene.breaks(Class::Kill, &[others[0], others[1], leader]).await?;
    scene.works(300).await;
    scene.heals(killed).await?;
    // At once: those that come back have not found each other yet.
    let removed = scene.breaks(Class::Remove, &[others[2]]).await?;
    scene.heals(cut).await?;
    scene.heals(removed).await?;
    scene.whole().await?;
    Ok(before + 3 <= tools.changes.load(Ordering::Relaxed))
}

pub(super) async fn storm(scene: &mut Scene) -> Result<bool> {
    let tools = scene.tools.clone();
    let before = tools.changes.load(Ordering::Relaxed);
    for round in 0..ROUNDS {
        let place = round % tools.cluster.nodes.len();
        let demoted = scene.breaks(Class::Demote, &[place]).await?;
        let copied = scene.breaks(Class::Backup, &[]).await?;
        scene.heals(copied).await?;
        scene.heals(demoted).await?;
    }
    Ok(before + 2 * ROUNDS as u64 <= tools.changes.load(Ordering::Relaxed))
}
