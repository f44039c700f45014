//! Deliveries that may never have reached their client.
//!
//! What becomes of an answer to a receive call is told by its access point, and what did not arrive
//! is taken back, see `give_back`. Two things nobody can tell: what became of the answers of the
//! leader before, which knew whom it had to hear from; and whether bytes that were handed to a
//! connection got through when the connection breaks. Without automatic renewal such messages come
//! back when their invisible duration ends. With it they would be kept from everybody for hours,
//! because their client lives. So the leader renews only what it has reason to trust: what it
//! handed out itself since the last broken connection of that client, or what was renewed before.
//! The rest ends as if it had not been renewable, and comes again. A client that had it all the
//! same, and takes longer than that, sees its message twice, which at-least-once allows.
//!
//! None of this need be remembered by the next leader: to it, everything from before is in doubt.

use std::{collections::HashMap, time::Duration};

use proto::{ClientId, Timestamp, limits::AUTO_RENEW_INVISIBLE};

use super::Broker;

/// News of a loss may be faster than the answer that was lost.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// From when on deliveries are trusted. Times are log time.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    all: Timestamp,
    /// Later than `all`. Those from before the end of any delivery that they concern are dropped.
    clients: HashMap<ClientId, Timestamp>,
}

impl Doubts {
    fn of_all(&mut self, now: Timestamp) {
        self.all = just_after(now);
        self.clients.clear();
    }

    fn of(&mut self, clients: impl IntoIterator<Item = ClientId>, now: Timestamp) {
        self.clients.retain(|_, until| until.plus(AUTO_RENEW_INVISIBLE) >= now);
        let until = now.plus(ON_ITS_WAY);
        self.clients.extend(clients.into_iter().map(|client| (client, until)));
    }

    fn trusted_since(&self, client: &ClientId) -> Timestamp {
        self.clients.get(client).copied().unwrap_or_default().max(self.all)
    }
}

/// What was handed out in this very millisecond is in doubt too.
fn just_after(now: Timestamp) -> Timestamp {
    Timestamp(now.0 + 1)
}

impl Broker {
    /// Answers to anybody may have been lost until now: another node led.
    pub fn doubt_all(&self) {
        self.doubts().of_all(self.view.log_time());
    }

    /// Answers to these clients may have been lost until now.
    pub fn doubt(&self, clients: impl IntoIterator<Item = ClientId>) {
        self.doubts().of(clients, self.view.log_time());
    }

    /// From when on the client's deliveries are known to have been answered.
    pub fn trusted_since(&self, client: &ClientId) -> Timestamp {
        self.doubts().trusted_since(client)
    }

    fn doubts(&self) -> std::sync::MutexGuard<'_, Doubts> {
        self.doubts.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str) -> ClientId {
        name.parse().expect("valid")
    }

    #[test]
    fn a_client_is_doubted_by_its_own_losses_and_by_everybodys() {
        let mut doubts = Doubts::default();
        assert_eq!(doubts.trusted_since(&client("a")), Timestamp(0));
        doubts.of([client("a")], Timestamp(10));
        assert_eq!(doubts.trusted_since(&client("a")), Timestamp(1_010));
        assert_eq!(doubts.trusted_since(&client("b")), Timestamp(0));
        doubts.of_all(Timestamp(2_000));
        assert_eq!(doubts.trusted_since(&client("a")), Timestamp(2_001));
        assert_eq!(doubts.trusted_since(&client("b")), Timestamp(2_001));
    }

    #[test]
    fn doubts_that_concern_nothing_any_more_are_forgotten() {
        let mut doubts = Doubts::default();
        doubts.of([client("a")], Timestamp(10));
        let end = Timestamp(10).plus(ON_ITS_WAY).plus(AUTO_RENEW_INVISIBLE);
        doubts.of([client("b")], end);
        assert_eq!(doubts.clients.len(), 2);
        doubts.of([], end.plus(Duration::from_millis(1)));
        assert_eq!(doubts.clients.len(), 1);
    }
}
