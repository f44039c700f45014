//! Unmodified official clients against a real cluster.
//!
//! Each stack sends, receives, filters and retries through its own library; then the leader is
//! killed under all of them again and again.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]
#![allow(clippy::print_stderr, reason = "measured figures are printed for the reader")]

use std::path::PathBuf;
use std::time::Duration;

use jepsen::{History, Verdict};
use tests::cluster::{BROKERS, ELECTION, NAMESERVERS};
use tests::official::{LANGUAGES, Language, Official};
use tests::tls::certificate_of;
use tests::{Cluster, eventually};

/// How long a client may take for a hundred messages on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(90);
const COUNT: usize = 60;

/// A client of one test: where it dials and where its library may write.
struct Bench<'a> {
    cluster: &'a Cluster,
    access_point: String,
    environment: Vec<(String, String)>,
    names: Option<PathBuf>,
    tls: bool,
}

impl<'a> Bench<'a> {
    fn at(cluster: &'a Cluster, access_point: &impl ToString) -> Self {
        let access_point = access_point.to_string();
        Self { cluster, access_point, environment: Vec::new(), names: None, tls: false }
    }

    fn start(&self, language: Language, mode: &str, options: &[(&str, &str)]) -> Official {
        let mut all = vec![("endpoints", self.access_point.as_str())];
        if self.tls {
            all.push(("tls", "true"));
        }
        all.extend(options);
        let environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let (directory, names) = (self.cluster.scratch.path(), self.names.as_deref());
        Official::start(language, mode, directory, &all, &environment, names)
    }

    /// Sends `COUNT` messages, all of which must be acknowledged.
    async fn produces(&self, language: Language, topic: &str, prefix: &str, tag: &str) -> Official {
        let count = COUNT.to_string();
        let options = [("topic", topic), ("prefix", prefix), ("tag", tag), ("count", &count)];
        let mut producer = self.start(language, "produce", &options);
        producer.done(PATIENCE).await;
        let failed = producer.of("failed");
        assert!(failed.is_empty(), "{}: {failed:?}", language.name());
        assert_eq!(producer.of("sent").len(), COUNT);
        producer
    }

    /// Receives and acks `count` messages.
    async fn receives(
        &self,
        language: Language,
        mode: &str,
        topic: &str,
        group: &str,
        count: usize,
        more: &[(&str, &str)],
    ) -> Official {
        let (count, seconds) = (count.to_string(), PATIENCE.as_secs().to_string());
        let mut options =
            vec![("topic", topic), ("group", group), ("count", &count), ("seconds", &seconds)];
        options.extend(more);
        let mut consumer = self.start(language, mode, &options);
        consumer.done(PATIENCE + Duration::from_secs(40)).await;
        consumer
    }
}

fn judge(clients: &[(&Official, &str)], senders: &[&str], groups: &[&str]) -> Verdict {
    let mut history = History::default();
    for (client, group) in clients {
        client.enter(&mut history, group, senders);
    }
    jepsen::check(&history, groups)
}

/// Every stack's producer is understood by every stack's consumers.
#[tokio::test(flavor = "multi_thread")]
async fn every_client_sends_and_receives() {
    let cluster = Cluster::of(3).nameservers(2).start().await;
    cluster.topic("orders", 4).await;
    let bench = Bench::at(&cluster, &cluster.nameservers[0].address);
    let names = LANGUAGES.map(Language::name);
    let mut clients = Vec::new();
    for language in LANGUAGES {
        clients
            .push((bench.produces(language, "orders", language.name(), "t").await, String::new()));
    }
    let all = COUNT * LANGUAGES.len();
    for language in LANGUAGES {
        let group = format!("{}-simple", language.name());
        clients.push((bench.receives(language, "simple", "orders", &group, all, &[]).await, group));
        if language.has_push_consumer() {
            let group = format!("{}-push", language.name());
            clients
                .push((bench.receives(language, "push", "orders", &group, all, &[]).await, group));
        }
    }
    let groups: Vec<&str> =
        clients.iter().map(|(_, g)| g.as_str()).filter(|g| !g.is_empty()).collect();
    let clients: Vec<_> = clients.iter().map(|(c, g)| (c, g.as_str())).collect();
    let verdict = judge(&clients, &names, &groups);
    eprintln!("official clients: {verdict}");
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(verdict.acknowledged, all as u64);
    assert_eq!(verdict.received, (all * groups.len()) as u64);
    cluster.finish().await;
}

