//! Others want the processors.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// As many threads as there are processors spin for so long.
pub(super) fn processors(lasts_ms: u64) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    for nth in 0..threads {
        std::thread::Builder::new()
            .name(format!("pressure-{nth}"))
            .spawn(move || {
                let since = Instant::now();
                while since.elapsed() < Duration::from_millis(lasts_ms) {
                    std::hint::spin_loop();
                }
            })
            .context("a thread that only spins")?;
    }
    Ok(())
}
