//! Starts that cannot succeed, and what they say.

use std::process::Command;

use broker::server::{Server, ServerError};
use raft::Role;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Node, config, free_port};

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut settings = config(dir.path());
    settings.listen.clone_from(&address);
    let error = Server::start(settings).await.unwrap_err();
    assert!(matches!(error, ServerError::Listen { key: "listen", .. }));
    assert!(chain(&error).contains(&address), "{}", chain(&error));
}

#[tokio::test]
async fn a_directory_in_use_is_named() {
    let node = Node::start().await;
    let mut settings = config(&node.data_dir());
    settings.data_dir = node.data_dir();
    let error = Server::start(settings).await.unwrap_err();
    assert!(matches!(error, ServerError::DataDir(_)), "{error:?}");
    assert!(error.to_string().contains("in use"), "{error}");
    node.stop().await;
}

#[tokio::test]
async fn a_directory_of_another_node_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let settings = config(dir.path());
    let server = Server::start(settings.clone()).await.unwrap();
    let mut role = server.broker().role();
    role.wait_for(Role::is_leader).await.unwrap();
    server.stop().await;
    let mut other = settings;
    other.broker_name = "broker-b".into();
    let error = Server::start(other).await.unwrap_err();
    let text = chain(&error);
    assert!(text.contains("broker-a") && text.contains("broker-b"), "{text}");
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_broker"))
        .args(args)
        .env_remove("NAMESRV_ADDR")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn bad_flags_and_keys_end_the_program_with_a_clear_text() {
    let cases: [(&[&str], &str); 6] = [
        (&["--no-such-flag"], "--no-such-flag"),
        (&[], "--raft-peers"),
        (&["--dev", "--set", "listne=x:1"], "\"listen\""),
        (&["--dev", "--node-id", "7"], "node_id"),
        (&["--broker-name", "b", "--node-id", "1", "--raft-peers", "1=h"], "HOST:PORT"),
        (&["--dev", "--data-dir", "/proc/nothing"], "create data directory"),
    ];
    for (args, expected) in cases {
        let (code, _, stderr) = run(args);
        assert!(code.is_some_and(|code| code != 0), "{args:?} succeeded");
        assert!(stderr.contains(expected), "{args:?} said {stderr}");
        assert!(!stderr.contains("panicked"), "{args:?} said {stderr}");
    }
}

#[test]
fn print_config_documents_every_setting() {
    let (code, stdout, _) = run(&["--dev", "--print-config"]);
    assert_eq!(code, Some(0));
    assert!(stdout.contains("# What routes name") && stdout.contains("[limits]"), "{stdout}");
}

#[test]
fn sigterm_ends_the_program_with_success() {
    use std::io::{BufRead, BufReader};

    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_broker"))
        .args(["--dev", "--listen", "127.0.0.1:0", "--raft-peers"])
        .arg(format!("1=127.0.0.1:{}", free_port()))
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .env_remove("NAMESRV_ADDR")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    // Ends with the program if it does not get there.
    let leading = lines.by_ref().map_while(Result::ok).any(|line| line.contains("leading"));
    assert!(leading);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(child.wait().unwrap().success(), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("stopped")), "{rest:?}");
}
