//! One port for plaintext and TLS: the first byte of a connection tells which it is.
//!
//! Half of the official clients speak TLS unless told otherwise, the other half plaintext.

mod connection;
mod tls;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures::Stream;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, warn};

pub use self::{
    connection::Io,
    tls::{TlsConfig, TlsError},
};

/// A connection that has not shown what it is by then is closed.
const FIRST_BYTE_WAIT: Duration = Duration::from_secs(10);

/// A TLS handshake that takes longer is given up.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);

/// Connections that may be undecided or in their handshake at once; more wait in the kernel.
const UNDECIDED_MAX: usize = 1024;

/// Connections at once, unless told otherwise.
pub const CONNECTIONS_MAX: usize = 10_000;

/// Connections that are ready and wait for the server.
const READY_MAX: usize = 64;

/// Pause after the process ran out of file descriptors, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the first byte of every TLS connection is: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// Accepts connections and gives those that are ready for HTTP/2. The stream never ends and never
/// fails; what goes wrong with one connection ends that connection. Dropping it closes the port.
pub fn incoming(
    listener: TcpListener,
    tls: TlsConfig,
) -> impl Stream<Item = io::Result<Io>> + Send + 'static {
    incoming_at_most(listener, tls, CONNECTIONS_MAX)
}

/// The same with a bound of one's own: connections over it are closed at once.
pub fn incoming_at_most(
    listener: TcpListener,
    tls: TlsConfig,
    connections: usize,
) -> impl Stream<Item = io::Result<Io>> + Send + 'static {
    let (ready, stream) = mpsc::channel(READY_MAX);
    let slots = Arc::new(Semaphore::new(connections));
    tokio::spawn(Accepting { listener, tls: tls.into_acceptor(), ready, slots }.run());
    ReceiverStream::new(stream)
}

/// The task that owns the port.
struct Accepting {
    listener: TcpListener,
    tls: TlsAcceptor,
    ready: mpsc::Sender<io::Result<Io>>,
    slots: Arc<Semaphore>,
}

impl Accepting {
    async fn run(self) {
        let undecided = Arc::new(Semaphore::new(UNDECIDED_MAX));
        loop {
            let permit = Arc::clone(&undecided).acquire_owned().await.expect("never closed");
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = self.ready.closed() => return,
            };
            match accepted {
                Ok((socket, peer)) => self.welcome(socket, peer, permit),
                Err(error) => {
                    if is_exhausted(&error) {
                        warn!(%error, "accept connection");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn welcome(&self, socket: TcpStream, peer: SocketAddr, undecided: OwnedSemaphorePermit) {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            debug!(%peer, "connection closed: there are too many");
            return;
        };
        let (tls, ready) = (self.tls.clone(), self.ready.clone());
        tokio::spawn(async move {
            match decide(socket, tls, slot).await {
                // Fails only when the server is gone, and then nobody is served.
                Ok(io) => drop(ready.send(Ok(io)).await),
                Err(error) => {
                    debug!(%peer, %error, "connection closed before its first request");
                }
            }
            drop(undecided);
        });
    }
}

/// Aborted connections are the peer's business; anything else is worth a line.
fn is_exhausted(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// Looks at the first byte and does the TLS handshake if it is one.
async fn decide(socket: TcpStream, tls: TlsAcceptor, slot: OwnedSemaphorePermit) -> io::Result<Io> {
    socket.set_nodelay(true)?;
    let mut first = [0_u8; 1];
    let read = timeout(FIRST_BYTE_WAIT, socket.peek(&mut first)).await??;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first[0] != TLS_HANDSHAKE {
        return Ok(Io::plain(socket, slot));
    }
    let stream = timeout(HANDSHAKE_WAIT, tls.accept(socket)).await??;
    Ok(Io::tls(stream, slot))
}
