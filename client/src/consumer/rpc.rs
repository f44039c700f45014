//! The calls that consumers make, each with its payload judged.

use std::time::Duration;

use proto::{clock, v2};
use tokio::time::timeout;
use tracing::warn;

use crate::{
    Code, Error, FilterExpression, MessageView,
    address::Address,
    client::Client,
    error::check,
    route::{Placed, placed},
};

/// What a receive asks for.
#[derive(Clone, Debug)]
pub(super) struct Receive<'a> {
    pub(super) group: &'a str,
    pub(super) placed: &'a Placed,
    pub(super) filter: &'a FilterExpression,
    pub(super) batch: usize,
    /// `None`: the server renews for as long as the client lives.
    pub(super) invisible: Option<Duration>,
    pub(super) poll: Duration,
    /// The same in a repetition: ordered deliveries whose answer was lost come again by it.
    pub(super) attempt_id: &'a str,
}

/// A queue as requests name it.
pub(super) fn queue_to_wire(client: &Client, placed: &Placed) -> v2::MessageQueue {
    v2::MessageQueue {
        topic: Some(client.config.resource(placed.queue.topic())),
        id: placed.queue.id(),
        permission: v2::Permission::ReadWrite.into(),
        broker: Some(v2::Broker {
            name: placed.queue.broker_name().to_owned(),
            id: 0,
            endpoints: Some(placed.address.to_wire()),
        }),
        accept_message_types: Vec::new(),
    }
}

/// Messages of one queue or broker, none when there was none in time. Another way is taken when an
/// address fails.
pub(super) async fn receive(
    client: &Client,
    receive: &Receive<'_>,
) -> Result<Vec<MessageView>, Error> {
    let ways = client.ways_to(receive.placed);
    client.anywhere(ways, |address| receive_at(client, receive, address)).await
}

async fn receive_at(
    client: &Client,
    receive: &Receive<'_>,
    address: Address,
) -> Result<Vec<MessageView>, Error> {
    use v2::receive_message_response::Content;
    let request = v2::ReceiveMessageRequest {
        group: Some(client.config.resource(receive.group)),
        message_queue: Some(queue_to_wire(client, receive.placed)),
        filter_expression: Some(receive.filter.to_wire()),
        batch_size: i32::try_from(receive.batch).unwrap_or(i32::MAX),
        invisible_duration: receive.invisible.map(clock::to_wire),
        auto_renew: receive.invisible.is_none(),
        long_polling_timeout: Some(clock::to_wire(receive.poll)),
        attempt_id: Some(receive.attempt_id.to_owned()),
    };
    let wait = receive.poll + client.config.request_timeout;
    let failed = |status| {
        client.failed(&address);
        Error::transport(address.as_str(), status)
    };
    let late = |_| {
        client.failed(&address);
        Error::Timeout { address: address.to_string(), waited: wait }
    };
    let mut rpc = client.pool.messaging(&address)?;
    let answer = rpc.receive_message(client.request(request, wait));
    let mut parts = timeout(wait, answer).await.map_err(late)?.map_err(failed)?.into_inner();
    let (mut status, mut messages) = (None, Vec::new());
    let broker = receive.placed.queue.broker_name();
    let collect = async {
        while let Some(part) = parts.message().await? {
            match part.content {
                Some(Content::Status(told)) => status = Some(told),
                Some(Content::Message(wire)) => {
                    match MessageView::from_wire(wire, broker, &address) {
                        Ok(message) => messages.push(message),
                        // It comes again until it is a dead letter, where it can be looked at.
                        Err(error) => warn!(%error, "a message cannot be read"),
                    }
                }
                Some(Content::DeliveryTimestamp(_)) | None => {}
            }
        }
        Ok(())
    };
    match timeout(wait, collect).await {
        Ok(Ok(())) => {}
        // What has arrived is here, whatever became of the rest.
        Ok(Err(_)) | Err(_) if !messages.is_empty() => return Ok(messages),
        Ok(Err(status)) => return Err(failed(status)),
        Err(elapsed) => return Err(late(elapsed)),
    }
    let empty = i32::from(Code::MessageNotFound);
    if status.as_ref().is_none_or(|status| status.code != empty) {
        check(address.as_str(), status.as_ref())?;
    }
    Ok(messages)
}

/// Where to say something about a delivery: where it came from first.
fn ways_back(client: &Client, message: &MessageView) -> Vec<Address> {
    let placed = Placed { queue: message.queue().clone(), address: message.address.clone() };
    client.ways_to(&placed)
}

