//! Push and simple consumers against a scripted server.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

mod cast;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cast::{Script, Server, eventually};
use futures::StreamExt;
use proto::v2;
use raftmq_client::{
    ClientConfig, Code, ConsumeResult, Fate, FilterExpression, MessageView, Propagation,
    PushConsumer, PushConsumerBuilder, SimpleConsumer, StartFrom,
};
use tokio::sync::Notify;

const INVISIBLE: Duration = Duration::from_secs(30);

fn config(servers: &[&Server]) -> ClientConfig {
    let all: Vec<_> = servers.iter().map(|server| server.address.clone()).collect();
    ClientConfig::new(&all.join(";")).unwrap().request_timeout(Duration::from_millis(500))
}

async fn server(messages: usize) -> Server {
    let server = Server::start().await;
    server.topic("orders", 1, v2::MessageType::Normal);
    for n in 0..messages {
        server.put("orders", &n.to_string(), None);
    }
    server
}

fn push(server: &Server) -> PushConsumerBuilder {
    PushConsumer::builder(config(&[server]), "billing").subscribe("orders", "*")
}

fn body(message: &MessageView) -> String {
    String::from_utf8_lossy(message.body()).into_owned()
}

/// What a listener saw, in order.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn add(&self, text: impl Into<String>) {
        self.0.lock().unwrap().push(text.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// A consumer whose listener notes the body of each message and is content.
    async fn consuming(&self, consumer: PushConsumerBuilder) -> PushConsumer {
        let see = self.clone();
        let listener = move |message: MessageView| {
            see.add(body(&message));
            async { ConsumeResult::Success }
        };
        consumer.listen(listener).await.unwrap()
    }
}

/// Messages are received, changed in their visibility, and acknowledged.
#[tokio::test]
async fn a_simple_consumer_receives_and_acknowledges() {
    let server = server(3).await;
    let consumer = SimpleConsumer::builder(config(&[&server]), "billing")
        .subscribe("orders", "a || b")
        .await_duration(Duration::from_millis(200))
        .build()
        .await
        .unwrap();
    let mut got = consumer.receive(32, INVISIBLE).await.unwrap();
    assert_eq!(got.iter().map(body).collect::<Vec<_>>(), ["0", "1", "2"]);
    assert_eq!((got[1].offset(), got[1].delivery_attempt()), (1, 1));
    assert!(consumer.receive(32, INVISIBLE).await.unwrap().is_empty());

    consumer.ack(&got[0]).await.unwrap();
    consumer.change_invisible_duration(&mut got[1], Duration::ZERO).await.unwrap();
    let again = consumer.receive(32, INVISIBLE).await.unwrap();
    assert_eq!((body(&again[0]), again[0].delivery_attempt()), ("1".to_owned(), 2));
    let late = consumer.ack(&got[1]).await.unwrap_err();
    assert_eq!((late.fate(), late.code()), (Fate::Rejected, Some(Code::InvalidReceiptHandle)));
    let results = consumer.ack_all(&[got[1].clone(), again[0].clone(), got[2].clone()]).await;
    let results: Vec<_> = results.iter().map(Result::is_ok).collect();
    assert_eq!(results, [false, true, true]);
    assert_eq!(server.left(), Vec::<String>::new());
}

/// A subscription can be added and ended; a wrong filter is refused before anything is asked.
#[tokio::test]
async fn a_simple_consumer_changes_its_subscriptions() {
    let server = server(0).await;
    server.topic("more", 1, v2::MessageType::Normal);
    server.put("more", "x", None);
    let consumer = SimpleConsumer::builder(config(&[&server]), "billing")
        .subscribe("orders", "*")
        .await_duration(Duration::from_millis(50))
        .build()
        .await
        .unwrap();
    let wrong = consumer.subscribe("more", FilterExpression::sql("a >")).await.unwrap_err();
    assert_eq!(wrong.fate(), Fate::Rejected);
    consumer.subscribe("more", "*").await.unwrap();
    consumer.unsubscribe("orders");
    let got = consumer.receive(1, INVISIBLE).await.unwrap();
    assert_eq!(got.iter().map(body).collect::<Vec<_>>(), ["x"]);
    let told = || {
        let state = server.state();
        let last = state.settings.last().and_then(|settings| settings.pub_sub.clone());
        let Some(v2::settings::PubSub::Subscription(subscription)) = last else { return false };
        let topics: Vec<_> =
            subscription.subscriptions.iter().filter_map(|s| s.topic.as_ref()).collect();
        topics.len() == 1 && topics[0].name == "more"
    };
    eventually("the server knows the subscriptions", told).await;
}

