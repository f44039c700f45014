//! A request reaches the leader, whoever that is by then, and its end is told truly.
#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

mod cast;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cast::{
    Node, Poll, Script, ScriptedBroker, access_point, client, code, eventually, from_client, group,
    name, poll, publish, send, topic,
};
use futures::StreamExt;
use gateway::{Miss, Shared};
use proto::{
    ConsumerGroup, QueueId, QueueOffset, ReceiptHandle, TransactionId, hop, produce,
    produce::produce_client::ProduceClient,
    receipt_handle::group_hash,
    session::{Answer, up},
    v2::{self, Language, receive_message_response::Content},
};
use tonic::Code;

const ORDERS: &str = "orders";

/// A broker that leads its group, which hosts the topic, and an access point that knows it.
async fn led_by(leader: &ScriptedBroker) -> (Node, Node) {
    let node = Node::broker(leader).await;
    let (access, directory) = access_point().await;
    let address = node.address.as_str();
    publish(
        &directory,
        vec![group("broker-a", 1, Some(address), &[address])],
        vec![topic(ORDERS, &["broker-a"])],
    );
    (node, access)
}

/// Two members of a group, of which the first one leads, and an access point that knows them.
struct Succession {
    old: Node,
    new: Node,
    access: Node,
    directory: Arc<Shared>,
}

impl Succession {
    async fn of(old: &ScriptedBroker, new: &ScriptedBroker) -> Self {
        let (old, new) = (Node::broker(old).await, Node::broker(new).await);
        let (access, directory) = access_point().await;
        let succession = Self { old, new, access, directory };
        succession.publish(1, &succession.old);
        succession
    }

    /// The second one leads from now on.
    fn takes_place(&self) {
        self.publish(2, &self.new);
    }

    fn publish(&self, term: u64, leader: &Node) {
        let members = [self.old.address.as_str(), self.new.address.as_str()];
        publish(
            &self.directory,
            vec![group("broker-a", term, Some(&leader.address), &members)],
            vec![topic(ORDERS, &["broker-a"])],
        );
    }
}

/// Two broker groups with a leader each, and an access point that knows them and who hosts the
/// topic.
async fn two_groups(
    (a, b): (&ScriptedBroker, &ScriptedBroker),
    hosts: &[&str],
) -> (Node, Node, Node) {
    let (node_a, node_b) = (Node::broker(a).await, Node::broker(b).await);
    let (access, directory) = access_point().await;
    publish(
        &directory,
        vec![
            group("broker-a", 1, Some(&node_a.address), &[&node_a.address]),
            group("broker-b", 1, Some(&node_b.address), &[&node_b.address]),
            group("broker-c", 1, None, &[]),
        ],
        if hosts.is_empty() { vec![] } else { vec![topic(ORDERS, hosts)] },
    );
    (node_a, node_b, access)
}

#[tokio::test]
async fn a_send_reaches_the_leader_with_what_the_client_said_of_itself() {
    let leader = ScriptedBroker::leading("broker-a");
    let (_node, access) = led_by(&leader).await;
    let request = from_client(send(ORDERS, "m1"));
    let answer = client(&access.address).await.send_message(request).await.expect("an answer");
    assert_eq!(code(answer.get_ref().status.as_ref()), 20000);
    let scene = leader.scene();
    assert_eq!(scene.sends, [send(ORDERS, "m1")], "byte for byte");
    let caller = &scene.callers[0];
    assert!(caller.hop);
    assert_eq!(caller.client_id.as_ref().expect("set").as_str(), "client@1");
    assert_eq!((caller.language, caller.version.as_str()), (Language::Java, "5.0.0"));
    assert!(caller.remaining(Instant::now()) > Duration::from_secs(6));
}

#[tokio::test]
async fn a_send_whose_leader_dies_is_held_and_done_by_the_next() {
    let (old, new) = (ScriptedBroker::leading("broker-a"), ScriptedBroker::leading("broker-a"));
    old.scene().script.push_back(Script::Hang);
    let mut succession = Succession::of(&old, &new).await;
    let mut producer = client(&succession.access.address).await;
    let sent =
        tokio::spawn(async move { producer.send_message(from_client(send(ORDERS, "m1"))).await });
    eventually("the old leader has the request", || (!old.scene().sends.is_empty()).then_some(()))
        .await;
    succession.old.kill();
    succession.takes_place();
    let answer = sent.await.expect("no panic").expect("an answer");
    assert_eq!(code(answer.get_ref().status.as_ref()), 20000);
    assert_eq!(new.scene().sends, [send(ORDERS, "m1")]);
}

