//! `docs/operations/mqadmin.md`: what each command is for and what it prints.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tests::binaries::{self, repository};

const HEAD: &str = "\
# mqadmin

Names and flags are those of RocketMQ's tool. `mqadmin help COMMAND` shows the flags and an example.

- `-n` takes NameServers or brokers, any of which will do (`NAMESRV_ADDR`, 127.0.0.1:9876).
- `--json` prints one JSON document for programs. Its keys stay; new ones may come.
- `--watch [SECONDS]`, on commands that only look, looks again and again.
- What cannot be undone asks first; `--yes` answers. Where nobody is to be asked, nothing is done without it.
- Exit codes: 0 done, 1 refused, 2 not understood, 3 not done (try again), 4 unknown (look before trying again).
- Long work shows how far it has come, on a terminal alone.
- `mqadmin completion bash > /etc/bash_completion.d/mqadmin` (or zsh, fish, elvish, powershell).

A backup is put back by `broker restore`, see [backup.md](backup.md). What follows is what the commands print, on a cluster of three.
";
/// Lines of one command's output that are shown.
const LINES: usize = 60;

fn path() -> PathBuf {
    repository().join("docs/operations/mqadmin.md")
}

/// The commands that have a section.
pub(crate) fn shown() -> Vec<String> {
    let text = fs::read_to_string(path()).expect("the manual");
    let titles = text.lines().filter_map(|line| line.strip_prefix("## "));
    titles.map(|title| title.trim_matches('`').to_owned()).collect()
}

/// One section for each command, in the order of the help.
pub(crate) fn write(commands: &[String], printed: &BTreeMap<String, (String, String)>) {
    let mut text = HEAD.to_owned();
    for name in commands {
        let (line, output) = printed.get(name).unwrap_or_else(|| panic!("{name} was not tried"));
        text.push_str(&format!("\n## `{name}`\n\n{}\n\n```\n$ mqadmin {line}\n", about(name)));
        for line in output.lines().take(LINES) {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        if output.lines().count() > LINES {
            text.push_str("...\n");
        }
        text.push_str("```\n");
    }
    fs::write(path(), text).expect("the manual can be written");
}

/// What the command says of itself.
fn about(name: &str) -> String {
    let help = Command::new(binaries::program("mqadmin")).args([name, "--help"]).output();
    let help = String::from_utf8(help.expect("it runs").stdout).expect("text");
    help.lines().take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
