//! Producers against a scripted server.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

mod cast;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use cast::{Script, Server, eventually};
use proto::v2;
use raftmq_client::{
    ClientConfig, Code, Error, Fate, Message, Producer, ProducerBuilder, Propagation,
    QueueSelector, Resolution, SendReceipt,
};

fn config(servers: &[&Server]) -> ClientConfig {
    let all: Vec<_> = servers.iter().map(|server| server.address.clone()).collect();
    ClientConfig::new(&all.join(";")).unwrap().request_timeout(Duration::from_millis(500))
}

fn builder(server: &Server) -> ProducerBuilder {
    Producer::builder(config(&[server])).topic("orders")
}

async fn with_topic(kind: v2::MessageType) -> Server {
    let server = Server::start().await;
    server.topic("orders", 4, kind);
    server
}

async fn normal() -> Server {
    with_topic(v2::MessageType::Normal).await
}

/// A send is stored, named by the id that the receipt has, and spread over the queues.
#[tokio::test]
async fn sends_are_stored_and_take_turns() {
    let server = normal().await;
    let producer = builder(&server).build().await.unwrap();
    let mut ids = HashSet::new();
    for n in 0..8 {
        let receipt = producer.send(Message::new("orders", format!("m{n}"))).await.unwrap();
        assert_eq!(receipt.offset(), n);
        ids.insert(receipt.message_id().to_owned());
    }
    let state = server.state();
    let stored: HashSet<_> = state
        .stored
        .iter()
        .map(|stored| stored.message.system_properties.clone().unwrap())
        .collect::<Vec<_>>()
        .into_iter()
        .map(|system| (system.message_id, system.queue_id))
        .collect();
    assert_eq!(stored.iter().map(|(id, _)| id.clone()).collect::<HashSet<_>>(), ids);
    assert_eq!(stored.iter().map(|(_, queue)| *queue).collect::<HashSet<_>>().len(), 4);
}

/// What may or may not have happened is sent again under the same id, and so stored once.
#[tokio::test]
async fn a_retry_keeps_the_message_id() {
    let server = normal().await;
    let producer = builder(&server).build().await.unwrap();
    server.script("send_message", [Script::Lost(tonic::Code::Unavailable), Script::Silence]);
    producer.send(Message::new("orders", "once")).await.unwrap();
    assert_eq!((server.calls("send_message"), server.bodies()), (3, vec!["once".to_owned()]));
}

/// A refusal is final, a missing leader is waited for, and the end says what became of it.
#[tokio::test]
async fn the_end_of_a_send_tells_its_fate() {
    let server = normal().await;
    let producer = builder(&server).build().await.unwrap();
    let send = || producer.send(Message::new("orders", "x"));

    server.script("send_message", [Script::Code(Code::Forbidden)]);
    let end = send().await.unwrap_err();
    assert_eq!((end.fate(), end.code()), (Fate::Rejected, Some(Code::Forbidden)));
    assert_eq!(server.calls("send_message"), 1, "not tried again");

    server.script("send_message", vec![Script::Code(Code::HaNotAvailable); 3]);
    assert_eq!(send().await.unwrap_err().fate(), Fate::NotDone);
    assert_eq!(server.calls("send_message"), 4);

    server.script("send_message", vec![Script::Code(Code::InternalServerError); 3]);
    assert_eq!(send().await.unwrap_err().fate(), Fate::Unknown);

    server.script(
        "send_message",
        [Script::Lost(tonic::Code::Internal), Script::Code(Code::Forbidden)],
    );
    let end = send().await.unwrap_err();
    assert!(matches!(end, Error::AfterUnknown { .. }), "{end}");
    assert_eq!(end.fate(), Fate::Unknown, "the first attempt may have been stored");
}

/// What the rules forbid is refused without a call.
#[tokio::test]
async fn a_wrong_message_costs_no_call() {
    let server = normal().await;
    let producer = builder(&server).build().await.unwrap();
    let wrong = [
        Message::new("orders", ""),
        Message::new("orders", "x").message_group("fifo to a normal topic"),
        Message::new("nowhere", "x"),
    ];
    for message in wrong {
        let end = producer.send(message).await.unwrap_err();
        assert_eq!(end.fate(), Fate::Rejected, "{end}");
    }
    assert_eq!(server.calls("send_message"), 0);
}

/// A producer of a topic that does not exist, and one of nobody at all, do not start.
#[tokio::test]
async fn what_cannot_work_does_not_start() {
    let server = Server::start().await;
    let end = builder(&server).build().await.unwrap_err();
    assert_eq!(end.code(), Some(Code::TopicNotFound));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = ClientConfig::new(&port.to_string()).unwrap();
    let end = Producer::builder(config).topic("orders").build().await.unwrap_err();
    assert_eq!(end.fate(), Fate::NotDone, "{end}");
}

