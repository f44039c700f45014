//! popInflight.

use anyhow::Result;
use clap::Args;
use proto::{
    ConsumerGroup, Topic,
    admin::{InFlight, ListInFlightRequest},
};
use serde_json::{Value, json};

use super::{Session, when::show};
use crate::{
    failure::Failure,
    output::{Report, Rows},
};

/// Deliveries of a list when no number is given.
const LIST: u32 = 64;

#[derive(Debug, Args)]
pub struct List {
    #[arg(short = 'g', long = "groupName")]
    group: ConsumerGroup,
    /// Only of this topic.
    #[arg(short = 't', long = "topic")]
    topic: Option<Topic>,
    /// So many of each broker at most.
    #[arg(short = 'm', long = "maxNum", default_value_t = LIST)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    max: u32,
}

impl List {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let topic = self.topic.map(|topic| topic.to_string()).unwrap_or_default();
        let request = ListInFlightRequest { group: self.group.to_string(), topic, max: self.max };
        let answer =
            session.call(request, |mut c, r| async move { c.list_in_flight(r).await }).await?;
        Failure::of(answer.error)?;
        let header =
            ["topic", "broker", "queue", "offset", "held by", "attempt", "since", "due", ""];
        let mut rows = Rows::new(header);
        for held in &answer.messages {
            rows.push([
                held.topic.clone(),
                held.broker_name.clone(),
                held.queue_id.to_string(),
                held.offset.to_string(),
                held.client_id.clone(),
                held.attempt.to_string(),
                show(held.since_ms),
                due(held),
                state(held).to_owned(),
            ]);
        }
        let json: Vec<_> = answer.messages.iter().map(as_json).collect();
        let (group, truncated) = (self.group.as_str(), answer.truncated);
        let json = json!({ "group": group, "messages": json, "truncated": truncated });
        let report = Report::new(json).rows(rows);
        Ok(if truncated { report.line("there are more; see -m") } else { report })
    }
}

fn due(held: &InFlight) -> String {
    if held.waits { "-".to_owned() } else { show(held.due_ms) }
}

fn state(held: &InFlight) -> &'static str {
    match (held.waits, held.auto_renew) {
        (true, _) => "waits for its message group",
        (false, true) => "renewed while the client lives",
        (false, false) => "",
    }
}

fn as_json(held: &InFlight) -> Value {
    json!({
        "topic": held.topic,
        "broker": held.broker_name,
        "queue": held.queue_id,
        "offset": held.offset,
        "client_id": held.client_id,
        "attempt": held.attempt,
        "since_ms": held.since_ms,
        "due_ms": (!held.waits).then_some(held.due_ms),
        "auto_renew": held.auto_renew,
        "waits": held.waits,
    })
}
