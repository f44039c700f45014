//! Pulling, offsets, sharing of queues, resets, queries, and counts, on a cluster whose leader dies.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::admin::{
    self, GroupProgressRequest, PutGroupRequest, QueryMessagesRequest, QueueChoice, QueuePlace,
    ResetOffsetsRequest, TrackMessageRequest, message_track, query_messages_request::By,
    reset_offsets_request::To,
};
use proto::v2;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tests::cluster::{DRAIN, ELECTION};
use tests::consumer::{BATCH, INVISIBLE};
use tests::faults::seed;
use tests::rpc::{DEADLINE, Rpc, resource};
use tests::{Cluster, Producer, eventually};

const ILLEGAL_OFFSET: i32 = 40019;
const OFFSET_NOT_FOUND: i32 = 40404;
const NO_WAIT: Duration = Duration::ZERO;
/// How soon those who share queues hear of a join or a leave.
const REBALANCE: Duration = Duration::from_secs(1);

async fn queue(cluster: &Cluster, topic: &str, id: i32) -> v2::MessageQueue {
    let rpc = Rpc::new(cluster.access_points()[0]);
    let route = rpc.query_route(topic).await.expect("the topic exists");
    route.into_iter().find(|queue| queue.id == id).expect("the topic has the queue")
}

/// Everything of a queue from an offset on.
async fn pull_all(rpc: &Rpc, group: &str, queue: &v2::MessageQueue) -> Vec<v2::Message> {
    let (mut all, mut next) = (Vec::new(), 0);
    loop {
        let (messages, after) = rpc.pull(group, queue, next, NO_WAIT).await.expect("pulls");
        if messages.is_empty() {
            return all;
        }
        all.extend(messages);
        next = after;
    }
}

/// Sends so many messages, in turn to each queue. All must be acknowledged.
async fn spread(producer: &Producer, count: usize, queues: i32) {
    for turn in (0..queues).cycle().take(count) {
        let (number, mut message) = producer.next_message();
        let system = message.system_properties.as_mut().expect("they have");
        system.queue_id = turn;
        producer.attempt(number, &message).await.expect("no fault now");
    }
}

fn id(message: &v2::Message) -> String {
    message.system_properties.as_ref().expect("they have").message_id.clone()
}

/// What is committed never goes back, whatever happens to the leader, and is never lost.
#[tokio::test(flavor = "multi_thread")]
async fn committed_offsets_survive_the_leader_and_never_go_back() {
    let mut random = StdRng::seed_from_u64(seed("committed offsets"));
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 1).await;
    assert_eq!(cluster.producer("orders").send(400, 32).await, 400);
    let queue = queue(&cluster, "orders", 0).await;
    let points = cluster.access_points();
    let acknowledged = Arc::new(AtomicI64::new(0));

    for round in 1..=3_i64 {
        let (old, status) = cluster.leader().await;
        let (task_queue, task_points) = (queue.clone(), points.clone());
        let done = Arc::clone(&acknowledged);
        let committer = tokio::spawn(async move {
            for offset in (round - 1) * 100 + 1..=round * 100 {
                let at = usize::try_from(offset).expect("small") % task_points.len();
                let rpc = Rpc::new(task_points[at]);
                if rpc.update_offset("audit", &task_queue, offset).await.is_ok() {
                    done.fetch_max(offset, Ordering::SeqCst);
                }
                // A late commit of the past changes nothing.
                let _ = rpc.update_offset("audit", &task_queue, offset / 2).await;
            }
        });
        tokio::time::sleep(Duration::from_millis(random.random_range(5..150))).await;
        old.kill();
        let mut lowest = 0;
        eventually("a new leader answers", ELECTION, async || {
            let known = acknowledged.load(Ordering::SeqCst);
            let rpc = Rpc::new(points[0]);
            let now = rpc.get_offset("audit", &queue).await.map_err(|e| format!("{e:?}"))?;
            assert!(now >= known, "{now} is committed, {known} had been acknowledged");
            assert!(now >= lowest, "{now} is below {lowest}");
            lowest = now;
            if committer.is_finished() { Ok(()) } else { Err(format!("at {now}")) }
        })
        .await;
        cluster.leader_after(status.term).await;
        old.start();
        committer.await.expect("commits end");
    }
    let rpc = Rpc::new(points[0]);
    let known = acknowledged.load(Ordering::SeqCst);
    assert!(known > 250, "most commits get through: {known}");
    assert!(rpc.get_offset("audit", &queue).await.expect("an answer") >= known);
    let nobody = rpc.get_offset("nobody", &queue).await.expect_err("it has none");
    assert_eq!(nobody.code(), OFFSET_NOT_FOUND);
    cluster.finish().await;
}

