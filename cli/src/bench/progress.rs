//! A line on the terminal while a load runs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{task::JoinSet, time};

use super::recorder::Window;

const TICK: Duration = Duration::from_millis(200);

/// Shows how a load goes, or nothing where nobody looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    shown: bool,
}

impl Progress {
    /// Nothing is shown for programs; on a terminal only.
    pub(super) fn new(for_a_program: bool) -> Self {
        Self { shown: !for_a_program }
    }

    /// Waits for the tasks to end and shows what they have done so far. A task that panicked is an
    /// error.
    pub(super) async fn watch(
        self,
        what: &'static str,
        window: Window,
        done: impl Fn() -> u64,
        tasks: &mut JoinSet<()>,
    ) -> Result<()> {
        let bar = self.bar(what, window);
        let mut tick = time::interval(TICK);
        let mut ended = Ok(());
        loop {
            tokio::select! {
                next = tasks.join_next() => match next {
                    None => break,
                    Some(end) => ended = ended.and(end.context("a task of the load died")),
                },
                _ = tick.tick() => {
                    bar.set_position(elapsed_ms(window));
                    bar.set_message(format!("{} messages", done()));
                }
            }
        }
        bar.finish_and_clear();
        ended
    }

    fn bar(self, what: &'static str, window: Window) -> ProgressBar {
        if !self.shown {
            return ProgressBar::hidden();
        }
        let total = u64::try_from(window.length().as_millis()).unwrap_or(u64::MAX);
        let style = ProgressStyle::with_template("{prefix:>10} [{bar:30}] {elapsed} {msg}")
            .expect("the template is constant");
        ProgressBar::new(total).with_style(style.progress_chars("=> ")).with_prefix(what)
    }
}

fn elapsed_ms(window: Window) -> u64 {
    let elapsed = Instant::now().saturating_duration_since(window.from);
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
