//! What is wrong is refused with a clear text, loses nothing and stops nothing.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use jepsen::Message;
use proto::v2;
use proto::v2::messaging_service_client::MessagingServiceClient;
use tests::process::run_to_end;
use tests::producer::normal_message;
use tests::rpc::{DEADLINE, Rpc, resource};
use tests::{Cluster, Failure, binaries, body};

/// A program that refuses its input does so at once.
const AT_ONCE: Duration = Duration::from_secs(10);

/// The code of the payload status with which a message was rejected.
async fn rejection(rpc: &Rpc, message: v2::Message) -> i32 {
    match rpc.send(&[message], DEADLINE).await {
        Err(Failure::Rejected { code, message }) => {
            assert!(!message.is_empty(), "{code} without a text");
            code
        }
        other => panic!("not rejected: {other:?}"),
    }
}

fn message(number: u32, change: impl FnOnce(&mut v2::Message)) -> v2::Message {
    let number = Message::new(99, number);
    let mut message = normal_message("orders", number, body::of(number, 64));
    change(&mut message);
    message
}

fn properties(message: &mut v2::Message) -> &mut v2::SystemProperties {
    message.system_properties.get_or_insert_default()
}

/// Every rule for messages has its code, at every kind of access point, and afterwards the topic
/// holds nothing but what was accepted.
#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_are_rejected_each_with_its_code() {
    use v2::Code;
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 1).await;
    cluster.producer("orders").send(10, 2).await;
    for address in cluster.access_points() {
        let rpc = Rpc::new(address);
        let large = || Bytes::from(vec![b'x'; (4 << 20) + 1]);
        let cases: Vec<(v2::Message, Code)> = vec![
            (message(1, |m| m.body = large()), Code::MessageBodyTooLarge),
            (message(2, |m| m.body = Bytes::new()), Code::MessageBodyEmpty),
            (message(3, |m| m.topic = Some(resource("no-such-topic"))), Code::TopicNotFound),
            (message(4, |m| m.topic = Some(resource("bad topic!"))), Code::IllegalTopic),
            (message(5, |m| m.topic = Some(resource(&"t".repeat(300)))), Code::IllegalTopic),
            (message(6, |m| m.topic = Some(resource(""))), Code::IllegalTopic),
            (message(7, |m| properties(m).tag = Some("a|b".into())), Code::IllegalMessageTag),
            (message(8, |m| properties(m).keys = vec![" ".into()]), Code::IllegalMessageKey),
            (message(9, |m| properties(m).message_id.clear()), Code::IllegalMessageId),
            (
                message(10, |m| {
                    m.user_properties = (0..129).map(|n| (n.to_string(), "v".into())).collect();
                }),
                Code::MessagePropertiesTooLarge,
            ),
            (
                message(11, |m| {
                    m.user_properties.insert("key".into(), "v".repeat(17 << 10));
                }),
                Code::MessagePropertiesTooLarge,
            ),
            (
                message(12, |m| {
                    m.user_properties.insert("UNIQ_KEY".into(), "v".into());
                }),
                Code::IllegalMessagePropertyKey,
            ),
            (
                message(13, |m| properties(m).message_group = Some("fifo".into())),
                Code::MessagePropertyConflictWithType,
            ),
        ];
        for (message, code) in cases {
            let got = rejection(&rpc, message).await;
            assert_eq!(got, i32::from(code), "{code:?} expected at {address}");
        }
    }
    let verdict = cluster.finish_with_everything_received("orders", &["audit"]).await;
    assert_eq!(verdict.received, 10, "{verdict}");
}

/// What is not there yet says so: nothing is accepted and silently done otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_not_there_yet_say_so() {
    let cluster = Cluster::of(1).start().await;
    cluster.topic("orders", 1).await;
    let unimplemented = Some(i32::from(v2::Code::NotImplemented));
    for address in cluster.access_points() {
        let mut client =
            MessagingServiceClient::connect(format!("http://{address}")).await.expect("it answers");
        let subscription = v2::SyncLiteSubscriptionRequest {
            group: Some(resource("audit")),
            topic: Some(resource("orders")),
            ..Default::default()
        };
        let answer = client.sync_lite_subscription(identified(subscription)).await;
        let status = answer.expect("an answer").into_inner().status;
        assert_eq!(status.map(|s| s.code), unimplemented);
    }
    cluster.finish().await;
}

