//! Transactions on a real cluster: official clients, leaders that die at the worst moment, and
//! what it costs on the disk.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]
#![allow(clippy::print_stderr, reason = "measured figures are printed for the reader")]

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jepsen::{Action, Fate, Message};
use proto::admin::{self, ListTransactionsRequest, ResolveTransactionRequest, Transaction};
use proto::v2::{self, MessageType, TransactionResolution};
use rand::RngExt;
use tests::cluster::{DRAIN, ELECTION};
use tests::official::{LANGUAGES, Official};
use tests::outcome::Failure;
use tests::producer::Producer;
use tests::rpc::{DEADLINE, Rpc, Telemetry, resource};
use tests::{Cluster, Written, eventually};

const TOPIC: &str = "orders";
const COMMIT: TransactionResolution = TransactionResolution::Commit;
const ROLLBACK: TransactionResolution = TransactionResolution::Rollback;
/// Between two attempts of one call.
const PAUSE: Duration = Duration::from_millis(20);

/// A cluster that soon asks about what is left open.
async fn impatient(check_max: u32) -> Cluster {
    let cluster = Cluster::of(3)
        .set("transaction.timeout", "1s")
        .set("transaction.check_interval", "1s")
        .set("transaction.check_max", &check_max.to_string())
        .start()
        .await;
    cluster.topic_of(TOPIC, 2, MessageType::Transaction).await;
    cluster
}

/// Every stack commits, rolls back, and answers the server's questions, by its own library.
#[tokio::test(flavor = "multi_thread")]
async fn every_client_ends_its_transactions_itself_and_when_it_is_asked() {
    const COUNT: usize = 16;
    let cluster = impatient(15).await;
    let access_point = cluster.nameservers[0].address.to_string();
    let count = COUNT.to_string();
    let mut clients: Vec<Official> = Vec::new();
    for language in LANGUAGES {
        let options = [
            ("endpoints", access_point.as_str()),
            ("topic", TOPIC),
            ("prefix", language.name()),
            ("count", &count),
            ("seconds", "300"),
        ];
        let directory = cluster.scratch.path();
        clients.push(Official::start(language, "transact", directory, &options, &[], None));
    }
    let mut expected = BTreeSet::new();
    for client in &mut clients {
        client.has("decided", 1, Duration::from_secs(90)).await;
        assert!(client.of("failed").is_empty(), "{client}: {:?}", client.of("failed"));
        assert_eq!(client.of("sent").len(), COUNT, "{client}");
        assert_eq!(client.of("committed").len(), COUNT / 4, "{client}");
        assert_eq!(client.of("rolled_back").len(), COUNT / 4, "{client}");
        let asked: BTreeSet<_> = client.of("asked").into_iter().filter_map(|l| l.body).collect();
        let left = |n: &usize| n % 4 >= 2;
        let prefix = client.language.name();
        let bodies = |n: usize| format!("{prefix}-{n}");
        assert_eq!(asked, (0..COUNT).filter(left).map(bodies).collect(), "{client}");
        expected.extend((0..COUNT).filter(|n| n % 2 == 0).map(bodies));
    }
    eventually("no transaction is open", ELECTION, async || {
        let open = transactions(&cluster, false).await?;
        if open.is_empty() { Ok(()) } else { Err(format!("{open:?}")) }
    })
    .await;
    for client in &mut clients {
        client.kill().await;
    }
    let received = bodies(&cluster, "audit", expected.len()).await;
    assert_eq!(received, expected);
    assert_eq!(entries(&cluster).await, expected.len() as u64, "each is in one queue, once");
    cluster.finish().await;
}

