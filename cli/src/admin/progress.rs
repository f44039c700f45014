//! How far a long command has come, for whoever looks: on a terminal alone, on standard error.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

const TICK: Duration = Duration::from_millis(200);
/// A command that ends sooner shows nothing.
const PATIENCE: Duration = Duration::from_millis(300);

/// So many steps.
pub(super) fn bar(what: &'static str, steps: u64) -> ProgressBar {
    let template = "{msg} [{bar:30}] {pos}/{len} {eta}";
    let style = ProgressStyle::with_template(template).expect("the template is constant");
    let bar = ProgressBar::new(steps).with_style(style.progress_chars("=> ")).with_message(what);
    bar.enable_steady_tick(PATIENCE);
    bar
}

/// A step whose length nobody knows.
pub(super) fn spinner(what: String) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(what);
    spinner.enable_steady_tick(TICK);
    spinner
}
