//! The leader is killed at the worst moment of each feature: not by luck, but while it is held
//! there (`fault.hold`), or a random while later.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]
#![allow(clippy::print_stderr, reason = "the moments of the kills are printed for the reader")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jepsen::Message;
use proto::admin;
use proto::clock::wall_now;
use proto::v2::{self, MessageType, TransactionResolution};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tests::cluster::ELECTION;
use tests::consumer::{BATCH, Consumer, Delivery};
use tests::node::Node;
use tests::outcome::Failure;
use tests::producer::normal_message;
use tests::rpc::{DEADLINE, Rpc, Telemetry, resource};
use tests::{Cluster, body, eventually};

const TOPIC: &str = "orders";
const GROUP: &str = "audit";
/// How long a leader is held, once each time that it runs.
const HOLD: Duration = Duration::from_millis(800);
/// The kill comes within this of the moment: mostly while it is held, sometimes after.
const SPREAD: std::ops::Range<u64> = 0..1_000;
/// What a leader that is held writes to its log.
const MARK: &str = "held by fault.hold";
const KILLS: usize = 3;
const PAUSE: Duration = Duration::from_millis(20);
const POLL: Duration = Duration::from_secs(5);
const INVISIBLE: Duration = Duration::from_secs(10);

/// A cluster whose processes hold still once each, when they lead.
struct Scene {
    cluster: Cluster,
    random: StdRng,
    moment: &'static str,
    /// Marks that each node's log had when its process was started.
    before: BTreeMap<u64, usize>,
}

impl Scene {
    async fn of(moment: &'static str, settings: &[(&str, &str)]) -> Self {
        let random = StdRng::seed_from_u64(tests::faults::seed(moment));
        let hold = format!("{moment} {}ms", HOLD.as_millis());
        let plan = Cluster::of(3).set("fault.hold", &hold);
        let plan = settings.iter().fold(plan, |plan, (key, value)| plan.set(key, value));
        Self { cluster: plan.start().await, random, moment, before: BTreeMap::new() }
    }

    fn rpcs(&self) -> Vec<Rpc> {
        self.cluster.nodes.iter().map(|node| node.rpc()).collect()
    }

    /// A node whose process has held.
    fn held(&self) -> Option<Arc<Node>> {
        let has_held = |node: &&Arc<Node>| {
            marks(node) > self.before.get(&node.id).copied().unwrap_or_default()
        };
        self.cluster.nodes.iter().find(has_held).cloned()
    }

    /// Kills a node, and starts it again once there is a leader without it.
    async fn replace(&mut self, node: &Arc<Node>) {
        let (leader, status) = self.cluster.leader().await;
        node.kill();
        self.before.insert(node.id, marks(node));
        let after = if leader.id == node.id { status.term } else { 0 };
        self.cluster.leader_after(after).await;
        node.start();
        eventually("it is back", ELECTION, async || {
            node.status().await.map(drop).map_err(|error| format!("{error:#}"))
        })
        .await;
    }

    /// Sees to it that the next such command is held, whoever leads: a leader that took over may
    /// have held already.
    async fn arm(&mut self) {
        while let Some(node) = self.held() {
            self.replace(&node).await;
        }
    }

    /// Waits until the leader is held, and kills it there or a little later.
    async fn kill(&mut self) {
        let what = format!("a leader is held {}", self.moment);
        let victim =
            eventually(&what, ELECTION, async || self.held().ok_or_else(|| "not yet".to_owned()))
                .await;
        let later = Duration::from_millis(self.random.random_range(SPREAD));
        tokio::time::sleep(later).await;
        eprintln!("{}: {victim:?} dies {later:?} later", self.moment);
        self.replace(&victim).await;
    }

    /// Nothing but what was promised, and the same on all replicas.
    async fn end(self) {
        self.cluster.finish().await;
    }
}

/// How often a node's processes have held, all together.
fn marks(node: &Arc<Node>) -> usize {
    node.process().log().matches(MARK).count()
}

