//! The `mqbench` program against its own echo.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

/// A running echo; it ends with this.
struct Echo {
    child: Child,
    address: String,
}

impl Echo {
    fn start() -> Self {
        let mut child = program("echo --as-child")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").expect(&line).to_owned();
        Self { child, address }
    }

    /// Closes its standard input and waits for it.
    fn end(mut self) -> bool {
        drop(self.child.stdin.take());
        self.child.wait().unwrap().success()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program(flags: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqbench"));
    command.args(flags.split_whitespace()).env_remove("RAFTMQ_ENDPOINT");
    command
}

const SHORT: &str = "--warm-up 100ms --duration 400ms --in-flight 16 --connections 2";

fn mqbench(flags: &str) -> Output {
    program(flags).output().unwrap()
}

fn json(flags: &str) -> Value {
    let output = mqbench(&format!("{flags} --json"));
    assert!(output.status.success(), "{flags}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_figure_states_its_conditions() {
    let echo = Echo::start();
    let found =
        json(&format!("produce -e {} {SHORT} --size 2KiB --replicas 3 --flush sync", echo.address));
    let figure = &found["figures"][0];
    assert_eq!(figure["in_flight"], 16);
    assert_eq!(figure["size"], 2048);
    assert_eq!(figure["batch"], 1);
    // An echo does not tell, so the flags count.
    assert_eq!(figure["replicas"], 3);
    assert_eq!(figure["flush"], "sync");
    assert!(number(&figure["messages_per_second"]) > 0.0);
    assert_eq!(figure["failures"], serde_json::json!({}));
    let latency = &figure["latency"];
    assert!(number(&latency["p50_ms"]) > 0.0);
    assert!(number(&latency["p50_ms"]) <= number(&latency["p99_ms"]));
    assert!(number(&found["fdatasync"]["p50_ms"]) <= number(&found["fdatasync"]["p99_ms"]));
    assert!(echo.end());
}

#[test]
fn a_table_is_for_people() {
    let echo = Echo::start();
    let output = mqbench(&format!("produce -e {} {SHORT}", echo.address));
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    for word in ["replicas", "flush", "in flight", "size", "1 KiB", "unknown", "fdatasync"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn batches_count_their_messages() {
    let echo = Echo::start();
    let found = json(&format!("produce -e {} {SHORT} --batch 50 --keys --tag t", echo.address));
    let figure = &found["figures"][0];
    let (requests, messages) = (number(&figure["requests"]), number(&figure["messages"]));
    assert!((messages - 50.0 * requests).abs() < 0.5 && requests > 0.0, "{figure}");
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let echo = Echo::start();
    let found = json(
        &format!("produce -e {} {SHORT} --duration 1s --rate 500", echo.address)
            .replace("--duration 400ms", ""),
    );
    let figure = &found["figures"][0];
    assert_eq!(figure["rate"], 500);
    let samples = number(&figure["latency"]["samples"]);
    assert!((450.0..=501.0).contains(&samples), "{figure}");
}

#[test]
fn the_ceiling_is_measured_in_the_same_run() {
    let echo = Echo::start();
    let found = json(&format!("produce -e {} {SHORT} --ceiling", echo.address));
    assert_eq!(found["figures"].as_array().unwrap().len(), 2);
    assert_eq!(found["figures"][1]["flush"], "none");
    let ratio = number(&found["ratios"][0]["value"]);
    assert!(ratio > 0.05 && ratio < 20.0, "an echo over an echo is {ratio}");
}

#[test]
fn one_at_a_time_is_one_in_flight() {
    let echo = Echo::start();
    let found =
        json(&format!("produce --latency -e {} --warm-up 100ms --duration 300ms", echo.address));
    assert_eq!(found["figures"][0]["in_flight"], 1);
    assert_eq!(found["figures"][0]["connections"], 1);
}

#[test]
fn the_hop_compares_two_nodes() {
    let (direct, other) = (Echo::start(), Echo::start());
    let found =
        json(&format!("hop {SHORT} --leader {} --access-point {}", direct.address, other.address));
    assert_eq!(found["ratios"].as_array().unwrap().len(), 2);
    assert_eq!(found["figures"][1]["target"], other.address.as_str());
}

#[test]
fn mistakes_are_said_in_words() {
    let nobody = mqbench("produce -e 127.0.0.1:1");
    assert_eq!(nobody.status.code(), Some(1));
    assert!(stderr(&nobody).contains("broker --dev"), "{}", stderr(&nobody));
    let too_large = mqbench("produce --size 5MiB");
    assert!(stderr(&too_large).contains("--size 5242880"), "{}", stderr(&too_large));
    let echo = Echo::start();
    let no_admin = mqbench(&format!("produce -e {} --create-topic 4", echo.address));
    assert_eq!(no_admin.status.code(), Some(1));
    assert!(stderr(&no_admin).contains("NameServer"), "{}", stderr(&no_admin));
    // An echo has nothing to receive.
    let consume = mqbench(&format!("consume -e {} {SHORT}", echo.address));
    assert_eq!(consume.status.code(), Some(1));
    assert!(stderr(&consume).contains("Unimplemented"), "{}", stderr(&consume));
}
