//! The command line with what the manual adds to it, carried out once or again and again.

use std::time::Duration;

use anyhow::Result;
use clap::{Arg, ArgMatches, CommandFactory, FromArgMatches, value_parser};

use super::{Args, manual, run};
use crate::output::Report;

const WATCH: &str = "watch-every";
/// Between two looks when `--watch` is given without a number.
const WATCH_SECONDS: &str = "2";

/// A command line that was understood.
#[derive(Debug)]
pub struct Invocation {
    matches: ArgMatches,
}

impl Invocation {
    /// This process's. Ends the process, with a text, when it cannot be understood.
    pub fn of_process() -> Self {
        let matches = command().get_matches();
        if let Err(error) = Args::from_arg_matches(&matches) {
            error.exit();
        }
        Self { matches }
    }

    fn args(&self) -> Args {
        Args::from_arg_matches(&self.matches).expect("it was understood before")
    }

    /// Whether the answer is for a program.
    pub fn as_json(&self) -> bool {
        self.args().json
    }

    /// The pause between two looks, if it is to look again and again.
    pub fn watch(&self) -> Option<Duration> {
        let (_, of_command) = self.matches.subcommand()?;
        let seconds = of_command.try_get_one::<u64>(WATCH).ok().flatten()?;
        Some(Duration::from_secs(*seconds))
    }

    /// Carries the command out, once.
    pub async fn run(&self) -> Result<Report> {
        run(self.args()).await
    }
}

/// All commands, with examples; those that only look have `--watch`.
pub(super) fn command() -> clap::Command {
    Args::command().mut_subcommands(|command| {
        let Some(page) = manual::page(command.get_name()) else { return command };
        let command = command.after_help(format!("Example:\n  mqadmin {}", page.example));
        if !page.looks {
            return command;
        }
        let watch = Arg::new(WATCH)
            .long("watch")
            .value_name("SECONDS")
            .num_args(0..=1)
            .default_missing_value(WATCH_SECONDS)
            .value_parser(value_parser!(u64).range(1..))
            .help("Looks again every so many seconds [without a number: 2], until it is stopped");
        command.arg(watch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation(line: &str) -> Result<Invocation, clap::Error> {
        let words = std::iter::once("mqadmin").chain(line.split_whitespace());
        let matches = command().try_get_matches_from(words)?;
        Args::from_arg_matches(&matches)?;
        Ok(Invocation { matches })
    }

    #[test]
    fn the_command_line_is_sound_and_every_command_is_in_the_manual() {
        command().debug_assert();
        let commands: Vec<String> =
            command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
        let pages: Vec<&str> = manual::PAGES.iter().map(|page| page.name).collect();
        for name in &commands {
            assert!(pages.contains(&name.as_str()), "{name} is not in manual.rs");
        }
        for page in &pages {
            assert!(commands.iter().any(|name| name == page), "there is no command {page}");
        }
        assert_eq!(commands.len(), pages.len());
    }

    #[test]
    fn examples_are_understood() {
        for page in manual::PAGES {
            assert!(page.example.starts_with(page.name), "{}", page.example);
            if let Err(error) = invocation(page.example) {
                panic!("{}: {error}", page.example);
            }
        }
    }

    #[test]
    fn commands_that_only_look_can_be_watched() {
        let every = |line| invocation(line).unwrap().watch().map(|pause| pause.as_secs());
        assert_eq!(every("clusterList"), None);
        assert_eq!(every("clusterList --watch"), Some(2));
        assert_eq!(every("clusterList --watch 5"), Some(5));
        assert!(invocation("deleteTopic -t orders --watch").is_err());
    }
}