/// Acknowledges messages of one topic, delivered by one broker; one result for each.
pub(super) async fn ack(
    client: &Client,
    group: &str,
    messages: &[MessageView],
) -> Vec<Result<(), Error>> {
    let Some(first) = messages.first() else { return Vec::new() };
    let request = v2::AckMessageRequest {
        group: Some(client.config.resource(group)),
        topic: Some(client.config.resource(first.topic())),
        entries: messages.iter().map(entry).collect(),
    };
    let wait = client.config.request_timeout;
    let request = &request;
    let answer = client
        .anywhere(ways_back(client, first), |address| async move {
            let answer = client
                .unary(&address, request.clone(), wait, |mut rpc, request| async move {
                    rpc.ack_message(request).await
                })
                .await?;
            if answer.entries.len() != messages.len() {
                check(address.as_str(), answer.status.as_ref())?;
                let missing = "an entry for each message";
                return Err(Error::Malformed { address: address.to_string(), missing });
            }
            let of =
                |entry: &v2::AckMessageResultEntry| check(address.as_str(), entry.status.as_ref());
            Ok(answer.entries.iter().map(of).collect())
        })
        .await;
    answer.unwrap_or_else(|error| messages.iter().map(|_| Err(error.clone())).collect())
}

fn entry(message: &MessageView) -> v2::AckMessageEntry {
    v2::AckMessageEntry {
        message_id: message.message_id().to_owned(),
        receipt_handle: message.receipt_handle().to_owned(),
        lite_topic: None,
    }
}

/// Makes a message visible again after this long, counted from now; its new handle.
pub(super) async fn change_invisible(
    client: &Client,
    group: &str,
    message: &MessageView,
    invisible: Duration,
) -> Result<String, Error> {
    let wait = client.config.request_timeout;
    client
        .anywhere(ways_back(client, message), |address| async move {
            let request = v2::ChangeInvisibleDurationRequest {
                group: Some(client.config.resource(group)),
                topic: Some(client.config.resource(message.topic())),
                receipt_handle: message.receipt_handle().to_owned(),
                invisible_duration: Some(clock::to_wire(invisible)),
                message_id: message.message_id().to_owned(),
                ..Default::default()
            };
            let answer = client
                .unary(&address, request, wait, |mut rpc, request| async move {
                    rpc.change_invisible_duration(request).await
                })
                .await?;
            check(address.as_str(), answer.status.as_ref())?;
            Ok(answer.receipt_handle)
        })
        .await
}

/// Gives a message up: it goes to the dead-letter queue.
pub(super) async fn give_up(
    client: &Client,
    group: &str,
    message: &MessageView,
    attempt: u32,
    max_attempts: u32,
) -> Result<(), Error> {
    let wait = client.config.request_timeout;
    let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    client
        .anywhere(ways_back(client, message), |address| async move {
            let request = v2::ForwardMessageToDeadLetterQueueRequest {
                group: Some(client.config.resource(group)),
                topic: Some(client.config.resource(message.topic())),
                receipt_handle: message.receipt_handle().to_owned(),
                message_id: message.message_id().to_owned(),
                delivery_attempt: number(attempt),
                max_delivery_attempts: number(max_attempts),
                lite_topic: None,
            };
            let answer = client
                .unary(&address, request, wait, |mut rpc, request| async move {
                    rpc.forward_message_to_dead_letter_queue(request).await
                })
                .await?;
            check(address.as_str(), answer.status.as_ref())
        })
        .await
}

/// The queues that this client is to consume; those of a group that keeps no order stand for all
/// queues of a broker.
pub(super) async fn assignments(
    client: &Client,
    group: &str,
    topic: &str,
) -> Result<Vec<Placed>, Error> {
    let wait = client.config.request_timeout;
    // Those first that know this client: sharing queues takes a session.
    let mut addresses = client.sessions();
    for address in client.access_points() {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    client
        .anywhere(addresses, |address| async move {
            let request = v2::QueryAssignmentRequest {
                topic: Some(client.config.resource(topic)),
                group: Some(client.config.resource(group)),
                endpoints: Some(address.to_wire()),
            };
            let answer = client
                .unary(&address, request, wait, |mut rpc, request| async move {
                    rpc.query_assignment(request).await
                })
                .await?;
            check(address.as_str(), answer.status.as_ref())?;
            let queues = answer.assignments.iter().filter_map(|one| one.message_queue.as_ref());
            Ok(queues.filter_map(|queue| placed(topic, queue)).collect())
        })
        .await
}
