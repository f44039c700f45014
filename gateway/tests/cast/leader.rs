//! A broker that does as it is told.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use futures::{StreamExt, stream};
use gateway::{Caller, Local, Miss, PullStream, ReceiveStream, TopicRoute};
use proto::{
    BrokerName, ClientId, ConsumerGroup, SendMessageRequest, Topic,
    hop::CallId,
    session::{
        DescribeGroupRequest, DescribeTopicRequest, DescribeTopicResponse, Down, GroupSettings,
        ListMembersRequest, ListMembersResponse, Placement, Up, sessions_server::Sessions, up,
    },
    v2::{self, Code},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// What a broker does with the next request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// Never answers.
    Hang,
    Miss(Miss),
}

/// What a broker does with polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Poll {
    #[default]
    Answer,
    /// Holds them, and counts those that were dropped.
    Hold,
    /// Breaks off after the first message.
    Break,
}

/// What a broker saw and what it will do.
#[derive(Debug, Default)]
pub struct Scene {
    pub leads: bool,
    /// Named to those who ask a node that does not lead.
    pub leader: Option<String>,
    pub script: VecDeque<Script>,
    pub polls: Poll,
    pub polls_held: usize,
    pub polls_dropped: usize,
    /// The names of polls that came here.
    pub calls: Vec<Option<CallId>>,
    pub sends: Vec<SendMessageRequest>,
    pub ends: Vec<v2::EndTransactionRequest>,
    pub callers: Vec<Caller>,
    pub topics: Vec<TopicRoute>,
    pub creates_topics: bool,
    pub fifo_groups: Vec<String>,
    pub committed: i64,
    /// Who pulls, whatever group and topic.
    pub members: Vec<String>,
    /// What access points said, by session: the streams opened and all that came up.
    pub sessions: Vec<Vec<up::Event>>,
    pub down: Option<mpsc::Sender<Result<Down, Status>>>,
}

/// A scripted broker; clones are the same one.
#[derive(Debug, Clone)]
pub struct ScriptedBroker {
    name: BrokerName,
    scene: Arc<Mutex<Scene>>,
}

impl ScriptedBroker {
    pub fn leading(name: &str) -> Self {
        let scene = Scene { leads: true, ..Scene::default() };
        Self { name: super::name(name), scene: Arc::new(Mutex::new(scene)) }
    }

    pub fn following(name: &str, leader: Option<&str>) -> Self {
        let broker = Self::leading(name);
        broker.scene().leads = false;
        broker.scene().leader = leader.map(str::to_owned);
        broker
    }

    pub fn scene(&self) -> MutexGuard<'_, Scene> {
        self.scene.lock().expect("no holder panics")
    }

    async fn gate(&self) -> Result<(), Miss> {
        let script = {
            let mut scene = self.scene();
            if !scene.leads {
                return Err(Miss::NotLeader { leader: scene.leader.clone() });
            }
            scene.script.pop_front()
        };
        match script {
            Some(Script::Hang) => std::future::pending().await,
            Some(Script::Miss(miss)) => Err(miss),
            None => Ok(()),
        }
    }
}

fn ok() -> v2::Status {
    v2::Status { code: Code::Ok.into(), message: "OK".into() }
}

#[tonic::async_trait]
impl Local for ScriptedBroker {
    fn broker_name(&self) -> Option<&BrokerName> {
        Some(&self.name)
    }

    async fn send_message(
        &self,
        caller: &Caller,
        request: SendMessageRequest,
    ) -> Result<v2::SendMessageResponse, Miss> {
        if self.scene().leads {
            let mut scene = self.scene();
            scene.sends.push(request.clone());
            scene.callers.push(caller.clone());
        }
        self.gate().await?;
        let entry = v2::SendResultEntry { status: Some(ok()), ..Default::default() };
        let entries = vec![entry; request.messages.len()];
        Ok(v2::SendMessageResponse { status: Some(ok()), entries })
    }

