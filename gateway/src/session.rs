//! Tells the leader of each broker group about the clients of this access point, and passes its
//! commands on to them.
//!
//! A new leader, or a broken stream, means a new session that tells everything again; in between
//! only what changed is told.

use std::{collections::HashMap, sync::Arc, time::Duration};

use proto::{
    BrokerName, ConsumerGroup, hop,
    limits::GRPC_BYTES,
    session::{
        Alive, Answered, Down, GroupSettings, Hello, Receipt, Up, down,
        sessions_client::SessionsClient, up,
    },
    v2::Settings,
    wire,
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming, metadata::MetadataMap};
use tracing::{debug, info};

use crate::{
    Directory, Local,
    channels::Lane,
    clients::News,
    forward::wait,
    gateway::Inner,
    settings,
    telemetry::{consumer_group, language, settings_command},
};

/// How often leaders are told who is alive.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// Ids in one such message.
const ALIVE_IDS: usize = 1000;

/// A leader that does not open the session, or does not read, by then is given up.
const LEADER_WAIT: Duration = Duration::from_secs(3);

/// Pause before the next attempt when nothing changed.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// How long news of answers are collected, so that many go in one message.
const COLLECT_ANSWERS: Duration = Duration::from_millis(10);

/// Answers in one such message.
const ANSWERS_AT_ONCE: usize = 2048;

/// Messages on their way to the leader.
const UP_MAX: usize = 64;

/// How often silent clients are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);

/// Gives up silent clients, for ever.
pub(crate) async fn expire<L: Local, D: Directory>(inner: Arc<Inner<L, D>>) {
    let mut ticks = interval(EXPIRE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        inner.registry.expire();
    }
}

