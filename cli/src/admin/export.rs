//! exportMetadata.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use super::{Session, change, consumer_group, topic};
use crate::output::Report;

#[derive(Debug, Args)]
pub struct Export {
    /// Writes to this file [default: standard output].
    #[arg(short = 'f', long = "filePath")]
    path: Option<PathBuf>,
}

impl Export {
    /// Topics, consumer groups and quotas, as JSON.
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let topics = topic::list(session).await?;
        let groups = consumer_group::all_settings(session).await?;
        let quotas = change::list_quotas(session).await?;
        let all = json!({
            "topics": topics.json()["topics"],
            "groups": groups,
            "quotas": quotas.json()["quotas"],
        });
        let Some(path) = self.path else {
            return Ok(Report::new(all.clone()).line(format!("{all:#}")));
        };
        let text = format!("{all:#}\n");
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        let count = |key: &str| all[key].as_array().map_or(0, Vec::len);
        let said = format!(
            "{} topics, {} consumer groups and {} quotas written to {}",
            count("topics"),
            count("groups"),
            count("quotas"),
            path.display()
        );
        Ok(Report::new(all).line(said))
    }
}
