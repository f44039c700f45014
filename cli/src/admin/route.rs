//! topicRoute.

use anyhow::Result;
use clap::Args;
use proto::{
    Topic,
    v2::{
        Code, MessageQueue, MessageType, Permission, QueryRouteRequest, Resource,
        messaging_service_client::MessagingServiceClient,
    },
};
use serde_json::{Value, json};
use tonic::Request;

use super::{CALL_TIMEOUT, Session};
use crate::{
    failure::Failure,
    output::{Report, Rows},
};

#[derive(Debug, Args)]
pub struct Route {
    #[arg(short = 't', long = "topic")]
    topic: Topic,
}

impl Route {
    /// What a client is told that asks the same address.
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let topic = Resource { name: self.topic.to_string(), ..Resource::default() };
        let mut request =
            Request::new(QueryRouteRequest { topic: Some(topic), ..Default::default() });
        request.set_timeout(CALL_TIMEOUT);
        let mut client = MessagingServiceClient::new(session.channel.clone());
        let answer = client.query_route(request).await;
        let answer =
            answer.map_err(|status| Failure::of_status(&status, &session.address))?.into_inner();
        let status = answer.status.unwrap_or_default();
        if status.code != Code::Ok as i32 {
            return Err(Failure::Rejected(status.message).into());
        }
        let mut queues = answer.message_queues;
        queues.sort_by(|a, b| (broker(a), a.id).cmp(&(broker(b), b.id)));
        let mut rows = Rows::new(["broker", "queue", "permission", "message types", "addresses"]);
        for queue in &queues {
            rows.push([
                broker(queue).to_owned(),
                queue.id.to_string(),
                queue.permission().as_str_name().to_owned(),
                types(queue).join(", "),
                addresses(queue).join(", "),
            ]);
        }
        let json = queues.iter().map(as_json).collect::<Vec<_>>();
        Ok(Report::new(json!({ "topic": self.topic.as_str(), "queues": json })).rows(rows))
    }
}

fn broker(queue: &MessageQueue) -> &str {
    queue.broker.as_ref().map_or("", |broker| &broker.name)
}

fn types(queue: &MessageQueue) -> Vec<&'static str> {
    queue.accept_message_types().map(|kind: MessageType| kind.as_str_name()).collect()
}

fn addresses(queue: &MessageQueue) -> Vec<String> {
    let endpoints = queue.broker.as_ref().and_then(|broker| broker.endpoints.as_ref());
    let addresses = endpoints.map(|endpoints| endpoints.addresses.as_slice()).unwrap_or_default();
    addresses.iter().map(|address| format!("{}:{}", address.host, address.port)).collect()
}

fn as_json(queue: &MessageQueue) -> Value {
    let (reads, writes) = match queue.permission() {
        Permission::Read => (true, false),
        Permission::Write => (false, true),
        Permission::ReadWrite => (true, true),
        Permission::None | Permission::Unspecified => (false, false),
    };
    json!({
        "broker": broker(queue),
        "queue": queue.id,
        "readable": reads,
        "writable": writes,
        "message_types": types(queue),
        "addresses": addresses(queue),
    })
}
