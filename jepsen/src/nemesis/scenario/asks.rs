//! Questions that a scenario asks by itself, at the moment that it is about.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;

use crate::client::{Known, Wire};
use crate::history::{Call, Key, Process};
use crate::nemesis::Tools;
use crate::run::ask;

/// Who asks: processes of their own, each for one question.
#[derive(Debug)]
pub struct Asks {
    pub known: Arc<Known>,
    /// The next number of a process.
    pub process: AtomicU64,
}

/// Asks a node for the ends of these queues, all at once and each question once; until the last is
/// answered or given up.
pub(super) async fn ends(tools: &Arc<Tools>, place: usize, keys: impl Iterator<Item = Key>) {
    let mut asked = JoinSet::new();
    for key in keys {
        let tools = Arc::clone(tools);
        asked.spawn(async move {
            let process = tools.asks.process.fetch_add(1, Ordering::Relaxed);
            let mut wire = Wire::new(&tools.asks.known, tools.cluster.points("scenario"), place);
            let call = Call::MaxOffset { key };
            ask(&tools.recorder, Process::Client(process), &mut wire, &call).await;
        });
    }
    asked.join_all().await;
}
