//! Has producers asked about transactions that they have not ended, when it is time.
//!
//! Sleeps until the next check is due. Where no producer is there to be asked, nothing is
//! recorded: the task looks again when one appears.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use commitlog::Bug;
use proto::{Timestamp, Topic, clock::wall_now};
use tracing::debug;

use crate::{
    Error,
    ops::{Broker, Unheard},
    state::Transaction,
};

/// Transactions in one round. What is left over is the first of the next round.
const MOST: usize = 256;
/// Producers of a topic that are known and do not listen may have another stream soon.
const DEAF_PAUSE: Duration = Duration::from_secs(2);
/// Without any producer only age can change something; a producer that appears is noticed at once.
const NOBODY_PAUSE: Duration = Duration::from_secs(60);
/// Before what could not be recorded is tried again.
const FAILURE_PAUSE: Duration = Duration::from_millis(500);

/// Asks until dropped.
pub(super) async fn run(broker: Arc<Broker>) {
    if Bug::B34.is_sown() && broker.view().next_check(|_| true).is_some() {
        return;
    }
    let mut quiet = Quiet::default();
    loop {
        let alarm = broker.view().check_alarm();
        alarm.arm();
        quiet.end(&broker, Instant::now());
        if let Err(error) = round(&broker, &mut quiet).await {
            debug!(%error, "checks not recorded");
            tokio::time::sleep(FAILURE_PAUSE).await;
            continue;
        }
        let next = broker.view().next_check(|topic| !quiet.is(topic));
        alarm.sleep(earlier(next, quiet.ends())).await;
    }
}

async fn round(broker: &Broker, quiet: &mut Quiet) -> Result<(), Error> {
    let now = wall_now().max(broker.view().log_time());
    let due = broker.view().checks_due(now, MOST, |topic| !quiet.is(topic));
    let settings = broker.tunables().transactions;
    let given_up = |orphan: &Transaction| {
        orphan.checks >= settings.check_max || now.since(orphan.born) >= settings.max_age
    };
    let (given_up, to_ask): (Vec<_>, Vec<_>) = due.into_iter().partition(given_up);
    if !given_up.is_empty() {
        broker.park(&given_up).await?;
    }
    if !to_ask.is_empty() {
        quiet.begin(broker.ask(to_ask).await?.unheard, Instant::now());
    }
    Ok(())
}

/// Topics that nobody can be asked about for now.
#[derive(Debug, Default)]
struct Quiet {
    topics: HashMap<Topic, (Unheard, Instant)>,
}

impl Quiet {
    fn is(&self, topic: &Topic) -> bool {
        self.topics.contains_key(topic)
    }

    fn begin(&mut self, unheard: impl IntoIterator<Item = (Topic, Unheard)>, now: Instant) {
        let until = |why| match why {
            Unheard::Nobody => now + NOBODY_PAUSE,
            Unheard::Deaf => now + DEAF_PAUSE,
        };
        self.topics.extend(unheard.into_iter().map(|(topic, why)| (topic, (why, until(why)))));
    }

    /// Forgets those whose pause is over, or whose first producer has appeared.
    fn end(&mut self, broker: &Broker, now: Instant) {
        let clients = broker.clients();
        self.topics.retain(|topic, (why, until)| {
            let appeared = *why == Unheard::Nobody && !clients.producers(topic).is_empty();
            now < *until && !appeared
        });
    }

    /// When the first pause is over, by the wall clock.
    fn ends(&self) -> Option<Timestamp> {
        let first = self.topics.values().map(|(_, until)| *until).min()?;
        Some(wall_now().plus(first.saturating_duration_since(Instant::now())))
    }
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}