/// A tag filter of any stack gets its tags and no others.
#[tokio::test(flavor = "multi_thread")]
async fn every_client_filters_by_tag() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 2).await;
    let bench = Bench::at(&cluster, &cluster.nameservers[0].address);
    bench.produces(Language::Python, "orders", "python", "red").await;
    bench.produces(Language::Node, "orders", "node", "green").await;
    bench.produces(Language::Rust, "orders", "rust", "blue").await;
    for language in LANGUAGES {
        for mode in ["simple", "push"] {
            if mode == "push" && !language.has_push_consumer() {
                continue;
            }
            let group = format!("{}-{mode}", language.name());
            let filter = [("filter", "red || blue")];
            let consumer =
                bench.receives(language, mode, "orders", &group, 2 * COUNT, &filter).await;
            let received = consumer.of("received");
            let wrong: Vec<_> = received
                .iter()
                .filter(|l| !matches!(l.tag.as_deref(), Some("red" | "blue")))
                .collect();
            assert!(wrong.is_empty(), "{group}: {wrong:?}");
            assert_eq!(received.len(), 2 * COUNT, "{group}");
        }
    }
    cluster.finish().await;
}

/// What a client does not ack, or fails to consume, comes again and says that it does.
#[tokio::test(flavor = "multi_thread")]
async fn every_client_is_redelivered_what_it_did_not_consume() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 2).await;
    let bench = Bench::at(&cluster, &cluster.nameservers[0].address);
    bench.produces(Language::Python, "orders", "python", "t").await;
    for language in LANGUAGES {
        let group = format!("{}-simple", language.name());
        let options = [("leave-first", "3"), ("invisible-s", "10")];
        let consumer = bench.receives(language, "simple", "orders", &group, COUNT, &options).await;
        redelivered(&consumer, &group, 3);
        if language.has_push_consumer() {
            let group = format!("{}-push", language.name());
            let options = [("fail-first", "3")];
            let consumer =
                bench.receives(language, "push", "orders", &group, COUNT, &options).await;
            redelivered(&consumer, &group, 3);
        }
    }
    cluster.finish().await;
}

fn redelivered(consumer: &Official, group: &str, expected: usize) {
    let received = consumer.of("received");
    let again: Vec<_> = received.iter().filter(|l| l.attempt == Some(2)).collect();
    assert_eq!(again.len(), expected, "{group}: {received:#?}");
    for line in again {
        let first = received.iter().find(|l| l.id == line.id).expect("the first delivery");
        assert_eq!(first.attempt, Some(1), "{group}: {line:?}");
    }
    assert_eq!(received.len(), COUNT + expected, "{group}");
}

/// Any broker is an access point, leader or not.
#[tokio::test(flavor = "multi_thread")]
async fn every_client_works_through_a_leader_and_through_a_follower() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 2).await;
    let (leader, _) = cluster.leader().await;
    let follower = cluster.followers().await.remove(0);
    for (role, node) in [("leader", &leader), ("follower", &follower)] {
        let bench = Bench::at(&cluster, &node.addresses.client);
        for language in LANGUAGES {
            let topic = format!("through-{role}-{}", language.name());
            cluster.topic(&topic, 2).await;
            bench.produces(language, &topic, "p", "t").await;
            bench.receives(language, "simple", &topic, "audit", COUNT, &[]).await;
        }
    }
    cluster.finish().await;
}

