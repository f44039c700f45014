//! Leaderships that are handed over, again and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use proto::admin::TransferLeaderRequest;
use rand::RngExt;
use rand::rngs::StdRng;

use super::Tools;
use crate::client::Rpc;

/// Between two requests, in ms.
const PAUSE: std::ops::Range<u64> = 100..400;
/// How long one request may take.
const ANSWER: Duration = Duration::from_secs(2);

/// Asks for another leader for so long. A request that is refused is part of life: the fault is
/// that many are asked for.
pub(super) async fn storm(tools: &Arc<Tools>, lasts_ms: u64, random: &mut StdRng) -> Result<()> {
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(lasts_ms) {
        let nodes = &tools.cluster.nodes;
        let (asked, wanted) =
            (random.random_range(0..nodes.len()), random.random_range(0..nodes.len()));
        to(&Rpc::new(nodes[asked].client), tools.cluster.broker_name(), nodes[wanted].id()).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(PAUSE))).await;
    }
    Ok(())
}

/// Asks for a leader by its id; whether it now leads.
pub(crate) async fn to(rpc: &Rpc, broker_name: &str, node_id: u64) -> bool {
    let request = TransferLeaderRequest { broker_name: broker_name.to_owned(), node_id };
    let mut admin = rpc.admin();
    let answer = tokio::time::timeout(ANSWER, admin.transfer_leader(request)).await;
    matches!(answer, Ok(Ok(done)) if done.get_ref().error.is_none())
}
