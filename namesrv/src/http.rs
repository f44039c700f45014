//! The pages for operators and for RocketMQ's address discovery.

use std::{convert::Infallible, sync::Arc, time::Duration};

use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header::CONTENT_TYPE,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};
use tracing::debug;

/// Connections at once; more wait in the kernel.
const CONNECTIONS_MAX: usize = 64;

/// A request head that takes longer closes its connection.
const HEADER_WAIT: Duration = Duration::from_secs(5);

/// Pause after a failed accept, so that running out of descriptors is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the pages show.
pub(crate) trait Pages: Send + Sync + 'static {
    /// OpenMetrics text.
    fn metrics(&self) -> String;
    /// JSON: groups and leaders.
    fn status(&self) -> String;
    /// `host:port;host:port` of all NameServers, as RocketMQ's clients fetch it.
    fn addresses(&self) -> String;
}

/// Serves until dropped.
pub(crate) async fn serve(listener: TcpListener, pages: Arc<dyn Pages>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
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
            let service = service_fn(move |request: Request<Incoming>| {
                let page = page(request.method(), request.uri().path(), pages.as_ref());
                async move { Ok::<_, Infallible>(page) }
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

fn page(method: &Method, path: &str, pages: &dyn Pages) -> Response<String> {
    let (status, kind, body) = match (method, path) {
        (&Method::GET, "/metrics") => (StatusCode::OK, OPEN_METRICS, pages.metrics()),
        (&Method::GET, "/health") => (StatusCode::OK, TEXT, "live\n".to_owned()),
        // It has nothing to wait for: what it does not know yet, it holds requests for.
        (&Method::GET, "/ready") => (StatusCode::OK, TEXT, "ready\n".to_owned()),
        (&Method::GET, "/status") => (StatusCode::OK, JSON, pages.status()),
        (&Method::GET, "/rocketmq/nsaddr") => (StatusCode::OK, TEXT, pages.addresses()),
        (&Method::GET, _) => {
            let known = "/metrics, /health, /ready, /status, /rocketmq/nsaddr\n".to_owned();
            (StatusCode::NOT_FOUND, TEXT, known)
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned()),
    };
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, kind)
        .body(body)
        .expect("constant headers are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Pages for Fixed {
        fn metrics(&self) -> String {
            "raftmq_up 1\n".into()
        }

        fn status(&self) -> String {
            "{}".into()
        }

        fn addresses(&self) -> String {
            "10.0.0.1:9876;10.0.0.2:9876".into()
        }
    }

    #[test]
    fn the_address_list_is_what_rocketmq_clients_expect() {
        let list = page(&Method::GET, "/rocketmq/nsaddr", &Fixed);
        assert_eq!(
            (list.status(), list.body().as_str()),
            (StatusCode::OK, "10.0.0.1:9876;10.0.0.2:9876")
        );
    }

    #[test]
    fn other_pages_and_methods_are_refused() {
        assert_eq!(page(&Method::GET, "/", &Fixed).status(), StatusCode::NOT_FOUND);
        let post = page(&Method::POST, "/status", &Fixed);
        assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
