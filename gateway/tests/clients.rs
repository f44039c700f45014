//! Clients introduce themselves, and leaders learn of them.
#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

mod cast;

use std::time::Duration;

use cast::{
    Node, ScriptedBroker, access_point, client, code, consumer_settings, eventually, from_client,
    group, publish, resource, settings_command,
};
use futures::StreamExt;
use gateway::Shared;
use proto::{
    session::{Down, GroupSettings, ToClient, down, up},
    v2::{
        HeartbeatRequest, NotifyClientTerminationRequest, PrintThreadStackTraceCommand, Settings,
        TelemetryCommand, settings::PubSub, telemetry_command::Command,
    },
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

/// Clients wait no longer for the answer to their settings.
const PATIENCE: Duration = Duration::from_secs(3);

struct Conversation {
    say: mpsc::Sender<TelemetryCommand>,
    hear: Streaming<TelemetryCommand>,
}

impl Conversation {
    /// Opens the stream and says nothing yet.
    async fn open(address: &str) -> Self {
        let (say, said) = mpsc::channel(8);
        let mut request = from_client(ReceiverStream::new(said));
        request.metadata_mut().insert("grpc-timeout", "31536000M".parse().expect("ascii"));
        let mut client = client(address).await;
        let hear = timeout(PATIENCE, client.telemetry(request)).await;
        let hear = hear.expect("the headers come at once").expect("an answer").into_inner();
        Self { say, hear }
    }

    async fn next(&mut self) -> TelemetryCommand {
        let said = timeout(PATIENCE, self.hear.next()).await.expect("in time");
        said.expect("the stream stays open").expect("no error")
    }

    async fn introduce(&mut self, settings: Settings) -> Settings {
        self.say.send(settings_command(settings)).await.expect("open");
        let answer = self.next().await;
        assert_eq!(code(answer.status.as_ref()), 20000);
        match answer.command {
            Some(Command::Settings(settings)) => settings,
            other => panic!("settings are answered with settings, not {other:?}"),
        }
    }
}

fn lead(directory: &Shared, term: u64, node: &Node) {
    let address = node.address.as_str();
    publish(directory, vec![group("broker-a", term, Some(address), &[address])], vec![]);
}

/// Ids of the clients that a session told of.
fn introduced(broker: &ScriptedBroker, session: usize) -> Option<Vec<String>> {
    let scene = broker.scene();
    let events = scene.sessions.get(session)?;
    let clients = events.iter().filter_map(|event| match event {
        up::Event::Client(client) => Some(client.client_id.clone()),
        _ => None,
    });
    let clients: Vec<_> = clients.collect();
    (!clients.is_empty()).then_some(clients)
}

#[tokio::test]
async fn each_settings_message_gets_one_answer() {
    let broker = ScriptedBroker::leading("broker-a");
    broker.scene().fifo_groups.push("in-order".into());
    let node = Node::broker(&broker).await;
    let (access, directory) = access_point().await;
    lead(&directory, 1, &node);
    let mut conversation = Conversation::open(&access.address).await;
    for (group, fifo) in [("in-order", true), ("any-order", false)] {
        let answer = conversation.introduce(consumer_settings(group)).await;
        let Some(PubSub::Subscription(subscription)) = answer.pub_sub else {
            panic!("the answer is of the client's kind");
        };
        assert_eq!(subscription.fifo, Some(fifo));
        assert_eq!(subscription.group, Some(resource(group)));
        assert!(answer.backoff_policy.expect("set").strategy.is_some());
    }
}

#[tokio::test]
async fn settings_are_answered_while_nobody_leads() {
    let (access, directory) = access_point().await;
    publish(&directory, vec![group("broker-a", 1, None, &[])], vec![]);
    let mut conversation = Conversation::open(&access.address).await;
    let answer = conversation.introduce(consumer_settings("billing")).await;
    assert_eq!(answer.backoff_policy.expect("set").max_attempts, 17);
}

#[tokio::test]
async fn a_client_without_an_id_is_refused_as_its_own_fault() {
    let (access, _directory) = access_point().await;
    let mut client = client(&access.address).await;
    let refused = client.telemetry(futures::stream::pending()).await.expect_err("no id");
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn heartbeats_and_good_byes_are_fine_from_anybody() {
    let (access, _directory) = access_point().await;
    let mut client = client(&access.address).await;
    let beat = client.heartbeat(HeartbeatRequest::default()).await.expect("an answer");
    assert_eq!(code(beat.get_ref().status.as_ref()), 20000, "without any metadata");
    let beat = client.heartbeat(from_client(HeartbeatRequest::default())).await;
    assert_eq!(code(beat.expect("an answer").get_ref().status.as_ref()), 20000);
    let goodbye = NotifyClientTerminationRequest { group: Some(resource("")) };
    let goodbye = client.notify_client_termination(from_client(goodbye)).await;
    assert_eq!(code(goodbye.expect("an answer").get_ref().status.as_ref()), 20000);
}

#[tokio::test]
async fn a_new_leader_is_told_of_every_client_again() {
    let (old, new) = (ScriptedBroker::leading("broker-a"), ScriptedBroker::leading("broker-a"));
    let (mut old_node, new_node) = (Node::broker(&old).await, Node::broker(&new).await);
    let (access, directory) = access_point().await;
    lead(&directory, 1, &old_node);
    let mut conversation = Conversation::open(&access.address).await;
    conversation.introduce(consumer_settings("billing")).await;
    let ids = eventually("the leader knows the client", || introduced(&old, 0)).await;
    assert_eq!(ids, ["client@1"]);
    {
        let scene = old.scene();
        assert!(matches!(&scene.sessions[0][0], up::Event::Hello(hello) if hello.boot_id == 7));
    }

    old_node.kill();
    lead(&directory, 2, &new_node);
    let ids = eventually("the new leader knows the client", || introduced(&new, 0)).await;
    assert_eq!(ids, ["client@1"]);

    let goodbye = NotifyClientTerminationRequest { group: Some(resource("billing")) };
    let mut client = client(&access.address).await;
    client.notify_client_termination(from_client(goodbye)).await.expect("an answer");
    eventually("the new leader knows that it left", || {
        let scene = new.scene();
        scene.sessions[0].iter().find_map(|event| match event {
            up::Event::Gone(gone) => {
                Some((gone.client_id.clone(), gone.group.clone(), gone.terminated))
            }
            _ => None,
        })
    })
    .await;
}

#[tokio::test]
async fn a_session_that_broke_is_opened_again_with_everything() {
    let broker = ScriptedBroker::leading("broker-a");
    let node = Node::broker(&broker).await;
    let (access, directory) = access_point().await;
    lead(&directory, 1, &node);
    let mut conversation = Conversation::open(&access.address).await;
    conversation.introduce(consumer_settings("billing")).await;
    eventually("the leader knows the client", || introduced(&broker, 0)).await;
    broker.scene().down = None;
    let ids = eventually("it is told again", || introduced(&broker, 1)).await;
    assert_eq!(ids, ["client@1"]);
}

#[tokio::test]
async fn commands_and_new_settings_of_the_leader_reach_the_client() {
    let broker = ScriptedBroker::leading("broker-a");
    let node = Node::broker(&broker).await;
    let (access, directory) = access_point().await;
    lead(&directory, 1, &node);
    let mut conversation = Conversation::open(&access.address).await;
    conversation.introduce(consumer_settings("billing")).await;
    eventually("the leader knows the client", || introduced(&broker, 0)).await;
    let down = broker.scene().down.clone().expect("a session is open");

    let command = PrintThreadStackTraceCommand { nonce: "n".into() };
    let command = Command::PrintThreadStackTraceCommand(command);
    let to = ToClient {
        client_id: "client@1".into(),
        command: Some(TelemetryCommand { status: None, command: Some(command.clone()) }),
        nonce: 7,
    };
    let to_nobody = ToClient { client_id: "nobody".into(), nonce: 8, ..to.clone() };
    let unanswered = ToClient { nonce: 0, ..to_nobody.clone() };
    for to in [to, unanswered, to_nobody] {
        down.send(Ok(Down { event: Some(down::Event::Command(to)) })).await.expect("open");
    }
    assert_eq!(conversation.next().await.command, Some(command));
    let receipts = || {
        let scene = broker.scene();
        let said = scene.sessions[0].iter().filter_map(|event| match event {
            up::Event::Receipt(receipt) => Some((receipt.nonce, receipt.handed)),
            _ => None,
        });
        let said: Vec<_> = said.collect();
        (said.len() == 2).then_some(said)
    };
    let receipts = eventually("the leader hears what became of them", receipts).await;
    assert_eq!(receipts, [(7, true), (8, false)]);

    let changed =
        GroupSettings { group: "billing".into(), fifo: true, backoff: None, exists: true };
    down.send(Ok(Down { event: Some(down::Event::Settings(changed)) })).await.expect("open");
    let told = conversation.next().await;
    let Some(Command::Settings(Settings { pub_sub: Some(PubSub::Subscription(told)), .. })) =
        told.command
    else {
        panic!("the members are told");
    };
    assert_eq!(told.fifo, Some(true));
}
