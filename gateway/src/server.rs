//! A gRPC server as the official clients need it.

use std::time::Duration;

use tonic::transport::Server;
use tower::layer::util::{Identity, Stack};

use crate::Dialled;

/// Calls at once on one connection. Each long poll holds one, and clients have one connection for
/// all their polls.
const CALLS_PER_CONNECTION: u32 = 16_384;

/// Bytes in flight from a client: for one call, and for the connection.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// Connections whose other end vanished without a word are closed after this time and that.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_WAIT: Duration = Duration::from_secs(20);

/// Cancelled calls that may wait to be noticed. One stack cancels and repeats all its polls every
/// five seconds.
const CANCELLED_CALLS: usize = 4096;

/// Notes the `:authority` of each call, see [`Dialled`].
pub type NoteDialled = tower::util::MapRequestLayer<NoteFn>;

/// The function of [`NoteDialled`].
pub type NoteFn = fn(http::Request<tonic::body::Body>) -> http::Request<tonic::body::Body>;

fn note_dialled(mut request: http::Request<tonic::body::Body>) -> http::Request<tonic::body::Body> {
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    if let Some(authority) = authority {
        request.extensions_mut().insert(Dialled(authority));
    }
    request
}

/// A server builder with windows, limits and keep-alive set. Add services, then serve
/// [`crate::listener::incoming`].
pub fn builder() -> Server<Stack<NoteDialled, Identity>> {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(CALLS_PER_CONNECTION)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_WAIT))
        .http2_max_pending_accept_reset_streams(Some(CANCELLED_CALLS))
        .layer(NoteDialled::new(note_dialled as NoteFn))
}
