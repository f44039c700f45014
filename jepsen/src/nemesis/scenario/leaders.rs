//! Leaders that do not know that they are none any more, or that know another time.

use std::time::Duration;

use anyhow::Result;

use super::asks;
use super::scene::Scene;
use crate::nemesis::Class;
use crate::nemesis::clock;

/// How often a leader of yesterday is asked.
const READS: u32 = 40;
/// How far the clock of the leader to be jumps.
const AHEAD: Duration = Duration::from_secs(300);

pub(super) async fn stale(scene: &mut Scene) -> Result<bool> {
    let (others, leader, term) = scene.roles().await?;
    let (cut, _) = scene.breaks_as(Class::PartLeader, "stale-leader", &[leader]).await?;
    let deposed = scene.led_after(term, &others).await;
    // The new one is written to, the old one is asked.
    scene.works(500).await;
    let keys = scene.tools.asks.known.count();
    asks::ends(&scene.tools, leader, (0..READS).map(|nth| nth % keys)).await;
    scene.heals(cut).await?;
    Ok(deposed)
}

pub(super) async fn pause_lease(scene: &mut Scene) -> Result<bool> {
    let mut deposed = true;
    for _ in 0..2 {
        scene.whole().await?;
        let (others, leader, term) = scene.roles().await?;
        let paused = scene.breaks(Class::Pause, &[leader]).await?;
        deposed &= scene.led_after(term, &others).await;
        scene.works(500).await;
        let keys = scene.tools.asks.known.count();
        scene.heals(paused).await?;
        asks::ends(&scene.tools, leader, (0..READS).map(|nth| nth % keys)).await;
        scene.works(1_000).await;
    }
    Ok(deposed)
}

pub(super) async fn transfer_kill(scene: &mut Scene) -> Result<bool> {
    let (others, _, term) = scene.roles().await?;
    let handed = scene.hand_to(others[0]).await && scene.hand_to(others[1]).await;
    let killed = scene.breaks(Class::Kill, &[others[0]]).await?;
    scene.works(1_000).await;
    scene.heals(killed).await?;
    let (_, now) = scene.leader().await?;
    Ok(handed && term + 2 <= now)
}

pub(super) async fn clock_lead(scene: &mut Scene) -> Result<bool> {
    let (others, ..) = scene.roles().await?;
    let jumped = scene.breaks(Class::ClockBump, &[others[0]]).await?;
    clock::set_ahead(&scene.tools, others[0], AHEAD)?;
    let leads = scene.hand_to(others[0]).await;
    scene.works(3_000).await;
    scene.heals(jumped).await?;
    Ok(leads)
}
