//! One library on the cluster: topics and groups of its own, and what scenarios often do.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proto::admin;
use proto::v2::{Code, MessageType};
use tests::library::{Incoming, Library, Outgoing, Producer, Push, Receipt, Refusal, Simple};
use tests::library::{Subscription, Verdict};
use tests::official::Language;
use tests::{Cluster, eventually};

/// As many as the reference gives to a new topic.
const QUEUES: u32 = 8;
/// How long messages may be on their way on a loaded machine.
pub(super) const ARRIVAL: Duration = Duration::from_secs(60);
/// Long enough that nothing comes again during a scenario.
pub(super) const INVISIBLE: Duration = Duration::from_secs(120);
/// What a receive asks for.
pub(super) const BATCH: u32 = 32;

pub(super) struct Stage<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) library: Library,
}

impl<'a> Stage<'a> {
    pub(super) async fn new(cluster: &'a Cluster, language: Language) -> Self {
        let access_point = cluster.nameservers[0].address.to_string();
        let library = Library::open(language, &access_point, cluster.scratch.path()).await;
        Self { cluster, library }
    }

    pub(super) fn language(&self) -> Language {
        self.library.language
    }

    pub(super) fn name(&self) -> &'static str {
        self.language().name()
    }

    /// A name that only this library uses.
    pub(super) fn own(&self, name: &str) -> String {
        format!("{}-{name}", self.name())
    }

    /// A topic of this library.
    pub(super) async fn topic(&self, name: &str, accepts: MessageType) -> String {
        let topic = self.own(name);
        self.cluster.topic_of(&topic, QUEUES, accepts).await;
        topic
    }

    /// A consumer group of this library that keeps order.
    pub(super) async fn fifo_group(&self, name: &str) -> String {
        let group = self.own(name);
        let config = admin::GroupConfig {
            group: group.clone(),
            fifo: true,
            max_attempts: 17,
            backoff_ms: vec![1_000],
            ..Default::default()
        };
        self.cluster.consumer_group(config).await;
        group
    }

    pub(super) async fn producer(&self, topic: &str) -> Producer<'_> {
        self.library.producer(&[topic], None).await.expect("a producer starts")
    }

    /// A producer of transactions.
    pub(super) async fn decider(&self, topic: &str, verdict: Verdict) -> Producer<'_> {
        self.library.producer(&[topic], Some(verdict)).await.expect("a producer starts")
    }

    pub(super) async fn simple(&self, subscription: &Subscription) -> Simple<'_> {
        self.library.simple(subscription).await.expect("a simple consumer starts")
    }

    pub(super) async fn push(&self, subscription: &Subscription) -> Push<'_> {
        self.library.push(subscription).await.expect("a push consumer starts")
    }

    /// Receives and acknowledges until nothing has been delivered to the group for one poll and
    /// everything in the topic is consumed. Messages come in the order of their arrival.
    pub(super) async fn drain(&self, subscription: &Subscription) -> Vec<Incoming> {
        let consumer = self.simple(subscription).await;
        let messages = self.drain_with(&consumer, subscription).await;
        consumer.close().await.expect("it closes");
        messages
    }

    pub(super) async fn drain_with(
        &self,
        consumer: &Simple<'_>,
        subscription: &Subscription,
    ) -> Vec<Incoming> {
        let (start, mut all) = (Instant::now(), Vec::new());
        loop {
            let messages = consumer.receive(BATCH, INVISIBLE).await.expect("a receive succeeds");
            for message in &messages {
                consumer.ack(message).await.expect("an ack succeeds");
            }
            let nothing = messages.is_empty();
            all.extend(messages);
            let left = self.lag(&subscription.group, &subscription.topic).await;
            if nothing && left == 0 {
                return all;
            }
            assert!(start.elapsed() < ARRIVAL, "{left} messages are left, and {} came", all.len());
        }
    }

    /// Waits until a push consumer's group has consumed everything in the topic.
    pub(super) async fn consumed(&self, push: &Push<'_>, least: usize, group: &str, topic: &str) {
        eventually("everything is consumed", ARRIVAL, async || {
            let (left, received) = (self.lag(group, topic).await, push.received().len());
            if left == 0 && received >= least {
                return Ok(());
            }
            Err(format!("{left} are left, {received} of {least} came"))
        })
        .await;
    }

    /// Messages of the topic that the group has not consumed; all of them as long as there is no
    /// such group.
    pub(super) async fn lag(&self, group: &str, topic: &str) -> u64 {
        let (leader, _) = self.cluster.leader().await;
        let describe = admin::DescribeTopicRequest { topic: topic.to_owned() };
        let stored = leader.rpc().admin().describe_topic(describe).await.expect("an answer");
        let (group, topic) = (group.to_owned(), topic.to_owned());
        let request = admin::GroupProgressRequest { group, topic };
        let progress = leader.rpc().admin().group_progress(request).await.expect("an answer");
        let progress = progress.into_inner().queues;
        let left = stored.into_inner().queues.into_iter().map(|queue| {
            match progress.iter().find(|p| p.queue_id == queue.queue_id) {
                Some(progress) => progress.ready + progress.lasting,
                None => queue.max_offset - queue.min_offset,
            }
        });
        left.sum()
    }
}

/// Sends a message that must be taken.
pub(super) async fn sends(producer: &Producer<'_>, message: &Outgoing) -> Receipt {
    producer.send(message).await.unwrap_or_else(|why| panic!("{why:?} for {message:?}"))
}

/// Sends this many texts, one after the other, and returns them.
pub(super) async fn sends_many(
    producer: &Producer<'_>,
    topic: &str,
    count: usize,
) -> BTreeSet<String> {
    let bodies: Vec<String> = (0..count).map(|n| format!("message {n}")).collect();
    for body in &bodies {
        sends(producer, &Outgoing::to(topic, body)).await;
    }
    bodies.into_iter().collect()
}

/// The bodies, each of which must be there once.
pub(super) fn each_once(messages: &[Incoming]) -> BTreeSet<String> {
    let mut bodies = BTreeSet::new();
    for message in messages {
        assert!(bodies.insert(message.text().to_owned()), "{} came twice", message.text());
    }
    bodies
}

/// The server refused with this code.
pub(super) fn refused<T: std::fmt::Debug>(what: &str, result: Result<T, Refusal>, expected: Code) {
    match result {
        Err(Refusal::Server { code, .. }) => assert_eq!(code, expected, "{what}"),
        other => panic!("{what}: {expected:?} was expected, not {other:?}"),
    }
}

/// Refused, by the library or with this code by the server; libraries differ in what they look at.
pub(super) fn refused_by_either(what: &str, result: Result<(), Refusal>, expected: Code) {
    match result {
        Err(Refusal::Library { .. }) => {}
        server => refused(what, server, expected),
    }
}

/// The library refused, and the server was not asked.
pub(super) fn refused_by_library<T: std::fmt::Debug>(what: &str, result: Result<T, Refusal>) {
    match result {
        Err(Refusal::Library { .. }) => {}
        other => panic!("{what}: the library refuses that itself, as we thought; not {other:?}"),
    }
}

/// Unix milliseconds, as applications see them.
pub(super) fn now_ms() -> u64 {
    proto::clock::wall_now().0
}

pub(super) fn type_name(kind: MessageType) -> String {
    kind.as_str_name().to_lowercase()
}
