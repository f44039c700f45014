//! Kills, pauses and restarts.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Tools;
use crate::db::Member;

/// How long an orderly stop may take.
const STOP: Duration = Duration::from_secs(10);
/// Between two nodes of a rolling restart, for the group to settle.
const SETTLE: Duration = Duration::from_secs(3);

/// SIGKILL, all at once.
pub(super) async fn kill(tools: &Arc<Tools>, places: &BTreeSet<usize>) -> Result<()> {
    let kills = places.iter().map(|place| {
        let (tools, place) = (Arc::clone(tools), *place);
        tokio::task::spawn_blocking(move || tools.cluster.nodes[place].kill())
    });
    for kill in kills.collect::<Vec<_>>() {
        kill.await?;
    }
    Ok(())
}

pub(super) fn start(tools: &Tools, places: &BTreeSet<usize>) {
    places.iter().for_each(|place| tools.cluster.nodes[*place].start());
}

pub(super) fn pause(tools: &Tools, places: &BTreeSet<usize>) -> Result<()> {
    places.iter().try_for_each(|place| tools.cluster.nodes[*place].pause())
}

pub(super) fn resume(tools: &Tools, places: &BTreeSet<usize>) {
    places.iter().for_each(|place| tools.cluster.nodes[*place].resume());
}

/// SIGTERM, and waits for the end.
pub(super) async fn stop(tools: &Tools, places: &BTreeSet<usize>) -> Result<()> {
    for place in places {
        ended(&tools.cluster.nodes[*place]).await?;
    }
    Ok(())
}

async fn ended(node: &Member) -> Result<()> {
    node.terminate();
    let since = Instant::now();
    while node.is_running() {
        if STOP < since.elapsed() {
            bail!("{} did not end within {STOP:?} of a SIGTERM", node.name);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Stops and starts one after the other, each once the group is whole again; with the programs of
/// another directory, where one is given.
pub(super) async fn roll(tools: &Tools, programs: Option<&Path>) -> Result<()> {
    for node in &tools.cluster.nodes {
        ended(node).await?;
        if let Some(programs) = programs {
            node.set_program(programs.join("broker"));
        }
        node.start();
        let since = Instant::now();
        while since.elapsed() < SETTLE && node.status().is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

fn nameserver(tools: &Tools, nth: Option<usize>) -> Result<&Member> {
    let nth = nth.context("no NameServer was chosen")?;
    tools.cluster.nameservers.get(nth).context("no such NameServer")
}

pub(super) async fn kill_nameserver(tools: &Arc<Tools>, nth: Option<usize>) -> Result<()> {
    let tools = Arc::clone(tools);
    tokio::task::spawn_blocking(move || nameserver(&tools, nth).map(Member::kill)).await?
}

pub(super) fn pause_nameserver(tools: &Tools, nth: Option<usize>) -> Result<()> {
    nameserver(tools, nth)?.pause()
}

pub(super) fn heal_nameserver(tools: &Tools, nth: Option<usize>) {
    if let Ok(nameserver) = nameserver(tools, nth) {
        nameserver.resume();
        nameserver.start();
    }
}