/// Asks every node in turn until the answer is known. Panics when it is a refusal.
async fn known<T>(
    rpcs: &[Rpc],
    mut ask: impl AsyncFnMut(&Rpc) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let start = Instant::now();
    for turn in 0.. {
        match ask(&rpcs[turn % rpcs.len()]).await {
            Ok(done) => return Ok(done),
            Err(failure @ Failure::Rejected { .. }) => return Err(failure),
            Err(failure) => assert!(start.elapsed() < ELECTION, "{failure}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    unreachable!("it asks for ever")
}

fn message(number: u32, kind: MessageType) -> v2::Message {
    let number = Message::new(1, number);
    let mut message = normal_message(TOPIC, number, body::of(number, 64));
    message.system_properties.as_mut().expect("it has some").message_type = kind.into();
    message
}

fn id_of(message: &v2::Message) -> String {
    message.system_properties.as_ref().expect("it has some").message_id.clone()
}

/// Sends until it is stored; one client, by whatever node.
async fn send(rpcs: &[Rpc], message: &v2::Message) -> v2::SendResultEntry {
    let id = rpcs[0].client_id().to_owned();
    let sent = known(rpcs, async |rpc| {
        let rpc = Rpc::with_id(rpc.address(), &id);
        rpc.send(std::slice::from_ref(message), DEADLINE).await
    });
    sent.await.expect("stored").remove(0)
}

async fn end_transaction(rpcs: &[Rpc], id: &str, verdict: TransactionResolution) {
    let start = Instant::now();
    for turn in 0.. {
        match rpcs[turn % rpcs.len()].end_transaction(TOPIC, id, verdict).await {
            Ok(()) => return,
            Err(Failure::Rejected { code, message }) => panic!("rejected ({code}): {message}"),
            Err(failure) => assert!(start.elapsed() < ELECTION, "{failure}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Messages in all queues of a topic.
async fn entries(cluster: &Cluster, topic: &str) -> u64 {
    let request = admin::DescribeTopicRequest { topic: topic.into() };
    eventually("the leader describes the topic", ELECTION, async || {
        let (leader, _) = cluster.leader().await;
        let answer = leader.rpc().admin().describe_topic(request.clone()).await;
        let answer = answer.map_err(|error| error.to_string())?.into_inner();
        match answer.error {
            None => Ok(answer.queues.iter().map(|q| q.max_offset - q.min_offset).sum()),
            Some(error) => Err(format!("{error:?}")),
        }
    })
    .await
}

/// What a group gets until a poll is empty and it has `expected`, each with its places.
async fn receive_all(
    consumer: &mut Consumer,
    expected: usize,
) -> BTreeMap<String, BTreeSet<jepsen::Place>> {
    let mut seen: BTreeMap<String, BTreeSet<jepsen::Place>> = BTreeMap::new();
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < 2 * ELECTION, "{} of {expected}", seen.len());
        match consumer.receive(BATCH, INVISIBLE, POLL).await {
            Ok(got) if got.is_empty() && seen.len() >= expected => return seen,
            Ok(got) => {
                for delivery in &got {
                    seen.entry(delivery.id.clone()).or_default().insert(delivery.place.clone());
                }
                let _ = consumer.ack(&got).await;
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn each_at_one_place(seen: &BTreeMap<String, BTreeSet<jepsen::Place>>) {
    assert!(seen.values().all(|places| places.len() == 1), "stored twice: {seen:?}");
}

/// Commits and rollbacks of transactions, whose leaders die at a moment of them.
async fn transactions_at(moment: &'static str) {
    let mut scene = Scene::of(moment, &[]).await;
    scene.cluster.topic_of(TOPIC, 2, MessageType::Transaction).await;
    let rpcs = scene.rpcs();
    let mut committed = BTreeSet::new();
    for round in 0..KILLS {
        scene.arm().await;
        let numbers = (0..4).map(|n| u32::try_from(round).expect("few") * 4 + n);
        let halves: Vec<v2::Message> =
            numbers.map(|number| message(number, MessageType::Transaction)).collect();
        let transact = async |(n, half): (usize, &v2::Message)| {
            let verdict = match n % 2 {
                0 => TransactionResolution::Commit,
                _ => TransactionResolution::Rollback,
            };
            let transaction = send(&rpcs, half).await.transaction_id;
            assert_eq!(send(&rpcs, half).await.transaction_id, transaction, "sent once");
            end_transaction(&rpcs, &transaction, verdict).await;
            // Whoever did not get the answer asks again, also after it was told.
            end_transaction(&rpcs, &transaction, verdict).await;
        };
        let all = futures::future::join_all(halves.iter().enumerate().map(transact));
        tokio::join!(all, scene.kill());
        committed.extend(halves.iter().step_by(2).map(id_of));
    }
    assert_eq!(entries(&scene.cluster, TOPIC).await, committed.len() as u64);
    let mut consumer = scene.cluster.consumer(GROUP, TOPIC);
    let seen = receive_all(&mut consumer, committed.len()).await;
    each_at_one_place(&seen);
    assert_eq!(seen.into_keys().collect::<BTreeSet<_>>(), committed);
    scene.end().await;
}

/// The half message is stored, and the leader dies before its producer hears of it, let alone
/// commits.
#[tokio::test(flavor = "multi_thread")]
async fn between_half_and_commit() {
    transactions_at("after AppendHalf").await;
}

/// The commit is in the log, and the leader dies before the producer hears of it.
#[tokio::test(flavor = "multi_thread")]
async fn between_commit_and_answer() {
    transactions_at("after EndTransaction").await;
}

/// Introduces a producer at the NameServer, which outlives every broker.
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

/// The question reached the producer, and the leader dies before it has recorded that: the
/// transaction ends once, by the producer's word, whoever asked.
#[tokio::test(flavor = "multi_thread")]
async fn between_check_and_answer() {
    let settings = [("transaction.timeout", "1s"), ("transaction.check_interval", "1s")];
    let mut scene = Scene::of("before CheckTransactions", &settings).await;
    scene.cluster.topic_of(TOPIC, 2, MessageType::Transaction).await;
    let rpcs = scene.rpcs();
    let mut telemetry = listening(&scene.cluster).await;
    let answering = {
        let rpcs = rpcs.clone();
        tokio::spawn(async move {
            while let Ok(Some(said)) = telemetry.down.message().await {
                use v2::telemetry_command::Command::RecoverOrphanedTransactionCommand;
                let Some(RecoverOrphanedTransactionCommand(asked)) = said.command else { continue };
                let number = body::message(&asked.message.expect("it is there").body);
                let commits = number.expect("a body of this test").0.is_multiple_of(2);
                let verdict = match commits {
                    true => TransactionResolution::Commit,
                    false => TransactionResolution::Rollback,
                };
                let wait = rand::rng().random_range(0..2 * 800);
                let rpcs = rpcs.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                    end_transaction(&rpcs, &asked.transaction_id, verdict).await;
                });
            }
        })
    };
    let mut committed = BTreeSet::new();
    for round in 0..KILLS {
        scene.arm().await;
        for n in 0..4 {
            let number = u32::try_from(round).expect("few") * 4 + n;
            let half = message(number, MessageType::Transaction);
            send(&rpcs, &half).await;
            if Message::new(1, number).0.is_multiple_of(2) {
                committed.insert(id_of(&half));
            }
        }
        scene.kill().await;
    }
    let expected = committed.len() as u64;
    eventually("every transaction has ended", 2 * ELECTION, async || {
        let request = admin::ListTransactionsRequest::default();
        let (leader, _) = scene.cluster.leader().await;
        let open = leader.rpc().admin().list_transactions(request).await;
        let open = open.map_err(|error| error.to_string())?.into_inner();
        if open.error.is_none() && open.transactions.is_empty() {
            Ok(())
        } else {
            Err(format!("{open:?}"))
        }
    })
    .await;
    answering.abort();
    assert_eq!(entries(&scene.cluster, TOPIC).await, expected);
    let mut consumer = scene.cluster.consumer(GROUP, TOPIC);
    let seen = receive_all(&mut consumer, committed.len()).await;
    each_at_one_place(&seen);
    assert_eq!(seen.into_keys().collect::<BTreeSet<_>>(), committed);
    scene.end().await;
}

async fn all_fired(cluster: &Cluster, count: usize) {
    eventually("all have fired", ELECTION, async || {
        let fired = entries(cluster, TOPIC).await;
        if fired == count as u64 { Ok(()) } else { Err(format!("{fired} of {count}")) }
    })
    .await;
}

/// Delayed messages are due, and the leader dies before it fires them, or before anybody hears of
/// it: each comes once, none before its time, none long after.
async fn delayed_at(moment: &'static str) {
    let mut scene = Scene::of(moment, &[]).await;
    scene.cluster.topic_of(TOPIC, 2, MessageType::Delay).await;
    let rpcs = scene.rpcs();
    let mut due = BTreeMap::new();
    for round in 0..KILLS {
        // While something is due, each leader that takes over is held at once: there would be no
        // end of it.
        all_fired(&scene.cluster, due.len()).await;
        scene.arm().await;
        for n in 0..8 {
            let number = u32::try_from(round).expect("few") * 8 + n;
            let mut delayed = message(number, MessageType::Delay);
            let at = wall_now().plus(Duration::from_millis(900 + u64::from(n) * 60));
            let system = delayed.system_properties.as_mut().expect("it has some");
            system.delivery_timestamp = Some(at.into());
            send(&rpcs, &delayed).await;
            due.insert(id_of(&delayed), at);
        }
        scene.kill().await;
    }
    let ready = Instant::now();
    all_fired(&scene.cluster, due.len()).await;
    eprintln!("{moment}: all there {:?} after the last leader", ready.elapsed());
    let mut consumer = scene.cluster.consumer(GROUP, TOPIC);
    let start = Instant::now();
    let mut seen: BTreeMap<String, BTreeSet<jepsen::Place>> = BTreeMap::new();
    while seen.len() < due.len() {
        assert!(start.elapsed() < 2 * ELECTION, "{} of {}", seen.len(), due.len());
        let Ok(got) = consumer.receive(BATCH, INVISIBLE, POLL).await else { continue };
        for delivery in &got {
            let system = delivery.raw.system_properties.as_ref().expect("it has some");
            let stored = system.store_timestamp.expect("deliveries say when");
            let at: prost_types::Timestamp = due[&delivery.id].into();
            let key = |t: &prost_types::Timestamp| (t.seconds, t.nanos);
            assert!(key(&stored) >= key(&at), "{} came before its time", delivery.id);
            seen.entry(delivery.id.clone()).or_default().insert(delivery.place.clone());
        }
        let _ = consumer.ack(&got).await;
    }
    each_at_one_place(&seen);
    assert_eq!(seen.keys().collect::<Vec<_>>(), due.keys().collect::<Vec<_>>());
    scene.end().await;
}

/// Before the firing is proposed.
#[tokio::test(flavor = "multi_thread")]
async fn between_due_and_fired() {
    delayed_at("before Fire").await;
}

/// After it was applied.
#[tokio::test(flavor = "multi_thread")]
async fn between_fired_and_seen() {
    delayed_at("after Fire").await;
}

/// One delivery, from whichever access point answers.
async fn receive_one(consumer: &mut Consumer) -> Delivery {
    eventually("a message is received", ELECTION, async || {
        let got = consumer.receive(1, INVISIBLE, POLL).await.map_err(|e| e.to_string())?;
        got.into_iter().next().ok_or_else(|| "nothing".to_owned())
    })
    .await
}

/// The ack is in the log, and the leader dies before the consumer hears of it: it asks again and is
/// told so, and the message never comes again.
#[tokio::test(flavor = "multi_thread")]
async fn between_received_and_acked() {
    let mut scene = Scene::of("after Ack", &[]).await;
    scene.cluster.topic(TOPIC, 1).await;
    let rpcs = scene.rpcs();
    let mut consumer = scene.cluster.consumer(GROUP, TOPIC);
    for round in 0..KILLS {
        scene.arm().await;
        let number = u32::try_from(round).expect("few");
        send(&rpcs, &message(number, MessageType::Normal)).await;
        let delivery = receive_one(&mut consumer).await;
        assert_eq!(delivery.attempt, 1);
        let acked = async {
            known(&rpcs, async |rpc| rpc.ack(GROUP, TOPIC, vec![delivery.entry()]).await).await
        };
        let (acked, ()) = tokio::join!(acked, scene.kill());
        let code = acked.expect("an answer")[0].status.as_ref().map(|status| status.code);
        assert_eq!(code, Some(v2::Code::Ok.into()));
    }
    // Longer than any of them would stay invisible.
    let last = Instant::now();
    while last.elapsed() < INVISIBLE + Duration::from_secs(1) {
        if let Ok(got) = consumer.receive(BATCH, INVISIBLE, POLL).await {
            assert!(got.is_empty(), "acknowledged, and here again: {got:?}");
        }
    }
    scene.end().await;
}

/// Settings of the consumer group.
async fn put_group(cluster: &Cluster, fifo: bool, max_attempts: u32) {
    let config =
        admin::GroupConfig { group: GROUP.into(), fifo, max_attempts, ..Default::default() };
    cluster.consumer_group(config).await;
}

/// What is in the dead-letter queue, by id, with how often it is there.
async fn dead_letters(scene: &Scene, expected: usize) -> BTreeMap<String, usize> {
    let mut undertaker = scene.cluster.consumer("undertaker", "%DLQ%audit");
    let seen = receive_all(&mut undertaker, expected).await;
    assert_eq!(entries(&scene.cluster, "%DLQ%audit").await, expected as u64);
    seen.into_iter().map(|(id, places)| (id, places.len())).collect()
}

/// A consumer gives messages up, and the leader dies before it hears of it: each is a dead letter
/// once.
#[tokio::test(flavor = "multi_thread")]
async fn between_given_up_and_answer() {
    let mut scene = Scene::of("after DeadLetter", &[]).await;
    scene.cluster.topic(TOPIC, 1).await;
    put_group(&scene.cluster, false, 16).await;
    let rpcs = scene.rpcs();
    let mut consumer = scene.cluster.consumer(GROUP, TOPIC);
    let mut sent = BTreeMap::new();
    for round in 0..KILLS {
        scene.arm().await;
        let letter = message(u32::try_from(round).expect("few"), MessageType::Normal);
        send(&rpcs, &letter).await;
        sent.insert(id_of(&letter), 1);
        let delivery = receive_one(&mut consumer).await;
        let given_up = async {
            known(&rpcs, async |rpc| rpc.give_up(GROUP, TOPIC, delivery.entry()).await).await
        };
        let (given_up, ()) = tokio::join!(given_up, scene.kill());
        assert_eq!(given_up.expect("an answer"), i32::from(v2::Code::Ok));
    }
    assert_eq!(dead_letters(&scene, sent.len()).await, sent);
    scene.end().await;
}

/// The last attempt of a message is lost with the leader that made it, and the next leader dies in
/// the moment in which it moves the message to the dead letters: it is there once, and was handed
/// to nobody again.
#[tokio::test(flavor = "multi_thread")]
async fn between_retry_and_dead_letter() {
    const LETTERS: u32 = 5;
    let mut scene = Scene::of("after Pop", &[]).await;
    scene.cluster.topic(TOPIC, 1).await;
    put_group(&scene.cluster, false, 1).await;
    let rpcs = scene.rpcs();
    let mut sent = BTreeMap::new();
    for number in 0..LETTERS {
        let letter = message(number, MessageType::Normal);
        send(&rpcs, &letter).await;
        sent.insert(id_of(&letter), 1);
    }
    let mut consumer = scene.cluster.consumer(GROUP, TOPIC);
    let mut attempts: BTreeMap<String, usize> = BTreeMap::new();
    // The first leader dies with the only attempt, the second one with the burial.
    for _ in 0..2 {
        let receiving = async {
            let start = Instant::now();
            while start.elapsed() < INVISIBLE + 2 * POLL {
                if let Ok(got) = consumer.receive(BATCH, INVISIBLE, POLL).await {
                    got.iter().for_each(|d| *attempts.entry(d.id.clone()).or_default() += 1);
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = receiving => panic!("nobody was held"),
            () = scene.kill() => (),
        }
    }
    // Whoever looks next finds nothing, or moves it there.
    eventually("the letters are dead", 2 * ELECTION, async || {
        let got = consumer.receive(BATCH, INVISIBLE, POLL).await.map_err(|e| e.to_string())?;
        got.iter().for_each(|d| *attempts.entry(d.id.clone()).or_default() += 1);
        let request = admin::DescribeTopicRequest { topic: "%DLQ%audit".into() };
        let (leader, _) = scene.cluster.leader().await;
        let answer = leader.rpc().admin().describe_topic(request).await;
        let queues = answer.map_err(|e| e.to_string())?.into_inner().queues;
        let count: u64 = queues.iter().map(|q| q.max_offset).sum();
        if count == u64::from(LETTERS) { Ok(()) } else { Err(format!("{count} letters")) }
    })
    .await;
    assert_eq!(dead_letters(&scene, sent.len()).await, sent);
    assert!(attempts.values().all(|times| *times == 1), "more than the one attempt: {attempts:?}");
    scene.end().await;
}
