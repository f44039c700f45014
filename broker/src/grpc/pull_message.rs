//! PullMessage: answers at once with a stream and waits in it. Nothing is taken, so whoever goes away
//! leaves nothing behind.

use std::{sync::Arc, time::Instant};

use futures::{Stream, StreamExt, stream};
use gateway::{Caller, Miss, PullStream, status::refusal};
use proto::{
    ConsumerGroup, clock, limits,
    v2::{self, PullMessageRequest, PullMessageResponse, pull_message_response::Content},
};
use tonic::Status;

use super::{local::Edge, status};
use crate::{
    Error,
    filter::Compiled,
    metrics::Rpc,
    ops::{Broker, Pull, Pulled, pulling_time},
};

impl Edge {
    pub(super) fn pull(
        &self,
        caller: &Caller,
        request: &PullMessageRequest,
    ) -> Result<PullStream, Miss> {
        self.broker.reading().map_err(|error| super::local::miss(&error))?;
        let start = Instant::now();
        let broker = Arc::clone(&self.broker);
        let pull = parse(&broker.filters, caller, request, start);
        let answer = stream::once(async move {
            let pulled = match pull {
                Ok(pull) => broker.pull(pull).await,
                Err(error) => Err(error),
            };
            answer(&broker, pulled, start)
        });
        Ok(Box::pin(answer.flatten()))
    }
}

fn parse(
    filters: &Compiled,
    caller: &Caller,
    request: &PullMessageRequest,
    now: Instant,
) -> Result<Pull, Error> {
    let group = ConsumerGroup::from_resource(request.group.as_ref())?;
    let (topic, queue) = super::offsets::queue(request.message_queue.as_ref())?;
    let asked =
        request.long_polling_timeout.as_ref().map(|d| clock::duration(d).unwrap_or_default());
    Ok(Pull {
        client: caller.client_id.clone(),
        group,
        topic,
        queue,
        offset: super::offsets::offset(request.offset)?,
        filter: filters.filter(request.filter_expression.as_ref())?,
        batch: usize::try_from(request.batch_size).unwrap_or(0).clamp(1, limits::RECEIVE_BATCH),
        wait_until: now + pulling_time(asked, caller.remaining(now)),
        deadline: caller.deadline,
    })
}

type Parts = std::pin::Pin<Box<dyn Stream<Item = Result<PullMessageResponse, Status>> + Send>>;

/// The status, the messages, and where to go on.
fn answer(broker: &Broker, pulled: Result<Pulled, Error>, start: Instant) -> Parts {
    let status = match &pulled {
        Ok(pulled) => told(pulled),
        Err(error) => match status::answer(error) {
            Ok(status) => status,
            // Nothing was told yet: the gateway asks whoever leads now.
            Err(miss) => return Box::pin(stream::iter([Err(refusal(&miss))])),
        },
    };
    broker.metrics.answered(Rpc::Pull, status.code, start.elapsed());
    let first = stream::iter([Ok(part(Content::Status(status)))]);
    let Ok(mut pulled) = pulled else { return Box::pin(first) };
    let messages = std::mem::take(&mut pulled.messages);
    let next = i64::try_from(pulled.next.0).unwrap_or(i64::MAX);
    let rest = messages.into_iter().map(Content::Message).chain([Content::NextOffset(next)]);
    // What is being written counts as in progress.
    let rest = rest.map(move |content| {
        let _lease = &pulled;
        Ok(part(content))
    });
    Box::pin(first.chain(stream::iter(rest)))
}

fn told(pulled: &Pulled) -> v2::Status {
    match pulled.misplaced {
        None if pulled.messages.is_empty() => status::no_new_message(),
        None => status::ok(),
        Some(misplaced) => status::misplaced(misplaced),
    }
}

fn part(content: Content) -> PullMessageResponse {
    PullMessageResponse { content: Some(content) }
}
