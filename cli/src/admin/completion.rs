//! completion.

use anyhow::Result;
use clap::Args;
use clap_complete::Shell;
use serde_json::json;

use super::invocation;
use crate::output::Report;

#[derive(Debug, Args)]
pub struct Completion {
    shell: Shell,
}

impl Completion {
    pub(super) fn run(self) -> Result<Report> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut invocation::command(), "mqadmin", &mut script);
        let script = String::from_utf8(script)?;
        let json = json!({ "shell": self.shell.to_string(), "script": script });
        Ok(Report::new(json).line(script))
    }
}
