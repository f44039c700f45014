//! The end of a command: its report on standard output, or its error on standard error.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use crate::{failure, output::Report};

/// Moves the cursor home and clears what is below.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Looks again and again and prints each result: on a cleared terminal, for a program one after the
/// other. Ends with the first look that fails, or when nobody reads any more.
pub async fn watch<F>(
    program: &str,
    pause: Duration,
    as_json: bool,
    look: impl Fn() -> F,
) -> ExitCode
where
    F: Future<Output = anyhow::Result<Report>>,
{
    loop {
        let report = match look().await {
            Ok(report) if report.failure().is_none() => report,
            ended => return finish(program, ended, as_json),
        };
        let shown = {
            let mut out = io::stdout().lock();
            let clear = if out.is_terminal() && !as_json { CLEAR } else { "" };
            write!(out, "{clear}")
                .and_then(|()| report.write(as_json, &mut out))
                .and_then(|()| out.flush())
        };
        if shown.is_err() {
            return ExitCode::SUCCESS;
        }
        tokio::time::sleep(pause).await;
    }
}

/// Prints the result and returns the code to exit with.
#[expect(clippy::print_stderr, reason = "a command line tool talks to the terminal")]
pub fn finish(program: &str, result: anyhow::Result<Report>, as_json: bool) -> ExitCode {
    let error = match result {
        Ok(report) => {
            let mut out = io::stdout().lock();
            match report.write(as_json, &mut out).and_then(|()| out.flush()) {
                Ok(()) => match report.failure() {
                    None => return ExitCode::SUCCESS,
                    Some(why) => anyhow::Error::msg(why.to_owned()),
                },
                // Whoever reads has seen enough, as in `mqadmin topicList | head -1`.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return ExitCode::SUCCESS;
                }
                Err(error) => anyhow::Error::new(error).context("write the result"),
            }
        }
        Err(error) => error,
    };
    eprintln!("{program}: {error:#}");
    failure::exit_code(&error)
}