    async fn receive_message(
        &self,
        caller: &Caller,
        _: v2::ReceiveMessageRequest,
    ) -> Result<ReceiveStream, Miss> {
        if self.scene().leads {
            self.scene().calls.push(caller.call);
        }
        self.gate().await?;
        if self.scene().polls == Poll::Hold {
            self.scene().polls_held += 1;
            return Ok(Box::pin(Held { broker: self.clone() }));
        }
        use v2::receive_message_response::Content;
        let part = |content| Ok(v2::ReceiveMessageResponse { content: Some(content) });
        let mut parts = vec![part(Content::Status(ok()))];
        if self.scene().polls == Poll::Break {
            parts.push(part(Content::Message(v2::Message::default())));
            parts.push(Err(Status::unavailable("the leader dies")));
        }
        Ok(Box::pin(stream::iter(parts)))
    }

    async fn ack_message(
        &self,
        _: &Caller,
        request: v2::AckMessageRequest,
    ) -> Result<v2::AckMessageResponse, Miss> {
        self.gate().await?;
        let entries = request.entries.into_iter().map(|entry| v2::AckMessageResultEntry {
            message_id: entry.message_id,
            receipt_handle: entry.receipt_handle,
            status: Some(ok()),
        });
        Ok(v2::AckMessageResponse { status: Some(ok()), entries: entries.collect() })
    }

    async fn change_invisible_duration(
        &self,
        _: &Caller,
        request: v2::ChangeInvisibleDurationRequest,
    ) -> Result<v2::ChangeInvisibleDurationResponse, Miss> {
        self.gate().await?;
        let receipt_handle = request.receipt_handle;
        Ok(v2::ChangeInvisibleDurationResponse { status: Some(ok()), receipt_handle })
    }

    async fn pull_message(
        &self,
        _: &Caller,
        request: v2::PullMessageRequest,
    ) -> Result<PullStream, Miss> {
        use v2::pull_message_response::Content;
        self.gate().await?;
        let parts = [Content::Status(ok()), Content::NextOffset(request.offset + 1)];
        let parts = parts.map(|part| Ok(v2::PullMessageResponse { content: Some(part) }));
        Ok(Box::pin(stream::iter(parts)))
    }

    async fn update_offset(
        &self,
        _: &Caller,
        request: v2::UpdateOffsetRequest,
    ) -> Result<v2::UpdateOffsetResponse, Miss> {
        self.gate().await?;
        self.scene().committed = request.offset;
        Ok(v2::UpdateOffsetResponse { status: Some(ok()) })
    }

    async fn get_offset(
        &self,
        _: &Caller,
        _: v2::GetOffsetRequest,
    ) -> Result<v2::GetOffsetResponse, Miss> {
        self.gate().await?;
        let offset = self.scene().committed;
        Ok(v2::GetOffsetResponse { status: Some(ok()), offset })
    }

    async fn query_offset(
        &self,
        _: &Caller,
        _: v2::QueryOffsetRequest,
    ) -> Result<v2::QueryOffsetResponse, Miss> {
        self.gate().await?;
        Ok(v2::QueryOffsetResponse { status: Some(ok()), offset: 7 })
    }

    async fn group_members(&self, _: &ConsumerGroup, _: &Topic) -> Result<Vec<ClientId>, Miss> {
        self.gate().await?;
        let members = self.scene().members.clone();
        Ok(members.iter().map(|id| id.parse().expect("a client id")).collect())
    }

    async fn recall_message(
        &self,
        _: &Caller,
        request: v2::RecallMessageRequest,
    ) -> Result<v2::RecallMessageResponse, Miss> {
        self.gate().await?;
        Ok(v2::RecallMessageResponse { status: Some(ok()), message_id: request.recall_handle })
    }

    async fn end_transaction(
        &self,
        _: &Caller,
        request: v2::EndTransactionRequest,
    ) -> Result<v2::EndTransactionResponse, Miss> {
        if self.scene().leads {
            self.scene().ends.push(request);
        }
        self.gate().await?;
        Ok(v2::EndTransactionResponse { status: Some(ok()) })
    }

