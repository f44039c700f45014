//! Power that fails, disks that are full or frozen.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::RngExt;
use rand::rngs::StdRng;

use super::{Effect, Tools};

/// How long a slow disk stands still at a time, and goes on in between, in ms.
const STANDS_MS: std::ops::Range<u64> = 30..150;
const GOES_MS: std::ops::Range<u64> = 5..40;

/// Does something to the disks of some nodes, off the threads that clients need.
async fn with_disks<T: Send + 'static>(
    tools: &Arc<Tools>,
    places: &BTreeSet<usize>,
    what: impl Fn(&Tools, usize) -> Result<T> + Send + 'static,
) -> Result<Vec<T>> {
    let (tools, places) = (Arc::clone(tools), places.clone());
    tokio::task::spawn_blocking(move || {
        places.into_iter().map(|place| what(&tools, place)).collect()
    })
    .await?
}

/// Everything stops where it is; then the disks forget what was not synced, and the processes are
/// gone. The power is back at once, so that what was lost can be counted; the nodes stay down.
pub(super) async fn cut_power(tools: &Arc<Tools>, places: &BTreeSet<usize>) -> Result<Effect> {
    // All of them at one moment: who goes on would notice that the others are gone.
    for place in places {
        let node = &tools.cluster.nodes[*place];
        if node.is_running() {
            node.pause()?;
        }
    }
    let before = with_disks(tools, places, |tools, place| {
        let disk = tools.cluster.nodes[place].disk()?;
        let sample = disk.sample()?;
        disk.cut_power()?;
        Ok(sample)
    });
    let before = before.await?;
    let after = with_disks(tools, places, |tools, place| {
        let node = &tools.cluster.nodes[place];
        node.kill();
        node.disk()?.restore_power()?;
        node.disk()?.sample()
    });
    let after = after.await?;
    let lost = before.iter().zip(&after).map(|(before, after)| before.lost(after)).sum();
    Ok(Effect { lost_bytes: Some(lost), ..Effect::default() })
}

pub(super) async fn restore_power(tools: &Arc<Tools>, places: &BTreeSet<usize>) -> Result<()> {
    super::processes::start(tools, places);
    Ok(())
}

pub(super) async fn fill(tools: &Arc<Tools>, places: &BTreeSet<usize>) -> Result<()> {
    mark(tools, places, true);
    let filled =
        with_disks(tools, places, |tools, place| tools.cluster.nodes[place].disk()?.fill());
    filled.await.map(drop)
}

pub(super) async fn empty(tools: &Arc<Tools>, places: &BTreeSet<usize>) -> Result<()> {
    let emptied =
        with_disks(tools, places, |tools, place| tools.cluster.nodes[place].disk()?.empty());
    let emptied = emptied.await.map(drop);
    mark(tools, places, false);
    emptied
}

fn mark(tools: &Tools, places: &BTreeSet<usize>, full: bool) {
    for place in places {
        tools.watch.disk_is_full(&tools.cluster.nodes[*place].name, full);
    }
}

pub(super) async fn freeze(tools: &Arc<Tools>, places: &BTreeSet<usize>) -> Result<()> {
    let frozen =
        with_disks(tools, places, |tools, place| tools.cluster.nodes[place].disk()?.freeze());
    frozen.await.map(drop)
}

pub(super) async fn thaw(tools: &Arc<Tools>, places: &BTreeSet<usize>) -> Result<()> {
    let thawed =
        with_disks(tools, places, |tools, place| tools.cluster.nodes[place].disk()?.thaw());
    thawed.await.map(drop)
}

/// A disk that takes long: it stands still again and again, and goes on for a moment in between.
pub(super) async fn stutter(
    tools: &Arc<Tools>,
    places: &BTreeSet<usize>,
    lasts_ms: u64,
    random: &mut StdRng,
) -> Result<()> {
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(lasts_ms) {
        freeze(tools, places).await?;
        tokio::time::sleep(Duration::from_millis(random.random_range(STANDS_MS))).await;
        thaw(tools, places).await?;
        tokio::time::sleep(Duration::from_millis(random.random_range(GOES_MS))).await;
    }
    Ok(())
}
