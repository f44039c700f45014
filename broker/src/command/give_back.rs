//! Messages go back whose answer did not reach its client.

use proto::{ConsumerGroup, Timestamp, Topic};

use super::Handle;

/// Takes back what an answer carried that did not reach its client: visible again at once. Answered
/// by [`super::Outcome::GivenBack`].
///
/// What was delivered again since, also by a repeat of the same receive call, is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GiveBack {
    pub group: ConsumerGroup,
    pub topic: Topic,
    /// At most [`GiveBack::MAX_DELIVERIES`].
    pub deliveries: Vec<Returned>,
}

impl GiveBack {
    /// Deliveries in one command.
    pub const MAX_DELIVERIES: usize = u16::MAX as usize;
}

/// A delivery that goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Returned {
    pub handle: Handle,
    /// When it was handed out, as granted: a repeat of the call that got it is another hand-out of
    /// the same delivery.
    pub since: Timestamp,
    /// What the count of attempts goes back to: less than it is when the client cannot have seen
    /// the message.
    pub attempt: u32,
}
