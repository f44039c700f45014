//! resetOffsetByTime, skipAccumulatedMessage.

use anyhow::Result;
use clap::Args;
use proto::{
    BrokerName, ConsumerGroup, Topic,
    admin::{ResetOffsetsRequest, reset_offsets_request::To},
};
use serde_json::json;

use super::{Session, members::Consent, when::When};
use crate::{
    failure::Failure,
    output::{Report, Rows},
};

#[derive(Debug, Args)]
pub struct Reset {
    #[arg(short = 'g', long = "group")]
    group: ConsumerGroup,
    #[arg(short = 't', long = "topic")]
    topic: Topic,
    /// now, milliseconds since 1970 or yyyy-MM-dd#HH:mm:ss:SSS (UTC).
    #[arg(short = 's', long = "timestamp", allow_hyphen_values = true)]
    #[arg(required_unless_present = "offset")]
    timestamp: Option<When>,
    /// Only on this broker.
    #[arg(short = 'b', long = "broker")]
    broker: Option<BrokerName>,
    /// Only this queue.
    #[arg(short = 'q', long = "queue")]
    queue: Option<u32>,
    /// To this offset instead of a time.
    #[arg(short = 'o', long = "offset", requires = "queue", conflicts_with = "timestamp")]
    offset: Option<u64>,
    /// Taken for RocketMQ's sake: a reset goes ahead as well as back. It does not ask.
    #[arg(short = 'f', long = "force", num_args = 0..=1, default_missing_value = "true")]
    force: Option<bool>,
    #[command(flatten)]
    consent: Consent,
}

impl Reset {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let to = match (self.offset, self.timestamp) {
            (Some(offset), _) => To::Offset(offset),
            (None, Some(When::At(time))) => To::TimeMs(time.0),
            (None, Some(When::Now) | None) => To::End(true),
        };
        let request = ResetOffsetsRequest {
            group: self.group.to_string(),
            topic: self.topic.to_string(),
            broker_name: self.broker.map(|name| name.to_string()).unwrap_or_default(),
            queue_id: self.queue,
            to: Some(to),
        };
        if self.force != Some(true) {
            self.consent.get(&format!(
                "put consumer group {} elsewhere in {}",
                request.group, request.topic
            ))?;
        }
        reset(session, request).await
    }
}

#[derive(Debug, Args)]
pub struct Skip {
    #[arg(short = 'g', long = "group")]
    group: ConsumerGroup,
    #[arg(short = 't', long = "topic")]
    topic: Topic,
    /// Does not ask.
    #[arg(short = 'f', long = "force", num_args = 0..=1, default_missing_value = "true")]
    force: Option<bool>,
    #[command(flatten)]
    consent: Consent,
}

impl Skip {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let request = ResetOffsetsRequest {
            group: self.group.to_string(),
            topic: self.topic.to_string(),
            to: Some(To::End(true)),
            ..Default::default()
        };
        if self.force != Some(true) {
            let (group, topic) = (&request.group, &request.topic);
            self.consent.get(&format!("have {group} skip what it has not consumed of {topic}"))?;
        }
        reset(session, request).await
    }
}

async fn reset(session: &Session, request: ResetOffsetsRequest) -> Result<Report> {
    let (group, topic) = (request.group.clone(), request.topic.clone());
    let answer = session.call(request, |mut c, r| async move { c.reset_offsets(r).await }).await?;
    Failure::of(answer.error)?;
    let mut rows = Rows::new(["broker", "queue", "from", "to", "deliveries ended"]);
    let mut json = Vec::new();
    for queue in &answer.queues {
        rows.push([
            queue.broker_name.clone(),
            queue.queue_id.to_string(),
            queue.from_offset.to_string(),
            queue.to_offset.to_string(),
            queue.ended.to_string(),
        ]);
        json.push(json!({
            "broker": queue.broker_name,
            "queue": queue.queue_id,
            "from": queue.from_offset,
            "to": queue.to_offset,
            "ended": queue.ended,
        }));
    }
    let report = Report::new(json!({ "group": group, "topic": topic, "queues": json }));
    Ok(report.rows(rows))
}