/// When an access point dies, the next one takes over within the send.
#[tokio::test]
async fn the_death_of_an_access_point_costs_no_send() {
    let (mut first, second) = (normal().await, normal().await);
    let producer =
        Producer::builder(config(&[&first, &second])).topic("orders").build().await.unwrap();
    producer.send(Message::new("orders", "one")).await.unwrap();
    first.die();
    for n in 0..5 {
        producer.send(Message::new("orders", format!("two-{n}"))).await.unwrap();
    }
    assert_eq!((first.bodies().len(), second.bodies().len()), (1, 5));
    eventually("a session with the survivor", || second.calls("telemetry") > 0).await;
}

/// A retry prefers another broker, and the one that failed is left alone for a while.
#[tokio::test]
async fn a_retry_prefers_another_broker() {
    let (a, b) = (normal().await, normal().await);
    let brokers =
        vec![("a".to_owned(), a.address.clone(), 2), ("b".to_owned(), b.address.clone(), 2)];
    a.state().topics.get_mut("orders").unwrap().brokers = brokers;
    b.script("send_message", vec![Script::Lost(tonic::Code::Unavailable); 8]);
    let producer = builder(&a).build().await.unwrap();
    for n in 0..8 {
        producer.send(Message::new("orders", format!("m{n}"))).await.unwrap();
    }
    assert_eq!(a.bodies().len(), 8, "each was stored at a in the end");
    assert!(b.calls("send_message") <= 4, "{} calls at b", b.calls("send_message"));
}

/// A batch is one request; all of its messages have receipts in their order.
#[tokio::test]
async fn a_batch_is_one_request() {
    let server = normal().await;
    let producer = builder(&server).build().await.unwrap();
    let batch = (0..50).map(|n| Message::new("orders", format!("m{n}"))).collect();
    let receipts = producer.send_batch(batch).await.unwrap();
    assert_eq!(receipts.iter().map(SendReceipt::offset).collect::<Vec<_>>(), Vec::from_iter(0..50));
    assert_eq!(server.state().batches, [50]);
    assert!(producer.send_batch(Vec::new()).await.unwrap().is_empty());
}

/// Submitted messages share requests while others are under way, over a stream where the server has
/// them and by SendMessage where it has not.
#[tokio::test]
async fn submitted_messages_share_requests_with_and_without_streams() {
    // However slow the machine is, the server is slower.
    let (unary, stream) = (Duration::from_millis(100), Duration::from_millis(20));
    for (server, hold) in [(Server::start().await, unary), (Server::with_streams().await, stream)] {
        server.topic("orders", 4, v2::MessageType::Normal);
        server.state().hold = hold;
        let producer = builder(&server).build().await.unwrap();
        let mut sendings = Vec::new();
        for n in 0..2000 {
            sendings.push(producer.submit(Message::new("orders", format!("m{n}"))).await.unwrap());
        }
        for sending in sendings {
            sending.await.unwrap();
        }
        let distinct: HashSet<_> = server.bodies().into_iter().collect();
        assert_eq!(distinct.len(), 2000);
        assert!(server.state().batches.len() < 1000, "{} requests", server.state().batches.len());
        let streams = server.calls("open") > 0;
        assert_eq!(server.state().streamed, if streams { 2000 } else { 0 });
        producer.close().await;
    }
}

/// A produce stream that breaks loses nothing: what was unanswered goes again, under its id.
#[tokio::test]
async fn a_stream_that_breaks_loses_nothing() {
    let server = Server::with_streams().await;
    server.topic("orders", 4, v2::MessageType::Normal);
    let producer = builder(&server).build().await.unwrap();
    server.script("streamed_send", [Script::Lost(tonic::Code::Unavailable)]);
    let mut sendings = Vec::new();
    for n in 0..300 {
        sendings.push(producer.submit(Message::new("orders", format!("m{n}"))).await.unwrap());
    }
    for sending in sendings {
        sending.await.unwrap();
    }
    let bodies = server.bodies();
    assert_eq!((bodies.len(), bodies.iter().collect::<HashSet<_>>().len()), (300, 300));
    assert!(server.calls("open") >= 2);
}

/// Submitted messages of a group keep their order, although requests fail in between.
#[tokio::test]
async fn submitted_messages_of_a_group_keep_their_order() {
    let server = with_topic(v2::MessageType::Fifo).await;
    let producer = builder(&server).build().await.unwrap();
    server.script("send_message", [Script::Code(Code::HaNotAvailable)]);
    let mut sendings = Vec::new();
    for n in 0..200 {
        let message = Message::new("orders", format!("{n}")).message_group("g");
        sendings.push(producer.submit(message).await.unwrap());
    }
    for sending in sendings {
        sending.await.unwrap();
    }
    let expected: Vec<_> = (0..200).map(|n| n.to_string()).collect();
    assert_eq!(server.bodies(), expected);
}

