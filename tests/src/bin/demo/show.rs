//! Progress bars, and lines of text between them.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tests::{Cluster, Ledger};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Between two looks at the ledger.
const TICK: Duration = Duration::from_millis(100);

/// What the user sees while the demo runs.
pub(crate) struct Show {
    bars: MultiProgress,
    count: usize,
    ticking: JoinHandle<()>,
}

impl Show {
    /// Shows how many of `count` messages were acknowledged and how many `group` received, until
    /// `stopped`.
    pub(crate) fn start(
        cluster: &Cluster,
        group: &'static str,
        count: usize,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let bar = |label: &str| {
            let style = "  {msg:13} {bar:40} {pos:>9}/{len} {per_sec}";
            let style = ProgressStyle::with_template(style).expect("a valid template");
            let bar =
                ProgressBar::new(count as u64).with_style(style).with_message(label.to_owned());
            bars.add(bar)
        };
        let (sent, received) = (bar("acknowledged"), bar("received"));
        let ledger: Arc<Ledger> = Arc::clone(&cluster.ledger);
        let ticking = tokio::spawn(async move {
            loop {
                let last = *stopped.borrow();
                sent.set_position(ledger.acknowledged() as u64);
                received.set_position(ledger.received(group) as u64);
                if last {
                    break;
                }
                tokio::time::sleep(TICK).await;
            }
            sent.abandon();
            received.abandon();
        });
        Self { bars, count, ticking }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// A line above the bars.
    pub(crate) fn say(&self, text: &str) {
        // Without a terminal there are no bars, and the line is simply printed.
        self.bars.suspend(|| println!("  {text}"));
    }

    /// Draws the last state.
    pub(crate) async fn finish(self) {
        let _ = self.ticking.await;
    }
}
