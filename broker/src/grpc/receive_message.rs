//! ReceiveMessage: answers at once with a stream, waits in it, and takes back what nobody reads.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll as Ready},
    time::Instant,
};

use futures::Stream;
use gateway::{Caller, Miss, ReceiveStream, status::refusal};
use proto::{
    ConsumerGroup, QueueId, Topic,
    clock::{self, wall_now},
    limits, tag_hash,
    v2::{self, ReceiveMessageRequest, ReceiveMessageResponse, receive_message_response::Content},
};
use tokio::sync::oneshot;
use tonic::Status;

use super::{local::Edge, status};
use crate::{
    Error,
    metrics::Rpc,
    ops::{Broker, Delivery, Poll, invisible_duration, polling_time},
    sessions::{End, Outgoing, Parcel},
};

impl Edge {
    pub(super) fn receive(
        &self,
        caller: &Caller,
        request: ReceiveMessageRequest,
    ) -> Result<ReceiveStream, Miss> {
        if let Err(error) = self.broker.leading() {
            return Err(super::local::miss(&error));
        }
        let start = Instant::now();
        let poll = match parse(&self.broker, caller, request, start) {
            Ok(poll) => poll,
            Err(error) => {
                let status = status::of(&error);
                self.broker.metrics.answered(Rpc::Receive, status.code, start.elapsed());
                return Ok(Box::pin(Answer::told(status)));
            }
        };
        let (result, answer) = oneshot::channel();
        tokio::spawn(serve(Arc::clone(&self.broker), poll, result));
        Ok(Box::pin(Answer { state: State::Waiting(answer) }))
    }
}

fn parse(
    broker: &Broker,
    caller: &Caller,
    request: ReceiveMessageRequest,
    now: Instant,
) -> Result<Poll, Error> {
    let client = caller.client_id.clone().ok_or(Error::NoClientId)?;
    let group = ConsumerGroup::from_resource(request.group.as_ref())?;
    let queue = request.message_queue.unwrap_or_default();
    let topic = Topic::from_resource(queue.topic.as_ref())?;
    let filter = broker.filters.filter(request.filter_expression.as_ref())?;
    let asked = request.invisible_duration.as_ref().map(|d| clock::duration(d).unwrap_or_default());
    let invisible = invisible_duration(request.auto_renew, asked, broker.tunables().invisible_min)?;
    let asked =
        request.long_polling_timeout.as_ref().map(|d| clock::duration(d).unwrap_or_default());
    let wait = polling_time(asked, caller.remaining(now))?;
    Ok(Poll {
        client,
        group,
        topic,
        queue: QueueId::try_from(queue.id).ok(),
        filter,
        batch: usize::try_from(request.batch_size).unwrap_or(0).clamp(1, limits::RECEIVE_BATCH),
        invisible,
        auto_renew: request.auto_renew,
        attempt_id: attempt_id(request.attempt_id.as_deref()),
        call: caller.call,
        wait_until: now + wait,
        deadline: caller.deadline,
    })
}

/// The client makes it up, so that its hash is as good.
fn attempt_id(text: Option<&str>) -> Option<u64> {
    text.filter(|text| !text.is_empty()).map(tag_hash)
}

type Outcome = Result<Batch, Error>;

/// Waits, pops and hands over. A client that goes away while it waits takes nothing along.
async fn serve(broker: Arc<Broker>, poll: Poll, mut result: oneshot::Sender<Outcome>) {
    let start = Instant::now();
    let outcome = loop {
        let found = tokio::select! {
            () = result.closed() => return,
            found = broker.find(&poll) => found,
        };
        match found {
            Ok(None) => break Ok(Delivery::default()),
            Err(error) => break Err(error),
            Ok(Some(taking)) => match broker.take(&poll, taking).await {
                Ok(delivery) if delivery.messages.is_empty() => {
                    if Instant::now() >= poll.wait_until {
                        break Ok(delivery);
                    }
                }
                other => break other,
            },
        }
    };
    let status = match &outcome {
        Ok(delivery) if delivery.messages.is_empty() => status::no_new_message(),
        Ok(_) => status::ok(),
        Err(error) => status::of(error),
    };
    broker.metrics.answered(Rpc::Receive, status.code, start.elapsed());
    let outcome = outcome.map(|delivery| Batch::new(broker, poll, delivery));
    // Whoever does not want it any more drops it, and that gives the messages back.
    let _ = result.send(outcome);
}

