//! consumerConnection, producerConnection.

use anyhow::Result;
use clap::Args;
use proto::{
    ConsumerGroup, Topic,
    admin::{Connection, ListConnectionsRequest, ListConnectionsResponse},
    v2::ClientType,
};
use serde_json::{Value, json};

use super::Session;
use crate::{
    failure::Failure,
    output::{Report, Rows},
};

#[derive(Debug, Args)]
pub struct Consumers {
    /// Only this group.
    #[arg(short = 'g', long = "consumerGroup")]
    group: Option<ConsumerGroup>,
}

impl Consumers {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let answer = connections(session).await?;
        let mine = |c: &Connection| {
            !is_producer(c) && self.group.as_ref().is_none_or(|group| c.group == group.as_str())
        };
        Ok(report(answer, mine, true))
    }
}

#[derive(Debug, Args)]
pub struct Producers {
    /// Only producers of this topic.
    #[arg(short = 't', long = "topic")]
    topic: Option<Topic>,
}

impl Producers {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let answer = connections(session).await?;
        let mine = |c: &Connection| {
            let topic = self.topic.as_ref();
            is_producer(c) && topic.is_none_or(|topic| c.topics.contains_key(topic.as_str()))
        };
        Ok(report(answer, mine, false))
    }
}

pub(super) async fn connections(session: &Session) -> Result<ListConnectionsResponse> {
    let mut answer = session
        .call(ListConnectionsRequest {}, |mut c, r| async move { c.list_connections(r).await })
        .await?;
    Failure::of(answer.error.take())?;
    answer.connections.sort_by(|a, b| (&a.group, &a.client_id).cmp(&(&b.group, &b.client_id)));
    Ok(answer)
}

fn report(
    answer: ListConnectionsResponse,
    wanted: impl Fn(&Connection) -> bool,
    with_conflicts: bool,
) -> Report {
    let header =
        ["client id", "type", "group", "address", "language", "version", "last seen", "topics"];
    let mut rows = Rows::new(header);
    let mut json = Vec::new();
    for one in answer.connections.iter().filter(|one| wanted(one)) {
        rows.push([
            one.client_id.clone(),
            client_type(one),
            one.group.clone(),
            one.address.clone(),
            one.language.clone(),
            one.version.clone(),
            format!("{} ms ago", one.last_seen_ms_ago),
            topics(one),
        ]);
        json.push(as_json(one));
    }
    let conflicts = if with_conflicts { answer.conflicts } else { Vec::new() };
    let mut report = Report::new(json!({ "connections": json, "conflicts": conflicts })).rows(rows);
    for conflict in conflicts {
        report = report.line(format!("conflict: {conflict}"));
    }
    report
}

fn is_producer(one: &Connection) -> bool {
    one.client_type == ClientType::Producer as i32
}

pub(super) fn client_type(one: &Connection) -> String {
    ClientType::try_from(one.client_type)
        .map_or_else(|_| one.client_type.to_string(), |kind| kind.as_str_name().to_owned())
}

fn topics(one: &Connection) -> String {
    let mut topics: Vec<_> = one
        .topics
        .iter()
        .map(
            |(topic, filter)| {
                if filter.is_empty() { topic.clone() } else { format!("{topic} ({filter})") }
            },
        )
        .collect();
    topics.sort_unstable();
    topics.join(", ")
}

fn as_json(one: &Connection) -> Value {
    json!({
        "client_id": one.client_id,
        "type": client_type(one),
        "group": one.group,
        "address": one.address,
        "language": one.language,
        "version": one.version,
        "last_seen_ms_ago": one.last_seen_ms_ago,
        "topics": one.topics,
    })
}
