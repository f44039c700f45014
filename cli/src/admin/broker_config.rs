//! getBrokerConfig, updateBrokerConfig.

use anyhow::Result;
use clap::Args;
use proto::admin::{
    ConfigEntry, GetConfigRequest, GetConfigResponse, LiveSetting, change_request::Change,
};
use serde_json::json;

use super::{
    Session, change,
    nodes::{Chosen, Node},
};
use crate::{
    failure::Failure,
    output::{Report, Rows},
};

#[derive(Debug, Args)]
pub struct Get {
    #[command(flatten)]
    of: Chosen,
    /// Only this setting.
    #[arg(short = 'k', long = "key")]
    key: Option<String>,
    /// Only what is not the default.
    #[arg(long = "changed")]
    changed: bool,
}

impl Get {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let (mut json, mut texts) = (Vec::new(), Vec::new());
        for node in self.of.nodes(session).await? {
            let answer = config(session, &node).await?;
            let wanted = |entry: &&ConfigEntry| {
                self.key.as_ref().is_none_or(|key| entry.key == *key)
                    && (!self.changed || entry.origin != "default")
            };
            let entries: Vec<_> = answer.entries.iter().filter(wanted).collect();
            if let Some(key) = &self.key
                && entries.is_empty()
                && !answer.entries.iter().any(|entry| entry.key == *key)
            {
                let why = format!("there is no setting {key}; getBrokerConfig lists all");
                return Err(Failure::Rejected(why).into());
            }
            let mut rows = Rows::new(["key", "value", "origin", "live"]);
            for entry in &entries {
                let live = if entry.live { "yes" } else { "" };
                rows.push([
                    entry.key.clone(),
                    entry.value.clone(),
                    entry.origin.clone(),
                    live.to_owned(),
                ]);
            }
            let entry = |entry: &&ConfigEntry| {
                json!({
                    "key": entry.key,
                    "value": entry.value,
                    "origin": entry.origin,
                    "live": entry.live,
                    "meaning": entry.meaning,
                })
            };
            json.push(json!({
                "broker": node.broker,
                "node_id": node.node_id,
                "address": node.address,
                "settings": entries.iter().map(entry).collect::<Vec<_>>(),
            }));
            texts.push((node.title(), rows));
        }
        let mut report = Report::new(json!({ "nodes": json }));
        for (title, rows) in texts {
            report = report.line(title).rows(rows);
        }
        Ok(report)
    }
}

async fn config(through: &Session, node: &Node) -> Result<GetConfigResponse> {
    let session = node.session(through).await?;
    let answer =
        session.call(GetConfigRequest {}, |mut c, r| async move { c.get_config(r).await }).await?;
    Failure::of(answer.error.clone())?;
    Ok(answer)
}

#[derive(Debug, Args)]
pub struct Update {
    #[command(flatten)]
    of: Chosen,
    /// One that getBrokerConfig shows as live.
    #[arg(short = 'k', long = "key")]
    key: String,
    /// As in the configuration file.
    #[arg(short = 'v', long = "value", required_unless_present = "own", conflicts_with = "own")]
    value: Option<String>,
    /// Each node has the value again that it was started with.
    #[arg(long = "own")]
    own: bool,
}

impl Update {
    /// In force on every replica as soon as it has applied the change, and after restarts.
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let brokers = self.of.brokers(session).await?;
        for broker in &brokers {
            let setting = LiveSetting {
                key: self.key.clone(),
                value: self.value.clone(),
                broker_name: broker.clone(),
                version: 0,
            };
            change::change(session, Change::PutLiveSetting(setting)).await?;
        }
        let said = match &self.value {
            Some(value) => format!("{} = {value}", self.key),
            None => format!("{} is each node's own again", self.key),
        };
        let json = json!({
            "done": "updated", "key": self.key, "value": self.value, "brokers": brokers,
        });
        Ok(Report::new(json).line(format!("{said}, on {}", brokers.join(", "))))
    }
}
