//! Waiting for a condition, with a name and a budget.

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
