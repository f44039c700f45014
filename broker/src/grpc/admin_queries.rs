//! Administration of offsets and messages: what comes over the wire and what goes back.

use proto::{
    BrokerName, ConsumerGroup, QueueId, QueueOffset, Timestamp, Topic,
    admin::{
        ListTimersRequest, ListTimersResponse, MessageTrack, QueryMessagesRequest,
        QueryMessagesResponse, QueueProgress, QueueReset, ResetOffsetsRequest,
        ResetOffsetsResponse, StoredMessage, Timer, TimerPlace, TimerStretch, TrackMessageRequest,
        TrackMessageResponse, message_track,
        query_messages_request::{By, Reading as WireReading},
        reset_offsets_request::To,
    },
};

use super::admin::{LocalAdmin, deadline};
use crate::{
    Error,
    command::{self, TimerId},
    ops::{Found, ListedTimer, Query, Question, Reading, Spot, TimerSpan, Track},
    state::{Backlog, Consumption},
};

impl LocalAdmin {
    pub(super) async fn reset(
        &self,
        request: ResetOffsetsRequest,
    ) -> Result<ResetOffsetsResponse, Error> {
        let group: ConsumerGroup = request.group.parse()?;
        let topic: Topic = request.topic.parse()?;
        let why = "must be begin, end, a time or an offset";
        let spot = match request.to {
            Some(To::Begin(_)) => Spot::Begin,
            Some(To::End(_)) => Spot::End,
            Some(To::TimeMs(ms)) => Spot::Time(Timestamp(ms)),
            Some(To::Offset(offset)) => Spot::Offset(QueueOffset(offset)),
            None => return Err(Error::BadSetting { field: "to", why }),
        };
        let queue = request.queue_id.map(QueueId);
        let reset = self.broker().reset_offsets(group, topic, queue, spot, deadline()).await?;
        let name = self.broker().name();
        let queues = reset.iter().map(|reset| queue_reset(name, reset)).collect();
        Ok(ResetOffsetsResponse { error: None, queues })
    }

    pub(super) async fn query(
        &self,
        request: QueryMessagesRequest,
    ) -> Result<QueryMessagesResponse, Error> {
        let why = "must say which messages";
        let reading = reading(request.reading());
        let question = match request.by {
            Some(By::MessageId(id)) => Question::Id(id),
            Some(By::Key(key)) => Question::Key(key),
            Some(By::Place(at)) => Question::Offset(QueueId(at.queue_id), QueueOffset(at.offset)),
            Some(By::Any(choice)) => Question::Any(choice.queue_id.map(QueueId)),
            None => return Err(Error::BadSetting { field: "by", why }),
        };
        let query = Query {
            topic: request.topic.parse()?,
            question,
            from: Timestamp(request.from_ms),
            until: end(request.until_ms),
            most: most(request.max),
            reading,
        };
        let answer = self.broker().query(&query, deadline()).await?;
        let name = self.broker().name();
        let messages = answer.found.into_iter().map(|found| stored(name, found)).collect();
        Ok(QueryMessagesResponse { error: None, messages, truncated: answer.truncated })
    }

    pub(super) async fn timers(
        &self,
        request: ListTimersRequest,
    ) -> Result<ListTimersResponse, Error> {
        let span = TimerSpan {
            from: TimerId { due: Timestamp(request.from_ms), number: request.from_number },
            until: end(request.until_ms),
            most: most(request.max),
        };
        let topic: Topic = request.topic.parse()?;
        let found = self.broker().list_timers(&topic, &span, deadline()).await?;
        let stretch = TimerStretch {
            broker_name: self.broker().name().to_string(),
            waiting: found.waiting,
            timers: found.timers.iter().map(timer).collect(),
            next: found.next.map(|id| TimerPlace { due_ms: id.due.0, number: id.number }),
        };
        Ok(ListTimersResponse { error: None, stretches: vec![stretch] })
    }

    pub(super) async fn track(
        &self,
        request: TrackMessageRequest,
    ) -> Result<TrackMessageResponse, Error> {
        let topic: Topic = request.topic.parse()?;
        let (queue, offset) = (QueueId(request.queue_id), QueueOffset(request.offset));
        let tracks = self.broker().track(&topic, queue, offset, deadline()).await?;
        Ok(TrackMessageResponse { error: None, tracks: tracks.iter().map(track).collect() })
    }
}

pub(super) fn progress(name: &BrokerName, topic: &Topic, backlog: &Backlog) -> QueueProgress {
    let at = &backlog.progress;
    QueueProgress {
        topic: topic.to_string(),
        broker_name: name.to_string(),
        queue_id: at.queue.0,
        max_offset: at.max.0,
        next_offset: at.next.0,
        committed_offset: at.committed.0,
        in_flight: at.in_flight.into(),
        waiting: at.waiting.into(),
        ready: backlog.ready,
        last_consumed_ms: backlog.last_consumed.map_or(0, |time| time.0),
        lasting: backlog.in_flight,
    }
}

fn reading(wire: WireReading) -> Option<Reading> {
    match wire {
        WireReading::Unspecified => None,
        WireReading::Latest => Some(Reading::Latest),
        WireReading::Applied => Some(Reading::Applied),
    }
}

/// 0 is for no end.
fn end(until_ms: u64) -> Timestamp {
    Timestamp(if until_ms == 0 { u64::MAX } else { until_ms })
}

/// 0 is for no limit of the caller's.
fn most(max: u32) -> usize {
    if max == 0 { usize::MAX } else { max as usize }
}

fn timer(listed: &ListedTimer) -> Timer {
    Timer {
        due_ms: listed.timer.timer.due.0,
        number: listed.timer.timer.number,
        queue_id: listed.timer.queue.0,
        sent_ms: listed.timer.sent.0,
        message_bytes: listed.timer.len,
        message_id: listed.recall.message_id.to_string(),
        recall_handle: listed.recall.to_string(),
    }
}

fn queue_reset(name: &BrokerName, reset: &command::QueueReset) -> QueueReset {
    QueueReset {
        broker_name: name.to_string(),
        queue_id: reset.queue.0,
        from_offset: reset.from.0,
        to_offset: reset.to.0,
        ended: reset.ended,
    }
}

fn stored(name: &BrokerName, found: Found) -> StoredMessage {
    StoredMessage {
        broker_name: name.to_string(),
        queue_id: found.queue.0,
        offset: found.entry.offset.0,
        stored_ms: found.entry.visible.0,
        log_offset: found.entry.position.0,
        log_bytes: found.entry.len,
        message: Some(found.message),
    }
}

fn track(track: &Track) -> MessageTrack {
    use message_track::State;
    let group = track.group.to_string();
    let (state, since_ms, due_ms, attempt) = match track.consumption {
        Consumption::Consumed if track.unwanted => (State::Filtered, 0, 0, 0),
        Consumption::Consumed => (State::Consumed, 0, 0, 0),
        Consumption::Waiting => (State::NotConsumed, 0, 0, 0),
        Consumption::InFlight { since, due, attempt } => (State::InFlight, since.0, due.0, attempt),
    };
    MessageTrack { group, state: state.into(), since_ms, due_ms, attempt }
}
