//! A connection, whatever its encryption.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// A connection that is ready for HTTP/2. Its place among the connections is free again when it is
/// dropped.
#[derive(Debug)]
pub struct Io {
    inner: Inner,
    _slot: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Inner {
    Plain(TcpStream),
    // The TLS state is ten times the size of the other variant.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    pub(super) fn plain(socket: TcpStream, slot: OwnedSemaphorePermit) -> Self {
        Self { inner: Inner::Plain(socket), _slot: slot }
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>, slot: OwnedSemaphorePermit) -> Self {
        Self { inner: Inner::Tls(Box::new(stream)), _slot: slot }
    }

    /// The client's address; `None` once the connection is broken.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.socket().peer_addr().ok()
    }

    fn socket(&self) -> &TcpStream {
        match &self.inner {
            Inner::Plain(socket) => socket,
            Inner::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl Connected for Io {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.socket().connect_info()
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Inner::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.inner {
            Inner::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Inner::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Inner::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Inner::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.inner {
            Inner::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, parts),
            Inner::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.inner {
            Inner::Plain(socket) => socket.is_write_vectored(),
            Inner::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