/// Receives and acks until this many bodies were received and nothing more comes.
async fn bodies(cluster: &Cluster, group: &str, count: usize) -> BTreeSet<String> {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = Arc::clone(&seen);
    let identify = Arc::new(move |message: &v2::Message| {
        let body = String::from_utf8_lossy(&message.body).into_owned();
        noted.lock().expect("no holder panics").insert(body);
        None
    });
    let mut consumer = cluster.consumer(group, TOPIC).identifying_by(identify);
    let start = Instant::now();
    while start.elapsed() < DRAIN {
        let found = consumer.receive(32, Duration::from_secs(30), Duration::from_secs(5)).await;
        let enough = seen.lock().expect("no holder panics").len() >= count;
        match found {
            Ok(found) if found.is_empty() && enough => break,
            Ok(found) => drop(consumer.ack(&found).await),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    let seen = seen.lock().expect("no holder panics");
    seen.clone()
}

/// Entries of all queues of the topic.
async fn entries(cluster: &Cluster) -> u64 {
    let (leader, _) = cluster.leader().await;
    let request = admin::DescribeTopicRequest { topic: TOPIC.into() };
    let answer = leader.rpc().admin().describe_topic(request).await.expect("an answer");
    answer.into_inner().queues.iter().map(|queue| queue.max_offset - queue.min_offset).sum()
}

async fn transactions(cluster: &Cluster, parked_only: bool) -> Result<Vec<Transaction>, String> {
    let rpc = Rpc::new(cluster.nameservers[0].address);
    let request = ListTransactionsRequest { parked_only, ..Default::default() };
    let answer = rpc.admin().list_transactions(request).await.map_err(|e| e.to_string())?;
    let answer = answer.into_inner();
    match answer.error {
        None => Ok(answer.transactions),
        Some(error) => Err(format!("{error:?}")),
    }
}

/// How a transaction of these tests ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Commit,
    Rollback,
    /// By the answer to a question; even numbers commit.
    WhenAsked,
}

/// Asks again until an outcome is known, within bounds.
struct Patience {
    start: Instant,
    last: Option<Failure>,
}

impl Patience {
    fn new() -> Self {
        Self { start: Instant::now(), last: None }
    }

    /// The result, when it is known; otherwise waits a moment.
    async fn known<T>(&mut self, result: Result<T, Failure>) -> Option<T> {
        match result {
            Ok(done) => return Some(done),
            Err(Failure::Rejected { code, message }) => {
                panic!("rejected ({code}): {message}, after {:?}", self.last)
            }
            Err(failure) => self.last = Some(failure),
        }
        assert!(self.start.elapsed() < ELECTION, "not done in {ELECTION:?}: {:?}", self.last);
        tokio::time::sleep(PAUSE).await;
        None
    }
}

/// Producers that begin transactions, end them as planned, and answer questions.
struct Applications {
    cluster: Arc<Cluster>,
    producer: Producer,
    /// What is to become of each message; an application knows that before it sends.
    plans: Mutex<HashMap<Message, Plan>>,
    /// Messages whose transactions are known to have ended.
    ended: Mutex<HashSet<Message>>,
}

impl Applications {
    fn of(cluster: &Arc<Cluster>) -> Arc<Self> {
        let producer = cluster.producer(TOPIC);
        let (plans, ended) = (Mutex::default(), Mutex::default());
        Arc::new(Self { cluster: Arc::clone(cluster), producer, plans, ended })
    }

    /// A client at some access point.
    fn rpc(&self) -> Rpc {
        let points = self.cluster.access_points();
        Rpc::new(points[rand::rng().random_range(0..points.len())])
    }

    /// Sends a half message until its transaction is known, and ends it as planned after a while.
    async fn transact(self: Arc<Self>, plan: Plan, wait: Duration) {
        let (number, mut message) = self.producer.next_message();
        let system = message.system_properties.as_mut().expect("made with them");
        system.message_type = MessageType::Transaction.into();
        self.plans.lock().expect("no holder panics").insert(number, plan);
        // One client throughout: a send is recognised by its client and its message.
        let id = self.rpc().client_id().to_owned();
        let mut patience = Patience::new();
        let transaction = loop {
            let rpc = Rpc::with_id(self.rpc().address(), &id);
            let sent = rpc.send(std::slice::from_ref(&message), DEADLINE).await;
            if let Some(sent) = patience.known(sent).await {
                break sent[0].transaction_id.clone();
            }
        };
        assert!(!transaction.is_empty(), "a half message has a transaction");
        tokio::time::sleep(wait).await;
        match plan {
            Plan::Commit => self.end(number, &transaction, COMMIT).await,
            Plan::Rollback => self.end(number, &transaction, ROLLBACK).await,
            Plan::WhenAsked => {}
        }
    }

    /// Ends a transaction; a commit is entered into the ledger as a send.
    async fn end(&self, message: Message, transaction: &str, verdict: TransactionResolution) {
        let began = self.cluster.ledger.now();
        let mut patience = Patience::new();
        loop {
            let ended = self.rpc().end_transaction(TOPIC, transaction, verdict).await;
            if patience.known(ended).await.is_some() {
                break;
            }
        }
        if verdict == COMMIT {
            let action = Action::Send { message, fate: Fate::Done, offset: None };
            self.cluster.ledger.record(began, action);
        }
        self.ended.lock().expect("no holder panics").insert(message);
    }

    fn verdict(&self, message: Message) -> TransactionResolution {
        let plan = self.plans.lock().expect("no holder panics")[&message];
        match plan {
            Plan::Commit => COMMIT,
            Plan::WhenAsked if message.0.is_multiple_of(2) => COMMIT,
            Plan::Rollback | Plan::WhenAsked => ROLLBACK,
        }
    }

    /// Answers the server's questions for ever, after a moment each.
    async fn answer(self: Arc<Self>, mut telemetry: Telemetry) {
        while let Ok(Some(said)) = telemetry.down.message().await {
            let Some(asked) = question(said) else { continue };
            let message = asked.message.expect("a question holds the message");
            let number = tests::body::message(&message.body).expect("a body of this test");
            let applications = Arc::clone(&self);
            tokio::spawn(async move {
                let wait = rand::rng().random_range(0..200);
                tokio::time::sleep(Duration::from_millis(wait)).await;
                let verdict = applications.verdict(number);
                applications.end(number, &asked.transaction_id, verdict).await;
            });
        }
    }
}

fn question(said: v2::TelemetryCommand) -> Option<v2::RecoverOrphanedTransactionCommand> {
    match said.command {
        Some(v2::telemetry_command::Command::RecoverOrphanedTransactionCommand(asked)) => {
            Some(asked)
        }
        _ => None,
    }
}

/// Introduces a producer of the topic at the NameServer, which outlives every broker.
async fn listening(cluster: &Cluster) -> Telemetry {
    let publishing = v2::Publishing { topics: vec![resource(TOPIC)], ..Default::default() };
    let settings = v2::Settings {
        client_type: Some(v2::ClientType::Producer.into()),
        pub_sub: Some(v2::settings::PubSub::Publishing(publishing)),
        ..Default::default()
    };
    let rpc = Rpc::new(cluster.nameservers[0].address);
    rpc.telemetry(settings).await.expect("settings are answered").1
}

/// Leaders are killed while transactions begin, end and are asked about: whatever was told to a
/// producer is so, nothing else is ever seen, and no commit makes two messages.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_end_as_told_whenever_the_leader_dies() {
    const ROUNDS: usize = 5;
    const EACH: usize = 24;
    let cluster = Arc::new(impatient(1_000).await);
    let applications = Applications::of(&cluster);
    let answering = tokio::spawn(Arc::clone(&applications).answer(listening(&cluster).await));
    let mut clients = tokio::task::JoinSet::new();
    for round in 0..ROUNDS {
        for n in 0..EACH {
            let plan = [Plan::Commit, Plan::Rollback, Plan::WhenAsked][n % 3];
            let wait = Duration::from_millis(rand::rng().random_range(0..600));
            clients.spawn(Arc::clone(&applications).transact(plan, wait));
        }
        // Between half and commit, commit and answer, check and answer, as it happens.
        let moment = rand::rng().random_range(0..1_500);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        let (leader, status) = cluster.leader().await;
        eprintln!("round {round}: killed {leader:?} after {moment} ms");
        leader.kill();
        cluster.leader_after(status.term).await;
        leader.start();
    }
    clients.join_all().await;
    eventually("every transaction has ended", DRAIN, async || {
        let open = transactions(&cluster, false).await?;
        if open.is_empty() { Ok(()) } else { Err(format!("{} are open: {open:?}", open.len())) }
    })
    .await;
    eventually("every answer has come back", ELECTION, async || {
        let ended = applications.ended.lock().expect("no holder panics").len();
        if ended == ROUNDS * EACH { Ok(()) } else { Err(format!("{ended} ended")) }
    })
    .await;
    answering.abort();
    let _ = answering.await;
    drop(applications);
    for group in ["audit", "billing"] {
        cluster.consumer(group, TOPIC).receives_everything(DRAIN).await;
    }
    let verdict = cluster.ledger.must_hold(&["audit", "billing"]);
    assert!(verdict.acknowledged >= 5 * EACH as u64 / 3, "{verdict}");
    assert_eq!(entries(&cluster).await, verdict.acknowledged, "each commit is one entry");
    let cluster = Arc::into_inner(cluster).expect("nobody else uses it");
    cluster.finish().await;
}

