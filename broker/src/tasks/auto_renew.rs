//! Keeps deliveries of living clients invisible: one renewal for each client and queue.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use proto::{
    ClientId, Timestamp,
    clock::{millis, wall_now},
    limits::AUTO_RENEW_INVISIBLE,
};
use tracing::{debug, warn};

use crate::{
    command::{Command, Outcome, Renew},
    ops::Broker,
    sessions::SILENCE,
    state::Holding,
};

const EVERY: Duration = Duration::from_secs(5);
/// What ends within this is renewed now: what is held for 15 s already. Several rounds may fail
/// before it is too late, and what was renewed once outlives a change of leaders, see `ops/doubt`.
const AHEAD: Duration = Duration::from_secs(45);
/// A client that has not read an answer for so long has nothing new renewed: see `ops/doubt`.
const SLOW_ANSWER: Duration = Duration::from_secs(5);
/// Renewals proposed in one round. What is left over is the first of the next round.
const MOST: usize = 10_000;
/// Renewals on their way at a time.
const AT_ONCE: usize = 64;
const PROPOSAL_WAIT: Duration = Duration::from_secs(5);

const _: () = assert!(AHEAD.as_millis() >= 3 * EVERY.as_millis());
const _: () = assert!(AHEAD.as_millis() < AUTO_RENEW_INVISIBLE.as_millis());

/// Renews until dropped.
pub(super) async fn run(broker: Arc<Broker>) {
    let leading_since = Instant::now();
    loop {
        round(&broker, leading_since).await;
        tokio::time::sleep(EVERY).await;
    }
}

async fn round(broker: &Arc<Broker>, leading_since: Instant) {
    let now = Instant::now();
    // A new leader has not heard of everybody yet.
    let indulgent = now.saturating_duration_since(leading_since) < SILENCE;
    let lives = |client: &ClientId| indulgent || broker.clients().heard_of(client, now);
    renew_all(broker, wall_now().plus(AHEAD), lives).await;
}

/// Renews what ends until then, for clients that live.
pub(super) async fn renew_all(
    broker: &Arc<Broker>,
    until: Timestamp,
    lives: impl Fn(&ClientId) -> bool,
) {
    let waiting = broker.waiting_for_longer_than(SLOW_ANSWER);
    let trusted_since = |client: &ClientId| match waiting.contains(client) {
        true => Timestamp(u64::MAX),
        false => broker.trusted_since(client),
    };
    let held = broker.view().holdings(until, MOST, trusted_since);
    if held.len() == MOST {
        warn!(most = MOST, "more renewals are due than one round does");
    }
    let living = held.into_iter().filter(|held| lives(&held.client));
    stream::iter(living).for_each_concurrent(AT_ONCE, |held| renew(broker, held)).await;
}

async fn renew(broker: &Arc<Broker>, held: Holding) {
    let Holding { group, topic, queue, client, trusted_since, .. } = held;
    let invisible_ms = millis(AUTO_RENEW_INVISIBLE);
    let renew = Command::Renew(Renew { group, topic, queue, client, trusted_since, invisible_ms });
    match broker.propose(&renew, Instant::now() + PROPOSAL_WAIT).await {
        Ok(Outcome::Renewed { .. }) => (),
        Ok(other) => crate::ops::unexpected(&other),
        // The next round tries again.
        Err(error) => debug!(%error, "renewal not done"),
    }
}
