//! Every example does what it says, against a scripted server.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

mod cast;

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use cast::Server;
use proto::v2;
use tokio::{process::Command, time::timeout};

/// Examples and the topic that each needs.
const EXAMPLES: [(&str, &str, v2::MessageType); 7] = [
    ("produce", "orders", v2::MessageType::Normal),
    ("consume", "orders", v2::MessageType::Normal),
    ("pull", "orders", v2::MessageType::Normal),
    ("delayed", "reminders", v2::MessageType::Delay),
    ("order_flow", "order-steps", v2::MessageType::Fifo),
    ("transfer", "transfers", v2::MessageType::Transaction),
    ("peak", "orders", v2::MessageType::Normal),
];

/// Cargo has built them beside the tests.
fn directory() -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its program");
    test.ancestors().nth(2).expect("target/PROFILE/deps").join("examples")
}

#[tokio::test]
async fn every_example_runs_to_its_end() {
    let listed: BTreeSet<_> = EXAMPLES.iter().map(|(name, ..)| format!("{name}.rs")).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let there = std::fs::read_dir(path)
        .expect("the examples")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    assert_eq!(there.collect::<BTreeSet<_>>(), listed, "every example is tested");

    for (name, topic, kind) in EXAMPLES {
        let server = Server::with_streams().await;
        server.topic(topic, 1, kind);
        server.state().fifo = kind == v2::MessageType::Fifo;
        let program = directory().join(name);
        assert!(program.exists(), "{name} is not built: run `cargo build --examples`");
        let run = Command::new(program).arg(&server.address).kill_on_drop(true).output();
        let run = timeout(Duration::from_secs(30), run).await;
        let output = run.unwrap_or_else(|_| panic!("{name} does not end")).expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout);
        let wrong = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.ends_with("done\n"), "{name}: {said}{wrong}");
    }
}
