//! Replicas that lost something and then have to lead, and disks that fail.

use anyhow::Result;

use super::noise;
use super::scene::Scene;
use crate::db::Member;
use crate::nemesis::Class;

/// What nodes say, see docs/operations/repair.md.
const INSTALLED: &str = ": snapshot installed ";
const SEGMENT_REPLACED: &str = "a damaged segment was replaced by the peer's";
const LOG_STOPS: &str = "log stops";

/// Waits until a node says something once more than before.
async fn says(scene: &Scene, node: &Member, what: &str, before: u64) -> bool {
    scene.comes(|| before < node.says(what)).await
}

pub(super) async fn snapshot_lag(scene: &mut Scene) -> Result<bool> {
    let (others, leader, _) = scene.roles().await?;
    let late = others[0];
    let tools = scene.tools.clone();
    let node = &tools.cluster.nodes[late];
    let has = node.status()?.last;
    let before = node.says(INSTALLED);
    let away = scene.breaks(Class::Kill, &[late]).await?;
    // Until what it lacks is in nobody's log any more.
    noise::until_purged(&tools, has).await?;
    scene.heals(away).await?;
    let installed = says(scene, node, INSTALLED, before).await;
    for place in [leader, others[1]] {
        scene.whole().await?;
        let killed = scene.breaks(Class::Kill, &[place]).await?;
        scene.works(1_000).await;
        scene.heals(killed).await?;
    }
    scene.whole().await?;
    let leads = scene.hand_to(late).await;
    scene.works(1_000).await;
    Ok(installed && leads)
}

pub(super) async fn flip_then_elect(scene: &mut Scene) -> Result<bool> {
    let (others, ..) = scene.roles().await?;
    let tools = scene.tools.clone();
    let node = &tools.cluster.nodes[others[0]];
    let before = node.says(SEGMENT_REPLACED);
    let flipped = scene.breaks(Class::FlipLog, &[others[0]]).await?;
    scene.heals(flipped).await?;
    let leads = scene.hand_to(others[0]).await;
    let repaired = says(scene, node, SEGMENT_REPLACED, before).await;
    scene.works(1_000).await;
    Ok(leads && repaired)
}

pub(super) async fn fsyncgate(scene: &mut Scene) -> Result<bool> {
    let (others, ..) = scene.roles().await?;
    let tools = scene.tools.clone();
    let node = &tools.cluster.nodes[others[0]];
    let before = node.says(LOG_STOPS);
    let failing = scene.breaks(Class::ErrorSync, &[others[0]]).await?;
    let stopped = says(scene, node, LOG_STOPS, before).await;
    let power = scene.breaks(Class::Power, &[others[0]]).await?;
    scene.works(300).await;
    // Both end with a start, with a disk that is well.
    scene.heals(failing).await?;
    scene.heals(power).await?;
    Ok(stopped)
}

pub(super) async fn full_recovers(scene: &mut Scene) -> Result<bool> {
    let (_, leader, _) = scene.roles().await?;
    let tools = scene.tools.clone();
    let path = tools.cluster.nodes[leader].disk()?.path.clone();
    let full = scene.breaks(Class::Full, &[leader]).await?;
    scene.works(3_000).await;
    let was_full = rustix::fs::statvfs(&path)?.f_bavail < 16;
    scene.heals(full).await?;
    scene.whole().await?;
    Ok(was_full)
}