async fn committed(rpc: &Rpc, group: &str, topic: &str) -> Option<Vec<u64>> {
    let request = GroupProgressRequest { group: group.into(), topic: topic.into() };
    let answer = rpc.admin().group_progress(request).await.ok()?.into_inner();
    let offsets = answer.queues.iter().map(|queue| queue.committed_offset).collect();
    answer.error.is_none().then_some(offsets)
}

/// A reset moves all queues or none, also when the leader dies over it while producers send.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_is_all_or_nothing() {
    let mut random = StdRng::seed_from_u64(seed("reset"));
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 8).await;
    spread(&cluster.producer("orders"), 80, 8).await;
    cluster.consumer("audit", "orders").receives_everything(DRAIN).await;
    let points = cluster.access_points();

    for round in 0..4 {
        let rpc = Rpc::new(points[round % points.len()]);
        let before = eventually("the group's offsets", ELECTION, async || {
            committed(&rpc, "audit", "orders").await.ok_or_else(|| "no answer".to_owned())
        })
        .await;
        let (old, status) = cluster.leader().await;
        let producer = cluster.producer("orders");
        let load = tokio::spawn(async move { producer.send(200, 16).await });
        let wait = Duration::from_micros(random.random_range(0..12_000));
        let killer = {
            let old = Arc::clone(&old);
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                old.kill();
            })
        };
        let to =
            if before.iter().all(|offset| *offset == 0) { To::End(true) } else { To::Begin(true) };
        let request = ResetOffsetsRequest {
            group: "audit".into(),
            topic: "orders".into(),
            to: Some(to),
            ..Default::default()
        };
        let answer = rpc.admin().reset_offsets(request).await.map(tonic::Response::into_inner);
        killer.await.expect("the leader is killed");
        cluster.leader_after(status.term).await;
        let after = eventually("the group's offsets", ELECTION, async || {
            committed(&rpc, "audit", "orders").await.ok_or_else(|| "no answer".to_owned())
        })
        .await;
        let unmoved = after == before;
        let moved = match to {
            To::Begin(_) => after.iter().all(|offset| *offset == 0),
            _ => after.iter().zip(&before).all(|(after, before)| after > before),
        };
        assert!(unmoved || moved, "{before:?} became {after:?}");
        if let Ok(answer) = answer
            && answer.error.is_none()
        {
            assert!(moved, "the reset was acknowledged: {after:?}");
            let told: Vec<_> = answer.queues.iter().map(|queue| queue.to_offset).collect();
            assert_eq!(told, after);
        }
        old.start();
        load.await.expect("sends end");
        cluster.replicas_agree().await;
    }
    cluster.finish().await;
}

/// A running consumer hears of a reset, and what it had in hand does not undo it.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_pulls_follows_a_reset() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 1).await;
    cluster.producer("orders").send(50, 16).await;
    let queue = queue(&cluster, "orders", 0).await;
    let rpc = Rpc::new(cluster.followers().await[0].addresses.client);
    rpc.update_offset("audit", &queue, 50).await.expect("commits");
    // A pull that waits at the end of the queue is told too.
    let waiting = {
        let (rpc, queue) = (rpc.clone(), queue.clone());
        tokio::spawn(async move { rpc.pull("audit", &queue, 50, Duration::from_secs(15)).await })
    };
    let request = ResetOffsetsRequest {
        group: "audit".into(),
        topic: "orders".into(),
        queue_id: Some(0),
        to: Some(To::Offset(20)),
        ..Default::default()
    };
    let answer = rpc.admin().reset_offsets(request).await.expect("an answer").into_inner();
    assert_eq!((answer.error, answer.queues[0].to_offset), (None, 20));
    let told = waiting.await.expect("ends").expect_err("the group is elsewhere");
    assert_eq!(told.code(), ILLEGAL_OFFSET);
    let late = rpc.update_offset("audit", &queue, 50).await.expect_err("of before the reset");
    assert_eq!(late.code(), ILLEGAL_OFFSET);
    let from = rpc.get_offset("audit", &queue).await.expect("an answer");
    assert_eq!(from, 20);
    let (messages, next) = rpc.pull("audit", &queue, from, NO_WAIT).await.expect("pulls");
    assert_eq!((messages.len(), next), (30, 50));
    rpc.update_offset("audit", &queue, 35).await.expect("commits count again");
    assert_eq!(rpc.get_offset("audit", &queue).await, Ok(35));
    cluster.finish().await;
}

