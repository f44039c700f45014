//! Where each client request goes: the routing of RPCs to broker groups.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures::future::join_all;
use proto::{
    BrokerName, ConsumerGroup, RecallHandle, ReceiptHandle, SendMessageRequest, Topic,
    TransactionId, clock, limits,
    v2::{
        AckMessageRequest, AckMessageResponse, ChangeInvisibleDurationRequest,
        ChangeInvisibleDurationResponse, EndTransactionRequest, EndTransactionResponse,
        ForwardMessageToDeadLetterQueueRequest, ForwardMessageToDeadLetterQueueResponse,
        QueryAssignmentRequest, QueryAssignmentResponse, QueryRouteRequest, QueryRouteResponse,
        RecallMessageRequest, RecallMessageResponse, ReceiveMessageRequest, Resource,
        SendMessageResponse,
    },
};
use tonic::metadata::MetadataMap;

use crate::{
    Caller, Dialled, Directory, Gateway, Local, ReceiveStream, RouteMode, TopicRoute, acks,
    endpoints,
    forward::Passage,
    operation::{
        AckMessage, ChangeInvisibleDuration, EndTransaction, ForwardToDeadLetterQueue, Operation,
        RecallMessage, ReceiveMessage, ReceiveRequest, SendMessage,
    },
    peek::peek,
    placement::{fifo_queue, rotation, turn_of},
    retry::Repeat,
    route::{Asker, group_of},
    status::{self, Refusal},
};

/// How long QueryAssignment waits to learn whether a group keeps order.
const GROUP_WAIT: Duration = Duration::from_millis(1500);

impl<L: Local, D: Directory> Gateway<L, D> {
    pub(crate) async fn route(
        &self,
        caller: &Caller,
        authority: Option<&Dialled>,
        request: QueryRouteRequest,
    ) -> Result<QueryRouteResponse, Refusal> {
        let topic = Topic::from_resource(request.topic.as_ref())?;
        let route = self.topic(caller, &topic, true).await?;
        let dialled = endpoints::dialled(request.endpoints.as_ref(), authority, caller.local);
        let group = |name: &BrokerName| self.directory().group(name);
        let message_queues = self.asker(caller, dialled, request.topic, &group).queues(&route);
        Ok(QueryRouteResponse { status: Some(status::ok()), message_queues })
    }

    pub(crate) async fn assignments(
        &self,
        caller: &Caller,
        authority: Option<&Dialled>,
        request: QueryAssignmentRequest,
    ) -> Result<QueryAssignmentResponse, Refusal> {
        let topic = Topic::from_resource(request.topic.as_ref())?;
        let consumers = ConsumerGroup::from_resource(request.group.as_ref())?;
        let route = self.topic(caller, &topic, false).await?;
        let inner = &self.inner;
        let share = self.share(caller, &consumers, &route).await?;
        let settings =
            inner.forwarder.group_settings(&inner.consumer_groups, &consumers, GROUP_WAIT).await;
        let fifo = settings.is_some_and(|settings| settings.fifo);
        let dialled = endpoints::dialled(request.endpoints.as_ref(), authority, caller.local);
        let group = |name: &BrokerName| self.directory().group(name);
        let asker = self.asker(caller, dialled, request.topic, &group);
        let assignments = match share {
            Some(share) => asker.shared(&route, &share),
            None => asker.assignments(&route, fifo),
        };
        let assignments = assignments.ok_or(Refusal::NoReadableQueue)?;
        Ok(QueryAssignmentResponse { status: Some(status::ok()), assignments })
    }

