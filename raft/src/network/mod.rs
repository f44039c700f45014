//! What the replicas say to each other, over gRPC on the Raft port.

pub(crate) mod auth;
pub(crate) mod client;
pub(crate) mod convert;
pub(crate) mod hello;
pub(crate) mod links;
pub(crate) mod presence;
pub(crate) mod server;
pub(crate) mod watchers;

/// The largest message, far above the largest entry (`Limits::command_bytes`) with its company.
pub(crate) const MESSAGE_BYTES_MAX: usize = 128 << 20;

/// HTTP/2 flow-control windows: the defaults of 64 KiB would stop the pipeline at every entry.
pub(crate) const STREAM_WINDOW: u32 = 8 << 20;
pub(crate) const CONNECTION_WINDOW: u32 = 16 << 20;

/// How soon a connection whose other end fell silent is given up.
pub(crate) const KEEP_ALIVE_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);
pub(crate) const KEEP_ALIVE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);