/// Messages come as a stream, which outlives failures of the server.
#[tokio::test]
async fn messages_come_as_a_stream() {
    let server = server(5).await;
    server.script("receive_message", [Script::Code(Code::InternalServerError)]);
    let consumer = SimpleConsumer::builder(config(&[&server]), "billing")
        .subscribe("orders", "*")
        .build()
        .await
        .unwrap();
    let mut messages = consumer.messages(INVISIBLE);
    assert!(messages.next().await.unwrap().is_err());
    for n in 0..5 {
        let message = messages.next().await.unwrap().unwrap();
        assert_eq!(body(&message), n.to_string());
    }
}

/// The death of an access point costs a simple consumer nothing but a moment.
#[tokio::test]
async fn a_simple_consumer_survives_the_death_of_an_access_point() {
    let (mut first, second) = (server(1).await, server(1).await);
    let consumer = SimpleConsumer::builder(config(&[&first, &second]), "billing")
        .subscribe("orders", "*")
        .build()
        .await
        .unwrap();
    assert_eq!(consumer.receive(1, INVISIBLE).await.unwrap().len(), 1);
    first.die();
    let got = consumer.receive(1, INVISIBLE).await.unwrap();
    consumer.ack(&got[0]).await.unwrap();
    assert!(second.left().is_empty());
}