/// Who broadcasts pulls by himself: every client reads everything, and nobody moves the group.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_keep_their_own_offsets_each_read_everything() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 2).await;
    spread(&cluster.producer("orders"), 200, 2).await;
    let queues = [queue(&cluster, "orders", 0).await, queue(&cluster, "orders", 1).await];
    for point in cluster.access_points().into_iter().take(3) {
        let rpc = Rpc::new(point);
        let mut seen = BTreeSet::new();
        for queue in &queues {
            seen.extend(pull_all(&rpc, "everybody", queue).await.iter().map(id));
        }
        assert_eq!(seen.len(), 200);
        assert!(rpc.get_offset("everybody", &queues[0]).await.is_err(), "nobody committed");
    }
    // A pull that waits at a follower gets the next message at once.
    let follower = Rpc::new(cluster.followers().await[0].addresses.client);
    let end = pull_all(&follower, "everybody", &queues[0]).await.len();
    let end = i64::try_from(end).expect("small");
    let waiting = {
        let (rpc, queue) = (follower.clone(), queues[0].clone());
        tokio::spawn(async move { rpc.pull("g", &queue, end, Duration::from_secs(15)).await })
    };
    cluster.producer("orders").send(20, 4).await;
    let (messages, next) = waiting.await.expect("ends").expect("pulls");
    assert!(!messages.is_empty() && next > end);
    cluster.finish().await;
}

fn puller(group: &str, topic: &str) -> v2::Settings {
    let entry = v2::SubscriptionEntry {
        topic: Some(resource(topic)),
        expression: Some(v2::FilterExpression {
            r#type: v2::FilterType::Tag.into(),
            expression: "*".into(),
        }),
    };
    v2::Settings {
        client_type: Some(v2::ClientType::PullConsumer.into()),
        pub_sub: Some(v2::settings::PubSub::Subscription(v2::Subscription {
            group: Some(resource(group)),
            subscriptions: vec![entry],
            ..Default::default()
        })),
        ..Default::default()
    }
}

async fn share(rpc: &Rpc) -> Result<BTreeSet<i32>, String> {
    let assignments =
        rpc.query_assignment("orders", "audit").await.map_err(|e| format!("{e:?}"))?;
    Ok(assignments.iter().map(|a| a.message_queue.as_ref().expect("one").id).collect())
}

/// Those who say that they pull share the queues; a join and a leave show within a second, and a
/// leader's death does not change who has what for long.
#[tokio::test(flavor = "multi_thread")]
async fn queues_are_shared_among_those_who_pull() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 4).await;
    let points = cluster.access_points();
    let (first, second) = (Rpc::with_id(points[0], "a"), Rpc::with_id(points[1], "b"));
    let push = Rpc::with_id(points[0], "c");
    let all = BTreeSet::from([0, 1, 2, 3]);
    let halves = (BTreeSet::from([0, 1]), BTreeSet::from([2, 3]));
    let is = |wanted: &BTreeSet<i32>, found: BTreeSet<i32>| {
        if found == *wanted { Ok(()) } else { Err(format!("{found:?}")) }
    };

    let _stream = first.telemetry(puller("audit", "orders")).await.expect("settings");
    eventually("alone it has all", REBALANCE, async || is(&all, share(&first).await?)).await;
    let _other = second.telemetry(puller("audit", "orders")).await.expect("settings");
    eventually("both have a half", REBALANCE, async || {
        is(&halves.0, share(&first).await?)?;
        is(&halves.1, share(&second).await?)
    })
    .await;
    assert_eq!(share(&push).await, Ok(BTreeSet::from([-1])), "others get what they always did");

    let (old, status) = cluster.leader().await;
    if !points[..2].contains(&old.addresses.client) {
        old.kill();
        cluster.leader_after(status.term).await;
        eventually("still both have a half", ELECTION, async || {
            is(&halves.0, share(&first).await?)?;
            is(&halves.1, share(&second).await?)
        })
        .await;
        old.start();
        cluster.leader().await;
    }

    first.notify_client_termination(Some("audit")).await.expect("an answer");
    eventually("the one that is left has all", REBALANCE, async || is(&all, share(&second).await?))
        .await;
    cluster.finish().await;
}

