//! What clients are told about where queues are.
#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

mod cast;

use cast::{
    Node, ScriptedBroker, access_point, client, code, from_client, group, publish, resource, topic,
};
use gateway::Shared;
use proto::v2::{
    Address, AddressScheme, Endpoints, QueryAssignmentRequest, QueryRouteRequest,
    QueryRouteResponse,
};

fn dialled(host: &str, port: i32) -> Endpoints {
    let addresses = vec![Address { host: host.into(), port }];
    Endpoints { scheme: AddressScheme::DomainName.into(), addresses }
}

async fn route(address: &str, topic: &str, endpoints: Option<Endpoints>) -> QueryRouteResponse {
    let request = QueryRouteRequest { topic: Some(resource(topic)), endpoints };
    let answer = client(address).await.query_route(from_client(request)).await;
    answer.expect("an answer").into_inner()
}

/// One group with one broker that leads it.
fn publish_leader(directory: &Shared, node: &Node) {
    let address = node.address.as_str();
    publish(directory, vec![group("broker-a", 1, Some(address), &[address])], vec![]);
}

fn addresses(response: &QueryRouteResponse) -> Vec<String> {
    let endpoints = response.message_queues.iter().map(|queue| {
        let broker = queue.broker.as_ref().expect("set");
        let [address] = &broker.endpoints.as_ref().expect("set").addresses[..] else {
            panic!("one address each");
        };
        format!("{}:{}", address.host, address.port)
    });
    endpoints.collect()
}

#[tokio::test]
async fn a_route_names_the_address_that_the_client_dialled() {
    let (access, directory) = access_point().await;
    let groups = || vec![group("broker-a", 1, None, &[])];
    publish(&directory, groups(), vec![topic("orders", &["broker-a"])]);
    let answer = route(&access.address, "orders", Some(dialled("mq.example", 9876))).await;
    assert_eq!(code(answer.status.as_ref()), 20000);
    assert_eq!(addresses(&answer), ["mq.example:9876", "mq.example:9876"]);
    let silent = route(&access.address, "orders", None).await;
    assert_eq!(addresses(&silent), [access.address.as_str(), access.address.as_str()]);
    let localhost = access.address.replace("127.0.0.1", "localhost");
    let by_name = route(&localhost, "orders", None).await;
    assert_eq!(addresses(&by_name)[0], localhost, "the name that was dialled, not what it is");
    assert_eq!(route(&access.address, "orders", None).await, silent, "the same each time");
}

#[tokio::test]
async fn a_topic_that_no_broker_has_is_not_found() {
    let broker = ScriptedBroker::leading("broker-a");
    let node = Node::broker(&broker).await;
    let (access, directory) = access_point().await;
    publish_leader(&directory, &node);
    let answer = route(&access.address, "orders", None).await;
    assert_eq!(code(answer.status.as_ref()), 40402);
    let bad = route(&access.address, "no such name!", None).await;
    assert_eq!(code(bad.status.as_ref()), 40002);
}

#[tokio::test]
async fn a_topic_is_created_on_use_where_the_brokers_do_so() {
    let broker = ScriptedBroker::leading("broker-a");
    broker.scene().creates_topics = true;
    let node = Node::broker(&broker).await;
    let (access, directory) = access_point().await;
    publish_leader(&directory, &node);
    let answer = route(&access.address, "orders", None).await;
    assert_eq!(code(answer.status.as_ref()), 20000);
    assert_eq!(answer.message_queues.len(), 2);
    assert_eq!(broker.scene().topics.len(), 1);
}

#[tokio::test]
async fn what_nobody_can_know_is_not_denied() {
    let (access, _directory) = access_point().await;
    let answer = route(&access.address, "orders", None).await;
    assert_eq!(code(answer.status.as_ref()), 50002, "a NameServer that has just started");
    let (access, directory) = access_point().await;
    publish(&directory, vec![group("broker-a", 1, None, &[])], vec![]);
    let answer = route(&access.address, "orders", None).await;
    assert_eq!(code(answer.status.as_ref()), 50002, "the only group has no leader");
}

#[tokio::test]
async fn ordered_groups_are_assigned_every_queue() {
    let broker = ScriptedBroker::leading("broker-a");
    broker.scene().fifo_groups.push("in-order".into());
    let node = Node::broker(&broker).await;
    let (access, directory) = access_point().await;
    let address = node.address.as_str();
    publish(
        &directory,
        vec![group("broker-a", 1, Some(address), &[address])],
        vec![topic("orders", &["broker-a"])],
    );
    let mut consumer = client(&access.address).await;
    let mut ids = async |group: &str| -> Vec<i32> {
        let request = QueryAssignmentRequest {
            topic: Some(resource("orders")),
            group: Some(resource(group)),
            endpoints: None,
        };
        let answer = consumer.query_assignment(from_client(request)).await;
        let answer = answer.expect("an answer").into_inner();
        assert_eq!(code(answer.status.as_ref()), 20000);
        let queues = answer.assignments.into_iter().filter_map(|a| a.message_queue);
        queues.map(|queue| queue.id).collect()
    };
    assert_eq!(ids("any-order").await, [-1]);
    assert_eq!(ids("in-order").await, [0, 1]);
}
