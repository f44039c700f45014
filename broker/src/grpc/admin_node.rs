//! Administration of this very node: what it counts, what it is set to, its snapshots; and what it
//! has delivered.

use std::time::Instant;

use proto::{
    ConsumerGroup, Topic,
    admin::{
        self, BrokerStatsResponse, ConfigEntry, Error as WireError, GetConfigResponse, GroupFlow,
        InFlight, ListInFlightRequest, ListInFlightResponse, MakeSnapshotRequest,
        MakeSnapshotResponse, RuntimeEntry, TopicFlow, error::Fate,
    },
    clock::millis,
};

use super::admin::{LocalAdmin, deadline};
use crate::{Error, config::Entry, metrics::Flow, ops::Broker, state::InFlightAt};

pub(super) fn stats(broker: &Broker) -> BrokerStatsResponse {
    let status = broker.group.status();
    let runtime = broker.runtime().into_iter();
    let (topics, groups) = (broker.rates().topics(), broker.rates().groups());
    BrokerStatsResponse {
        error: None,
        broker_name: broker.name().to_string(),
        node_id: status.node_id.0,
        leads: status.role.is_leader(),
        runtime: runtime.map(|(key, value)| RuntimeEntry { key: key.into(), value }).collect(),
        topics: topics
            .into_iter()
            .map(|(topic, of)| TopicFlow { topic: topic.to_string(), flow: Some(flow(&of)) })
            .collect(),
        groups: groups
            .into_iter()
            .map(|(group, topic, of)| GroupFlow {
                group: group.to_string(),
                topic: topic.to_string(),
                flow: Some(flow(&of)),
            })
            .collect(),
    }
}

fn flow(flow: &Flow) -> admin::Flow {
    admin::Flow {
        messages_per_second: flow.messages_per_second,
        bytes_per_second: flow.bytes_per_second,
        messages_in_a_day: flow.messages_in_a_day,
        messages: flow.total.messages,
        bytes: flow.total.bytes,
    }
}

pub(super) fn config(broker: &Broker) -> GetConfigResponse {
    let entry = |Entry { key, value, origin, live, meaning }: Entry| ConfigEntry {
        key: key.into(),
        value,
        origin,
        live,
        meaning: meaning.into(),
    };
    GetConfigResponse {
        error: None,
        broker_name: broker.name().to_string(),
        node_id: broker.group.status().node_id.0,
        entries: broker.config_entries().into_iter().map(entry).collect(),
    }
}

pub(super) async fn make_snapshot(
    broker: &Broker,
    request: MakeSnapshotRequest,
) -> MakeSnapshotResponse {
    let refused = |fate: Fate, message: String| {
        let error = Some(WireError { fate: fate.into(), message });
        MakeSnapshotResponse { error, ..Default::default() }
    };
    let (name, node) = (broker.name().as_str(), broker.group.status().node_id.0);
    if (request.broker_name.as_str(), request.node_id) != (name, node) {
        let message = format!("this is node {node} of {name}");
        return refused(Fate::Rejected, message);
    }
    let started = Instant::now();
    match broker.group.make_snapshot().await {
        Ok(last) => {
            let took_ms = millis(started.elapsed());
            MakeSnapshotResponse { error: None, last_index: last.0, took_ms }
        }
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let source = source.map(|source| format!(": {source}")).unwrap_or_default();
            refused(Fate::NotDone, format!("{error}{source}"))
        }
    }
}

impl LocalAdmin {
    pub(super) async fn in_flight(
        &self,
        request: ListInFlightRequest,
    ) -> Result<ListInFlightResponse, Error> {
        let ListInFlightRequest { group, topic, max } = request;
        let group: ConsumerGroup = group.parse()?;
        let topic = (!topic.is_empty()).then(|| topic.parse::<Topic>()).transpose()?;
        let found = self.broker().in_flight(&group, topic.as_ref(), max as usize, deadline());
        let (found, truncated) = found.await?;
        let name = self.broker().name();
        let held = |at: InFlightAt| InFlight {
            topic: at.topic.to_string(),
            broker_name: name.to_string(),
            queue_id: at.queue.0,
            offset: at.offset.0,
            client_id: at.client.to_string(),
            attempt: at.delivery.attempt,
            since_ms: at.delivery.since.0,
            due_ms: at.delivery.due.0,
            auto_renew: at.delivery.auto_renew,
            waits: at.delivery.attempt == 0,
        };
        let messages = found.into_iter().map(held).collect();
        Ok(ListInFlightResponse { error: None, messages, truncated })
    }
}