/// At random moments, the counts of a group are those of counting messages one by one.
#[tokio::test(flavor = "multi_thread")]
async fn backlogs_are_exact_at_any_moment() {
    let mut random = StdRng::seed_from_u64(seed("backlogs"));
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 4).await;
    let producer = cluster.producer("orders");
    let mut consumer = cluster.consumer("audit", "orders");
    let (mut sent, mut delivered, mut held) = (0, 0, Vec::new());
    for round in 0..12 {
        if round == 6 {
            let (old, status) = cluster.leader().await;
            old.kill();
            cluster.leader_after(status.term).await;
            old.start();
        }
        let more = random.random_range(0..80);
        spread(&producer, more, 4).await;
        sent += more;
        for _ in 0..random.random_range(0..4) {
            if delivered == sent {
                break;
            }
            let poll = Duration::from_secs(5);
            let batch = random.random_range(1..=BATCH);
            let received = consumer.receive(batch, INVISIBLE, poll).await.expect("receives");
            delivered += received.len();
            held.extend(received);
        }
        for _ in 0..random.random_range(0..=held.len()) {
            let one = held.swap_remove(random.random_range(0..held.len()));
            let acked = consumer.ack(&[one]).await.expect("acks");
            assert_eq!(acked.len(), 1);
        }
        let rpc = Rpc::new(cluster.access_points()[round % 3]);
        let request = GroupProgressRequest { group: "audit".into(), topic: "orders".into() };
        let answer = rpc.admin().group_progress(request).await.expect("an answer").into_inner();
        assert_eq!(answer.error, None);
        let sum =
            |count: fn(&admin::QueueProgress) -> u64| answer.queues.iter().map(count).sum::<u64>();
        let counts = (sum(|q| q.ready), sum(|q| q.lasting));
        assert_eq!(counts, ((sent - delivered) as u64, held.len() as u64), "round {round}");
        for queue in &answer.queues {
            let of_queue = held.iter().filter(|d| d.place.queue.id == queue.queue_id).count();
            assert_eq!(queue.lasting, of_queue as u64, "{queue:?}");
        }
    }
    assert!(delivered > 50, "{delivered} of {sent} were delivered");
    cluster.finish().await;
}

fn keyed(number: usize, key: &str) -> v2::Message {
    v2::Message {
        topic: Some(resource("orders")),
        system_properties: Some(v2::SystemProperties {
            message_id: format!("id-{number}"),
            message_type: v2::MessageType::Normal.into(),
            keys: vec![key.to_owned(), "all".to_owned()],
            tag: Some(if number.is_multiple_of(2) { "even" } else { "odd" }.to_owned()),
            born_host: "test".into(),
            queue_id: i32::try_from(number % 2).expect("small"),
            ..Default::default()
        }),
        body: format!("body {number}").into(),
        ..Default::default()
    }
}

async fn found(rpc: &Rpc, by: By, from_ms: u64, until_ms: u64) -> Vec<admin::StoredMessage> {
    let request = QueryMessagesRequest {
        topic: "orders".into(),
        by: Some(by),
        from_ms,
        until_ms,
        ..Default::default()
    };
    let answer = rpc.admin().query_messages(request).await.expect("an answer").into_inner();
    assert_eq!((answer.error, answer.truncated), (None, false));
    answer.messages
}