/// Clients that verify certificates trust the one that the node shows once they are told to.
#[tokio::test(flavor = "multi_thread")]
async fn every_client_works_over_tls() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 2).await;
    let address = cluster.nodes[0].addresses.client;
    let pem = cluster.scratch.path().join("trusted.pem");
    let certificate = certificate_of(address).await.expect("a TLS handshake");
    std::fs::write(&pem, certificate).expect("a file");
    let pem = pem.display().to_string();

    let mut bench = Bench::at(&cluster, &address);
    bench.tls = true;
    // Where each stack looks for roots besides the system's.
    let trust = ["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"];
    bench.environment = trust.map(|name| (name.to_owned(), pem.clone())).to_vec();
    for language in LANGUAGES {
        let topic = format!("tls-{}", language.name());
        cluster.topic(&topic, 2).await;
        bench.produces(language, &topic, "p", "t").await;
        bench.receives(language, "simple", &topic, "audit", COUNT, &[]).await;
    }
    cluster.finish().await;
}

/// Kills of the leader that each figure stands for: 20, unless `MQTEST_KILLS` says otherwise.
fn kills() -> usize {
    std::env::var("MQTEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(20)
}

/// The leader is killed under running clients and left dead while they are watched. No send fails
/// for good, the writes of each client pause only for the election, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn no_client_notices_the_death_of_a_leader_as_more_than_a_pause() {
    leaders_die("simple", kills()).await;
}

/// Push consumers, whose deliveries the server keeps invisible for as long as they live, get
/// everything too.
#[tokio::test(flavor = "multi_thread")]
async fn push_consumers_receive_everything_when_leaders_die() {
    leaders_die("push", kills().div_ceil(3)).await;
}

/// Producers of all stacks send and all consumers of this mode receive while one leader after the
/// other is killed.
async fn leaders_die(mode: &str, kills: usize) {
    let cluster = Cluster::of(3).nameservers(2).alone().start().await;
    cluster.topic("orders", 4).await;
    let bench = Bench::at(&cluster, &cluster.nameservers[0].address);
    let mut producers: Vec<Official> = LANGUAGES
        .map(|language| {
            let options = [("topic", "orders"), ("prefix", language.name()), ("interval-ms", "20")];
            bench.start(language, "produce", &options)
        })
        .into_iter()
        .collect();
    let consuming = LANGUAGES.into_iter().filter(|l| mode == "simple" || l.has_push_consumer());
    let consumers: Vec<Official> = consuming
        .map(|l| bench.start(l, mode, &[("topic", "orders"), ("group", l.name())]))
        .collect();
    for producer in &mut producers {
        producer.ready().await;
    }

    let mut gaps: Vec<Vec<u64>> = vec![Vec::new(); producers.len()];
    for kill in 0..kills {
        kill_one_leader(&cluster, &mut producers, &mut gaps).await;
        caught_up(&cluster, kill).await;
    }
    for producer in &mut producers {
        producer.kill().await;
    }
    everything_arrives(&cluster, &producers, &consumers).await;

    let mut failures = Vec::new();
    for (producer, mut gaps) in producers.iter().zip(gaps) {
        gaps.sort_unstable();
        let (middle, worst) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
        let failed = producer.of("failed");
        eprintln!(
            "{}: write gap over {kills} kills of the leader: p50 {middle} ms, max {worst} ms; {} sends, {} failed",
            producer.language.name(),
            producer.of("sent").len(),
            failed.len()
        );
        if middle > 500 || worst > 1_500 || !failed.is_empty() {
            failures.push(format!("{}: {gaps:?} {failed:?}", producer.language.name()));
        }
    }
    for consumer in &consumers {
        let failed = consumer.of("receive_failed");
        let last = failed.last().and_then(|l| l.error.clone());
        eprintln!("{consumer}: {} receives failed, the last: {last:?}", failed.len());
    }
    assert!(failures.is_empty(), "{failures:#?}");
    cluster.finish().await;
}

/// Kills the leader, waits until each producer goes on, notes its write gap, and starts the dead
/// broker again.
async fn kill_one_leader(cluster: &Cluster, producers: &mut [Official], gaps: &mut [Vec<u64>]) {
    for producer in producers.iter_mut() {
        let before = producer.of("sent").len();
        producer.has("sent", before + 20, PATIENCE).await;
    }
    let (leader, status) = cluster.leader().await;
    let at: Vec<usize> = producers.iter().map(|p| p.of("sent").len()).collect();
    leader.kill();
    for (number, producer) in producers.iter_mut().enumerate() {
        producer.has("sent", at[number] + 40, PATIENCE).await;
        let sent = producer.of("sent");
        let around = &sent[at[number].saturating_sub(2)..];
        let gap = around.windows(2).map(|w| w[1].at_ms - w[0].at_ms).max();
        gaps[number].push(gap.unwrap_or(u64::MAX));
    }
    cluster.leader_after(status.term).await;
    leader.start();
}

