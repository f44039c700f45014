//! The end of a command: its report on standard output, or its error on standard error.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::{failure, output::Report};

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