/// Messages are found by id, key, time and place, at any node and after the leader's death, and
/// what became of them is known.
#[tokio::test(flavor = "multi_thread")]
async fn messages_are_found_and_tracked() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 2).await;
    let rpc = Rpc::new(cluster.access_points()[0]);
    for number in 0..40 {
        let message = keyed(number, &format!("customer-{}", number % 4));
        rpc.send(&[message], DEADLINE).await.expect("sends");
    }
    let (old, status) = cluster.leader().await;
    old.kill();
    cluster.leader_after(status.term).await;
    old.start();

    let by_id = found(&rpc, By::MessageId("id-7".into()), 0, 0).await;
    assert_eq!(by_id.len(), 1);
    let place = &by_id[0];
    assert_eq!(place.message.as_ref().map(|m| m.body.clone()), Some("body 7".into()));
    assert!(found(&rpc, By::MessageId("all".into()), 0, 0).await.is_empty(), "a key is no id");
    let by_key = found(&rpc, By::Key("customer-3".into()), 0, 0).await;
    assert_eq!(by_key.len(), 10);
    assert!(by_key.is_sorted_by(|a, b| a.stored_ms >= b.stored_ms), "the latest first");
    assert!(found(&rpc, By::Key("id-7".into()), 0, 0).await.is_empty(), "an id is no key");
    assert_eq!(found(&rpc, By::Key("all".into()), 0, 0).await.len(), 40);
    let some = found(&rpc, By::Key("all".into()), place.stored_ms, place.stored_ms + 1).await;
    assert!(some.iter().any(|m| m.offset == place.offset && m.queue_id == place.queue_id));
    assert!(some.iter().all(|m| m.stored_ms == place.stored_ms));
    let by_time = found(&rpc, By::Any(QueueChoice { queue_id: Some(1) }), place.stored_ms, 0).await;
    assert!(by_time.iter().all(|m| m.stored_ms >= place.stored_ms && m.queue_id == 1));
    assert_eq!(by_time.last().map(|m| m.offset), Some(19));
    let at = QueuePlace { queue_id: place.queue_id, offset: place.offset };
    assert_eq!(found(&rpc, By::Place(at), 0, 0).await[0].log_offset, place.log_offset);

    let group = admin::GroupConfig { group: "audit".into(), ..Default::default() };
    let put = rpc.admin().put_group(PutGroupRequest { config: Some(group) }).await;
    assert_eq!(put.expect("an answer").into_inner().error, None);
    let mut consumer = cluster.consumer("audit", "orders");
    let held = Mutex::new(Vec::new());
    eventually("everything is received", DRAIN, async || {
        let received = consumer.receive(BATCH, INVISIBLE, Duration::from_secs(5)).await;
        let mut held = held.lock().expect("nobody panics");
        held.extend(received.map_err(|e| format!("{e:?}"))?);
        if held.len() == 40 { Ok(()) } else { Err(format!("{}", held.len())) }
    })
    .await;
    let state = async |offset: u64| {
        let request = TrackMessageRequest {
            topic: "orders".into(),
            broker_name: place.broker_name.clone(),
            queue_id: place.queue_id,
            offset,
        };
        let answer = rpc.admin().track_message(request).await.expect("an answer").into_inner();
        assert_eq!(answer.error, None);
        answer.tracks.iter().find(|t| t.group == "audit").map(message_track_state)
    };
    assert_eq!(state(place.offset).await, Some(message_track::State::InFlight));
    let held = held.into_inner().expect("nobody panics");
    let one = held.iter().find(|delivery| delivery.id == "id-7").expect("it was received");
    consumer.ack(std::slice::from_ref(one)).await.expect("acks");
    assert_eq!(state(place.offset).await, Some(message_track::State::Consumed));
    rpc.send(&[keyed(41, "late")], DEADLINE).await.expect("sends");
    assert_eq!(state(20).await, Some(message_track::State::NotConsumed));
    cluster.finish().await;
}

fn message_track_state(track: &admin::MessageTrack) -> message_track::State {
    track.state()
}

/// What a node says while it stops is true: a pull that is told of nothing means that nothing is
/// there.
#[tokio::test(flavor = "multi_thread")]
async fn a_pull_at_a_node_that_stops_gets_what_is_there() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 1).await;
    cluster.producer("orders").send(8, 1).await;
    let queue = queue(&cluster, "orders", 0).await;
    let follower = cluster.followers().await.remove(0);
    let ended = Arc::new(AtomicBool::new(false));
    let mut pulls = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (rpc, queue) = (Rpc::new(follower.addresses.client), queue.clone());
        let ended = Arc::clone(&ended);
        pulls.spawn(async move {
            let mut answers = 0;
            while !ended.load(Ordering::Relaxed) {
                match rpc.pull("audit", &queue, 0, NO_WAIT).await {
                    Ok((messages, _)) => {
                        assert_eq!(messages.len(), 8, "after {answers} answers");
                        answers += 1;
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
            answers
        });
    }
    follower.stop().await;
    ended.store(true, Ordering::Relaxed);
    let answers: usize = pulls.join_all().await.into_iter().sum();
    assert!(0 < answers, "somebody asked");
    follower.start();
    cluster.finish().await;
}
