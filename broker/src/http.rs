//! What operators and their machines look at: `/metrics`, `/health`, `/ready`, `/status`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};
use tracing::debug;

/// Scrapers and probes need few; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// A connection that does not ask for so long is closed.
const HEADER_WAIT: Duration = Duration::from_secs(30);
/// Pause after a failed `accept`, so that running out of descriptors is not a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the pages show.
pub trait Pages: Send + Sync + 'static {
    /// Prometheus text.
    fn metrics(&self) -> String;
    /// Why the node cannot serve requests, if so: no leader is known, or it is stopping.
    fn not_ready(&self) -> Option<String>;
    /// JSON.
    fn status(&self) -> String;
}

/// Serves until dropped.
pub async fn serve(listener: TcpListener, pages: Arc<dyn Pages>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "accept on the metrics port");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let pages = Arc::clone(&pages);
        tokio::spawn(async move {
            let _slot = slot;
            let service = service_fn(move |request| {
                let pages = Arc::clone(&pages);
                async move { Ok::<_, Infallible>(answer(request, pages).await) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_WAIT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                debug!(%error, "connection on the metrics port");
            }
        });
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Away from the threads that serve clients: a page may read the state of every consumer group.
async fn answer(request: Request<Incoming>, pages: Arc<dyn Pages>) -> Response<String> {
    let made = tokio::task::spawn_blocking(move || {
        page(request.method(), request.uri().path(), pages.as_ref())
    });
    made.await.expect("making a page does not panic")
}

fn page(method: &Method, path: &str, pages: &dyn Pages) -> Response<String> {
    let (status, kind, body) = match (method, path) {
        (&Method::GET, "/metrics") => (StatusCode::OK, OPEN_METRICS, pages.metrics()),
        (&Method::GET, "/health") => (StatusCode::OK, TEXT, "live\n".to_owned()),
        (&Method::GET, "/ready") => match pages.not_ready() {
            None => (StatusCode::OK, TEXT, "ready\n".to_owned()),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
        },
        (&Method::GET, "/status") => (StatusCode::OK, JSON, pages.status()),
        (&Method::GET, _) => {
            let known = "/metrics, /health, /ready, /status\n".to_owned();
            (StatusCode::NOT_FOUND, TEXT, known)
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned()),
    };
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, kind)
        .body(body)
        .expect("constant headers are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Option<String>);

    impl Pages for Fixed {
        fn metrics(&self) -> String {
            "raftmq_up 1\n".into()
        }

        fn not_ready(&self) -> Option<String> {
            self.0.clone()
        }

        fn status(&self) -> String {
            "{}".into()
        }
    }

    #[test]
    fn readiness_says_why_not() {
        let ready = page(&Method::GET, "/ready", &Fixed(None));
        assert_eq!(ready.status(), StatusCode::OK);
        let waiting = page(&Method::GET, "/ready", &Fixed(Some("no leader".into())));
        assert_eq!(waiting.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(waiting.body(), "no leader\n");
    }

    #[test]
    fn other_pages_and_methods_are_refused() {
        assert_eq!(page(&Method::GET, "/", &Fixed(None)).status(), StatusCode::NOT_FOUND);
        let post = page(&Method::POST, "/status", &Fixed(None));
        assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
