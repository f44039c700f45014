//! snapshotNow.

use anyhow::{Result, bail};
use clap::Args;
use proto::admin::MakeSnapshotRequest;
use serde_json::json;

use super::{Session, nodes::Chosen, progress};
use crate::{
    failure::Failure,
    output::{Report, Rows},
};

#[derive(Debug, Args)]
pub struct SnapshotNow {
    #[command(flatten)]
    of: Chosen,
    /// Only this node of the broker [default: all of them].
    #[arg(short = 'i', long = "nodeId", requires = "broker")]
    node_id: Option<u64>,
}

impl SnapshotNow {
    /// One node after the other, so that not all of them are busy at once.
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let mut nodes = self.of.nodes(session).await?;
        nodes.retain(|node| self.node_id.is_none_or(|wanted| node.node_id == wanted));
        if nodes.is_empty() {
            bail!(Failure::Rejected("the broker has no such node; see clusterList".to_owned()));
        }
        let mut rows = Rows::new(["broker", "node", "last entry", "took"]);
        let mut json = Vec::new();
        for node in nodes {
            let spinner = progress::spinner(format!("snapshot of {}", node.title()));
            let (broker_name, node_id) = (node.broker.clone(), node.node_id);
            let request = MakeSnapshotRequest { broker_name, node_id };
            let asked = node.session(session).await?;
            let answer = asked
                .call_patiently(request, |mut c, r| async move { c.make_snapshot(r).await })
                .await?;
            spinner.finish_and_clear();
            Failure::of(answer.error)?;
            rows.push([
                node.broker.clone(),
                node.node_id.to_string(),
                answer.last_index.to_string(),
                format!("{} ms", answer.took_ms),
            ]);
            json.push(json!({
                "broker": node.broker,
                "node_id": node.node_id,
                "last_index": answer.last_index,
                "took_ms": answer.took_ms,
            }));
        }
        Ok(Report::new(json!({ "snapshots": json })).rows(rows))
    }
}
