//! Clients of the official protocol: a connection with an identity.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use proto::{
    Topic, header, hop, limits,
    v2::{self, messaging_service_client::MessagingServiceClient},
};
use tonic::{Code, Request, Status, metadata::AsciiMetadataValue, transport::Channel};

use super::{streamed::Pipe, template::Run};
use crate::connect;

/// One client: a connection and the id that its requests carry.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) rpc: MessagingServiceClient<Channel>,
    channel: Channel,
    pipe: Option<Pipe>,
    id: AsciiMetadataValue,
    timeout: Duration,
}

impl Client {
    /// Opens this many connections to one address of the list, and says which.
    pub(super) async fn open(
        list: &str,
        count: usize,
        run: Run,
        timeout: Duration,
    ) -> Result<(Vec<Self>, String)> {
        let (first, address) = connect::dial(list).await?;
        let mut channels = vec![first];
        while channels.len() < count {
            channels.push(connect::dial_one(&address).await?);
        }
        let client = |(n, channel): (usize, Channel)| {
            let id = format!("mqbench@{}@{:016x}@{n}", std::process::id(), run.id());
            let rpc = MessagingServiceClient::new(channel.clone())
                .max_decoding_message_size(limits::GRPC_BYTES)
                .max_encoding_message_size(limits::GRPC_BYTES);
            let id = id.parse().expect("digits and signs");
            Self { rpc, channel, pipe: None, id, timeout }
        };
        Ok((channels.into_iter().enumerate().map(client).collect(), address))
    }

    /// A request in this client's name, with its deadline.
    pub(super) fn request<T>(&self, body: T) -> Request<T> {
        self.request_within(body, self.timeout)
    }

    pub(super) fn request_within<T>(&self, body: T, timeout: Duration) -> Request<T> {
        let mut request = Request::new(body);
        request.metadata_mut().insert(header::CLIENT_ID, self.id.clone());
        request.metadata_mut().insert(header::LANGUAGE, AsciiMetadataValue::from_static("RUST"));
        request.set_timeout(timeout);
        request
    }

    /// A request in this client's name that ends when either side ends it.
    pub(super) fn request_without_end<T>(&self, body: T) -> Request<T> {
        let mut request = self.request(body);
        request.metadata_mut().remove("grpc-timeout");
        request
    }

    /// Sends go through a produce stream from now on.
    pub(super) async fn stream(&mut self) -> Result<()> {
        self.pipe = Some(Pipe::open(self).await?);
        Ok(())
    }

    pub(super) fn pipe(&self) -> Option<&Pipe> {
        self.pipe.as_ref()
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The topic's queues. Fails when it has none.
    pub(super) async fn route(&self, topic: &Topic) -> Result<Vec<v2::MessageQueue>> {
        let query =
            v2::QueryRouteRequest { topic: Some(topic.to_resource()), ..Default::default() };
        let answer = self.rpc.clone().query_route(self.request(query)).await;
        let answer = answer.context("ask for the topic's route")?.into_inner();
        match verdict(answer.status.as_ref()) {
            Ok(()) if answer.message_queues.is_empty() => bail!("topic {topic} has no queue"),
            Ok(()) => Ok(answer.message_queues),
            Err(code) if code == "TOPIC_NOT_FOUND" => bail!(
                "there is no topic {topic}: create it with `mqadmin updateTopic -t {topic}`, or \
                 let mqbench do it with --create-topic 8"
            ),
            Err(code) => bail!("the route of topic {topic} was refused: {code}"),
        }
    }
}

/// The name of what went wrong, by the status that an answer carries.
pub(super) fn verdict(status: Option<&v2::Status>) -> Result<(), String> {
    let Some(status) = status else { return Err("answer without status".into()) };
    match v2::Code::try_from(status.code) {
        Ok(v2::Code::Ok) => Ok(()),
        Ok(code) => Err(code.as_str_name().to_owned()),
        Err(_) => Err(format!("code {}", status.code)),
    }
}

/// The name of what went wrong when there was no answer.
pub(super) fn failure(status: &Status) -> String {
    match (status.code(), hop::fate(status)) {
        (_, Some(hop::Fate::NotDone)) => "gRPC: not done".into(),
        (_, Some(hop::Fate::Unknown)) => "gRPC: unknown".into(),
        // What our own deadline looks like from inside.
        (Code::DeadlineExceeded | Code::Cancelled, None) => "gRPC: deadline exceeded".into(),
        (code, None) => format!("gRPC: {code:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_has_the_name_of_its_code() {
        let status = |code: i32| v2::Status { code, message: String::new() };
        assert_eq!(verdict(Some(&status(20_000))), Ok(()));
        assert_eq!(verdict(Some(&status(42_900))), Err("TOO_MANY_REQUESTS".into()));
        assert_eq!(verdict(Some(&status(7))), Err("code 7".into()));
        assert_eq!(verdict(None), Err("answer without status".into()));
    }
}
