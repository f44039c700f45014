//! A broker on ports of its own, in a directory of its own.

use std::{
    future::Future,
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use broker::{
    config::{Config, Peers, Size},
    server::Server,
};
use raft::Role;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::client::Client;

/// Everything that should happen happens within this.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// Between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

pub(crate) struct Node {
    server: Server,
    config: Config,
    dir: TempDir,
}

impl Node {
    /// A group of one that creates topics on use, and leads.
    pub(crate) async fn start() -> Node {
        Node::with(|_| ()).await
    }

    /// The same with other settings.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        change(&mut config);
        Node::started(config, dir).await
    }

    async fn started(config: Config, dir: TempDir) -> Node {
        let server = Server::start(config.clone()).await.unwrap();
        let mut role = server.broker().role();
        within("the node leads", role.wait_for(Role::is_leader)).await.unwrap();
        Node { server, config, dir }
    }

    pub(crate) async fn client(&self, id: &str) -> Client {
        Client::connect(self.server.client_addr(), id).await
    }

    /// One to which little is written before it reads.
    pub(crate) async fn slow_client(&self, id: &str) -> Client {
        Client::connect_with_window(self.server.client_addr(), id, 65_535).await
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// One of the HTTP pages, headers included.
    pub(crate) async fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.server.metrics_addr().unwrap()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        page
    }

    pub(crate) async fn stop(self) {
        self.server.stop().await;
    }

    /// Stops in good order and starts again on the same directory.
    pub(crate) async fn restart(self) -> Node {
        self.restart_with(|_| ()).await
    }

    /// The same with other settings.
    pub(crate) async fn restart_with(self, change: impl FnOnce(&mut Config)) -> Node {
        let Node { server, mut config, dir } = self;
        let client_port = server.client_addr().port();
        server.stop().await;
        config.listen = format!("127.0.0.1:{client_port}");
        change(&mut config);
        Node::started(config, dir).await
    }
}

pub(crate) fn config(dir: &Path) -> Config {
    let mut config = Config::dev();
    config.listen = "127.0.0.1:0".into();
    config.metrics = "127.0.0.1:0".into();
    config.raft_peers = Peers::one(1, &format!("127.0.0.1:{}", free_port()));
    config.data_dir = dir.join("data");
    config.log.segment_size = Size::mib(32);
    config.shutdown.finish_within = Duration::from_millis(500);
    config
}

/// A port that nobody listens on at the moment.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits for `future`, but not for ever.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {SOON:?}: {what}"),
    }
}

/// Asks again until there is something.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < SOON, "not within {SOON:?}: {what}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The value of a metric with all of these labels on a page; `None` if there is none.
pub(crate) fn metric(page: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
    let is_it = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    };
    page.lines().find(is_it)?.rsplit(' ').next()?.parse().ok()
}