async fn caught_up(cluster: &Cluster, kill: usize) {
    let (_, leader) = cluster.leader().await;
    eventually(&format!("all replicas are back after kill {kill}"), ELECTION, async || {
        for node in &cluster.nodes {
            let status = node.status().await.map_err(|e| format!("{node:?}: {e:#}"))?;
            if status.applied < leader.committed {
                return Err(status.to_string());
            }
        }
        Ok(())
    })
    .await;
}

/// Waits until every consumer has received all that was acknowledged, and judges.
async fn everything_arrives(cluster: &Cluster, producers: &[Official], consumers: &[Official]) {
    let senders = LANGUAGES.map(Language::name);
    let groups: Vec<&str> = consumers.iter().map(|c| c.language.name()).collect();
    let verdict = eventually("every consumer received everything", PATIENCE, async || {
        let mut history = History::default();
        for producer in producers {
            producer.enter(&mut history, "", &senders);
            producer.enter_unfinished(&mut history, &senders);
        }
        for (consumer, group) in consumers.iter().zip(&groups) {
            consumer.enter(&mut history, group, &senders);
        }
        let verdict = jepsen::check(&history, &groups);
        if verdict.lost() == 0 {
            return Ok(verdict);
        }
        let mut missing = String::new();
        for (consumer, name) in consumers.iter().zip(&groups) {
            let of_group =
                |a: &&jepsen::Anomaly| matches!(a, jepsen::Anomaly::Lost { group, .. } if group == name);
            let lost = verdict.anomalies.iter().filter(of_group).count();
            let in_flight = cluster.in_flight(name).await;
            missing.push_str(&format!("{consumer} misses {lost}, in flight {in_flight:?}; "));
        }
        Err(missing)
    })
    .await;
    eprintln!("official clients under kills: {verdict}");
    // A message of unknown fate that one group has got and another will get is no loss.
    let never = |a: &jepsen::Anomaly| !matches!(a, jepsen::Anomaly::Vanished { .. });
    let anomalies: Vec<_> = verdict.anomalies.iter().filter(|a| never(a)).collect();
    assert!(anomalies.is_empty(), "{anomalies:#?}");
}

/// What becomes of clients that dial one name with several addresses while one after the other of
/// the processes behind it is killed and comes back.
async fn survives_each_in_turn(
    bench: &Bench<'_>,
    what: &str,
    count: usize,
    kill: impl Fn(usize),
    restart: impl AsyncFn(usize),
) {
    let mut producers: Vec<Official> = LANGUAGES
        .map(|language| {
            let options = [("topic", "orders"), ("prefix", language.name()), ("interval-ms", "10")];
            bench.start(language, "produce", &options)
        })
        .into_iter()
        .collect();
    for producer in &mut producers {
        producer.has("sent", 50, PATIENCE).await;
    }
    for victim in 0..count {
        let before: Vec<usize> = producers.iter().map(|p| p.of("sent").len()).collect();
        kill(victim);
        for (producer, before) in producers.iter_mut().zip(before) {
            producer.has("sent", before + 100, PATIENCE).await;
        }
        restart(victim).await;
        // gRPC stacks do not try an address again within the second or two after it refused them;
        // the next death comes later than that.
        for producer in &mut producers {
            let now = producer.of("sent").len();
            producer.has("sent", now + 350, PATIENCE).await;
        }
    }
    for producer in &producers {
        let failed = producer.of("failed");
        eprintln!(
            "{}: {what}: write gap {} ms, {} sends, {} failed",
            producer.language.name(),
            producer.write_gap_ms(),
            producer.of("sent").len(),
            failed.len()
        );
        // The Rust client has no retries of its own: the call that was under way is lost with the
        // connection, and it dials again only after that. The others ask again.
        let excused = if producer.language == Language::Rust { 2 * count } else { 0 };
        assert!(failed.len() <= excused, "{}: {failed:?}", producer.language.name());
    }
}

