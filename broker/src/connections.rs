//! A bound on client connections: one too many is closed before it can ask for anything.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{Stream, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tonic::transport::server::Connected;
use tracing::debug;

/// A connection that counts as long as it is open.
#[derive(Debug)]
pub struct Counted<I> {
    io: I,
    _slot: OwnedSemaphorePermit,
}

/// Lets at most `bound` connections be open at a time.
pub fn bounded<I: Send + 'static>(
    incoming: impl Stream<Item = io::Result<I>> + Send + 'static,
    bound: usize,
) -> impl Stream<Item = io::Result<Counted<I>>> + Send + 'static {
    let slots = Arc::new(Semaphore::new(bound.min(Semaphore::MAX_PERMITS)));
    incoming.filter_map(move |next| {
        let counted = match next {
            Err(error) => Some(Err(error)),
            Ok(io) => match Arc::clone(&slots).try_acquire_owned() {
                Ok(slot) => Some(Ok(Counted { io, _slot: slot })),
                Err(_) => {
                    debug!(bound, "connection over the limit closed");
                    None
                }
            },
        };
        std::future::ready(counted)
    })
}

impl<I: Connected> Connected for Counted<I> {
    type ConnectInfo = I::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Counted<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Counted<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn a_connection_over_the_limit_is_dropped_and_its_place_is_taken_later() {
        let incoming = stream::iter((1..=4).map(Ok));
        let mut counted = Box::pin(bounded(incoming, 2));
        let first = counted.next().await.expect("a connection").expect("open");
        let second = counted.next().await.expect("a connection").expect("open");
        assert_eq!((first.io, second.io), (1, 2));
        assert!(counted.next().await.is_none(), "3 and 4 are over the limit");
    }
}