    async fn forward_message_to_dead_letter_queue(
        &self,
        _: &Caller,
        _: v2::ForwardMessageToDeadLetterQueueRequest,
    ) -> Result<v2::ForwardMessageToDeadLetterQueueResponse, Miss> {
        self.gate().await?;
        Ok(v2::ForwardMessageToDeadLetterQueueResponse { status: Some(ok()) })
    }

    async fn describe_topic(
        &self,
        topic: &Topic,
        create: bool,
    ) -> Result<Option<TopicRoute>, Miss> {
        self.gate().await?;
        let mut scene = self.scene();
        if let Some(known) = scene.topics.iter().find(|route| route.topic == *topic) {
            return Ok(Some(known.clone()));
        }
        if !create || !scene.creates_topics {
            return Ok(None);
        }
        let created = super::topic(topic.as_str(), &[self.name.as_str()]);
        scene.topics.push(created.clone());
        Ok(Some(created))
    }

    async fn group_settings(&self, group: &ConsumerGroup) -> Result<GroupSettings, Miss> {
        self.gate().await?;
        let fifo = self.scene().fifo_groups.iter().any(|name| name == group.as_str());
        Ok(GroupSettings { group: group.to_string(), fifo, backoff: None, exists: true })
    }
}

/// A poll that never ends by itself.
struct Held {
    broker: ScriptedBroker,
}

impl futures::Stream for Held {
    type Item = Result<v2::ReceiveMessageResponse, Status>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Pending
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut scene = self.broker.scene();
        scene.polls_held -= 1;
        scene.polls_dropped += 1;
    }
}

#[tonic::async_trait]
impl Sessions for ScriptedBroker {
    type OpenStream = ReceiverStream<Result<Down, Status>>;

    async fn open(
        &self,
        request: Request<Streaming<Up>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        let mut up = request.into_inner();
        let (down, stream) = mpsc::channel(16);
        let nth = {
            let mut scene = self.scene();
            if !scene.leads {
                let miss = Miss::NotLeader { leader: scene.leader.clone() };
                return Err(gateway::status::refusal(&miss));
            }
            scene.down = Some(down);
            scene.sessions.push(Vec::new());
            scene.sessions.len() - 1
        };
        let broker = self.clone();
        tokio::spawn(async move {
            while let Some(Ok(Up { event: Some(event) })) = up.next().await {
                broker.scene().sessions[nth].push(event);
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn describe_group(
        &self,
        request: Request<DescribeGroupRequest>,
    ) -> Result<Response<GroupSettings>, Status> {
        let group = request.into_inner().group.parse().expect("gateways ask for valid names");
        let settings = self.group_settings(&group).await;
        settings.map(Response::new).map_err(|miss| gateway::status::refusal(&miss))
    }

    async fn list_members(
        &self,
        request: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        let ListMembersRequest { group, topic } = request.into_inner();
        let group = group.parse().expect("gateways ask for valid names");
        let topic = topic.parse().expect("gateways ask for valid names");
        let members = self.group_members(&group, &topic).await;
        let members = members.map_err(|miss| gateway::status::refusal(&miss))?;
        let client_ids = members.iter().map(ToString::to_string).collect();
        Ok(Response::new(ListMembersResponse { client_ids }))
    }

    async fn describe_topic(
        &self,
        request: Request<DescribeTopicRequest>,
    ) -> Result<Response<DescribeTopicResponse>, Status> {
        let request = request.into_inner();
        let topic: Topic = request.topic.parse().expect("gateways ask for valid names");
        let route = Local::describe_topic(self, &topic, request.create).await;
        let route = route.map_err(|miss| gateway::status::refusal(&miss))?;
        let response = route.map_or_else(DescribeTopicResponse::default, |route| {
            let placement = route
                .placement
                .iter()
                .map(|(name, queues)| Placement { broker_name: name.to_string(), queues: *queues });
            DescribeTopicResponse {
                exists: true,
                permission: route.permission.into(),
                accepts: route.accepts.iter().map(|kind| i32::from(*kind)).collect(),
                placement: placement.collect(),
                version: route.version,
            }
        });
        Ok(Response::new(response))
    }
}