fn identified<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("x-mq-client-id", "early".parse().expect("ASCII"));
    request
}

/// A TLS client that does not verify the certificate connects, as plaintext clients do to the same
/// port.
#[tokio::test(flavor = "multi_thread")]
async fn a_tls_client_that_does_not_verify_connects() {
    let cluster = Cluster::of(1).start().await;
    cluster.topic("orders", 1).await;
    for address in cluster.access_points() {
        let channel = tests::tls::channel(address).await.expect("a connection over TLS");
        let mut client = MessagingServiceClient::new(channel);
        let topic = Some(resource("orders"));
        let mut request = tonic::Request::new(v2::QueryRouteRequest { topic, endpoints: None });
        request.metadata_mut().insert("x-mq-client-id", "tls".parse().expect("ASCII"));
        let answer = client.query_route(request).await.expect("an answer").into_inner();
        assert_eq!(answer.status.map(|s| s.code), Some(v2::Code::Ok.into()), "{address}");
    }
    cluster.finish().await;
}

/// Bodies of exactly the limit are fine.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_exactly_the_limit_is_stored_and_delivered() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 1).await;
    let producer = cluster.producer("orders").with_bodies_of(4 << 20);
    assert_eq!(producer.send(3, 1).await, 3);
    cluster.finish_with_everything_received("orders", &["audit"]).await;
}

/// Calls that make no sense get an answer that says so.
#[tokio::test(flavor = "multi_thread")]
async fn bad_calls_are_rejected_each_with_its_code() {
    use v2::Code;
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 1).await;
    let rpc = cluster.nameservers[0].rpc();

    let route = rpc.query_route("no-such-topic").await.expect_err("no route");
    assert_eq!(route.code(), i32::from(Code::TopicNotFound), "{route}");
    let route = rpc.query_route("bad topic!").await.expect_err("no route");
    assert_eq!(route.code(), i32::from(Code::IllegalTopic), "{route}");

    let queue = rpc.query_route("orders").await.expect("a route").remove(0);
    let request = |group: &str, expression: &str, kind: v2::FilterType, invisible: u64| {
        v2::ReceiveMessageRequest {
            group: Some(resource(group)),
            message_queue: Some(queue.clone()),
            filter_expression: Some(v2::FilterExpression {
                r#type: kind.into(),
                expression: expression.into(),
            }),
            batch_size: 1,
            invisible_duration: Some(tests::rpc::duration(Duration::from_secs(invisible))),
            ..Default::default()
        }
    };
    let tag = v2::FilterType::Tag;
    for (request, code) in [
        (request("bad group!", "*", tag, 30), Code::IllegalConsumerGroup),
        (request("", "*", tag, 30), Code::IllegalConsumerGroup),
        (request("audit", "*", tag, 1), Code::IllegalInvisibleTime),
        (request("audit", "*", tag, 13 * 3600), Code::IllegalInvisibleTime),
        (request("audit", "||", tag, 30), Code::IllegalFilterExpression),
        (request("audit", "a >", v2::FilterType::Sql, 30), Code::IllegalFilterExpression),
    ] {
        let text = format!("{request:?}");
        let mut stream = rpc.receive(request, Duration::from_secs(5)).await.expect("a stream");
        let first = stream.message().await.expect("the gRPC status is OK").expect("a status");
        let Some(v2::receive_message_response::Content::Status(status)) = first.content else {
            panic!("no status first: {first:?}")
        };
        assert_eq!(status.code, i32::from(code), "{status:?} for {text}");
        assert!(!status.message.is_empty());
    }

    for handle in ["", "garbage", "v1:????", &"x".repeat(100_000)] {
        let entry = v2::AckMessageEntry {
            receipt_handle: handle.into(),
            message_id: "01".into(),
            lite_topic: None,
        };
        let entries = rpc.ack("audit", "orders", vec![entry]).await;
        let code = match &entries {
            Ok(entries) => entries[0].status.as_ref().map_or(0, |s| s.code),
            Err(failure) => failure.code(),
        };
        assert_eq!(code, i32::from(Code::InvalidReceiptHandle), "{entries:?}");
    }
    cluster.finish().await;
}