/// How often producers were asked survives the leader; a transaction that nobody ends is given up
/// after its last check, is seen by nobody, and is ended by an administrator.
#[tokio::test(flavor = "multi_thread")]
async fn checks_survive_the_leader_and_end_with_an_administrator() {
    const MOST: u32 = 4;
    let cluster = impatient(MOST).await;
    let mut silent = listening(&cluster).await;
    let producer = cluster.producer(TOPIC);
    let mut ids = Vec::new();
    let rpc = Rpc::new(cluster.nameservers[0].address);
    let mut begun = Vec::new();
    for _ in 0..2 {
        let (number, mut message) = producer.next_message();
        let system = message.system_properties.as_mut().expect("made with them");
        system.message_type = MessageType::Transaction.into();
        let sent = rpc.send(&[message], DEADLINE).await.expect("stored");
        ids.push(sent[0].transaction_id.clone());
        begun.push(number);
    }
    let counted = |least: u32| {
        let cluster = &cluster;
        async move || {
            let open = transactions(cluster, false).await?;
            let checks: Vec<u32> = open.iter().map(|t| t.checks).collect();
            let enough = checks.len() == 2 && checks.iter().all(|checks| *checks >= least);
            if enough { Ok(checks) } else { Err(format!("{checks:?}")) }
        }
    };
    let before = eventually("checks are recorded", ELECTION, counted(2)).await;
    let (leader, status) = cluster.leader().await;
    leader.kill();
    cluster.leader_after(status.term).await;
    let after = eventually("the new leader knows of them", ELECTION, counted(2)).await;
    assert!(before.iter().zip(&after).all(|(before, after)| before <= after));
    leader.start();

    let parked = eventually("both are given up", ELECTION, async || {
        let parked = transactions(&cluster, true).await?;
        if parked.len() == 2 { Ok(parked) } else { Err(format!("{parked:?}")) }
    })
    .await;
    assert!(parked.iter().all(|t| t.checks == MOST), "{parked:?}");
    let mut asked = 0;
    while let Ok(Ok(Some(said))) =
        tokio::time::timeout(Duration::from_millis(100), silent.down.message()).await
    {
        asked += u32::from(question(said).is_some());
    }
    // A check whose record was lost with the leader is made again, and one more time only.
    assert!((2 * MOST..=2 * MOST + 2).contains(&asked), "asked {asked} times");
    assert_eq!(entries(&cluster).await, 0, "nobody sees what was given up");

    let late = rpc.end_transaction(TOPIC, &ids[0], COMMIT).await.expect_err("given up");
    assert_eq!(late.code(), i32::from(v2::Code::InvalidTransactionId));
    for (id, commit) in ids.iter().zip([true, false]) {
        let request = ResolveTransactionRequest { transaction_id: id.clone(), commit };
        let answer = rpc.admin().resolve_transaction(request).await.expect("an answer");
        assert_eq!(answer.into_inner().error, None);
    }
    let action = Action::Send { message: begun[0], fate: Fate::Done, offset: None };
    cluster.ledger.record(cluster.ledger.now(), action);
    let verdict = cluster.finish_with_everything_received(TOPIC, &["audit"]).await;
    assert_eq!((verdict.acknowledged, verdict.received), (1, 1), "{verdict}");
}

