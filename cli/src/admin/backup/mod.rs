//! backup: a copy of a broker group, taken while it runs and kept in a directory.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use proto::{
    BrokerName,
    admin::{GroupStatus, NodeStatus},
    backup_rpc::{MarkRequest, backup_client::BackupClient},
    clock,
};
use serde_json::json;
use tonic::transport::Channel;

use super::{Session, operator::Operator};
use crate::{bench::units::size, connect, failure::Failure, output::Report};

mod directory;
mod take;

use directory::Directory;
use take::Taken;

#[derive(Debug, Args)]
pub struct Backup {
    /// The broker group.
    #[arg(short = 'b', long = "brokerName", alias = "broker-name")]
    broker: BrokerName,
    /// The directory that keeps the backup. What it holds of an earlier one is not sent again.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// The replica that is copied; without it one that does not lead.
    #[arg(short = 'i', long = "nodeId", alias = "node-id", default_value_t = 0)]
    node_id: u64,
    /// Bytes per second, such as 20MiB; without it as the broker sends snapshots.
    #[arg(long, value_parser = size, default_value = "0")]
    rate: usize,
    /// Copies the broker that -n names as far as it has come, although the group has no leader:
    /// what only others had acknowledged is missing.
    #[arg(long)]
    without_leader: bool,
}

impl Backup {
    pub(super) async fn run(self, session: &Session, for_a_program: bool) -> Result<Report> {
        let started = Instant::now();
        let (channel, address, index) = self.source(session).await?;
        let mut directory = Directory::open(&self.to)?;
        let rate = u64::try_from(self.rate).unwrap_or(u64::MAX);
        let operator = &session.operator;
        let wish = take::Wish { operator, broker: self.broker.to_string(), index, rate };
        let bar = bar(for_a_program);
        let taken = take::take((channel, &address), wish, &mut directory, &bar).await;
        bar.finish_and_clear();
        let Taken { mut manifest, received, reused } = taken?;
        manifest.taken_at_ms = clock::wall_now().0;
        directory.commit(&manifest)?;
        let took = started.elapsed();
        let json = json!({
            "broker": self.broker.as_str(),
            "node_id": manifest.node_id,
            "index": manifest.index,
            "taken_at_ms": manifest.taken_at_ms,
            "received_bytes": received,
            "reused_bytes": reused,
            "seconds": took.as_secs_f64(),
        });
        let text = format!(
            "backup of {} up to entry {} from node {} in {}: {} received, {} there already, {:.1} s",
            self.broker,
            manifest.index,
            manifest.node_id,
            self.to.display(),
            mebibytes(received),
            mebibytes(reused),
            took.as_secs_f64(),
        );
        Ok(Report::new(json).line(text))
    }

    /// Whom to copy, and up to where it has to reach.
    async fn source(&self, session: &Session) -> Result<(Channel, String, u64)> {
        if self.without_leader {
            let channel = connect::dial_one(&session.address).await?;
            return Ok((channel, session.address.clone(), 0));
        }
        let groups = session.broker_groups().await?;
        let Some(group) = groups.iter().find(|group| group.broker_name == self.broker.as_str())
        else {
            let known: Vec<_> = groups.iter().map(|group| group.broker_name.as_str()).collect();
            bail!(Failure::Rejected(format!(
                "there is no broker {}; {} knows: {}",
                self.broker,
                session.address,
                known.join(", ")
            )));
        };
        let Some(leader) = member(group, group.leader_id) else {
            bail!(Failure::NotDone(format!(
                "{} has no leader; --without-leader copies a replica all the same",
                self.broker
            )));
        };
        let index = mark(&session.operator, &leader.client_address, &self.broker).await?;
        let candidates: Vec<&NodeStatus> = match self.node_id {
            0 => {
                let others = group.members.iter();
                let others = others.filter(|node| is_reachable(node) && *node != leader);
                others.chain([leader]).collect()
            }
            wanted => match member(group, wanted) {
                Some(node) => vec![node],
                None => bail!(Failure::Rejected(format!(
                    "{} has no node {wanted} that a client address is known of",
                    self.broker
                ))),
            },
        };
        let mut refusals = Vec::new();
        for node in candidates {
            match connect::dial_one(&node.client_address).await {
                Ok(channel) => return Ok((channel, node.client_address.clone(), index)),
                Err(error) => refusals.push(format!("{error:#}")),
            }
        }
        bail!(Failure::NotDone(refusals.join("; ")))
    }
}

fn is_reachable(node: &NodeStatus) -> bool {
    !node.client_address.is_empty()
}

fn member(group: &GroupStatus, id: u64) -> Option<&NodeStatus> {
    group.members.iter().find(|node| node.node_id == id && is_reachable(node))
}

/// Everything that was acknowledged before this call is in a copy that reaches up to this entry.
async fn mark(operator: &Operator, leader: &str, broker: &BrokerName) -> Result<u64> {
    let channel = connect::dial_one(leader).await?;
    let request = operator.request(MarkRequest { broker_name: broker.to_string() });
    let answer = BackupClient::new(channel).mark(request).await;
    let answer = answer.map_err(|status| Failure::of_status(&status, leader));
    Ok(answer.context("ask the leader how far a backup has to reach")?.into_inner().index)
}

fn bar(for_a_program: bool) -> ProgressBar {
    if for_a_program {
        return ProgressBar::hidden();
    }
    let template = "[{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}";
    let style = ProgressStyle::with_template(template).expect("the template is constant");
    let bar = ProgressBar::new(0).with_style(style.progress_chars("=> "));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn mebibytes(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes % (1 << 20)) * 10) >> 20)
}