/// Requests that are no messages, and bytes that are no requests, cost the sender its answer and
/// nobody else anything.
#[tokio::test(flavor = "multi_thread")]
async fn corrupt_requests_and_frames_harm_nobody() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 1).await;
    let (leader, before) = cluster.leader().await;

    let mut client = MessagingServiceClient::connect(format!("http://{}", leader.addresses.client))
        .await
        .expect("it answers");
    for bytes in [&b"\xff\xff\xff\xff"[..], b"", b"\x0a\xff\xff\xff\xff\x0f", &[8; 1000]] {
        let request = v2::SendMessageRequest { messages: vec![Bytes::copy_from_slice(bytes)] };
        let mut request = tonic::Request::new(request);
        request.metadata_mut().insert("x-mq-client-id", "corrupt".parse().expect("ASCII"));
        let answer = client.send_message(request).await;
        let accepted = answer.as_ref().is_ok_and(|a| {
            a.get_ref().status.as_ref().is_some_and(|s| s.code == i32::from(v2::Code::Ok))
        });
        assert!(!accepted, "{bytes:?} was stored: {answer:?}");
    }

    for node in &cluster.nodes {
        for address in [node.addresses.client, node.addresses.raft, node.addresses.metrics] {
            noise(address);
        }
    }
    noise(cluster.nameservers[0].address);
    noise(cluster.nameservers[0].metrics);

    assert_eq!(cluster.producer("orders").send(50, 8).await, 50);
    let (_, after) = cluster.leader().await;
    assert_eq!(before.term, after.term, "noise elects nobody");
    cluster.finish_with_everything_received("orders", &["audit"]).await;
}

/// Bytes that are no protocol, a torn HTTP/2 preface, a TLS hello that goes nowhere, and silence.
fn noise(address: SocketAddr) {
    let pieces: [&[u8]; 6] = [
        b"\x00\x00\x00\x00\x00\x00\x00\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"PRI * HTTP/2.0\r\n\r\nSM",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"",
    ];
    for piece in pieces {
        let mut stream = TcpStream::connect(address).expect("it accepts");
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let _ = stream.write_all(piece);
        let _ = stream.read(&mut [0; 64]);
    }
}

/// Runs `broker` with these arguments, which it must refuse, and returns what it says.
async fn refused(directory: &Path, arguments: &[&str]) -> String {
    let broker = binaries::program("broker");
    let (status, text) = run_to_end(&broker, arguments, directory, AT_ONCE).await;
    assert!(!status.success(), "{arguments:?} was accepted: {text}");
    assert!(!text.contains("panicked"), "{arguments:?}: {text}");
    assert!(!text.trim().is_empty(), "{arguments:?}: no text at all");
    text.to_lowercase()
}

/// Flags and keys that do not exist, values that cannot be, and files that are not there.
#[tokio::test(flavor = "multi_thread")]
async fn bad_settings_are_refused_by_name() {
    let scratch = tests::scratch::Scratch::new();
    let directory = scratch.path();
    let data = directory.join("data").display().to_string();
    let start = ["--dev", "--listen", "127.0.0.1:0", "--data-dir", &data];
    let with = |more: &[&'static str]| -> Vec<String> {
        start.iter().chain(more).map(|s| (*s).to_owned()).collect()
    };
    let cases: [(&[&str], &str); 8] = [
        (&["--no-such-flag"], "no-such-flag"),
        (&["--set", "raft.hartbeat_interval=1s"], "raft.heartbeat_interval"),
        (&["--set", "log.segment_size=many"], "segment_size"),
        (&["--set", "nonsense"], "key=value"),
        (&["--flush", "sometimes"], "flush"),
        (&["--config", "/does/not/exist.toml"], "/does/not/exist.toml"),
        (&["--raft-peers", "1=not an address"], "peers"),
        (&["--set", "route.mode=random"], "route.mode"),
    ];
    for (more, expected) in cases {
        let arguments = with(more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let text = refused(directory, &arguments).await;
        assert!(text.contains(expected), "{more:?}: {expected:?} is not in: {text}");
    }

    let config = directory.join("broker.toml");
    std::fs::write(&config, "[raft]\nelection_timeout_minimum = \"1s\"\n").expect("a file");
    let config = config.display().to_string();
    let text = refused(directory, &["--dev", "--data-dir", &data, "--config", &config]).await;
    assert!(text.contains("election_timeout_min"), "{text}");

    let text = refused(directory, &["--data-dir", &data]).await;
    assert!(text.contains("raft-peers") || text.contains("raft_peers"), "{text}");

    let namesrv = binaries::program("namesrv");
    let (status, text) = run_to_end(&namesrv, &["--listen", "nowhere"], directory, AT_ONCE).await;
    assert!(!status.success() && text.contains("listen"), "{text}");
}

/// A port that is taken is named, and the data directory is free again for the next try.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named() {
    let cluster = Cluster::of(1).lay_out().await;
    let node = &cluster.nodes[0];
    for address in [node.addresses.client, node.addresses.raft, node.addresses.metrics] {
        let taken = TcpListener::bind(address).expect("the port was free");
        node.start();
        let exit = node.exit(AT_ONCE).await.expect("it refuses");
        assert!(!exit.success());
        let log = node.process().tail();
        assert!(log.contains(&address.to_string()), "{address} is not named: {log}");
        drop(taken);
    }
    let nameserver = &cluster.nameservers[0];
    let taken = TcpListener::bind(nameserver.address).expect("the port was free");
    nameserver.start();
    assert!(!nameserver.exit(AT_ONCE).await.success());
    assert!(nameserver.process().tail().contains(&nameserver.address.to_string()));
    drop(taken);

    nameserver.start();
    node.start();
    cluster.leader().await;
    cluster.finish().await;
}