/// One name that resolves to two NameServers: clients go on when one dies, and when it is back the
/// other may die.
#[tokio::test(flavor = "multi_thread")]
async fn no_client_notices_the_death_of_one_of_two_nameservers_behind_one_name() {
    let cluster = Cluster::of(3).nameservers(2).with_shared_ports().start().await;
    cluster.topic("orders", 4).await;
    let port = cluster.nameservers[0].address.port();
    let mut bench = Bench::at(&cluster, &format!("{NAMESERVERS}:{port}"));
    bench.names = Some(cluster.names());
    let kill = |victim: usize| cluster.nameservers[victim].kill();
    let restart = async |victim: usize| {
        cluster.nameservers[victim].start();
        eventually("the NameServer knows the topic again", ELECTION, async || {
            let route = cluster.nameservers[victim].rpc().query_route("orders").await;
            route.map(|_| ()).map_err(|e| e.to_string())
        })
        .await;
    };
    survives_each_in_turn(&bench, "each of two NameServers behind one name dies", 2, kill, restart)
        .await;
    cluster.finish().await;
}

/// One name that resolves to all brokers: clients need no NameServer, and any broker may die.
#[tokio::test(flavor = "multi_thread")]
async fn no_client_notices_the_death_of_any_broker_behind_one_name() {
    let cluster = Cluster::of(3).with_shared_ports().start().await;
    cluster.topic("orders", 4).await;
    let port = cluster.nodes[0].addresses.client.port();
    let mut bench = Bench::at(&cluster, &format!("{BROKERS}:{port}"));
    bench.names = Some(cluster.names());
    let kill = |victim: usize| cluster.nodes[victim].kill();
    let restart = async |victim: usize| {
        cluster.nodes[victim].start();
        caught_up(&cluster, victim).await;
    };
    survives_each_in_turn(&bench, "each of three brokers behind one name dies", 3, kill, restart)
        .await;
    cluster.finish().await;
}

/// Routes that name brokers instead of the address that the client dialled.
#[tokio::test(flavor = "multi_thread")]
async fn every_client_works_with_routes_that_name_brokers() {
    for mode in ["split", "direct"] {
        let cluster = Cluster::of(3).set("route.mode", mode).start().await;
        cluster.topic("orders", 4).await;
        let (leader, _) = cluster.leader().await;
        let named = |address: &std::net::SocketAddr| {
            cluster.nodes.iter().find(|node| node.addresses.client == *address).map(|node| node.id)
        };
        let follower = &cluster.followers().await[0];
        let route = follower.rpc().query_route("orders").await.expect("a route");
        let nodes: std::collections::BTreeSet<u64> = route
            .iter()
            .flat_map(|queue| &queue.broker.as_ref().expect("a broker").endpoints)
            .flat_map(|endpoints| &endpoints.addresses)
            .map(|address| format!("{}:{}", address.host, address.port))
            .map(|address| named(&address.parse().expect("an address")).expect("a broker's"))
            .collect();
        match mode {
            "direct" => assert_eq!(nodes, [leader.id].into(), "the leader alone"),
            // Which stacks are spread over the replicas is the gateway's business: this client,
            // of no stack that copes with it, is not.
            _ => assert_eq!(nodes, [follower.id].into(), "what was dialled"),
        }
        let bench = Bench::at(&cluster, &follower.addresses.client);
        for language in LANGUAGES {
            bench.produces(language, "orders", language.name(), "t").await;
        }
        let all = COUNT * LANGUAGES.len();
        for language in LANGUAGES {
            let group = format!("{}-simple", language.name());
            let consumer = bench.receives(language, "simple", "orders", &group, all, &[]).await;
            assert_eq!(consumer.of("received").len(), all, "{mode}: {group}");
        }
        cluster.finish().await;
    }
}
