//! The access point: everything that a client may ask of a node, whether it leads or not.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use proto::{
    limits::GRPC_BYTES, produce::produce_server::ProduceServer,
    v2::messaging_service_server::MessagingServiceServer,
};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    Config, Directory, Hops, Local, answers::Answers, channels::Channels,
    consumer_groups::ConsumerGroups, forward::Forwarder, registry::Registry, session,
    suspects::Suspects, topics::Learned,
};

/// An access point. Clones share everything; its sessions end with the last clone.
pub struct Gateway<L, D> {
    pub(crate) inner: Arc<Inner<L, D>>,
    tasks: Arc<JoinSet<()>>,
}

pub(crate) struct Inner<L, D> {
    pub(crate) config: Config,
    pub(crate) forwarder: Forwarder<L, D>,
    pub(crate) registry: Registry,
    pub(crate) answers: Arc<Answers>,
    pub(crate) topics: Learned,
    pub(crate) consumer_groups: ConsumerGroups,
    /// Whose turn it is among the broker groups of a topic, for what has no id.
    pub(crate) turn: AtomicU64,
    /// Broker groups that gave no answer lately.
    pub(crate) suspects: Suspects,
    closing: watch::Sender<bool>,
}

impl<L, D> Inner<L, D> {
    /// Becomes true when this node is about to stop.
    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }
}

impl<L: Local, D: Directory> Gateway<L, D> {
    /// Opens sessions to the leaders that the directory knows, now and later. Must be called within
    /// a tokio runtime.
    pub fn start(config: Config, local: L, directory: D) -> Self {
        let inner = Arc::new(Inner {
            registry: Registry::new(config.clients_max),
            answers: Arc::new(Answers::new(config.boot_id)),
            config,
            forwarder: Forwarder {
                local,
                directory,
                channels: Channels::default(),
                hops: Hops::default(),
            },
            topics: Learned::default(),
            consumer_groups: ConsumerGroups::default(),
            turn: AtomicU64::new(0),
            suspects: Suspects::default(),
            closing: watch::Sender::new(false),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(session::keep_all(Arc::clone(&inner)));
        tasks.spawn(session::expire(Arc::clone(&inner)));
        Self { inner, tasks: Arc::new(tasks) }
    }

    /// The service for a tonic server, with its limits set.
    pub fn service(&self) -> MessagingServiceServer<Self> {
        MessagingServiceServer::new(self.clone())
            .max_decoding_message_size(GRPC_BYTES)
            .max_encoding_message_size(GRPC_BYTES)
    }

    /// The service for sends in a stream.
    pub fn produce_service(&self) -> ProduceServer<Self> {
        ProduceServer::new(self.clone())
            .max_decoding_message_size(GRPC_BYTES)
            .max_encoding_message_size(GRPC_BYTES)
    }

    /// The operations of the node itself.
    pub fn local(&self) -> &L {
        &self.inner.forwarder.local
    }

    /// The view that this access point goes by.
    pub fn directory(&self) -> &D {
        &self.inner.forwarder.directory
    }

    /// Clients that this access point knows at the moment.
    pub fn clients(&self) -> usize {
        self.inner.registry.lock().len()
    }

    /// Counts what is sent on to other nodes.
    pub fn hops(&self) -> &Hops {
        &self.inner.forwarder.hops
    }

    /// Ends all Telemetry streams, so that a server that waits for its requests can stop. Clients
    /// open them again at another node.
    pub fn close(&self) {
        self.inner.closing.send_replace(true);
    }
}

impl<L, D> Clone for Gateway<L, D> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), tasks: Arc::clone(&self.tasks) }
    }
}

impl<L, D> fmt::Debug for Gateway<L, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("config", &self.inner.config).finish_non_exhaustive()
    }
}