/// Directories that cannot be used are refused, and left as they are.
#[tokio::test(flavor = "multi_thread")]
async fn unusable_data_directories_are_refused() {
    let cluster = Cluster::of(1).start().await;
    cluster.topic("orders", 1).await;
    cluster.producer("orders").send(20, 4).await;
    let node = &cluster.nodes[0];
    let scratch = cluster.scratch.path();
    let used = node.directory().display().to_string();
    let peers = format!("1={}", cluster.host.free_port());
    let listen = cluster.host.free_port().to_string();
    let with = |directory: &str| -> Vec<String> {
        ["--broker-name", "broker-a", "--node-id", "1", "--raft-peers", &peers, "--listen", &listen]
            .into_iter()
            .chain(["--data-dir", directory])
            .map(str::to_owned)
            .collect()
    };

    // In use by a running broker.
    let arguments = with(&used);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let text = refused(scratch, &arguments).await;
    assert!(text.contains("lock") || text.contains("in use"), "{text}");

    // A file where a directory should be.
    let file = scratch.join("a-file");
    std::fs::write(&file, "not a directory").expect("a file");
    let arguments = with(&file.display().to_string());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let text = refused(scratch, &arguments).await;
    assert!(text.contains("a-file"), "{text}");
    assert_eq!(std::fs::read_to_string(&file).expect("it is still there"), "not a directory");

    // Something that is no broker's.
    let foreign = scratch.join("foreign");
    std::fs::create_dir_all(foreign.join("raft")).expect("a directory");
    std::fs::write(foreign.join("raft/identity"), "years of work").expect("a file");
    let arguments = with(&foreign.display().to_string());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let text = refused(scratch, &arguments).await;
    assert!(text.contains("foreign"), "{text}");
    let work = std::fs::read_to_string(foreign.join("raft/identity"));
    assert_eq!(work.expect("it is still there"), "years of work");

    cluster.finish_with_everything_received("orders", &["audit"]).await;
}

/// A broker that finds damage in the middle of its log refuses to serve from it instead of dropping
/// what follows.
#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_middle_of_the_log_is_refused() {
    let cluster = Cluster::of(1).start().await;
    cluster.topic("orders", 1).await;
    cluster.producer("orders").with_bodies_of(4096).send(200, 8).await;
    let node = &cluster.nodes[0];
    node.stop().await;
    let segment = first_segment(node.directory()).expect("a segment");
    let mut bytes = std::fs::read(&segment).expect("the segment");
    let middle = bytes.windows(4).position(|w| w == b"RMQT").expect("a body") + 3000;
    bytes[middle] ^= 0x40;
    std::fs::write(&segment, bytes).expect("the damaged segment");

    node.start();
    let exit = node.exit(AT_ONCE).await.expect("it refuses");
    assert!(!exit.success());
    let log = node.process().tail().to_lowercase();
    assert!(log.contains("damage") || log.contains("corrupt") || log.contains("crc"), "{log}");
    cluster.no_panics();
}

fn first_segment(directory: &Path) -> Option<std::path::PathBuf> {
    let mut found: Vec<std::path::PathBuf> = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "seg") {
                found.push(path);
            }
        }
    }
    found.sort();
    found.into_iter().next()
}
