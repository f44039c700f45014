//! One port for plaintext and TLS: the first byte of a connection tells which it is.
//!
//! Half of the official clients speak TLS unless told otherwise, the other half plaintext.

mod io;
mod tls;

use std::{io as std_io, sync::Arc, time::Duration};

use futures::Stream;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, warn};

pub use self::{
    io::Io,
    tls::{TlsConfig, TlsError},
};

/// A connection that has not shown what it is by then is closed.
const FIRST_BYTE_WAIT: Duration = Duration::from_secs(10);

/// A TLS handshake that takes longer is given up.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);

/// Connections that may be undecided or in their handshake at once; more wait in the kernel.
const UNDECIDED_MAX: usize = 1024;

/// Pause after the process ran out of file descriptors, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the first byte of every TLS connection is: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// Accepts connections and gives those that are ready for HTTP/2. The stream never ends and never
/// fails; what goes wrong with one connection ends that connection. Dropping it closes the port.
pub fn incoming(
    listener: TcpListener,
    tls: TlsConfig,
) -> impl Stream<Item = std_io::Result<Io>> + Send + 'static {
    let (ready, connections) = mpsc::channel(64);
    tokio::spawn(accept(listener, tls.acceptor(), ready));
    ReceiverStream::new(connections)
}

async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    ready: mpsc::Sender<std_io::Result<Io>>,
) {
    let undecided = Arc::new(Semaphore::new(UNDECIDED_MAX));
    loop {
        let permit = Arc::clone(&undecided).acquire_owned().await.expect("never closed");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return,
        };
        match accepted {
            Ok((socket, peer)) => {
                let (tls, ready) = (tls.clone(), ready.clone());
                tokio::spawn(async move {
                    match decide(socket, tls).await {
                        // Fails only when the server is gone, and then nobody is served.
                        Ok(io) => drop(ready.send(Ok(io)).await),
                        Err(error) => debug!(%peer, %error, "connection closed before its first request"),
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                if is_exhausted(&error) {
                    warn!(%error, "accept connection");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Aborted connections are the peer's business; anything else is worth a line.
fn is_exhausted(error: &std_io::Error) -> bool {
    !matches!(
        error.kind(),
        std_io::ErrorKind::ConnectionAborted
            | std_io::ErrorKind::ConnectionReset
            | std_io::ErrorKind::Interrupted
    )
}

/// Looks at the first byte and does the TLS handshake if it is one.
async fn decide(socket: TcpStream, tls: TlsAcceptor) -> std_io::Result<Io> {
    socket.set_nodelay(true)?;
    let mut first = [0_u8; 1];
    let read = timeout(FIRST_BYTE_WAIT, socket.peek(&mut first)).await??;
    if read == 0 {
        return Err(std_io::ErrorKind::UnexpectedEof.into());
    }
    if first[0] != TLS_HANDSHAKE {
        return Ok(Io::plain(socket));
    }
    let stream = timeout(HANDSHAKE_WAIT, tls.accept(socket)).await??;
    Ok(Io::tls(stream))
}