/// A transactional message is written once, like any other: its commit is a few bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_committed_body_is_written_once() {
    const BODY: usize = 64 << 10;
    const COUNT: usize = 600;
    let cluster = Cluster::of(3).alone().start().await;
    cluster.topic_of(TOPIC, 4, MessageType::Transaction).await;
    let producer = cluster.producer(TOPIC).with_bodies_of(BODY);
    let (leader, _) = cluster.leader().await;
    let rpc = leader.rpc();
    let written = Written::by(&cluster).await;
    let left = AtomicU32::new(u32::try_from(COUNT).expect("few"));
    let one_after_the_other = async || {
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
        {
            let (_, mut message) = producer.next_message();
            let system = message.system_properties.as_mut().expect("made with them");
            system.message_type = MessageType::Transaction.into();
            let sent = rpc.send(&[message], 10 * DEADLINE).await.expect("stored");
            let id = &sent[0].transaction_id;
            rpc.end_transaction(TOPIC, id, COMMIT).await.expect("committed");
        }
    };
    futures::future::join_all((0..8).map(|_| one_after_the_other())).await;
    assert_eq!(entries(&cluster).await, COUNT as u64);
    written.holds_each_body_once("64 KiB, committed", (COUNT * BODY) as u64).await;
    cluster.finish().await;
}
