//! changeLogLevel.

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use proto::v2::{
    ChangeLogLevelRequest, admin_client::AdminClient, change_log_level_request::Level as Wire,
};
use serde_json::json;

use super::operator::Operator;
use crate::{connect, output::Report};

/// How much is written.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    fn to_wire(self) -> Wire {
        match self {
            Self::Error => Wire::Error,
            Self::Warn => Wire::Warn,
            Self::Info => Wire::Info,
            Self::Debug => Wire::Debug,
            Self::Trace => Wire::Trace,
        }
    }
}

#[derive(Debug, Args)]
pub struct Change {
    /// Until it is changed again or the node is started again.
    #[arg(short = 'l', long = "level")]
    level: Level,
}

impl Change {
    /// A level is a node's own, so every node of the list is asked, and none for another.
    pub(super) async fn run(self, operator: &Operator, nodes: &str) -> Result<Report> {
        let nodes = connect::addresses(nodes);
        if nodes.is_empty() {
            bail!("no address given; an address is HOST:PORT, for instance 127.0.0.1:9876");
        }
        let mut report = Report::new(json!({ "nodes": nodes }));
        for node in nodes {
            let channel = connect::dial_one(node).await?;
            let request = ChangeLogLevelRequest { level: self.level.to_wire().into() };
            let request = operator.request(request);
            let answer = AdminClient::new(channel).change_log_level(request).await;
            let answer = answer.with_context(|| format!("change the log level of {node}"))?;
            report = report.line(format!("{node}: {}", answer.into_inner().remark));
        }
        Ok(report)
    }
}
