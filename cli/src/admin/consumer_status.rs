//! consumerStatus.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use clap::Args;
use proto::{
    ClientId, ConsumerGroup,
    admin::{Connection, ListInFlightRequest},
};
use serde_json::json;

use super::{Session, connections, consumer_group, when::show};
use crate::{
    failure::Failure,
    output::{Report, Rows},
};

#[derive(Debug, Args)]
pub struct Status {
    #[arg(short = 'g', long = "consumerGroup")]
    group: ConsumerGroup,
    /// Only this consumer.
    #[arg(short = 'i', long = "clientId")]
    client: Option<ClientId>,
}

/// What a consumer holds.
#[derive(Debug, Default)]
struct Held {
    messages: u64,
    oldest_ms: u64,
    again: u64,
}

impl Status {
    /// What each consumer of the group is and holds, as the brokers see it.
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let group = self.group.to_string();
        let answer = connections::connections(session).await?;
        let mine: Vec<&Connection> = answer
            .connections
            .iter()
            .filter(|one| one.group == group)
            .filter(|one| self.client.as_ref().is_none_or(|id| one.client_id == id.as_str()))
            .collect();
        let queues = consumer_group::queues(session, &group, None).await?;
        let (held, truncated) = held(session, &group).await?;
        let connected: BTreeSet<&str> = mine.iter().map(|one| one.client_id.as_str()).collect();
        let gone = |id: &&String| {
            !connected.contains(id.as_str())
                && self.client.as_ref().is_none_or(|wanted| wanted.as_str() == id.as_str())
        };
        if mine.is_empty() && held.keys().filter(gone).count() == 0 {
            let why = match &self.client {
                Some(client) => format!("{client} is not connected and holds nothing of {group}"),
                None => format!("no consumer of {group} is connected; see consumerProgress"),
            };
            bail!(Failure::Rejected(why));
        }
        let header =
            ["client id", "type", "address", "language", "version", "holds", "again", "oldest", ""];
        let (mut rows, mut json) = (Rows::new(header), Vec::new());
        let none = Held::default();
        let one = |id: &str, connection: Option<&Connection>| {
            let held = held.get(id).unwrap_or(&none);
            let of = |field: fn(&Connection) -> String| connection.map(field).unwrap_or_default();
            let row = [
                id.to_owned(),
                of(connections::client_type),
                of(|c| c.address.clone()),
                of(|c| c.language.clone()),
                of(|c| c.version.clone()),
                held.messages.to_string(),
                held.again.to_string(),
                if held.messages == 0 { "-".to_owned() } else { show(held.oldest_ms) },
                if connection.is_some() { String::new() } else { "not connected".to_owned() },
            ];
            let json = json!({
                "client_id": id,
                "connected": connection.is_some(),
                "type": connection.map(connections::client_type),
                "address": connection.map(|c| &c.address),
                "language": connection.map(|c| &c.language),
                "version": connection.map(|c| &c.version),
                "topics": connection.map(|c| &c.topics),
                "in_flight": held.messages,
                "redelivered": held.again,
                "oldest_since_ms": (held.messages > 0).then_some(held.oldest_ms),
            });
            (row, json)
        };
        let present = mine.iter().map(|c| one(&c.client_id, Some(c)));
        let absent = held.keys().filter(gone).map(|id| one(id, None));
        for (row, line) in present.chain(absent) {
            rows.push(row);
            json.push(line);
        }
        let lag: u64 = queues.iter().map(consumer_group::lag).sum();
        let ready: u64 = queues.iter().map(|queue| queue.ready).sum();
        let mut conflicts = answer.conflicts.clone();
        conflicts.retain(|conflict| conflict.starts_with(&group));
        let json = json!({
            "group": group, "lag": lag, "ready": ready, "consumers": json,
            "conflicts": conflicts, "truncated": truncated,
        });
        let mut report = Report::new(json)
            .rows(rows)
            .line(format!("lag in all: {lag}, of which {ready} could be delivered now"));
        for conflict in conflicts {
            report = report.line(format!("conflict: {conflict}"));
        }
        Ok(if truncated { report.line("more is in flight than was counted") } else { report })
    }
}

/// By client.
async fn held(session: &Session, group: &str) -> Result<(BTreeMap<String, Held>, bool)> {
    let request = ListInFlightRequest { group: group.to_owned(), ..Default::default() };
    let answer = session.call(request, |mut c, r| async move { c.list_in_flight(r).await }).await?;
    let mut all: BTreeMap<String, Held> = BTreeMap::new();
    // A group that no broker knows yet holds nothing.
    for one in answer.messages.iter().filter(|one| !one.waits) {
        let held = all.entry(one.client_id.clone()).or_default();
        held.oldest_ms = match held.messages {
            0 => one.since_ms,
            _ => held.oldest_ms.min(one.since_ms),
        };
        held.messages += 1;
        held.again += u64::from(one.attempt > 1);
    }
    Ok((all, answer.truncated))
}