    fn asker<'a>(
        &self,
        caller: &Caller,
        dialled: proto::v2::Endpoints,
        topic: Option<Resource>,
        group: &'a dyn Fn(&BrokerName) -> Option<Arc<crate::GroupView>>,
    ) -> Asker<'a> {
        Asker {
            mode: self.inner.config.route_mode,
            language: caller.language,
            dialled,
            topic: topic.unwrap_or_default(),
            group,
        }
    }

    /// The topic, or the refusal that says that it does not exist.
    pub(crate) async fn topic(
        &self,
        caller: &Caller,
        topic: &Topic,
        create: bool,
    ) -> Result<Arc<TopicRoute>, Refusal> {
        let inner = &self.inner;
        let hold = inner.config.hold;
        let found = inner.forwarder.find_topic(&inner.topics, caller, topic, create, hold).await?;
        found.ok_or_else(|| Refusal::TopicNotFound(topic.clone()))
    }

    /// Whether somebody leads the group and, as far as is known, answers.
    fn is_reachable(&self, name: &BrokerName, its_turn: bool) -> bool {
        let suspects = &self.inner.suspects;
        self.directory().group(name).is_some_and(|view| {
            let led = view.leader.is_some();
            led && !suspects.pass_over(name, view.term, its_turn, Instant::now())
        })
    }

    /// Takes note of a group that did not answer, so that others are asked first for a while.
    fn suspect(&self, name: &BrokerName) {
        if let Some(view) = self.directory().group(name) {
            self.inner.suspects.add(name, view.term, Instant::now());
        }
    }

    pub(crate) async fn send(
        &self,
        caller: &Caller,
        metadata: &MetadataMap,
        request: SendMessageRequest,
    ) -> Result<SendMessageResponse, Refusal> {
        if caller.client_id.is_none() {
            return Err(Refusal::ClientIdRequired);
        }
        let head = peek(&request)?;
        let route = self.topic(caller, &head.topic, false).await?;
        let hold = self.inner.config.hold;
        if let Some(message_group) = &head.message_group {
            let (group, _queue) = fifo_queue(&route, message_group);
            let passage =
                Passage { caller, metadata, group, repeat: head.repeat, hold, elsewhere: false };
            return self.inner.forwarder.call::<SendMessage>(&passage, request).await;
        }
        let open = route.placement.iter().filter(|(_, queues)| *queues > 0);
        let open: Vec<_> = open.map(|(name, _)| name).collect();
        let groups = self.rotate(&open, &head.message_id);
        let mut reachable_after = groups.iter().skip(1).map(|(_, reachable)| *reachable);
        let mut end = Refusal::TopicNotFound(head.topic.clone());
        for (group, _) in &groups {
            // While another group can take the message, there is no point in waiting for this one.
            let elsewhere = reachable_after.next() == Some(true);
            let passage = Passage { caller, metadata, group, repeat: head.repeat, hold, elsewhere };
            let answer = self.inner.forwarder.call::<SendMessage>(&passage, request.clone()).await;
            match &answer {
                Ok(_) => self.inner.suspects.clear(group),
                Err(Refusal::NoLeader { .. } | Refusal::Lost { .. } | Refusal::Timeout { .. }) => {
                    self.suspect(group);
                }
                Err(_) => {}
            }
            match answer {
                Err(refusal @ Refusal::NoLeader { .. }) if elsewhere => end = refusal,
                answer => return answer,
            }
        }
        Err(end)
    }

    /// Broker groups for what may go anywhere. Where routes name addresses, the client chose this
    /// node's group by coming here.
    fn rotate<'a>(
        &self,
        names: &[&'a BrokerName],
        message_id: &str,
    ) -> Vec<(&'a BrokerName, bool)> {
        let preferred = match self.inner.config.route_mode {
            RouteMode::AccessPoint => None,
            RouteMode::Split | RouteMode::Direct => self.local().broker_name(),
        };
        let turn = match message_id {
            "" => self.inner.turn.fetch_add(1, Ordering::Relaxed),
            id => turn_of(id),
        };
        rotation(names, turn, preferred, |name, its_turn| self.is_reachable(name, its_turn))
    }

    pub(crate) async fn receive(
        &self,
        caller: &Caller,
        metadata: &MetadataMap,
        request: ReceiveMessageRequest,
    ) -> Result<ReceiveStream, Refusal> {
        let group = self.receiving_group(caller, &request).await?;
        // A poll may wait for a leader as long as it may wait for messages.
        let poll = request.long_polling_timeout.as_ref().and_then(clock::duration);
        let poll = poll.unwrap_or(limits::LONG_POLL_MAX).min(limits::LONG_POLL_MAX);
        let hold = poll.max(self.inner.config.hold);
        let passage = Passage {
            caller,
            metadata,
            group: &group,
            repeat: Repeat::Safe,
            hold,
            elsewhere: false,
        };
        let mut closing = self.inner.closing();
        let request = ReceiveRequest {
            message: request,
            group: group.clone(),
            answers: Arc::clone(&self.inner.answers),
        };
        tokio::select! {
            answer = self.inner.forwarder.call::<ReceiveMessage>(&passage, request) => answer,
            // A stopping node does not make its server wait for every poll to end.
            _ = closing.wait_for(|closing| *closing) => Err(Refusal::Stopping),
        }
    }

    /// The group that the client's queue names. A name that is not one of the topic's (some clients
    /// make one up) means any of them.
    async fn receiving_group(
        &self,
        caller: &Caller,
        request: &ReceiveMessageRequest,
    ) -> Result<BrokerName, Refusal> {
        let queue = request.message_queue.as_ref();
        let named = queue.and_then(|queue| queue.broker.as_ref());
        let named = named.and_then(|broker| group_of(&broker.name));
        if let Some(name) = &named
            && (self.local().broker_name() == Some(name) || self.directory().group(name).is_some())
        {
            return Ok(name.clone());
        }
        let topic = Topic::from_resource(queue.and_then(|queue| queue.topic.as_ref()))?;
        let route = self.topic(caller, &topic, false).await?;
        let placed = |name: &BrokerName| route.placement.iter().any(|(placed, _)| placed == name);
        match named {
            Some(name) if placed(&name) => Ok(name),
            Some(_) | None => {
                let all: Vec<_> = route.placement.iter().map(|(name, _)| name).collect();
                let groups = self.rotate(&all, "");
                Ok(groups.first().expect("a topic has queues").0.clone())
            }
        }
    }

    pub(crate) async fn ack(
        &self,
        caller: &Caller,
        metadata: &MetadataMap,
        request: AckMessageRequest,
    ) -> Result<AckMessageResponse, Refusal> {
        if caller.client_id.is_none() {
            return Err(Refusal::ClientIdRequired);
        }
        let split = acks::split(request);
        if let Some((group, request)) = split.whole() {
            return self.repeatable::<AckMessage>(caller, metadata, &group, request).await;
        }
        let parts = split.parts.iter().map(|(group, part)| {
            self.repeatable::<AckMessage>(caller, metadata, group, part.request.clone())
        });
        let answers = join_all(parts).await;
        split.join(answers)
    }

    pub(crate) async fn change_invisible(
        &self,
        caller: &Caller,
        metadata: &MetadataMap,
        request: ChangeInvisibleDurationRequest,
    ) -> Result<ChangeInvisibleDurationResponse, Refusal> {
        if caller.client_id.is_none() {
            return Err(Refusal::ClientIdRequired);
        }
        let handle: ReceiptHandle =
            request.receipt_handle.parse().map_err(|_invalid| Refusal::ReceiptHandle)?;
        self.repeatable::<ChangeInvisibleDuration>(caller, metadata, &handle.broker, request).await
    }

    /// A message is taken back once, however often that is asked for.
    pub(crate) async fn recall(
        &self,
        caller: &Caller,
        metadata: &MetadataMap,
        request: RecallMessageRequest,
    ) -> Result<RecallMessageResponse, Refusal> {
        Topic::from_resource(request.topic.as_ref())?;
        let handle: RecallHandle = request.recall_handle.parse()?;
        self.repeatable::<RecallMessage>(caller, metadata, &handle.broker, request).await
    }

    /// The same verdict twice is one verdict.
    pub(crate) async fn end(
        &self,
        caller: &Caller,
        metadata: &MetadataMap,
        request: EndTransactionRequest,
    ) -> Result<EndTransactionResponse, Refusal> {
        Topic::from_resource(request.topic.as_ref())?;
        let id: TransactionId = request.transaction_id.parse()?;
        self.repeatable::<EndTransaction>(caller, metadata, &id.broker, request).await
    }

    pub(crate) async fn give_up(
        &self,
        caller: &Caller,
        metadata: &MetadataMap,
        request: ForwardMessageToDeadLetterQueueRequest,
    ) -> Result<ForwardMessageToDeadLetterQueueResponse, Refusal> {
        if caller.client_id.is_none() {
            return Err(Refusal::ClientIdRequired);
        }
        let handle: ReceiptHandle =
            request.receipt_handle.parse().map_err(|_invalid| Refusal::ReceiptHandle)?;
        self.repeatable::<ForwardToDeadLetterQueue>(caller, metadata, &handle.broker, request).await
    }

    /// Forwards what does no harm when it is done twice.
    pub(crate) async fn repeatable<O: Operation>(
        &self,
        caller: &Caller,
        metadata: &MetadataMap,
        group: &BrokerName,
        request: O::Request,
    ) -> Result<O::Response, Refusal> {
        let hold = self.inner.config.hold;
        let passage =
            Passage { caller, metadata, group, repeat: Repeat::Safe, hold, elsewhere: false };
        self.inner.forwarder.call::<O>(&passage, request).await
    }
}