/// Every message reaches the listener and is acknowledged, with a bounded number at a time.
#[tokio::test]
async fn a_push_consumer_consumes_everything_within_its_bounds() {
    let server = server(200).await;
    let (seen, running, most) =
        (Seen::default(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (see, run, max) = (seen.clone(), Arc::clone(&running), Arc::clone(&most));
    let consumer = push(&server)
        .concurrency(4)
        .max_cached(16)
        .listen(move |message| {
            let (see, run, max) = (see.clone(), Arc::clone(&run), Arc::clone(&max));
            async move {
                max.fetch_max(run.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(1)).await;
                run.fetch_sub(1, Ordering::SeqCst);
                see.add(body(&message));
                ConsumeResult::Success
            }
        })
        .await
        .unwrap();
    eventually("everything is acknowledged", || server.left().is_empty()).await;
    assert_eq!(seen.len(), 200, "each once");
    assert_eq!(seen.all().iter().collect::<HashSet<_>>().len(), 200);
    assert_eq!(most.load(Ordering::SeqCst), 4);
    assert!(server.calls("ack_message") < 200, "acknowledgements share requests");
    assert!(consumer.close().await);
    assert_eq!(server.state().terminated, 1);
}

/// A message whose listener failed, or panicked, comes again after the pause of its attempt.
#[tokio::test]
async fn what_failed_comes_again() {
    let server = server(2).await;
    server.state().backoff = vec![Duration::from_millis(30), Duration::from_millis(70)];
    let seen = Seen::default();
    let see = seen.clone();
    let consumer = push(&server)
        .listen(move |message| {
            let see = see.clone();
            async move {
                see.add(format!("{}:{}", body(&message), message.delivery_attempt()));
                match (message.delivery_attempt(), &message.body()[..]) {
                    (1, b"0") => panic!("a bug of the application"),
                    (2, b"0") => ConsumeResult::Failure,
                    _ => ConsumeResult::Success,
                }
            }
        })
        .await
        .unwrap();
    eventually("both are acknowledged", || server.left().is_empty()).await;
    let seen: HashSet<_> = seen.all().into_iter().collect();
    assert_eq!(seen, ["0:1", "0:2", "0:3", "1:1"].map(str::to_owned).into());
    let waits: Vec<_> = server
        .state()
        .given_back
        .iter()
        .map(|back| back.invisible_duration.unwrap().nanos / 1_000_000)
        .collect();
    assert_eq!(waits, [30, 70]);
    consumer.close().await;
}

/// An acknowledgement whose answer is lost is repeated until it is known; the listener is not called
/// again for it.
#[tokio::test]
async fn an_acknowledgement_is_repeated_until_it_is_known() {
    let server = server(1).await;
    server.script(
        "ack_message",
        [
            Script::Code(Code::HaNotAvailable),
            Script::Lost(tonic::Code::Unavailable),
            Script::Code(Code::InternalServerError),
        ],
    );
    let seen = Seen::default();
    let consumer = seen.consuming(push(&server)).await;
    eventually("four calls", || server.calls("ack_message") == 4).await;
    assert!(consumer.close().await);
    assert_eq!((seen.len(), server.left().len()), (1, 0));
}

/// Closing waits for listeners that run and for their acknowledgements; what had not begun is left
/// to others.
#[tokio::test]
async fn closing_loses_no_acknowledgement() {
    let server = server(50).await;
    let (seen, go) = (Seen::default(), Arc::new(Notify::new()));
    let (see, gate) = (seen.clone(), Arc::clone(&go));
    let consumer = push(&server)
        .concurrency(3)
        .listen(move |message| {
            let (see, gate) = (see.clone(), Arc::clone(&gate));
            async move {
                see.add(body(&message));
                gate.notified().await;
                ConsumeResult::Success
            }
        })
        .await
        .unwrap();
    eventually("three listeners run", || seen.len() == 3).await;
    server.script("ack_message", vec![Script::Code(Code::HaNotAvailable); 3]);
    let closing = tokio::spawn(consumer.close());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!closing.is_finished());
    go.notify_waiters();
    assert!(closing.await.unwrap());
    assert_eq!((seen.len(), server.left().len()), (3, 47), "acknowledged is what was consumed");
    let done: HashSet<_> = seen.all().into_iter().collect();
    assert!(server.left().iter().all(|left| !done.contains(left)));
}

/// At most once: acknowledged before the listener is called, and never delivered again.
#[tokio::test]
async fn at_most_once_acknowledges_first() {
    let server = server(5).await;
    let seen = Seen::default();
    let (see, state) = (seen.clone(), Arc::clone(&server.state));
    let consumer = push(&server)
        .at_most_once(true)
        .listen(move |message| {
            let offset = message.offset();
            let state = state.lock().unwrap();
            let acknowledged = state.stored.iter().any(|s| s.offset == offset && s.done);
            see.add(format!("{}:{acknowledged}", body(&message)));
            async { ConsumeResult::Failure }
        })
        .await
        .unwrap();
    eventually("five were consumed", || seen.len() == 5).await;
    assert!(consumer.close().await);
    assert!(seen.all().iter().all(|text| text.ends_with(":true")), "{:?}", seen.all());
    assert!(server.left().is_empty() && server.state().given_back.is_empty());
}

/// Ordered messages come one after the other within their group, a failed one is tried again before
/// the next, and groups do not wait for each other.
#[tokio::test]
async fn ordered_messages_wait_for_each_other_within_their_group() {
    let server = server(0).await;
    server.state().fifo = true;
    for n in 0..20 {
        let group = if n % 2 == 0 { "even" } else { "odd" };
        server.put("orders", &n.to_string(), Some(group));
    }
    let seen = Seen::default();
    let failures = Arc::new(AtomicUsize::new(2));
    let (see, left) = (seen.clone(), failures);
    let consumer = push(&server)
        .listen(move |message| {
            let (see, left) = (see.clone(), Arc::clone(&left));
            async move {
                let fails = &message.body()[..] == b"4"
                    && left
                        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                        .is_ok();
                see.add(format!("{}{}", body(&message), if fails { "!" } else { "" }));
                if fails { ConsumeResult::Failure } else { ConsumeResult::Success }
            }
        })
        .await
        .unwrap();
    eventually("everything is acknowledged", || server.left().is_empty()).await;
    consumer.close().await;
    let mut by_group: HashMap<bool, Vec<String>> = HashMap::new();
    for text in seen.all() {
        let number: usize = text.trim_end_matches('!').parse().unwrap();
        by_group.entry(number.is_multiple_of(2)).or_default().push(text);
    }
    let even = ["0", "2", "4!", "4!", "4", "6", "8", "10", "12", "14", "16", "18"];
    assert_eq!(by_group[&true], even);
    let odd: Vec<_> = (0..10).map(|n| (2 * n + 1).to_string()).collect();
    assert_eq!(by_group[&false], odd);
}

/// An ordered message that fails too often goes to the dead-letter queue, and the next one follows.
#[tokio::test]
async fn an_ordered_message_that_fails_too_often_is_given_up() {
    let server = server(0).await;
    {
        let mut state = server.state();
        (state.fifo, state.attempts) = (true, 3);
    }
    server.put("orders", "bad", Some("g"));
    server.put("orders", "good", Some("g"));
    let seen = Seen::default();
    let see = seen.clone();
    let consumer =
        push(&server)
            .listen(move |message| {
                let text = body(&message);
                see.add(text.clone());
                async move {
                    if text == "bad" { ConsumeResult::Failure } else { ConsumeResult::Success }
                }
            })
            .await
            .unwrap();
    eventually("both are done with", || server.left().is_empty()).await;
    consumer.close().await;
    assert_eq!(seen.all(), ["bad", "bad", "bad", "good"]);
    let given_up = server.state().given_up.clone();
    assert_eq!((given_up.len(), given_up[0].delivery_attempt), (1, 3));
}

/// What follows a message whose delivery was lost to somebody else waits for it: it would overtake.
#[tokio::test]
async fn what_follows_a_lost_delivery_is_not_consumed() {
    let server = server(0).await;
    server.state().fifo = true;
    server.put("orders", "1", Some("g"));
    server.put("orders", "2", Some("g"));
    server.script("ack_message", [Script::Code(Code::InvalidReceiptHandle)]);
    let seen = Seen::default();
    let consumer = seen.consuming(push(&server)).await;
    eventually("the first was refused", || server.calls("ack_message") == 1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(consumer.close().await);
    assert_eq!(seen.all(), ["1"]);
}

/// A paused consumer receives nothing; a resumed one goes on where it was.
#[tokio::test]
async fn a_consumer_can_be_paused() {
    let server = server(0).await;
    let seen = Seen::default();
    let consumer = seen.consuming(push(&server)).await;
    eventually("it polls", || server.calls("receive_message") > 0).await;
    consumer.pause();
    // The poll under way has been taken back once another would have begun.
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.put("orders", "1", None);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(seen.len(), 0);
    consumer.resume();
    eventually("it goes on", || seen.len() == 1).await;
    consumer.close().await;
}

/// Topics are added to and taken from a running consumer.
#[tokio::test]
async fn a_push_consumer_changes_its_subscriptions() {
    let server = server(0).await;
    server.topic("more", 1, v2::MessageType::Normal);
    server.put("more", "x", None);
    let seen = Seen::default();
    let consumer = seen.consuming(push(&server)).await;
    consumer.subscribe("more", "*").await.unwrap();
    eventually("the new topic is consumed", || seen.len() == 1).await;
    consumer.unsubscribe("orders");
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.put("orders", "y", None);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(seen.all(), ["x"]);
    consumer.close().await;
}

/// The death of the access point costs a push consumer no message.
#[tokio::test]
async fn a_push_consumer_survives_the_death_of_an_access_point() {
    let (mut first, second) = (server(3).await, server(0).await);
    let seen = Seen::default();
    let see = seen.clone();
    let consumer = PushConsumer::builder(config(&[&first, &second]), "billing")
        .subscribe("orders", "*")
        .listen(move |message| {
            see.add(body(&message));
            async { ConsumeResult::Success }
        })
        .await
        .unwrap();
    eventually("the first is read", || first.left().is_empty()).await;
    first.die();
    second.put("orders", "after", None);
    eventually("the second is read", || second.left().is_empty()).await;
    assert_eq!(seen.len(), 4);
    consumer.close().await;
}

/// A new group begins where it is told to; one that has a place keeps it.
#[tokio::test]
async fn a_new_group_begins_where_it_is_told_to() {
    let server = server(7).await;
    let start = async |from| {
        SimpleConsumer::builder(config(&[&server]), "billing")
            .subscribe("orders", "*")
            .start_from(from)
            .build()
            .await
            .unwrap()
            .close()
            .await;
        server.state().offsets.get(&("billing".to_owned(), 0)).copied()
    };
    assert_eq!(start(StartFrom::Server).await, None);
    assert_eq!(start(StartFrom::Last).await, Some(7));
    server.put("orders", "new", None);
    assert_eq!(start(StartFrom::Last).await, Some(7), "it has a place");
}

/// A received message's trace is continued in the span of its listener.
#[tokio::test]
async fn traces_are_continued() {
    let server = server(0).await;
    let context = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let topic = Some(v2::Resource { name: "orders".into(), ..Default::default() });
    let system = v2::SystemProperties {
        message_id: "m".into(),
        trace_context: Some(context.into()),
        ..Default::default()
    };
    let message = v2::Message {
        topic,
        system_properties: Some(system),
        body: "x".into(),
        ..Default::default()
    };
    server.state().store(message);
    let resumed = Seen::default();
    let resume = resumed.clone();
    let propagation = Propagation::new(|| None, move |_, traceparent| resume.add(traceparent));
    let consumer = push(&server)
        .propagation(propagation)
        .listen(|_| async { ConsumeResult::Success })
        .await
        .unwrap();
    eventually("it is consumed", || server.left().is_empty()).await;
    assert_eq!(resumed.all(), [context]);
    consumer.close().await;
}
