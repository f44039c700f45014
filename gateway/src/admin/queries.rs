//! Offsets and messages: which broker groups are asked, and how their answers become one.

use std::cmp::Reverse;

use futures::future::join_all;
use proto::{
    BrokerName, Topic,
    admin::{
        Error, InFlight, ListInFlightRequest, ListInFlightResponse, ListTimersRequest,
        ListTimersResponse, QueryMessagesRequest, QueryMessagesResponse, ResetOffsetsRequest,
        ResetOffsetsResponse, TrackMessageRequest, TrackMessageResponse,
        query_messages_request::By,
    },
};

use super::{
    AdminFanout, calls,
    fanout::{chosen, rejected},
    merge::Answers,
};
use crate::{Caller, Directory, operation::Operation, retry::Repeat, status::Refusal};

impl<D: Directory> AdminFanout<D> {
    pub(super) async fn reset(
        &self,
        caller: &Caller,
        request: ResetOffsetsRequest,
    ) -> Result<ResetOffsetsResponse, Error> {
        let owners = self.owners(caller, &request.topic, &request.broker_name).await?;
        if request.queue_id.is_some() && owners.len() > 1 {
            return Err(rejected("one queue needs the name of its broker".to_owned()));
        }
        // Once only: done again it would undo what was consumed in between.
        let calls = owners.into_iter().map(|group| {
            let request = request.clone();
            async move {
                let once = Repeat::NotDoneOnly;
                let answer = self.call::<calls::ResetOffsets>(caller, &group, once, request).await;
                (group, answer)
            }
        });
        let answers = Answers::of(join_all(calls).await, |answer| answer.error.take());
        let error = answers.error();
        let mut queues: Vec<_> = answers.good.into_iter().flat_map(|a| a.queues).collect();
        queues.sort_by(|a, b| (&a.broker_name, a.queue_id).cmp(&(&b.broker_name, b.queue_id)));
        Ok(ResetOffsetsResponse { error, queues })
    }

    /// `own` is what this node has found in its own group, if it may tell.
    pub(super) async fn query(
        &self,
        caller: &Caller,
        request: QueryMessagesRequest,
        own: Option<(BrokerName, QueryMessagesResponse)>,
    ) -> Result<QueryMessagesResponse, Error> {
        let own = match own {
            // Nobody else is concerned.
            Some((name, answer)) if request.broker_name == name.as_str() => return Ok(answer),
            own => own,
        };
        let mut owners = self.owners(caller, &request.topic, &request.broker_name).await?;
        let by_place = matches!(request.by, Some(By::Place(_)));
        if by_place && owners.len() > 1 {
            return Err(rejected("a place needs the name of its broker".to_owned()));
        }
        let own = own.filter(|(name, _)| owners.contains(name));
        owners.retain(|owner| own.as_ref().is_none_or(|(name, _)| owner != name));
        let mut answers = self.ask::<calls::QueryMessages>(caller, owners, request.clone()).await;
        answers.extend(own.map(|(name, answer)| (name, Ok(answer))));
        let answers = Answers::of(answers, |answer| answer.error.take());
        // Part of the messages would look like all of them.
        if let Some(error) = answers.error() {
            return Err(error);
        }
        let mut truncated = answers.good.iter().any(|answer| answer.truncated);
        let mut messages: Vec<_> = answers.good.into_iter().flat_map(|a| a.messages).collect();
        if matches!(request.by, Some(By::MessageId(_) | By::Key(_))) {
            messages.sort_by_key(|message| Reverse(message.stored_ms));
        } else {
            let place =
                |a: &proto::admin::StoredMessage| (a.broker_name.clone(), a.queue_id, a.offset);
            messages.sort_by_key(place);
        }
        let most = if request.max == 0 { usize::MAX } else { request.max as usize };
        truncated |= messages.len() > most;
        messages.truncate(most);
        Ok(QueryMessagesResponse { error: None, messages, truncated })
    }

    /// A stretch of each broker group, in the order of their names.
    pub(super) async fn timers(
        &self,
        caller: &Caller,
        request: ListTimersRequest,
    ) -> Result<ListTimersResponse, Error> {
        let owners = self.owners(caller, &request.topic, &request.broker_name).await?;
        let answers = self.ask::<calls::ListTimers>(caller, owners, request).await;
        let answers = Answers::of(answers, |answer| answer.error.take());
        // Part of the list would look like all of it.
        if let Some(error) = answers.error() {
            return Err(error);
        }
        let mut stretches: Vec<_> = answers.good.into_iter().flat_map(|a| a.stretches).collect();
        stretches.sort_by(|a, b| a.broker_name.cmp(&b.broker_name));
        Ok(ListTimersResponse { error: None, stretches })
    }

    pub(super) async fn track(
        &self,
        caller: &Caller,
        request: TrackMessageRequest,
    ) -> Result<TrackMessageResponse, Error> {
        let owners = self.owners(caller, &request.topic, &request.broker_name).await?;
        let [group] = &owners[..] else {
            return Err(rejected("a place needs the name of its broker".to_owned()));
        };
        self.call::<calls::TrackMessage>(caller, group, Repeat::Safe, request.clone()).await
    }

    /// What each broker group has delivered. A group that does not know the consumers delivered
    /// nothing to them.
    pub(super) async fn in_flight(
        &self,
        caller: &Caller,
        request: ListInFlightRequest,
    ) -> Result<ListInFlightResponse, Error> {
        let answers =
            self.ask_all::<calls::ListInFlight>(caller, request, |a| a.error.take()).await?;
        if let Some(error) = answers.error_unless_known() {
            return Err(error);
        }
        let truncated = answers.good.iter().any(|answer| answer.truncated);
        let mut messages: Vec<_> = answers.good.into_iter().flat_map(|a| a.messages).collect();
        messages.sort_by(|a, b| {
            let place = |m: &InFlight| (m.topic.clone(), m.broker_name.clone());
            (place(a), a.queue_id, a.offset).cmp(&(place(b), b.queue_id, b.offset))
        });
        Ok(ListInFlightResponse { error: None, messages, truncated })
    }

    /// The same read of each of these groups.
    pub(super) async fn ask<O: Operation>(
        &self,
        caller: &Caller,
        groups: Vec<BrokerName>,
        request: O::Request,
    ) -> Vec<(BrokerName, Result<O::Response, Error>)> {
        let calls = groups.into_iter().map(|group| {
            let request = request.clone();
            async move {
                let answer = self.call::<O>(caller, &group, Repeat::Safe, request).await;
                (group, answer)
            }
        });
        join_all(calls).await
    }

    /// The broker groups that host the topic, or the one of them that is named.
    async fn owners(
        &self,
        caller: &Caller,
        topic: &str,
        named: &str,
    ) -> Result<Vec<BrokerName>, Error> {
        let topic: Topic = topic.parse().map_err(|error| Refusal::from(error).to_admin())?;
        let groups = self.groups(caller).await?;
        let route = self.topic(caller, &groups, &topic).await?;
        let route = route.ok_or_else(|| Refusal::TopicNotFound(topic).to_admin())?;
        let placed: Vec<BrokerName> = route.placement.into_iter().map(|(name, _)| name).collect();
        let named = if named.is_empty() { vec![] } else { vec![named.to_owned()] };
        chosen(&placed, &named)
    }
}
