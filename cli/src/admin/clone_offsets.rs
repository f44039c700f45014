//! cloneGroupOffset.

use anyhow::{Result, bail};
use clap::Args;
use proto::{
    ConsumerGroup, Topic,
    admin::{ResetOffsetsRequest, reset_offsets_request::To},
};
use serde_json::json;

use super::{Session, consumer_group, members::Consent};
use crate::{
    failure::Failure,
    output::{Report, Rows},
};

#[derive(Debug, Args)]
pub struct Clone {
    /// The group whose place is taken over.
    #[arg(short = 's', long = "srcGroup")]
    from: ConsumerGroup,
    /// The group that is put there. It must exist (updateSubGroup).
    #[arg(short = 'd', long = "destGroup")]
    to: ConsumerGroup,
    #[arg(short = 't', long = "topic")]
    topic: Topic,
    /// Taken for RocketMQ's sake.
    #[arg(short = 'o', long = "offline", num_args = 0..=1, default_missing_value = "true")]
    _offline: Option<bool>,
    #[command(flatten)]
    consent: Consent,
}

impl Clone {
    /// Queue by queue: what the first group has not consumed is before the second one then, what it
    /// holds included.
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let Self { from, to, topic, consent, .. } = self;
        if from == to {
            bail!(Failure::Rejected(format!("{from} is where it is already")));
        }
        let queues = consumer_group::queues(session, from.as_str(), Some(&topic)).await?;
        if queues.is_empty() {
            bail!(Failure::Rejected(format!(
                "consumer group {from} has consumed nothing of {topic}"
            )));
        }
        consent.get(&format!("put consumer group {to} where {from} is in {topic}"))?;
        let mut rows = Rows::new(["broker", "queue", "from", "to"]);
        let mut json = Vec::new();
        for queue in queues {
            let request = ResetOffsetsRequest {
                group: to.to_string(),
                topic: topic.to_string(),
                broker_name: queue.broker_name.clone(),
                queue_id: Some(queue.queue_id),
                to: Some(To::Offset(queue.committed_offset)),
            };
            let answer =
                session.call(request, |mut c, r| async move { c.reset_offsets(r).await }).await?;
            Failure::of(answer.error)?;
            for reset in answer.queues {
                rows.push([
                    reset.broker_name.clone(),
                    reset.queue_id.to_string(),
                    reset.from_offset.to_string(),
                    reset.to_offset.to_string(),
                ]);
                json.push(json!({
                    "broker": reset.broker_name,
                    "queue": reset.queue_id,
                    "from": reset.from_offset,
                    "to": reset.to_offset,
                }));
            }
        }
        let json = json!({
            "from_group": from.as_str(), "group": to.as_str(), "topic": topic.as_str(), "queues": json,
        });
        Ok(Report::new(json).rows(rows))
    }
}