/// Messages on their way to a client. An access point that named the call says what became of
/// them; otherwise they are taken back if this is dropped before all were written.
struct Batch {
    broker: Arc<Broker>,
    rest: VecDeque<ReceiveMessageResponse>,
    unnamed: Option<Parcel>,
    written: usize,
    _delivery: Delivery,
}

impl Batch {
    fn new(broker: Arc<Broker>, poll: Poll, mut delivery: Delivery) -> Self {
        let messages = std::mem::take(&mut delivery.messages);
        let deliveries: Vec<Outgoing> = messages.iter().map(|message| message.outgoing).collect();
        let status = if messages.is_empty() { status::no_new_message() } else { status::ok() };
        let mut rest = VecDeque::with_capacity(messages.len() + 2);
        rest.push_back(item(Content::Status(status)));
        rest.extend(messages.into_iter().map(|m| item(Content::Message(m.message))));
        rest.push_back(item(Content::DeliveryTimestamp(wall_now().into())));
        let mut unnamed = None;
        if !deliveries.is_empty() {
            let Poll { group, topic, client, call, .. } = poll;
            let parcel = Parcel { group, topic, client, deliveries };
            match call {
                Some(call) => broker.send_out(call, parcel),
                None => unnamed = Some(parcel),
            }
        }
        Batch { broker, rest, unnamed, written: 0, _delivery: delivery }
    }

    fn next(&mut self) -> Option<ReceiveMessageResponse> {
        let Some(next) = self.rest.pop_front() else {
            self.unnamed = None;
            return None;
        };
        self.written += usize::from(matches!(next.content, Some(Content::Message(_))));
        Some(next)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if let Some(parcel) = self.unnamed.take() {
            self.broker.take_back(parcel, End { passed: self.written, read: false });
        }
    }
}

fn item(content: Content) -> ReceiveMessageResponse {
    ReceiveMessageResponse { content: Some(content) }
}

/// The stream that the client reads: status, messages, time of delivery.
struct Answer {
    state: State,
}

enum State {
    Waiting(oneshot::Receiver<Outcome>),
    Writing(Box<Batch>),
    Telling(VecDeque<ReceiveMessageResponse>),
    Done,
}

impl Answer {
    fn told(status: v2::Status) -> Self {
        Answer { state: State::telling(status) }
    }
}

impl State {
    fn telling(status: v2::Status) -> Self {
        let now = item(Content::DeliveryTimestamp(wall_now().into()));
        State::Telling(VecDeque::from([item(Content::Status(status)), now]))
    }
}

impl Stream for Answer {
    type Item = Result<ReceiveMessageResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Ready<Option<Self::Item>> {
        loop {
            let next = match &mut self.state {
                State::Waiting(outcome) => match Pin::new(outcome).poll_outcome(context) {
                    Ready::Pending => return Ready::Pending,
                    Ready::Ready(Ok(batch)) => State::Writing(Box::new(batch)),
                    Ready::Ready(Err(error)) => match status::answer(&error) {
                        Ok(status) => State::telling(status),
                        // Nothing was told yet: the gateway asks whoever leads now.
                        Err(miss) => {
                            self.state = State::Done;
                            return Ready::Ready(Some(Err(refusal(&miss))));
                        }
                    },
                },
                State::Writing(batch) => match batch.next() {
                    Some(item) => return Ready::Ready(Some(Ok(item))),
                    None => State::Done,
                },
                State::Telling(items) => match items.pop_front() {
                    Some(item) => return Ready::Ready(Some(Ok(item))),
                    None => State::Done,
                },
                State::Done => return Ready::Ready(None),
            };
            self.state = next;
        }
    }
}

trait PollOutcome {
    fn poll_outcome(self: Pin<&mut Self>, context: &mut Context<'_>) -> Ready<Outcome>;
}

impl PollOutcome for oneshot::Receiver<Outcome> {
    /// A server that vanished is one that stops.
    fn poll_outcome(self: Pin<&mut Self>, context: &mut Context<'_>) -> Ready<Outcome> {
        self.poll(context).map(|result| result.unwrap_or(Err(Error::Stopped)))
    }
}
