//! The program: its exit codes and its words.
#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::{
    net::TcpListener,
    process::{Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

const BUDGET: Duration = Duration::from_secs(10);

fn namesrv(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_namesrv"));
    command.args(arguments).env_clear().kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn to_end(arguments: &[&str]) -> (Output, String) {
    let output = timeout(BUDGET, namesrv(arguments).output()).await;
    let output = output.expect("it ends in time").expect("it starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, text)
}

/// Starts it and waits until it says that it serves.
async fn serving(arguments: &[&str]) -> Child {
    let mut child = namesrv(arguments).spawn().expect("it starts");
    let stderr = child.stderr.take().expect("piped");
    let mut lines = BufReader::new(stderr).lines();
    timeout(BUDGET, async {
        while let Some(line) = lines.next_line().await.expect("text") {
            if line.contains("serving") {
                return;
            }
        }
        panic!("it ended before it served");
    })
    .await
    .expect("it serves in time");
    // Whoever closes the other end of a pipe kills the writer's next line.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    child
}

#[tokio::test]
async fn sigterm_ends_it_well() {
    let mut child = serving(&["--listen", "127.0.0.1:0"]).await;
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).expect("it runs");
    kill_process(pid, Signal::TERM).expect("it is there");
    let status = timeout(BUDGET, child.wait()).await.expect("in time").expect("a status");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    for arguments in
        [&["--listen", &address][..], &["--listen", "127.0.0.1:0", "--metrics", &address]]
    {
        let (output, text) = to_end(arguments).await;
        assert!(!output.status.success());
        assert!(text.contains(&address) && text.contains("in use"), "{text}");
    }
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_named() {
    let cases = [
        (&["--listen", "nowhere"][..], "listen"),
        (&["--set", "lisen=127.0.0.1:0"], "did you mean \"listen\""),
        (&["--frobnicate"], "--frobnicate"),
        (&["--set", "tls.certificates=/no/c.pem", "--set", "tls.key=/no/k.pem"], "/no/c.pem"),
        (&["--set", "tracing.filter=][", "--listen", "127.0.0.1:0"], "tracing.filter"),
    ];
    for (arguments, expected) in cases {
        let (output, text) = to_end(arguments).await;
        assert!(!output.status.success(), "{arguments:?}");
        assert!(text.contains(expected), "{arguments:?}: {expected:?} is not in: {text}");
    }
}

#[tokio::test]
async fn its_settings_are_printed_with_their_meaning() {
    let (output, text) = to_end(&["--print-config", "--listen", "127.0.0.1:7777"]).await;
    assert!(output.status.success(), "{text}");
    let printed = String::from_utf8(output.stdout).expect("text");
    assert!(printed.contains("listen = \"127.0.0.1:7777\"") && printed.contains("[route]"));
}
