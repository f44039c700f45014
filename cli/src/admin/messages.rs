//! queryMsgById, queryMsgByKey, queryMsgByOffset, printMsg.

use anyhow::Result;
use clap::{ArgAction, Args};
use proto::{
    BrokerName, TagFilter, Topic,
    admin::{
        MessageTrack, QueryMessagesRequest, QueryMessagesResponse, QueueChoice, QueuePlace,
        StoredMessage, TrackMessageRequest,
        message_track::State,
        query_messages_request::{By, Reading},
    },
};
use serde_json::{Value, json};

use super::{
    Session,
    when::{When, show},
};
use crate::{
    failure::Failure,
    output::{Report, Rows},
};

/// Messages of a list when no number is given, as in RocketMQ.
pub(super) const LIST: u32 = 64;

/// Which replica answers.
#[derive(Debug, Args)]
struct Replica {
    /// The broker that -n names answers for its group, as far as it has come, though it may not
    /// lead.
    #[arg(long = "applied")]
    applied: bool,
}

impl Replica {
    fn reading(&self) -> i32 {
        if self.applied { Reading::Applied.into() } else { Reading::Unspecified.into() }
    }
}

#[derive(Debug, Args)]
pub struct ById {
    #[arg(short = 't', long = "topic")]
    topic: Topic,
    /// The id that the producer was told.
    #[arg(short = 'i', long = "msgId")]
    id: String,
    #[command(flatten)]
    replica: Replica,
}

impl ById {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let request = QueryMessagesRequest {
            topic: self.topic.to_string(),
            by: Some(By::MessageId(self.id.clone())),
            max: LIST,
            reading: self.replica.reading(),
            ..Default::default()
        };
        let found = query(session, request).await?;
        let none = format!("topic {} has no message with the id {}", self.topic, self.id);
        details(session, &self.topic, &found.messages, none).await
    }
}

#[derive(Debug, Args)]
pub struct ByOffset {
    #[arg(short = 't', long = "topic")]
    topic: Topic,
    #[arg(short = 'b', long = "brokerName")]
    broker: BrokerName,
    #[arg(short = 'i', long = "queueId")]
    queue: u32,
    #[arg(short = 'o', long = "offset")]
    offset: u64,
    #[command(flatten)]
    replica: Replica,
}

impl ByOffset {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let place = QueuePlace { queue_id: self.queue, offset: self.offset };
        let request = QueryMessagesRequest {
            topic: self.topic.to_string(),
            broker_name: self.broker.to_string(),
            by: Some(By::Place(place)),
            reading: self.replica.reading(),
            ..Default::default()
        };
        let found = query(session, request).await?;
        let none = format!("the queue has no message at offset {}", self.offset);
        details(session, &self.topic, &found.messages, none).await
    }
}

/// Which stretch of time, and how many.
#[derive(Debug, Args)]
struct Span {
    /// Stored at this time or later: now, milliseconds since 1970 or yyyy-MM-dd#HH:mm:ss:SSS (UTC).
    #[arg(short = 'b', long = "beginTimestamp")]
    begin: Option<When>,
    /// Stored before this time.
    #[arg(short = 'e', long = "endTimestamp")]
    end: Option<When>,
    /// So many messages at most.
    #[arg(short = 'm', long = "maxNum", default_value_t = LIST)]
    max: u32,
    #[command(flatten)]
    replica: Replica,
}

impl Span {
    fn request(&self, topic: &Topic, by: By) -> QueryMessagesRequest {
        QueryMessagesRequest {
            topic: topic.to_string(),
            by: Some(by),
            from_ms: self.begin.map_or(0, |when| when.timestamp().0),
            until_ms: self.end.map_or(0, |when| when.timestamp().0),
            max: self.max,
            reading: self.replica.reading(),
            ..Default::default()
        }
    }
}

#[derive(Debug, Args)]
pub struct ByKey {
    #[arg(short = 't', long = "topic")]
    topic: Topic,
    /// One of the keys that the producer gave the message.
    #[arg(short = 'k', long = "msgKey")]
    key: String,
    #[command(flatten)]
    span: Span,
}

impl ByKey {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let request = self.span.request(&self.topic, By::Key(self.key));
        let found = query(session, request).await?;
        Ok(list(&found, &found.messages, false))
    }
}

#[derive(Debug, Args)]
pub struct Print {
    #[arg(short = 't', long = "topic")]
    topic: Topic,
    #[command(flatten)]
    span: Span,
    /// Only messages with these tags: `a || b`.
    #[arg(short = 's', long = "subExpression", default_value = "*")]
    tags: TagFilter,
    /// Show bodies.
    #[arg(
        short = 'd', long = "printBody", action = ArgAction::Set, default_value_t = true,
        num_args = 0..=1, default_missing_value = "true"
    )]
    body: bool,
}

impl Print {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let request = self.span.request(&self.topic, By::Any(QueueChoice { queue_id: None }));
        let found = query(session, request).await?;
        let wanted = |stored: &&StoredMessage| {
            let message = stored.message.as_ref();
            let system = message.and_then(|message| message.system_properties.as_ref());
            self.tags.matches(system.and_then(|system| system.tag.as_deref()))
        };
        let messages: Vec<_> = found.messages.iter().filter(wanted).cloned().collect();
        Ok(list(&found, &messages, self.body))
    }
}

