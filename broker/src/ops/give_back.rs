//! Taking back what answers carried that did not reach their clients.

use std::{
    sync::{Arc, MutexGuard},
    time::{Duration, Instant},
};

use proto::{hop::CallId, session::Answer};
use tracing::debug;

use super::Broker;
use crate::{
    Fate,
    command::{Command, GiveBack, Outcome},
    sessions::{End, HandedOut, Parcel, SessionId},
};

/// For taking something back, all attempts together.
const LONGEST: Duration = Duration::from_secs(10);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

impl Broker {
    fn handed_out(&self) -> MutexGuard<'_, HandedOut> {
        self.handed_out.lock().expect("no holder panics")
    }

    /// Answers on their way; over a bound nothing more is handed out.
    pub fn answers_on_their_way(&self) -> usize {
        self.handed_out().len()
    }

    pub(super) fn has_too_many_on_their_way(&self) -> bool {
        self.handed_out().is_full()
    }

    /// An answer goes out to its access point.
    pub fn send_out(self: &Arc<Self>, call: CallId, parcel: Parcel) {
        let early = self.handed_out().send(call, parcel, Instant::now());
        if let Some((parcel, end)) = early {
            self.take_back(parcel, end);
        }
    }

    /// An access point says how answers ended.
    pub fn answered(self: &Arc<Self>, access_point: u64, answers: &[Answer]) {
        let now = Instant::now();
        for answer in answers {
            let passed = usize::try_from(answer.passed).unwrap_or(usize::MAX);
            let end = End { passed, read: answer.read };
            let parcel = self.handed_out().ended(access_point, answer.call, end, now);
            if let Some(parcel) = parcel {
                self.take_back(parcel, end);
            }
        }
    }

    /// An access point opened a session.
    pub fn access_point_opened(&self, access_point: u64, session: SessionId) {
        self.handed_out().open(access_point, session, Instant::now());
    }

    /// A session with it ended.
    pub fn access_point_closed(&self, access_point: u64, session: SessionId) {
        self.handed_out().close(access_point, session, Instant::now());
    }

    /// Takes back the answers of access points that did not come back.
    pub(crate) fn take_back_lost(self: &Arc<Self>) {
        let lost = self.handed_out().lost(Instant::now());
        for parcel in lost {
            debug!(client = %parcel.client, "an answer was lost with its access point");
            self.take_back(parcel, End::UNKNOWN);
        }
    }

    /// Whose answers have been on their way for so long. Nothing of theirs is renewed for the
    /// first time: if this leader dies, nobody can tell what they have.
    pub(crate) fn waiting_for_longer_than(
        &self,
        age: Duration,
    ) -> std::collections::HashSet<proto::ClientId> {
        match Instant::now().checked_sub(age) {
            Some(then) => self.handed_out().clients_since(then),
            None => Default::default(),
        }
    }

    /// This node does not lead any more.
    pub(crate) fn forget_answers(&self) {
        self.handed_out().clear();
    }

    /// What the client of an answer does not have becomes visible again.
    pub fn take_back(self: &Arc<Self>, parcel: Parcel, end: End) {
        let deliveries = parcel.left_by(end);
        if deliveries.is_empty() {
            return;
        }
        self.metrics.undelivered(deliveries.len());
        let Parcel { group, topic, client, .. } = parcel;
        let command = Command::GiveBack(GiveBack { group, topic, deliveries });
        let broker = Arc::clone(self);
        tokio::spawn(async move {
            if !broker.insist(&command).await {
                // It ends by itself then, unless it is renewed.
                broker.doubt([client]);
            }
        });
    }

    /// Proposes until it is done or will not be. False when that is not known.
    async fn insist(&self, command: &Command) -> bool {
        let deadline = Instant::now() + LONGEST;
        while Instant::now() < deadline {
            match self.propose(command, deadline).await {
                Ok(Outcome::GivenBack { .. }) => return true,
                Ok(other) => super::unexpected(&other),
                Err(error) => match error.fate() {
                    // The group or the topic was deleted.
                    Fate::Rejected => return true,
                    Fate::NotDone | Fate::Unknown if self.leading().is_err() => return false,
                    Fate::NotDone | Fate::Unknown => tokio::time::sleep(PAUSE).await,
                },
            }
        }
        false
    }
}