/// Keeps one session with each broker group, for ever.
pub(crate) async fn keep_all<L: Local, D: Directory>(inner: Arc<Inner<L, D>>) {
    let mut changed = inner.forwarder.directory.changed();
    let mut links = JoinSet::new();
    let mut kept: HashMap<BrokerName, AbortHandle> = HashMap::new();
    loop {
        changed.mark_unchanged();
        let groups = inner.forwarder.directory.groups();
        kept.retain(|name, link| {
            let stays = groups.contains(name);
            if !stays {
                link.abort();
            }
            stays
        });
        for name in groups {
            kept.entry(name.clone()).or_insert_with(|| links.spawn(keep(Arc::clone(&inner), name)));
        }
        while links.try_join_next().is_some() {}
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// Keeps a session with one group's leader, for ever.
async fn keep<L: Local, D: Directory>(inner: Arc<Inner<L, D>>, group: BrokerName) {
    let mut changed = inner.forwarder.directory.changed();
    loop {
        changed.mark_unchanged();
        let view = inner.forwarder.directory.group(&group);
        if let Some(leader) = view.and_then(|view| view.leader.clone()) {
            let end = Link { inner: &inner, group: &group, leader: &leader }.run().await;
            debug!(%group, %leader, %end, "session ended");
        }
        wait(&mut changed, RETRY_PAUSE).await;
    }
}

/// One session.
struct Link<'a, L, D> {
    inner: &'a Inner<L, D>,
    group: &'a BrokerName,
    leader: &'a str,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("leader not reached")]
    NotConnected,
    #[error("leader refused: {0}")]
    Refused(tonic::Status),
    #[error("leader did not answer in time")]
    Slow,
    #[error("leader closed the session")]
    Closed,
    #[error("session broke: {0}")]
    Broken(tonic::Status),
    #[error("another leader")]
    Superseded,
    #[error("too far behind")]
    Behind,
}

impl<L: Local, D: Directory> Link<'_, L, D> {
    async fn run(&self) -> End {
        match self.converse().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn converse(&self) -> Result<std::convert::Infallible, End> {
        let inner = self.inner;
        let (up, outgoing) = mpsc::channel(UP_MAX);
        let mut clients_changed = inner.registry.changed();
        let mut directory_changed = inner.forwarder.directory.changed();
        let mut incoming = self.open(&up, outgoing).await?;
        info!(group = %self.group, leader = %self.leader, "session opened");
        clients_changed.mark_unchanged();
        let everything = inner.registry.lock().everything();
        let mut told = tell(&up, everything).await?;
        let mut answers_changed = inner.answers.changed();
        let mut answers_told = self.tell_answers(&up, 0).await?;
        let mut alive_ticks = interval(ALIVE_EVERY);
        alive_ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut alive_since = Instant::now() - ALIVE_EVERY;
        loop {
            tokio::select! {
                said = incoming.message() => match said {
                    Ok(Some(down)) => {
                        if let Some(receipt) = self.hear(down) {
                            say(&up, up::Event::Receipt(receipt)).await?;
                        }
                    }
                    Ok(None) => return Err(End::Closed),
                    Err(status) => return Err(End::Broken(status)),
                },
                Ok(()) = clients_changed.changed() => {
                    let news = inner.registry.lock().since(told).map_err(|_| End::Behind)?;
                    told = tell(&up, news).await?;
                }
                Ok(()) = answers_changed.changed() => {
                    tokio::time::sleep(COLLECT_ANSWERS).await;
                    answers_changed.mark_unchanged();
                    answers_told = self.tell_answers(&up, answers_told).await?;
                }
                now = alive_ticks.tick() => {
                    let ids = inner.registry.lock().heard_since(alive_since.into_std());
                    alive_since = now;
                    for ids in ids.chunks(ALIVE_IDS) {
                        let alive = Alive { client_ids: ids.to_vec() };
                        say(&up, up::Event::Alive(alive)).await?;
                    }
                }
                Ok(()) = directory_changed.changed() => {
                    let view = inner.forwarder.directory.group(self.group);
                    let leader = view.and_then(|view| view.leader.clone());
                    if leader.is_some_and(|leader| leader != self.leader) {
                        return Err(End::Superseded);
                    }
                }
            }
        }
    }

    /// Tells how answers ended, if the leader was told of so many. Returns of how many now.
    async fn tell_answers(&self, up: &mpsc::Sender<Up>, mut told: u64) -> Result<u64, End> {
        loop {
            let (answers, now) = self.inner.answers.since(self.group, told, ANSWERS_AT_ONCE);
            told = now;
            if answers.is_empty() {
                return Ok(told);
            }
            say(up, up::Event::Answered(Answered { answers })).await?;
        }
    }

    async fn open(
        &self,
        up: &mpsc::Sender<Up>,
        outgoing: mpsc::Receiver<Up>,
    ) -> Result<Streaming<Down>, End> {
        let config = &self.inner.config;
        let hello = Hello {
            access_point: config.access_point.clone(),
            boot_id: config.boot_id,
            wire_oldest: wire::ours().oldest(),
            wire_newest: wire::ours().newest(),
        };
        say(up, up::Event::Hello(hello)).await?;
        let channels = &self.inner.forwarder.channels;
        let channel = channels
            .get(self.leader, Lane::Streams)
            .await
            .map_err(|_not_connected| End::NotConnected)?;
        let mut metadata = MetadataMap::new();
        hop::mark(&mut metadata, self.group);
        let request = Request::from_parts(
            metadata,
            tonic::Extensions::default(),
            ReceiverStream::new(outgoing),
        );
        // A question about a transaction holds the message.
        let mut sessions = SessionsClient::new(channel).max_decoding_message_size(GRPC_BYTES);
        let opened = timeout(LEADER_WAIT, sessions.open(request)).await;
        match opened {
            Ok(Ok(incoming)) => Ok(incoming.into_inner()),
            Ok(Err(status)) => {
                match hop::leader(&status) {
                    Some(leader) => {
                        self.inner.forwarder.directory.report_leader(self.group, leader);
                    }
                    // A connection that breaks here is broken for all.
                    None if hop::fate(&status).is_none() => {
                        channels.drop_connection(self.leader, Lane::Streams);
                    }
                    None => {}
                }
                Err(End::Refused(status))
            }
            Err(_) => {
                channels.drop_connection(self.leader, Lane::Streams);
                Err(End::Slow)
            }
        }
    }

    /// Returns what the leader wants to know of a command.
    fn hear(&self, down: Down) -> Option<Receipt> {
        match down.event {
            Some(down::Event::Command(to)) => {
                let handed = self.inner.registry.command(&to.client_id, to.command?);
                if !handed {
                    debug!(client_id = %to.client_id, "command for a client that does not listen");
                }
                return (to.nonce > 0).then_some(Receipt { nonce: to.nonce, handed });
            }
            Some(down::Event::Settings(settings)) => self.pass_on(&settings),
            None => debug!(group = %self.group, "empty message from the leader"),
        }
        None
    }

    /// A consumer group's settings changed: its members are told.
    fn pass_on(&self, changed: &GroupSettings) {
        let Ok(group) = changed.group.parse::<ConsumerGroup>() else {
            debug!(group = %changed.group, "settings of a group with an invalid name");
            return;
        };
        self.inner.consumer_groups.put(group.clone(), changed.clone());
        let is_member =
            |settings: &Settings| consumer_group(settings).ok().flatten().as_ref() == Some(&group);
        let members = self.inner.registry.lock().matching(is_member);
        for (identity, outbound) in members {
            let said = &identity.settings;
            let spoken = language(said, proto::v2::Language::Unspecified);
            let merged = settings::merge(said, Some(changed), spoken);
            if outbound.try_send(Ok(settings_command(merged))).is_err() {
                debug!(%group, "settings for a member that does not listen");
            }
        }
    }
}

/// Tells news; departures first, since a client may have come back.
async fn tell(up: &mpsc::Sender<Up>, news: News) -> Result<u64, End> {
    for gone in news.gone {
        say(up, up::Event::Gone(gone)).await?;
    }
    for lost in news.lost {
        say(up, up::Event::Lost(lost)).await?;
    }
    for client in news.clients {
        say(up, up::Event::Client(client)).await?;
    }
    Ok(news.upto)
}

async fn say(up: &mpsc::Sender<Up>, event: up::Event) -> Result<(), End> {
    match timeout(LEADER_WAIT, up.send(Up { event: Some(event) })).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_closed)) => Err(End::Closed),
        Err(_) => Err(End::Slow),
    }
}
