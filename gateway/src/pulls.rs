//! Where pulls and offsets go, and how the queues of a topic are shared among those who pull.

use proto::{
    BrokerName, ClientId, ConsumerGroup, QueueId, Topic, clock, limits,
    v2::{
        ClientType, GetOffsetRequest, GetOffsetResponse, MessageQueue, PullMessageRequest,
        QueryOffsetRequest, QueryOffsetResponse, UpdateOffsetRequest, UpdateOffsetResponse,
    },
};
use tonic::metadata::MetadataMap;

use crate::{
    Caller, Directory, Gateway, Local, PullStream, TopicRoute,
    forward::Passage,
    operation::offsets::{GetOffset, ListMembers, PullMessage, QueryOffset, UpdateOffset},
    retry::Repeat,
    route::group_of,
    status::Refusal,
};

impl<L: Local, D: Directory> Gateway<L, D> {
    pub(crate) async fn pull(
        &self,
        caller: &Caller,
        metadata: &MetadataMap,
        request: PullMessageRequest,
    ) -> Result<PullStream, Refusal> {
        let group = self.queue_owner(caller, request.message_queue.as_ref()).await?;
        // A pull may wait for a leader as long as it may wait for messages.
        let wait = request.long_polling_timeout.as_ref().and_then(clock::duration);
        let wait = wait.unwrap_or(limits::LONG_POLL_MAX).min(limits::LONG_POLL_MAX);
        let hold = wait.max(self.inner.config.hold);
        let (repeat, elsewhere) = (Repeat::Safe, false);
        let passage = Passage { caller, metadata, group: &group, repeat, hold, elsewhere };
        let at_once = PullMessageRequest {
            long_polling_timeout: Some(prost_types::Duration::default()),
            ..request.clone()
        };
        let mut closing = self.inner.closing();
        let answer = tokio::select! {
            answer = self.inner.forwarder.call::<PullMessage>(&passage, request) => Some(answer),
            // A stopping node does not make its server wait for every pull to end.
            _ = closing.wait_for(|closing| *closing) => None,
        };
        match answer {
            Some(answer) => answer,
            // But "nothing is there" has to be true: it asks once more, without waiting.
            None => self.inner.forwarder.call::<PullMessage>(&passage, at_once).await,
        }
    }

    /// A commit never takes anything back, so it does no harm when it is done twice.
    pub(crate) async fn update_offset(
        &self,
        caller: &Caller,
        metadata: &MetadataMap,
        request: UpdateOffsetRequest,
    ) -> Result<UpdateOffsetResponse, Refusal> {
        let group = self.queue_owner(caller, request.message_queue.as_ref()).await?;
        self.repeatable::<UpdateOffset>(caller, metadata, &group, request).await
    }

    pub(crate) async fn get_offset(
        &self,
        caller: &Caller,
        metadata: &MetadataMap,
        request: GetOffsetRequest,
    ) -> Result<GetOffsetResponse, Refusal> {
        let group = self.queue_owner(caller, request.message_queue.as_ref()).await?;
        self.repeatable::<GetOffset>(caller, metadata, &group, request).await
    }

    pub(crate) async fn query_offset(
        &self,
        caller: &Caller,
        metadata: &MetadataMap,
        request: QueryOffsetRequest,
    ) -> Result<QueryOffsetResponse, Refusal> {
        let group = self.queue_owner(caller, request.message_queue.as_ref()).await?;
        self.repeatable::<QueryOffset>(caller, metadata, &group, request).await
    }