#[tokio::test]
async fn a_send_that_cannot_be_recognised_again_ends_as_unknown() {
    let (old, new) = (ScriptedBroker::leading("broker-a"), ScriptedBroker::leading("broker-a"));
    old.scene().script.push_back(Script::Hang);
    let mut succession = Succession::of(&old, &new).await;
    let mut producer = client(&succession.access.address).await;
    let sent =
        tokio::spawn(async move { producer.send_message(from_client(send(ORDERS, ""))).await });
    eventually("the old leader has the request", || (!old.scene().sends.is_empty()).then_some(()))
        .await;
    succession.old.kill();
    succession.takes_place();
    let answer = sent.await.expect("no panic").expect("an answer");
    assert_eq!(code(answer.get_ref().status.as_ref()), 50001);
    assert!(new.scene().sends.is_empty());
}

#[tokio::test]
async fn a_leader_that_is_cut_off_is_left_as_soon_as_another_leads() {
    let (old, new) = (ScriptedBroker::leading("broker-a"), ScriptedBroker::leading("broker-a"));
    old.scene().script.push_back(Script::Hang);
    let succession = Succession::of(&old, &new).await;
    let mut producer = client(&succession.access.address).await;
    let sent =
        tokio::spawn(async move { producer.send_message(from_client(send(ORDERS, "m1"))).await });
    eventually("the old leader has the request", || (!old.scene().sends.is_empty()).then_some(()))
        .await;
    let start = Instant::now();
    succession.takes_place();
    let answer = sent.await.expect("no panic").expect("an answer");
    assert_eq!(code(answer.get_ref().status.as_ref()), 20000);
    assert!(start.elapsed() < Duration::from_secs(2), "it did not wait for the old leader");
}

