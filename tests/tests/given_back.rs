//! An access point dies in the middle of an answer.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]
#![allow(clippy::print_stderr, reason = "measured figures are printed for the reader")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::StreamExt;
use proto::v2;
use proto::v2::messaging_service_client::MessagingServiceClient;
use tests::consumer::{BATCH, INVISIBLE};
use tests::rpc::{DEADLINE, resource};
use tests::{Cluster, eventually};
use tonic::Request;
use tonic::transport::Endpoint;

const COUNT: usize = 24;
/// An answer of so many of them cannot be written ahead of a client that does not read.
const BODY: usize = 100_000;
const POLL: Duration = Duration::from_secs(5);

/// What an access point had in its hands when it was killed comes to another consumer within
/// seconds, although the messages would be renewed for their client, which lives; what the client
/// had received before stays its own.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_dies_with_its_access_point_is_taken_back() {
    let cluster = Cluster::of(3).nameservers(2).start().await;
    cluster.topic("orders", 1).await;
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    producer.send(1, 1).await;

    let mut client = slow_client(cluster.nameservers[0].address).await;
    let first: Vec<_> = receive(&mut client).await.collect().await;
    assert_eq!(first.iter().filter(|part| is_message(part)).count(), 1);
    producer.send(COUNT, 4).await;
    let mut answer = receive(&mut client).await;
    for _ in 0..2 {
        answer.next().await.expect("a status, then a message").expect("no error");
    }
    cluster.nameservers[0].kill();
    let start = Instant::now();

    let mut other = cluster.consumer("audit", "orders");
    let mut again = BTreeSet::new();
    eventually("what was lost comes again", Duration::from_secs(30), async || {
        let got = other.receive(BATCH, INVISIBLE, POLL).await.map_err(|e| e.to_string())?;
        again.extend(got.iter().map(|delivery| delivery.id.clone()));
        drop(other.ack(&got).await);
        if again.len() >= COUNT { Ok(()) } else { Err(format!("{} of {COUNT}", again.len())) }
    })
    .await;
    let took = start.elapsed();
    eprintln!("taken back and delivered again within {took:?}");
    // Two seconds to come back, and a machine that is busy; not the 60 s of a renewed delivery.
    assert!(took < Duration::from_secs(10), "{took:?}");
    let more = other.receive(BATCH, INVISIBLE, POLL).await.expect("an answer");
    assert!(more.is_empty() && again.len() == COUNT, "the first message is still held");
    cluster.nameservers[0].start();
    cluster.finish().await;
}

type Part = Result<v2::ReceiveMessageResponse, tonic::Status>;

fn is_message(part: &Part) -> bool {
    let content = part.as_ref().expect("no error").content.as_ref();
    matches!(content, Some(v2::receive_message_response::Content::Message(_)))
}

async fn slow_client(
    address: std::net::SocketAddr,
) -> MessagingServiceClient<tonic::transport::Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let channel = endpoint.initial_stream_window_size(65_535).connect().await;
    MessagingServiceClient::new(channel.expect("it listens")).max_decoding_message_size(64 << 20)
}

/// A push consumer's receive call.
async fn receive(
    client: &mut MessagingServiceClient<tonic::transport::Channel>,
) -> tonic::Streaming<v2::ReceiveMessageResponse> {
    let mut request = Request::new(v2::ReceiveMessageRequest {
        group: Some(resource("audit")),
        message_queue: Some(v2::MessageQueue {
            topic: Some(resource("orders")),
            id: -1,
            broker: Some(v2::Broker { name: "broker-a".into(), ..Default::default() }),
            ..Default::default()
        }),
        batch_size: BATCH,
        auto_renew: true,
        long_polling_timeout: Some(tests::rpc::duration(POLL)),
        ..Default::default()
    });
    request.metadata_mut().insert("x-mq-client-id", "renewed".parse().expect("ASCII"));
    request.set_timeout(POLL + DEADLINE);
    client.receive_message(request).await.expect("the headers come at once").into_inner()
}
