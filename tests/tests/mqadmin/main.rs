//! Every command of `mqadmin` against a real cluster: that it works, what it says to programs, and
//! that operators find it in the manual.
//!
//! `schema.txt` holds the keys of each command's JSON. A key that goes or is renamed breaks scripts:
//! change the file on purpose. `MQADMIN_WRITE=schema` writes it anew, `MQADMIN_WRITE=manual` writes
//! `docs/operations/mqadmin.md` with what the commands print.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

mod manual;
mod tour;

use std::collections::BTreeSet;
use std::process::Command;

use tests::binaries;

/// The names of all commands, as `mqadmin --help` lists them.
fn commands() -> Vec<String> {
    let help = Command::new(binaries::program("mqadmin")).arg("--help").output();
    let help = String::from_utf8(help.expect("it runs").stdout).expect("text");
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.is_empty());
    let names = listed
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help");
    names.map(str::to_owned).collect()
}

/// A command that nobody tries has no test, no schema and no page in the manual.
#[test]
fn every_command_is_tried_and_shown() {
    let commands = commands();
    assert!(commands.len() > 50, "{commands:?}");
    let schema = tour::schema();
    let shown: BTreeSet<String> = manual::shown().into_iter().collect();
    for name in &commands {
        assert!(schema.contains_key(name), "{name} has no line in schema.txt: add it to tour.rs");
        assert!(shown.contains(name), "{name} is not in docs/operations/mqadmin.md");
    }
    for name in schema.keys().chain(&shown) {
        assert!(commands.contains(name), "there is no command {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_does_its_work() {
    tour::Tour::begin().await.run().await;
}
