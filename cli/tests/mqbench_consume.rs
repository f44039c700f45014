//! The `mqbench` program against a broker in memory: what it receives, and what it finds missing.

use std::process::{Command, Output};

use serde_json::Value;

mod shelf;

use shelf::Shelf;

/// In flight are few, because the broker in memory is slow and the drain is short.
const SHORT: &str =
    "--warm-up 50ms --duration 300ms --in-flight 4 --connections 2 --long-poll 100ms";

fn mqbench(flags: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mqbench"))
        .args(flags.split_whitespace())
        .env_remove("RAFTMQ_ENDPOINT")
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(flags: &str) -> Value {
    let output = mqbench(&format!("{flags} --json"));
    assert!(output.status.success(), "{flags}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn figure<'a>(found: &'a Value, what: &str) -> &'a Value {
    let figures = found["figures"].as_array().unwrap();
    figures.iter().find(|figure| figure["what"] == what).unwrap_or_else(|| panic!("no {what}"))
}

fn samples(figure: &Value) -> u64 {
    figure["latency"]["samples"].as_u64().unwrap()
}

#[test]
fn all_that_was_sent_arrives_and_is_acknowledged() {
    for ack in ["each", "together"] {
        let served = Shelf::serve(0, 0);
        let found = json(&format!("both -e {} {SHORT} --ack {ack}", served.address));
        let note = found["notes"][0].as_str().unwrap();
        assert!(note.contains(" 0 of them not received, 0 received twice"), "{note}");
        assert!(note.starts_with(&format!("{} messages", served.shelf.acknowledged())), "{note}");
        // The shelf's route has two queues, and the sends take turns.
        let [first, second] = served.shelf.by_queue();
        assert!(first.abs_diff(second) <= 4 && first > 0, "{first} and {second}");
        for what in ["send", "receive", "ack", "send to receive"] {
            assert!(samples(figure(&found, what)) > 0, "{what}");
        }
    }
}

#[test]
fn a_lost_message_is_noticed() {
    let served = Shelf::serve(10, 0);
    let output = mqbench(&format!("both -e {} {SHORT} --drain 1s", served.address));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("did not arrive within 1 s"), "{}", stderr(&output));
}

#[test]
fn a_repeated_message_is_counted() {
    let served = Shelf::serve(0, 10);
    let found = json(&format!("both -e {} {SHORT}", served.address));
    let note = found["notes"][0].as_str().unwrap();
    assert!(!note.contains(" 0 received twice"), "{note}");
}

#[test]
fn a_backlog_of_others_is_consumed() {
    let served = Shelf::serve(0, 0);
    let sent = json(&format!(
        "produce -e {} --warm-up 50ms --duration 300ms --in-flight 4",
        served.address
    ));
    assert!(samples(figure(&sent, "send")) > 0);
    let found = json(&format!(
        "consume -e {} --warm-up 0ms --duration 500ms --long-poll 100ms",
        served.address
    ));
    assert!(found["figures"][0]["messages"].as_u64().unwrap() > 0);
    assert!(served.shelf.acknowledged() > 0);
}

#[test]
fn each_message_is_followed_to_its_consumer() {
    let served = Shelf::serve(0, 0);
    let found = json(&format!(
        "send-to-receive -e {} --samples 20 --pause 1ms --long-poll 100ms",
        served.address
    ));
    assert_eq!(samples(figure(&found, "send")), 20);
    assert_eq!(samples(figure(&found, "send to receive")), 20);
}
