//! A node with a port and a runtime of its own, so that it can die at once.

use std::{net::SocketAddr, time::Duration};

use gateway::{Directory, Gateway, Local, TlsConfig, listener};
use proto::session::sessions_server::SessionsServer;
use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot};

use super::ScriptedBroker;

/// How long tasks may take to notice that they are gone.
const DEATH: Duration = Duration::from_secs(10);

/// A gateway that serves. It dies when it is dropped.
#[derive(Debug)]
pub struct Node {
    pub address: String,
    runtime: Option<Runtime>,
}

impl Node {
    /// Builds the gateway on the node's own runtime and serves it, with the sessions of a broker if
    /// there is one.
    pub async fn start<L: Local, D: Directory>(
        build: impl FnOnce() -> Gateway<L, D> + Send + 'static,
        broker: Option<ScriptedBroker>,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let (told, address) = oneshot::channel::<SocketAddr>();
        runtime.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            told.send(listener.local_addr().expect("bound")).expect("the test waits");
            let tls = TlsConfig::self_signed(&["localhost".into()]).expect("a certificate");
            let gateway = build();
            gateway::server::builder()
                .add_service(gateway.service())
                .add_service(gateway.produce_service())
                .add_optional_service(broker.map(SessionsServer::new))
                .serve_with_incoming(listener::incoming(listener, tls))
                .await
                .expect("it serves until it dies");
        });
        let address = address.await.expect("the node starts").to_string();
        Self { address, runtime: Some(runtime) }
    }

    /// A broker with an access point of its own; its directory knows nothing.
    pub async fn broker(broker: &ScriptedBroker) -> Self {
        let (local, sessions) = (broker.clone(), broker.clone());
        let build = move || {
            let directory = gateway::Shared::default();
            Gateway::start(gateway::Config::new("broker", 1), local, directory)
        };
        Self::start(build, Some(sessions)).await
    }

    /// Ends at once: connections are reset, and the port refuses.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not from within a runtime; and only once its sockets are closed is it dead.
            let dead = std::thread::spawn(move || runtime.shutdown_timeout(DEATH));
            dead.join().expect("nothing panics");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
