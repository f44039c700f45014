//! dlqRedrive.

use anyhow::Result;
use clap::Args;
use proto::{ConsumerGroup, admin::RedriveDeadLettersRequest};
use serde_json::json;

use super::Session;
use crate::{failure::Failure, output::Report};

#[derive(Debug, Args)]
pub struct Redrive {
    /// Whose dead letters.
    #[arg(short = 'g', long = "groupName")]
    group: ConsumerGroup,
    /// In each broker group at most so many [default: all].
    #[arg(short = 'm', long = "maxCount", default_value_t = 0, hide_default_value = true)]
    max: u64,
}

impl Redrive {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let group = self.group.to_string();
        let request = RedriveDeadLettersRequest { group: group.clone(), max: self.max };
        let answer = session
            .call(request, |mut c, r| async move { c.redrive_dead_letters(r).await })
            .await?;
        Failure::of(answer.error)?;
        let text = format!("{} dead letters of {group} put back into their queues", answer.count);
        Ok(Report::new(json!({ "group": group, "count": answer.count })).line(text))
    }
}