async fn query(
    session: &Session,
    request: QueryMessagesRequest,
) -> Result<QueryMessagesResponse, Failure> {
    let answer = session.call(request, |mut c, r| async move { c.query_messages(r).await }).await?;
    Failure::of(answer.error.clone())?;
    Ok(answer)
}

/// Everything about a few messages.
async fn details(
    session: &Session,
    topic: &Topic,
    found: &[StoredMessage],
    none: String,
) -> Result<Report> {
    if found.is_empty() {
        return Err(Failure::Rejected(none).into());
    }
    let mut json = Vec::new();
    let mut facts = Vec::new();
    for stored in found {
        let request = TrackMessageRequest {
            topic: topic.to_string(),
            broker_name: stored.broker_name.clone(),
            queue_id: stored.queue_id,
            offset: stored.offset,
        };
        let answer =
            session.call(request, |mut c, r| async move { c.track_message(r).await }).await?;
        Failure::of(answer.error)?;
        let mut message = message_json(stored);
        message["tracks"] = answer.tracks.iter().map(track_json).collect();
        facts.push((message.clone(), answer.tracks));
        json.push(message);
    }
    let mut report = Report::new(json!({ "messages": json }));
    for (message, tracks) in facts {
        let mut rows = Rows::new(["property", "value"]);
        for (name, value) in message.as_object().into_iter().flatten() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if name != "tracks" {
                rows.push([name.clone(), text]);
            }
        }
        report = report.rows(rows);
        if !tracks.is_empty() {
            report = report.rows(track_rows(&tracks));
        }
    }
    Ok(report)
}

fn list(answer: &QueryMessagesResponse, messages: &[StoredMessage], bodies: bool) -> Report {
    let json: Vec<_> = messages.iter().map(message_json).collect();
    let report = Report::new(json!({ "messages": json, "truncated": answer.truncated }));
    let mut rows =
        Rows::new(["broker", "queue", "offset", "stored (UTC)", "id", "tag", "keys", "body"]);
    for stored in messages {
        let message = message_json(stored);
        let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
        let keys = message["keys"].as_array().into_iter().flatten();
        let keys: Vec<_> = keys.filter_map(Value::as_str).collect();
        let size = format!("{} bytes", message["body_bytes"]);
        rows.push([
            stored.broker_name.clone(),
            stored.queue_id.to_string(),
            stored.offset.to_string(),
            show(stored.stored_ms),
            text("id"),
            text("tag"),
            keys.join(" "),
            if bodies { text("body") } else { size },
        ]);
    }
    let report = report.rows(rows);
    match answer.truncated {
        true => report.line("there may be more: narrow the time, or ask for more with -m"),
        false => report,
    }
}

fn message_json(stored: &StoredMessage) -> Value {
    let message = stored.message.clone().unwrap_or_default();
    let system = message.system_properties.unwrap_or_default();
    let born = system.born_timestamp.map(|time| time.to_string());
    json!({
        "broker": stored.broker_name,
        "queue": stored.queue_id,
        "offset": stored.offset,
        "stored_ms": stored.stored_ms,
        "stored": show(stored.stored_ms),
        "log_offset": stored.log_offset,
        "log_bytes": stored.log_bytes,
        "id": system.message_id,
        "tag": system.tag,
        "keys": system.keys,
        "message_group": system.message_group,
        "born": born,
        "born_host": system.born_host,
        "properties": message.user_properties,
        "body_bytes": message.body.len(),
        "body": String::from_utf8_lossy(&message.body),
    })
}

fn state(track: &MessageTrack) -> &'static str {
    match track.state() {
        State::Consumed => "CONSUMED",
        State::InFlight => "IN_FLIGHT",
        State::NotConsumed => "NOT_CONSUME_YET",
        State::Filtered => "CONSUMED_BUT_FILTERED",
        State::Unspecified => "UNKNOWN",
    }
}

fn track_json(track: &MessageTrack) -> Value {
    let mut json = json!({ "group": track.group, "state": state(track) });
    if track.state() == State::InFlight {
        json["since_ms"] = track.since_ms.into();
        json["due_ms"] = track.due_ms.into();
        json["attempt"] = track.attempt.into();
    }
    json
}

fn track_rows(tracks: &[MessageTrack]) -> Rows {
    let mut rows = Rows::new(["group", "state", "attempt", "since (UTC)", "due (UTC)"]);
    for track in tracks {
        let attempt = if track.attempt == 0 { "-".to_owned() } else { track.attempt.to_string() };
        let (since, due) = (show(track.since_ms), show(track.due_ms));
        rows.push([track.group.clone(), state(track).to_owned(), attempt, since, due]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_track_says_what_is_known() {
        let track = MessageTrack { group: "g".into(), ..Default::default() };
        let consumed = MessageTrack { state: State::Consumed.into(), ..track.clone() };
        assert_eq!(track_json(&consumed), json!({ "group": "g", "state": "CONSUMED" }));
        let held = MessageTrack {
            state: State::InFlight.into(),
            since_ms: 1,
            due_ms: 2,
            attempt: 3,
            ..track
        };
        assert_eq!(track_json(&held)["attempt"], 3);
    }
}