/// Callbacks are told, one-way sends arrive, and a flush waits for both.
#[tokio::test]
async fn callbacks_and_one_way_sends() {
    let server = normal().await;
    let producer = builder(&server).build().await.unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let done = move |result: Result<_, Error>| tell.lock().unwrap().push(result.is_ok());
    producer.submit_with(Message::new("orders", "call"), done).await.unwrap();
    producer.send_one_way(Message::new("orders", "one way")).await.unwrap();
    producer.flush().await;
    assert_eq!(*told.lock().unwrap(), [true]);
    assert_eq!(server.bodies().len(), 2);
}

/// Over its bound a producer waits, or refuses when it is to fail fast; nothing is lost either way.
#[tokio::test]
async fn too_much_under_way_is_waited_for_or_refused() {
    let server = normal().await;
    server.script("send_message", [Script::Silence]);
    let fast = builder(&server).max_in_flight(1).fail_fast(true).build().await.unwrap();
    let first = fast.submit(Message::new("orders", "1")).await.unwrap();
    let end = fast.submit(Message::new("orders", "2")).await.unwrap_err();
    assert!(matches!(end, Error::Overloaded { in_flight: 1 }), "{end}");
    assert_eq!(end.fate(), Fate::NotDone);
    first.await.unwrap();

    let patient = builder(&server).max_in_flight(1).build().await.unwrap();
    for n in 0..20 {
        drop(patient.submit(Message::new("orders", format!("p{n}"))).await.unwrap());
    }
    patient.flush().await;
    assert_eq!(server.bodies().len(), 21);
}

/// A delayed message has a handle by which it is taken back.
#[tokio::test]
async fn delayed_messages_are_recalled() {
    let server = with_topic(v2::MessageType::Delay).await;
    let producer = builder(&server).build().await.unwrap();
    let later = Message::new("orders", "later").deliver_after(Duration::from_secs(60));
    let receipt = producer.send(later).await.unwrap();
    let handle = receipt.recall_handle().unwrap();
    server.script("recall_message", [Script::Code(Code::HaNotAvailable)]);
    assert!(producer.recall("orders", handle).await.is_err());
    assert_eq!(producer.recall("orders", handle).await.unwrap(), "id-0");
    server.script("recall_message", [Script::Code(Code::PreconditionFailed)]);
    let end = producer.recall("orders", handle).await.unwrap_err();
    assert_eq!(end.fate(), Fate::Rejected);
}

/// Commit and rollback name the transaction, and are repeated until they are answered.
#[tokio::test]
async fn transactions_are_ended() {
    let server = with_topic(v2::MessageType::Transaction).await;
    let producer = builder(&server).build().await.unwrap();
    let transaction = producer.send_transactional(Message::new("orders", "t")).await.unwrap();
    server.script("end_transaction", [Script::Lost(tonic::Code::Unavailable)]);
    transaction.commit().await.unwrap();
    let (_, resolution) = producer
        .send_in_transaction(Message::new("orders", "u"), |_| async { Resolution::Rollback })
        .await
        .unwrap();
    assert_eq!(resolution, Resolution::Rollback);
    let ended: Vec<_> = server
        .state()
        .ended
        .iter()
        .map(|ended| (ended.transaction_id.clone(), ended.resolution()))
        .collect();
    let commit = ("tx-0".to_owned(), v2::TransactionResolution::Commit);
    let rollback = ("tx-1".to_owned(), v2::TransactionResolution::Rollback);
    assert_eq!(ended, [commit.clone(), commit, rollback]);
}

/// The cluster's question about an open transaction reaches the checker, whose verdict is told; one
/// that does not know, or panics, says nothing.
#[tokio::test]
async fn the_checker_is_asked_about_open_transactions() {
    let server = with_topic(v2::MessageType::Transaction).await;
    let checker = |message: raftmq_client::MessageView| async move {
        match &message.body()[..] {
            b"good" => Resolution::Commit,
            b"panic" => panic!("a bug of the application"),
            _ => Resolution::Unknown,
        }
    };
    let producer = builder(&server).checker(checker).build().await.unwrap();
    for body in ["panic", "who knows", "good"] {
        let _open = producer.send_transactional(Message::new("orders", body)).await.unwrap();
    }
    let (stored, commands) = {
        let state = server.state();
        (state.stored.clone(), state.commands.clone())
    };
    for one in stored {
        let ask = v2::RecoverOrphanedTransactionCommand {
            transaction_id: format!("tx-{}", one.offset),
            message: Some(one.message),
        };
        let command = v2::telemetry_command::Command::RecoverOrphanedTransactionCommand(ask);
        let command = v2::TelemetryCommand { status: None, command: Some(command) };
        commands[0].send(Ok(command)).await.unwrap();
    }
    eventually("a verdict", || !server.state().ended.is_empty()).await;
    let ended = server.state().ended.clone();
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].transaction_id, "tx-2");
    assert_eq!(ended[0].source(), v2::TransactionSource::SourceServerCheck);
}

