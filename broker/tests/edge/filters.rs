//! Filters: which messages a consumer group is handed, and what it is spared.

use proto::{
    admin::{QueryMessagesRequest, query_messages_request},
    clock::to_wire,
    filter::tag_hash,
    v2::{FilterExpression, FilterType, Message, PullMessageRequest, ReceiveMessageRequest},
};
use std::{collections::BTreeSet, time::Duration};

use crate::{
    client::{Client, MESSAGE_NOT_FOUND, OK, finish, message, poll, resource},
    harness::{Node, within},
    pull::pull_of,
};

const ILLEGAL_FILTER_EXPRESSION: i32 = 40010;

fn sql(group: &str, topic: &str, expression: &str) -> ReceiveMessageRequest {
    let filter =
        FilterExpression { r#type: FilterType::Sql.into(), expression: expression.to_owned() };
    ReceiveMessageRequest { filter_expression: Some(filter), ..poll(group, topic) }
}

fn priced(topic: &str, price: usize) -> Message {
    let mut message = message(topic, &format!("id-{price}"), &price.to_string());
    message.user_properties.insert("price".into(), price.to_string());
    let system = message.system_properties.as_mut().unwrap();
    system.tag = Some(if price.is_multiple_of(2) { "even" } else { "odd" }.into());
    message
}

/// Bodies of everything that the filter lets through, until nothing is left.
async fn drain(client: &Client, poll: &ReceiveMessageRequest, count: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    while found.len() < count {
        let received = client.receive(poll.clone()).await;
        assert_eq!(received.status.code, OK, "after {} of {count}", found.len());
        let group = &poll.group.as_ref().unwrap().name;
        let topic = &poll.message_queue.as_ref().unwrap().topic.as_ref().unwrap().name;
        client.ack(group, topic, &received.messages).await;
        found.extend(received.bodies().iter().map(|body| body.parse::<usize>().unwrap()));
    }
    found
}

#[tokio::test]
async fn sql_sees_properties_and_tags_and_the_rest_counts_as_consumed() {
    let node = Node::start().await;
    let client = node.client("c").await;
    for first in (0..200).step_by(50) {
        let batch: Vec<_> = (first..first + 50).map(|price| priced("t", price)).collect();
        client.sent(&batch).await;
    }
    let cases = [
        ("g1", "price > 20 AND TAGS = 'odd'", (21..200).step_by(2).collect::<BTreeSet<_>>()),
        ("g2", "price BETWEEN 10 AND 12 OR price IN ('150')", BTreeSet::from([10, 11, 12, 150])),
        ("g3", "weight IS NULL AND price = 199", BTreeSet::from([199])),
    ];
    for (group, expression, expected) in cases {
        let poll = sql(group, "t", expression);
        assert_eq!(drain(&client, &poll, expected.len()).await, expected, "{expression}");
        let rest = client.receive(poll).await;
        assert_eq!(rest.status.code, MESSAGE_NOT_FOUND);
        let group = group.parse().unwrap();
        let lag: u64 =
            node.server().broker().view().progress(&group, None).iter().map(|(_, p)| p.lag()).sum();
        assert_eq!(lag, 0, "{expression}: what was not wanted is consumed");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_wanted_message_is_found_behind_many_unwanted_ones_and_wakes_a_poll() {
    let node = Node::start().await;
    let (client, producer) = (node.client("c").await, node.client("p").await);
    for first in (0..3000).step_by(1000) {
        let batch: Vec<_> = (first..first + 1000).map(|price| priced("t", price)).collect();
        client.sent(&batch).await;
    }
    let received = client.receive(sql("g", "t", "price = 2999")).await;
    assert_eq!(received.bodies(), ["2999"]);

    let waiting = client.begin(sql("g", "t", "price > 5000")).await;
    producer.sent(&[priced("t", 4000)]).await;
    producer.sent(&[priced("t", 6000)]).await;
    let received = within("the poll ends", finish(waiting)).await;
    assert_eq!(received.bodies(), ["6000"]);
    node.stop().await;
}

#[tokio::test]
async fn members_that_poll_at_once_share_what_is_wanted() {
    let node = Node::start().await;
    let client = node.client("c").await;
    for first in (0..1000).step_by(100) {
        let batch: Vec<_> = (first..first + 100).map(|price| priced("t", price)).collect();
        client.sent(&batch).await;
    }
    let poll = ReceiveMessageRequest {
        batch_size: 10,
        invisible_duration: Some(to_wire(Duration::from_secs(300))),
        ..sql("g", "t", "TAGS = 'even' AND price >= 500")
    };
    let member = |n: usize| {
        let (node, poll) = (&node, poll.clone());
        async move {
            let client = node.client(&format!("member-{n}")).await;
            let mut found = Vec::new();
            loop {
                let received = client.receive(poll.clone()).await;
                if received.messages.is_empty() {
                    return found;
                }
                found.extend(received.bodies());
            }
        }
    };
    let shares = futures::future::join_all((0..4).map(member)).await;
    let all: Vec<String> = shares.concat();
    let once: BTreeSet<&String> = all.iter().collect();
    assert_eq!((all.len(), once.len()), (250, 250), "each once");
    node.stop().await;
}

#[tokio::test]
async fn what_is_no_expression_is_refused_when_it_is_used_and_when_it_is_announced() {
    let node = Node::start().await;
    let client = node.client("c").await;
    client.sent(&[priced("t", 1)]).await;
    for wrong in ["price >", "price LIKE '1'", "", "a = NULL"] {
        let received = client.receive(sql("g", "t", wrong)).await;
        assert_eq!(received.status.code, ILLEGAL_FILTER_EXPRESSION, "{wrong:?}");
    }
    let filter = |expression: &str| FilterExpression {
        r#type: FilterType::Sql.into(),
        expression: expression.into(),
    };
    let told = client.announce("g", &resource("t"), filter("price >")).await;
    assert_eq!(told.unwrap_err().code(), tonic::Code::InvalidArgument);
    let told = client.announce("g", &resource("t"), filter("price > 1")).await;
    assert_eq!(told.unwrap().status.unwrap().code, OK);
    node.stop().await;
}

/// Texts with one FNV-1a hash, by which tags and keys are looked up.
const SAME_HASH: [&str; 2] = ["8yn0iYCKYHlIj4-BwPqk", "GReLUrM4wMqfg9yzV3KQ"];

#[tokio::test]
async fn tags_and_keys_of_one_hash_are_told_apart() {
    assert_eq!(tag_hash(SAME_HASH[0]), tag_hash(SAME_HASH[1]));
    let node = Node::start().await;
    let client = node.client("c").await;
    for text in SAME_HASH {
        let mut message = message("t", &format!("id-{text}"), text);
        let system = message.system_properties.as_mut().unwrap();
        (system.tag, system.keys) = (Some(text.into()), vec![text.into()]);
        client.sent(&[message]).await;
    }
    for text in SAME_HASH {
        let wanted = || {
            let r#type = FilterType::Tag.into();
            Some(FilterExpression { r#type, expression: text.into() })
        };
        let pull = PullMessageRequest { filter_expression: wanted(), ..pull_of("reader", 0) };
        assert_eq!(crate::pull::pull(&client, pull).await.bodies, [text]);
        let of_group = poll(&format!("of-{}", &text[..1]), "t");
        let poll = ReceiveMessageRequest { filter_expression: wanted(), ..of_group };
        assert_eq!(client.receive(poll.clone()).await.bodies(), [text]);
        assert_eq!(client.receive(poll).await.status.code, MESSAGE_NOT_FOUND, "the other one");

        let by = Some(query_messages_request::By::Key(text.into()));
        let query = QueryMessagesRequest { topic: "t".into(), by, ..Default::default() };
        let answer = client.admin().query_messages(query).await.unwrap().into_inner();
        let bodies: Vec<_> = answer.messages.into_iter().map(|m| m.message.unwrap().body).collect();
        assert_eq!(bodies, [text.as_bytes()]);
    }
    node.stop().await;
}
