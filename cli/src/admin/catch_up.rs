//! Watches a replica catch up, with a bar for people.

use std::time::Duration;

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use proto::{BrokerName, admin::PeerStatus};
use tokio::time::{Instant, sleep};

use super::{Session, raft_status};
use crate::failure::Failure;

const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(super) struct CatchUp<'a> {
    session: &'a Session,
    broker: &'a BrokerName,
    node: u64,
    deadline: Instant,
}

impl<'a> CatchUp<'a> {
    pub(super) fn new(
        session: &'a Session,
        broker: &'a BrokerName,
        node: u64,
        deadline: Instant,
    ) -> Self {
        Self { session, broker, node, deadline }
    }

    /// Returns once the replica has caught up. A group that has no leader for a moment is waited
    /// for.
    pub(super) async fn run(self) -> Result<()> {
        let mut bar = None;
        loop {
            let seen = match raft_status::ask(self.session, self.broker).await {
                Ok(status) => {
                    let mut peers = status.members.into_iter();
                    let peer =
                        peers.find(|p| p.node.as_ref().is_some_and(|n| n.node_id == self.node));
                    let Some(peer) = peer else {
                        let text = format!("node {} is no member of {}", self.node, self.broker);
                        bail!(Failure::Rejected(text));
                    };
                    Some(peer)
                }
                Err(failure @ Failure::Rejected(_)) => bail!(failure),
                Err(Failure::NotDone(_) | Failure::Unknown(_)) => None,
            };
            if let Some(peer) = &seen {
                if peer.connected && peer.eta_ms == Some(0) {
                    return Ok(());
                }
                show(bar.get_or_insert_with(|| new_bar(self.node, peer)), peer);
            }
            if Instant::now() >= self.deadline {
                let lag = seen.and_then(|peer| peer.lag_bytes);
                let lag = lag.map_or("an unknown number of".to_owned(), |lag| lag.to_string());
                let text = format!("node {} still lags by {lag} bytes", self.node);
                bail!(Failure::NotDone(text));
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// Nothing is drawn where nobody looks.
fn new_bar(node: u64, peer: &PeerStatus) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {bytes}/{total_bytes} {msg}")
        .expect("the template is constant");
    let bar = ProgressBar::new(peer.lag_bytes.unwrap_or(0));
    bar.with_style(style.progress_chars("=> ")).with_prefix(format!("node {node}"))
}

fn show(bar: &ProgressBar, peer: &PeerStatus) {
    // What the log does not reach back to comes first.
    if let Some(snapshot) = &peer.snapshot {
        bar.set_length(snapshot.total_bytes);
        bar.set_position(snapshot.sent_bytes);
        bar.set_message(raft_status::snapshot(snapshot));
        return;
    }
    let lag = peer.lag_bytes.unwrap_or(0);
    let total = bar.length().unwrap_or(0).max(lag);
    bar.set_length(total);
    bar.set_position(total - lag);
    let rate = indicatif::BinaryBytes(peer.bytes_per_second);
    let eta = peer.eta_ms.map_or("unknown".to_owned(), |ms| format!("{} s", ms.div_ceil(1000)));
    let state = if peer.connected { String::new() } else { ", not connected".to_owned() };
    bar.set_message(format!("{rate}/s, left: {eta}{state}"));
}