/// A topic that was not announced is, as soon as it is sent to: questions about its transactions
/// come to those who announced it.
#[tokio::test]
async fn a_new_topic_is_announced() {
    let server = normal().await;
    server.topic("more", 1, v2::MessageType::Normal);
    let producer = builder(&server).build().await.unwrap();
    producer.send(Message::new("more", "x")).await.unwrap();
    let announced = || {
        let state = server.state();
        state.settings.iter().any(|settings| match &settings.pub_sub {
            Some(v2::settings::PubSub::Publishing(publishing)) => {
                publishing.topics.iter().any(|topic| topic.name == "more")
            }
            _ => false,
        })
    };
    eventually("the topic is announced", announced).await;
}

/// Keys decide the queue, and a retry keeps to it.
#[tokio::test]
async fn a_key_decides_the_queue() {
    let server = normal().await;
    let producer = builder(&server).build().await.unwrap();
    let selector = QueueSelector::hash("order-17");
    server.script("send_message", [Script::Code(Code::HaNotAvailable)]);
    for n in 0..5 {
        producer.send_to(Message::new("orders", format!("{n}")), &selector).await.unwrap();
    }
    let state = server.state();
    let queues: HashSet<_> = state
        .stored
        .iter()
        .filter_map(|stored| stored.message.system_properties.as_ref())
        .map(|system| system.queue_id)
        .collect();
    assert_eq!(queues.len(), 1);
}

/// Every request names the client and is signed, and messages carry the trace they belong to.
#[tokio::test]
async fn requests_are_signed_and_traces_carried_on() {
    let server = normal().await;
    let credentials = raftmq_client::Credentials::new("ak", "sk");
    let config = config(&[&server]).credentials(credentials).client_id("me");
    let context = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let propagation = Propagation::new(|| Some(context.to_owned()), |_, _| {});
    let producer =
        Producer::builder(config).topic("orders").propagation(propagation).build().await.unwrap();
    producer.send(Message::new("orders", "x")).await.unwrap();
    let state = server.state();
    let headers = &state.headers[0];
    let header = |name: &str| headers.get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!(header("x-mq-client-id"), "me");
    assert!(header("authorization").starts_with("MQv2-HMAC-SHA1 Credential=ak, "));
    assert_eq!(header("x-mq-date-time").len(), 16);
    let system = state.stored[0].message.system_properties.as_ref().unwrap();
    assert_eq!(system.trace_context(), context);
}

/// Closing waits for what is under way and says good-bye; later sends are refused.
#[tokio::test]
async fn closing_loses_nothing() {
    let server = normal().await;
    let producer = builder(&server).build().await.unwrap();
    for n in 0..100 {
        producer.send_one_way(Message::new("orders", format!("{n}"))).await.unwrap();
    }
    producer.close().await;
    assert_eq!((server.bodies().len(), server.state().terminated), (100, 1));
    let end = producer.send(Message::new("orders", "late")).await.unwrap_err();
    assert!(matches!(end, Error::Closed));
}

/// Access points that an HTTP endpoint lists are found, and found anew when they move.
#[tokio::test]
async fn access_points_are_found_by_http() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut first, second) = (normal().await, normal().await);
    let listed = Arc::new(Mutex::new(first.address.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/rocketmq/nsaddr", listener.local_addr().unwrap());
    let list = Arc::clone(&listed);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let list = list.lock().unwrap().clone();
            let _ = stream.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{list}\n").as_bytes()).await;
        }
    });
    let every = Duration::from_millis(50);
    let discovery = raftmq_client::Discovery::http_every(&url, every).unwrap();
    let config = ClientConfig::discovered_by(discovery).request_timeout(Duration::from_millis(500));
    let producer = Producer::builder(config).topic("orders").build().await.unwrap();
    producer.send(Message::new("orders", "one")).await.unwrap();
    listed.lock().unwrap().clone_from(&second.address);
    first.die();
    let start = Instant::now();
    while producer.send(Message::new("orders", "two")).await.is_err() {
        assert!(start.elapsed() < cast::PATIENCE);
    }
    assert_eq!(second.bodies(), ["two"]);
}
