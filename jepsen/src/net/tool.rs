//! Programs of the system that make networks and file systems.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// These programs are not in every user's path.
fn find(program: &str) -> String {
    let places = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    let found = places.map(|place| format!("{place}/{program}"));
    found.into_iter().find(|path| Path::new(path).exists()).unwrap_or_else(|| program.to_owned())
}

/// A command that runs `program`.
#[must_use]
pub fn command(program: &str) -> Command {
    Command::new(find(program))
}

/// Runs a program with arguments that hold no spaces; what it said of an error is in the error.
pub fn run(program: &str, arguments: &str) -> Result<()> {
    output(program, arguments).map(drop)
}

/// The same, and what it printed.
pub fn output(program: &str, arguments: &str) -> Result<String> {
    run_input(program, arguments, "")
}

/// The same, with an input.
pub fn run_input(program: &str, arguments: &str, input: &str) -> Result<String> {
    let what = || format!("{program} {arguments}");
    let mut child = command(program)
        .args(arguments.split_ascii_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(what)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(what)?;
    }
    let output = child.wait_with_output().with_context(what)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}: {}", what(), output.status, errors.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
