//! An answer to a receive call on its last way, to the client.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::Stream;
use proto::{
    BrokerName,
    clock::wall_now,
    hop::CallId,
    session,
    v2::{ReceiveMessageResponse, receive_message_response::Content},
};
use tonic::Status;
use tracing::debug;

use crate::{ReceiveStream, answers::Answers};

/// A call that was made, or is about to be. When it is dropped the leader is told how it ended.
pub(crate) struct Call {
    answers: Arc<Answers>,
    group: BrokerName,
    pub(crate) id: CallId,
    /// Messages on their way to the client.
    passed: u32,
    /// The client reads what it has, and will have no more.
    read: bool,
    /// There is nothing to tell.
    settled: bool,
}

impl Call {
    pub(crate) fn begin(answers: &Arc<Answers>, group: &BrokerName) -> Self {
        let (answers, group, id) = (Arc::clone(answers), group.clone(), answers.name_call());
        Self { answers, group, id, passed: 0, read: false, settled: false }
    }

    /// The leader did nothing, and says so.
    pub(crate) fn came_to_nothing(mut self) {
        self.settled = true;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Self { id, passed, read, .. } = *self;
        if !self.settled {
            self.answers.tell(&self.group, session::Answer { call: id.number, passed, read });
        }
    }
}

/// The answer as the client reads it.
pub(crate) struct Answer {
    call: Call,
    parts: ReceiveStream,
    begun: bool,
    broke_off: bool,
}

impl Answer {
    /// Passes on the parts of the answer to a call.
    pub(crate) fn new(call: Call, parts: ReceiveStream) -> Self {
        Self { call, parts, begun: false, broke_off: false }
    }

    /// A leader that dies in the middle of its answer does not spoil what came before: clients
    /// would throw it away. The rest comes again.
    fn cut_short(&mut self, status: &Status) -> ReceiveMessageResponse {
        debug!(call = self.call.id.number, %status, "an answer broke off");
        self.broke_off = true;
        self.parts = Box::pin(futures::stream::empty());
        ReceiveMessageResponse { content: Some(Content::DeliveryTimestamp(wall_now().into())) }
    }
}

impl Stream for Answer {
    type Item = Result<ReceiveMessageResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let part = std::task::ready!(self.parts.as_mut().poll_next(context));
        Poll::Ready(match part {
            Some(Err(status)) if self.begun => Some(Ok(self.cut_short(&status))),
            Some(part) => {
                self.begun = true;
                let is_message = |part: &ReceiveMessageResponse| {
                    matches!(part.content, Some(Content::Message(_)))
                };
                self.call.passed += u32::from(part.as_ref().is_ok_and(is_message));
                Some(part)
            }
            None => {
                self.call.read = true;
                // An answer without messages is no news, unless there should have been some.
                self.call.settled = self.call.passed == 0 && !self.broke_off;
                None
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt, stream};
    use proto::v2;

    use super::*;

    fn part(content: Content) -> Result<ReceiveMessageResponse, Status> {
        Ok(ReceiveMessageResponse { content: Some(content) })
    }

    fn status() -> Result<ReceiveMessageResponse, Status> {
        part(Content::Status(v2::Status::default()))
    }

    fn message() -> Result<ReceiveMessageResponse, Status> {
        part(Content::Message(v2::Message::default()))
    }

    /// What is told of an answer with these parts of which the client takes so many.
    fn told(
        parts: Vec<Result<ReceiveMessageResponse, Status>>,
        taken: usize,
    ) -> Vec<session::Answer> {
        let answers = Arc::new(Answers::new(1));
        let group: BrokerName = "broker-a".parse().expect("valid");
        let mut answer = Answer::new(Call::begin(&answers, &group), Box::pin(stream::iter(parts)));
        for _ in 0..taken {
            answer.next().now_or_never().expect("at once");
        }
        drop(answer);
        answers.since(&group, 0, 9).0
    }

    fn answer(passed: u32, read: bool) -> Vec<session::Answer> {
        vec![session::Answer { call: 0, passed, read }]
    }

    #[test]
    fn an_answer_is_read_when_its_end_was_asked_for() {
        let parts = || vec![status(), message(), message()];
        assert_eq!(told(parts(), 4), answer(2, true));
        assert_eq!(told(parts(), 3), answer(2, false));
        assert_eq!(told(parts(), 2), answer(1, false));
        assert_eq!(told(parts(), 0), answer(0, false), "it may have been on its way");
    }

    #[test]
    fn an_empty_answer_is_no_news() {
        assert_eq!(told(vec![status()], 2), []);
    }

    #[test]
    fn what_broke_off_ends_with_what_came() {
        let broken = || Err(Status::unavailable("the leader dies"));
        assert_eq!(told(vec![status(), message(), broken()], 4), answer(1, true));
        assert_eq!(told(vec![status(), broken()], 3), answer(0, true));
        assert_eq!(told(vec![broken()], 1), answer(0, false));
    }
}
