//! A topic that lives in several broker groups.
#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

mod cast;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cast::{
    Node, Script, ScriptedBroker, access_point, client, code, from_client, group, publish,
    resource, send, topic,
};
use gateway::{Miss, Shared};
use proto::{SendMessageRequest, v2};

const ORDERS: &str = "orders";
const OK: i32 = 20000;
const NO_LEADER: i32 = 50002;
const TIMEOUT: i32 = 50400;

/// Two broker groups that lead themselves, and an access point.
struct Stage {
    a: ScriptedBroker,
    b: ScriptedBroker,
    access: Node,
    directory: Arc<Shared>,
    nodes: Vec<Node>,
}

impl Stage {
    async fn new() -> Self {
        let (a, b) = (ScriptedBroker::leading("broker-a"), ScriptedBroker::leading("broker-b"));
        let nodes = vec![Node::broker(&a).await, Node::broker(&b).await];
        let (access, directory) = access_point().await;
        let stage = Self { a, b, access, directory, nodes };
        stage.publish(1);
        stage
    }

    /// Both groups as led in this term.
    fn publish(&self, term: u64) {
        let view = |n: usize, name| {
            let address = self.nodes[n].address.as_str();
            group(name, term, Some(address), &[address])
        };
        let groups = vec![view(0, "broker-a"), view(1, "broker-b")];
        publish(&self.directory, groups, vec![topic(ORDERS, &["broker-a", "broker-b"])]);
    }

    async fn send(&self, request: SendMessageRequest, within: Duration) -> i32 {
        let mut request = from_client(request);
        request.set_timeout(within);
        let answer = client(&self.access.address).await.send_message(request).await;
        code(answer.expect("an answer").get_ref().status.as_ref())
    }

    async fn sends(&self, id: &str) -> i32 {
        self.send(send(ORDERS, id), Duration::from_secs(5)).await
    }

    fn count(broker: &ScriptedBroker, id: &str) -> usize {
        broker.scene().sends.iter().filter(|sent| **sent == send(ORDERS, id)).count()
    }

    /// An id of which it is this broker's turn.
    async fn id_for(&self, broker: &ScriptedBroker) -> String {
        for n in 0..64 {
            let id = format!("probe-{n}");
            assert_eq!(self.sends(&id).await, OK);
            if Self::count(broker, &id) == 1 {
                return id;
            }
        }
        panic!("none of 64 ids goes there");
    }
}

#[tokio::test]
async fn a_message_that_is_sent_again_comes_to_the_group_that_knows_it() {
    let stage = Stage::new().await;
    let mut of_a = 0;
    for n in 0..40 {
        let id = format!("message-{n}");
        assert_eq!((stage.sends(&id).await, stage.sends(&id).await), (OK, OK));
        let counts = (Stage::count(&stage.a, &id), Stage::count(&stage.b, &id));
        assert!(counts == (2, 0) || counts == (0, 2), "{id}: {counts:?}");
        of_a += usize::from(counts.0 == 2);
    }
    assert!((8..32).contains(&of_a), "{of_a} of 40 went to the first group");
}

#[tokio::test]
async fn a_group_that_does_not_answer_costs_one_send_and_gets_others_again_when_it_does() {
    let stage = Stage::new().await;
    let id = stage.id_for(&stage.b).await;
    stage.b.scene().script.push_back(Script::Hang);
    assert_eq!(stage.send(send(ORDERS, &id), Duration::from_millis(500)).await, TIMEOUT);
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(stage.sends(&id).await, OK);
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?} for 20 sends", start.elapsed());
    assert_eq!(Stage::count(&stage.a, &id), 20);
    let before = Stage::count(&stage.b, &id);
    stage.publish(2);
    assert_eq!(stage.sends(&id).await, OK);
    assert_eq!(Stage::count(&stage.b, &id), before + 1, "a new leader is asked at once");
}

#[tokio::test]
async fn a_group_that_refuses_is_left_for_another_at_once() {
    let stage = Stage::new().await;
    let id = stage.id_for(&stage.b).await;
    stage.b.scene().script.push_back(Script::Miss(Miss::NotDone));
    let start = Instant::now();
    assert_eq!(stage.sends(&id).await, OK);
    assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
    assert_eq!(Stage::count(&stage.a, &id), 1);
}

#[tokio::test]
async fn ordered_messages_wait_for_their_group_and_never_go_elsewhere() {
    let mut stage = Stage::new().await;
    let ordered = |message_group: &str| {
        SendMessageRequest::of(&[v2::Message {
            topic: Some(resource(ORDERS)),
            system_properties: Some(v2::SystemProperties {
                message_id: format!("of {message_group}"),
                message_group: Some(message_group.to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        }])
    };
    let groups: Vec<_> = (0..20).map(|n| format!("group-{n}")).collect();
    for message_group in &groups {
        assert_eq!(stage.send(ordered(message_group), Duration::from_secs(5)).await, OK);
    }
    let of_b: Vec<_> = stage.b.scene().sends.clone();
    assert!(of_b.len() > 3 && of_b.len() < 17, "{} of 20 went to the second group", of_b.len());
    stage.nodes[1].kill();
    for message_group in &groups {
        let sent = ordered(message_group);
        let expected = if of_b.contains(&sent) { NO_LEADER } else { OK };
        assert_eq!(stage.send(sent, Duration::from_secs(5)).await, expected, "{message_group}");
    }
}

#[tokio::test]
async fn nothing_is_said_not_to_exist_while_a_group_is_away_that_may_have_it() {
    let stage = Stage::new().await;
    let address = stage.nodes[0].address.as_str();
    // Nobody has heard of the second group, but the first one names it.
    let groups = vec![group("broker-a", 1, Some(address), &[address])];
    publish(&stage.directory, groups, vec![topic(ORDERS, &["broker-a", "broker-b"])]);
    let route = |name: &str| v2::QueryRouteRequest {
        topic: Some(resource(name)),
        endpoints: Some(v2::Endpoints {
            scheme: v2::AddressScheme::IPv4.into(),
            addresses: vec![v2::Address { host: "127.0.0.1".into(), port: 1 }],
        }),
    };
    let mut client = client(&stage.access.address).await;
    let known = client.query_route(from_client(route(ORDERS))).await.expect("an answer");
    assert_eq!(known.get_ref().message_queues.len(), 4, "its queues stay in the route");
    let unknown = client.query_route(from_client(route("bills"))).await.expect("an answer");
    assert_eq!(code(unknown.get_ref().status.as_ref()), NO_LEADER);
}

#[tokio::test]
async fn what_every_group_knows_is_asked_of_one_that_answers() {
    let stage = Stage::new().await;
    stage.a.scene().script.push_back(Script::Hang);
    stage.b.scene().fifo_groups = vec!["billing".into()];
    let request = v2::QueryAssignmentRequest {
        topic: Some(resource(ORDERS)),
        group: Some(resource("billing")),
        endpoints: None,
    };
    let start = Instant::now();
    let mut client = client(&stage.access.address).await;
    let answer = client.query_assignment(from_client(request)).await.expect("an answer");
    let answer = answer.into_inner();
    assert_eq!(code(answer.status.as_ref()), OK);
    assert_eq!(answer.assignments.len(), 4, "each queue by itself: the group keeps order");
    assert!(start.elapsed() < Duration::from_millis(1200), "{:?}", start.elapsed());
}
