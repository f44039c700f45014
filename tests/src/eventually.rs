//! Waiting for a condition, and watching that one never comes, with a name and a budget.

use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until `probe` finds what it looks for, and returns it.
///
/// # Panics
/// After `budget`, with `what` and with what the last look said instead.
pub async fn eventually<T>(
    what: &str,
    budget: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(found) => return found,
            Err(instead) => assert!(
                start.elapsed() < budget,
                "{what}: not within {budget:?}; at last: {instead}"
            ),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Looks again and again for as long as `window`: what must not happen gets the time to happen.
///
/// # Panics
/// As soon as `probe` finds it, with `what` and with what it found.
pub async fn throughout(
    what: &str,
    window: Duration,
    mut probe: impl AsyncFnMut() -> Result<(), String>,
) {
    let start = Instant::now();
    while start.elapsed() < window {
        if let Err(instead) = probe().await {
            panic!("{what}: not any more after {:?}: {instead}", start.elapsed());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