#[tokio::test]
async fn without_a_leader_a_send_ends_as_not_done_after_the_hold() {
    let (access, directory) = access_point().await;
    publish(&directory, vec![group("broker-a", 1, None, &[])], vec![topic(ORDERS, &["broker-a"])]);
    let start = Instant::now();
    let request = from_client(send(ORDERS, "m1"));
    let answer = client(&access.address).await.send_message(request).await.expect("an answer");
    assert_eq!(code(answer.get_ref().status.as_ref()), 50002);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(600) && took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn a_follower_names_the_leader() {
    let leader = ScriptedBroker::leading("broker-a");
    let leader_node = Node::broker(&leader).await;
    let follower = ScriptedBroker::following("broker-a", Some(&leader_node.address));
    let follower_node = Node::broker(&follower).await;
    let (access, directory) = access_point().await;
    // The directory is behind: it takes the follower for the leader.
    let members = [follower_node.address.as_str(), leader_node.address.as_str()];
    publish(
        &directory,
        vec![group("broker-a", 1, Some(members[0]), &members)],
        vec![topic(ORDERS, &["broker-a"])],
    );
    let request = from_client(send(ORDERS, "m1"));
    let answer = client(&access.address).await.send_message(request).await.expect("an answer");
    assert_eq!(code(answer.get_ref().status.as_ref()), 20000);
    assert_eq!(leader.scene().sends.len(), 1);
}

#[tokio::test]
async fn a_forwarded_request_is_never_forwarded_again() {
    let follower = ScriptedBroker::following("broker-a", Some("10.0.0.9:8081"));
    let node = Node::broker(&follower).await;
    let mut request = from_client(send(ORDERS, "m1"));
    hop::mark(request.metadata_mut(), &name("broker-a"));
    let mut other = client(&node.address).await;
    let refused = other.send_message(request).await.expect_err("it does not lead");
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(hop::fate(&refused), Some(hop::Fate::NotDone));
    assert_eq!(hop::leader(&refused), Some("10.0.0.9:8081"));
    let mut request = from_client(send(ORDERS, "m1"));
    hop::mark(request.metadata_mut(), &name("broker-b"));
    let refused = other.send_message(request).await.expect_err("another group's request");
    assert_eq!(hop::fate(&refused), Some(hop::Fate::NotDone));
}

#[tokio::test]
async fn an_unknown_outcome_is_tried_again_where_that_is_safe() {
    let leader = ScriptedBroker::leading("broker-a");
    let (_node, access) = led_by(&leader).await;
    let mut producer = client(&access.address).await;
    leader.scene().script.push_back(Script::Miss(Miss::Unknown));
    let answer = producer.send_message(from_client(send(ORDERS, "m1"))).await.expect("an answer");
    assert_eq!(code(answer.get_ref().status.as_ref()), 20000);
    leader.scene().script.push_back(Script::Miss(Miss::Unknown));
    let answer = producer.send_message(from_client(send(ORDERS, ""))).await.expect("an answer");
    assert_eq!(code(answer.get_ref().status.as_ref()), 50001);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_poll_along() {
    let leader = ScriptedBroker::leading("broker-a");
    leader.scene().polls = Poll::Hold;
    let (_node, access) = led_by(&leader).await;
    let mut consumer = client(&access.address).await;
    let stream = consumer.receive_message(from_client(poll(ORDERS, "broker-a"))).await;
    let stream = stream.expect("the headers come at once").into_inner();
    eventually("the leader holds the poll", || (leader.scene().polls_held == 1).then_some(()))
        .await;
    drop(stream);
    eventually("the leader dropped it", || (leader.scene().polls_dropped == 1).then_some(())).await;
}

#[tokio::test]
async fn a_poll_moves_to_the_next_leader() {
    let (old, new) = (ScriptedBroker::leading("broker-a"), ScriptedBroker::leading("broker-a"));
    old.scene().polls = Poll::Hold;
    let mut succession = Succession::of(&old, &new).await;
    let mut consumer = client(&succession.access.address).await;
    let stream = consumer.receive_message(from_client(poll(ORDERS, "broker-a"))).await;
    let mut stream = stream.expect("the headers come at once").into_inner();
    eventually("the leader holds the poll", || (old.scene().polls_held == 1).then_some(())).await;
    succession.old.kill();
    succession.takes_place();
    let first = stream.next().await.expect("a part").expect("no error");
    let Some(Content::Status(status)) = first.content else { panic!("a status comes first") };
    assert_eq!(status.code, 20000);
}

#[tokio::test]
async fn an_answer_that_breaks_off_ends_with_what_came() {
    let leader = ScriptedBroker::leading("broker-a");
    leader.scene().polls = Poll::Break;
    let (_node, access) = led_by(&leader).await;
    let mut consumer = client(&access.address).await;
    let stream = consumer.receive_message(from_client(poll(ORDERS, "broker-a"))).await;
    let parts: Vec<_> = stream.expect("the headers come at once").into_inner().collect().await;
    let parts: Vec<_> = parts.into_iter().map(|part| part.expect("no error").content).collect();
    assert!(matches!(
        parts[..],
        [Some(Content::Status(_)), Some(Content::Message(_)), Some(Content::DeliveryTimestamp(_))]
    ));
    let answer = eventually("the leader hears of it", || heard_of_an_answer(&leader)).await;
    assert_eq!((answer.passed, answer.read), (1, true), "the client has what came");
    assert_eq!(leader.scene().calls, [Some(call_of(answer))]);
}

#[tokio::test]
async fn the_leader_hears_of_a_client_that_gives_a_poll_up() {
    let leader = ScriptedBroker::leading("broker-a");
    leader.scene().polls = Poll::Hold;
    let (_node, access) = led_by(&leader).await;
    let mut consumer = client(&access.address).await;
    let stream = consumer.receive_message(from_client(poll(ORDERS, "broker-a"))).await;
    eventually("the leader holds the poll", || (leader.scene().polls_held == 1).then_some(()))
        .await;
    assert!(heard_of_an_answer(&leader).is_none());
    drop(stream);
    let answer = eventually("the leader hears of it", || heard_of_an_answer(&leader)).await;
    assert_eq!((answer.passed, answer.read), (0, false));
    assert_eq!(leader.scene().calls, [Some(call_of(answer))]);
}

/// What an access point said last about an answer.
fn heard_of_an_answer(leader: &ScriptedBroker) -> Option<Answer> {
    let scene = leader.scene();
    let mut said = scene.sessions.iter().flatten().filter_map(|event| match event {
        up::Event::Answered(answered) => answered.answers.last().copied(),
        _ => None,
    });
    said.next_back()
}

/// As the access point of the tests names it.
fn call_of(answer: Answer) -> hop::CallId {
    hop::CallId { access_point: 7, number: answer.call }
}

#[tokio::test]
async fn each_attempt_of_a_poll_is_a_call_of_its_own() {
    let leader = ScriptedBroker::leading("broker-a");
    leader.scene().script.push_back(Script::Miss(Miss::Unknown));
    let (_node, access) = led_by(&leader).await;
    let mut consumer = client(&access.address).await;
    let stream = consumer.receive_message(from_client(poll(ORDERS, "broker-a"))).await;
    let parts: Vec<_> = stream.expect("the headers come at once").into_inner().collect().await;
    assert_eq!(parts.len(), 1);
    let calls = leader.scene().calls.clone();
    assert_eq!(calls.len(), 2);
    assert_ne!(calls[0], calls[1]);
    let answer = eventually("the leader hears of the first", || heard_of_an_answer(&leader)).await;
    assert_eq!((Some(call_of(answer)), answer.read), (calls[0], false));
}

#[tokio::test]
async fn a_poll_without_a_leader_ends_with_one_status() {
    let (access, directory) = access_point().await;
    publish(&directory, vec![group("broker-a", 1, None, &[])], vec![topic(ORDERS, &["broker-a"])]);
    let mut request = poll(ORDERS, "broker-a");
    request.long_polling_timeout = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let mut consumer = client(&access.address).await;
    let parts: Vec<_> = consumer
        .receive_message(from_client(request))
        .await
        .expect("the headers come at once")
        .into_inner()
        .collect()
        .await;
    let statuses: Vec<_> = parts
        .into_iter()
        .filter_map(|part| match part.expect("gRPC OK").content {
            Some(Content::Status(status)) => Some(status.code),
            _ => None,
        })
        .collect();
    assert_eq!(statuses, [50002]);
}

#[tokio::test]
async fn messages_that_may_go_anywhere_take_turns_among_the_groups_with_a_leader() {
    let (a, b) = (ScriptedBroker::leading("broker-a"), ScriptedBroker::leading("broker-b"));
    let (_node_a, _node_b, access) =
        two_groups((&a, &b), &["broker-a", "broker-b", "broker-c"]).await;
    let mut producer = client(&access.address).await;
    for n in 0..60 {
        let request = from_client(send(ORDERS, &format!("m{n}")));
        let answer = producer.send_message(request).await.expect("an answer");
        assert_eq!(code(answer.get_ref().status.as_ref()), 20000);
    }
    let shares = (a.scene().sends.len(), b.scene().sends.len());
    assert!(shares.0 + shares.1 == 60 && shares.0.abs_diff(shares.1) < 30, "{shares:?}");
}

#[tokio::test]
async fn a_group_that_just_lost_its_leader_is_passed_over() {
    let (a, b) = (ScriptedBroker::leading("broker-a"), ScriptedBroker::leading("broker-b"));
    let (mut node_a, _node_b, access) = two_groups((&a, &b), &["broker-a", "broker-b"]).await;
    node_a.kill();
    let mut producer = client(&access.address).await;
    for n in 0..4 {
        let start = Instant::now();
        let request = from_client(send(ORDERS, &format!("m{n}")));
        let answer = producer.send_message(request).await.expect("an answer");
        assert_eq!(code(answer.get_ref().status.as_ref()), 20000);
        assert!(start.elapsed() < Duration::from_millis(500), "it was not held");
    }
    assert_eq!(b.scene().sends.len(), 4);
}

fn handle(broker: &str) -> String {
    let group: ConsumerGroup = "billing".parse().expect("valid");
    ReceiptHandle {
        broker: name(broker),
        topic: ORDERS.parse().expect("valid"),
        queue: QueueId(0),
        offset: QueueOffset(1),
        delivery: 1,
        group_hash: group_hash(&group),
    }
    .to_string()
}

#[tokio::test]
async fn receipt_handles_find_their_group() {
    let (a, b) = (ScriptedBroker::leading("broker-a"), ScriptedBroker::leading("broker-b"));
    let (_node_a, _node_b, access) = two_groups((&a, &b), &[]).await;
    let handles = [handle("broker-b"), "garbage".into(), handle("broker-a")];
    let entries = handles
        .iter()
        .map(|handle| v2::AckMessageEntry { receipt_handle: handle.clone(), ..Default::default() });
    let request = v2::AckMessageRequest { entries: entries.collect(), ..Default::default() };
    let mut consumer = client(&access.address).await;
    let answer = consumer.ack_message(from_client(request)).await.expect("an answer").into_inner();
    let codes: Vec<_> = answer.entries.iter().map(|e| code(e.status.as_ref())).collect();
    assert_eq!(codes, [20000, 40013, 20000]);
    assert_eq!(code(answer.status.as_ref()), 30000);

    let request = v2::ChangeInvisibleDurationRequest {
        receipt_handle: "garbage".into(),
        ..Default::default()
    };
    let answer = consumer.change_invisible_duration(from_client(request)).await;
    let answer = answer.expect("an answer").into_inner();
    assert_eq!(code(answer.status.as_ref()), 40013);
    assert_eq!(answer.receipt_handle, "garbage", "a client keeps what it has");
}

#[tokio::test]
async fn clients_name_themselves() {
    let (access, _directory) = access_point().await;
    let mut anonymous = client(&access.address).await;
    let answer = anonymous.send_message(send(ORDERS, "m1")).await.expect("an answer");
    assert_eq!(code(answer.get_ref().status.as_ref()), 40017);
}

/// The end of a transaction by its id.
fn end(id: &str) -> v2::EndTransactionRequest {
    v2::EndTransactionRequest {
        topic: Some(v2::Resource { name: ORDERS.into(), ..Default::default() }),
        transaction_id: id.into(),
        resolution: v2::TransactionResolution::Commit.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn the_end_of_a_transaction_goes_to_the_broker_that_its_id_names() {
    let (a, b) = (ScriptedBroker::leading("broker-a"), ScriptedBroker::leading("broker-b"));
    let (a_node, b_node) = (Node::broker(&a).await, Node::broker(&b).await);
    let (access, directory) = access_point().await;
    let groups = [("broker-a", &a_node.address), ("broker-b", &b_node.address)];
    let groups = groups.map(|(name, at)| group(name, 1, Some(at), &[at]));
    publish(&directory, groups.to_vec(), vec![topic(ORDERS, &["broker-a", "broker-b"])]);
    // It is repeated when nobody knows what became of it.
    b.scene().script.push_back(Script::Miss(Miss::Unknown));
    let id = TransactionId { broker: name("broker-b"), number: 7 }.to_string();
    let mut producer = client(&access.address).await;
    let answer = producer.end_transaction(from_client(end(&id))).await.expect("an answer");
    assert_eq!(code(answer.get_ref().status.as_ref()), 20000);
    assert_eq!(b.scene().ends, [end(&id), end(&id)]);
    assert!(a.scene().ends.is_empty());
    for blank in ["", "something"] {
        let answer = producer.end_transaction(from_client(end(blank))).await.expect("an answer");
        assert_eq!(code(answer.get_ref().status.as_ref()), 40008);
    }
}

#[tokio::test]
async fn sends_in_a_stream_are_answered_one_by_one() {
    let leader = ScriptedBroker::leading("broker-a");
    let (_node, access) = led_by(&leader).await;
    let one = |id, topic| produce::Send { id, messages: send(topic, "m").messages, timeout_ms: 0 };
    let sends = [
        produce::Sends { sends: vec![one(7, ORDERS), one(8, "no-such-topic")] },
        produce::Sends { sends: vec![one(9, ORDERS)] },
    ];
    let mut request = from_client(tokio_stream::iter(sends));
    request.metadata_mut().remove("grpc-timeout");
    let mut producer = ProduceClient::connect(format!("http://{}", access.address)).await.unwrap();
    let parts: Vec<_> = producer.open(request).await.unwrap().into_inner().collect().await;
    let mut codes: Vec<_> = parts
        .into_iter()
        .flat_map(|part| part.unwrap().results)
        .map(|one| (one.id, code(one.response.unwrap().status.as_ref())))
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, [(7, 20000), (8, 40402), (9, 20000)]);
    assert_eq!(leader.scene().sends.len(), 2);
}

#[tokio::test]
async fn a_stream_of_sends_needs_a_name() {
    let (access, _directory) = access_point().await;
    let mut producer = ProduceClient::connect(format!("http://{}", access.address)).await.unwrap();
    let refused = producer.open(tokio_stream::iter([produce::Sends::default()])).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}
