//! Whether this machine gives time when it is asked to: figures of time rest on it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What is asked for.
const NAP: Duration = Duration::from_millis(10);

/// By how much sleeps of this process were too long, in µs at the 99th percentile; measured until
/// `over`.
pub(super) async fn calibrate(over: &AtomicBool) -> u64 {
    let mut late: Vec<u64> = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        tokio::time::sleep(NAP).await;
        let by = began.elapsed().saturating_sub(NAP);
        late.push(u64::try_from(by.as_micros()).unwrap_or(u64::MAX));
    }
    late.sort_unstable();
    late.get(late.len().saturating_sub(1) * 99 / 100).copied().unwrap_or(0)
}