    /// The broker group that holds a queue. An offset means nothing in another one, so it must be
    /// named, unless the topic lives in one only.
    async fn queue_owner(
        &self,
        caller: &Caller,
        queue: Option<&MessageQueue>,
    ) -> Result<BrokerName, Refusal> {
        let topic = Topic::from_resource(queue.and_then(|queue| queue.topic.as_ref()))?;
        let route = self.topic(caller, &topic, false).await?;
        let named = queue.and_then(|queue| queue.broker.as_ref()).map(|broker| &broker.name);
        let named = named.filter(|name| !name.is_empty());
        let mut placed = route.placement.iter().map(|(name, _)| name);
        let owner = match named {
            Some(name) => {
                let group = group_of(name);
                placed.find(|placed| Some(*placed) == group.as_ref())
            }
            None if route.placement.len() == 1 => placed.next(),
            None => None,
        };
        owner.cloned().ok_or(Refusal::NoSuchQueue)
    }

    /// The queues that are the caller's share, if it pulls; `None` for everybody else.
    pub(crate) async fn share(
        &self,
        caller: &Caller,
        group: &ConsumerGroup,
        route: &TopicRoute,
    ) -> Result<Option<Vec<(BrokerName, QueueId)>>, Refusal> {
        let Some(own) = &caller.client_id else { return Ok(None) };
        if self.inner.registry.lock().kind(own) != Some(ClientType::PullConsumer) {
            return Ok(None);
        }
        // All access points ask the same leader, or they would share out differently while news
        // travels. Every leader knows every member, so another one does when it is gone.
        let hosts: Vec<_> = route.placement.iter().map(|(name, _)| name.clone()).collect();
        let (hold, forwarder) = (self.inner.config.hold, &self.inner.forwarder);
        let question = (group.clone(), route.topic.clone());
        let members = forwarder.ask_any::<ListMembers>(caller, &hosts, question, hold).await?;
        Ok(Some(share(&route.placement, members, own)))
    }
}

/// The queues of one member: each gets a stretch of them, and the first members one more while it
/// does not come out even. `own` counts as a member also before the leader has heard of it.
fn share(
    placement: &[(BrokerName, u32)],
    mut members: Vec<ClientId>,
    own: &ClientId,
) -> Vec<(BrokerName, QueueId)> {
    if !members.contains(own) {
        members.push(own.clone());
    }
    members.sort();
    let at = members.iter().position(|member| member == own).expect("it is one of them");
    let ids = |(name, queues): &(BrokerName, u32)| {
        let name = name.clone();
        (0..*queues).map(move |id| (name.clone(), QueueId(id)))
    };
    let queues: Vec<_> = placement.iter().flat_map(ids).collect();
    let (each, more) = (queues.len() / members.len(), queues.len() % members.len());
    let start = each * at + at.min(more);
    let end = start + each + usize::from(at < more);
    queues[start..end].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: usize) -> ClientId {
        format!("client-{n}").parse().expect("valid")
    }

    #[test]
    fn every_queue_is_in_one_share_and_shares_are_even() {
        let name = |n: u32| format!("broker-{n}").parse::<BrokerName>().expect("valid");
        for (first, second, members) in (0..5).flat_map(|a| {
            (0..5).flat_map(move |b| (1..9_usize).map(move |members| (a, b, members)))
        }) {
            let placement = [(name(1), first), (name(2), second)];
            let all: Vec<ClientId> = (0..members).map(client).collect();
            let shares: Vec<_> =
                all.iter().map(|own| share(&placement, all.clone(), own)).collect();
            let ids =
                placement.iter().flat_map(|(b, q)| (0..*q).map(|id| (b.clone(), QueueId(id))));
            assert_eq!(shares.concat(), ids.collect::<Vec<_>>());
            let sizes = || shares.iter().map(Vec::len);
            assert!(sizes().max() <= sizes().min().map(|least| least + 1));
        }
    }

    #[test]
    fn who_is_not_known_yet_has_a_share_all_the_same() {
        let placement = [("broker-a".parse().expect("valid"), 4)];
        let ids = |share: Vec<(BrokerName, QueueId)>| {
            share.into_iter().map(|(_, id)| id.0).collect::<Vec<_>>()
        };
        assert_eq!(ids(share(&placement, vec![], &client(1))), [0, 1, 2, 3]);
        assert_eq!(ids(share(&placement, vec![client(0)], &client(1))), [2, 3]);
    }
}
