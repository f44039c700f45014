//! Handing messages out: look, propose, and assemble what was granted.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll as Ready},
    time::{Duration, Instant},
};

use futures::future::join_all;
use proto::{
    ClientId, ConsumerGroup, Filter, QueueId, Topic,
    clock::{millis, wall_now},
    hop::CallId,
    limits, v2,
    v2::Permission,
};

use super::{
    ANSWER_BYTES, ANSWER_RESERVE, Broker, CLIENT_RESERVE, INLINE_BYTES,
    pick::{Plan, Wish, plan},
    quota::limited,
    unexpected,
};
use crate::{
    Error, Fate,
    command::{Ack, Command, Granted, Handle, Outcome, Pop, Rejection, TopicConfig},
    delivery::{Lease, Place, Reservation},
    error::Bound,
    filter::Sieve,
    sessions::Outgoing,
};

/// Messages that could not be handed over are visible again after this.
const GIVEN_BACK_AFTER: Duration = Duration::from_secs(1);
/// For the commands that nobody waits for.
const CLEAN_UP: Duration = Duration::from_secs(5);

/// A receive call.
#[derive(Debug, Clone)]
pub struct Poll {
    /// Who asks.
    pub client: ClientId,
    /// On whose behalf.
    pub group: ConsumerGroup,
    /// Of what.
    pub topic: Topic,
    /// The queue to look at first; all are looked at.
    pub queue: Option<QueueId>,
    /// Which messages.
    pub filter: Filter,
    /// How many at most; at least 1.
    pub batch: usize,
    /// How long they are this client's.
    pub invisible: Duration,
    /// The leader renews them while the client lives.
    pub auto_renew: bool,
    /// Hash of what names the call across its retries; of use where order is kept.
    pub attempt_id: Option<u64>,
    /// The access point's name for the call, by which it says what became of the answer.
    pub call: Option<CallId>,
    /// How long to wait for a message.
    pub wait_until: Instant,
    /// When the client stops listening.
    pub deadline: Instant,
}

/// What was handed out. As long as it lives, its bytes count as in progress.
#[derive(Debug, Default)]
pub struct Delivery {
    /// In the order in which to answer.
    pub messages: Vec<Delivered>,
    _lease: Option<Lease>,
}

/// One message, ready to be sent.
#[derive(Debug)]
pub struct Delivered {
    /// As the client gets it.
    pub message: v2::Message,
    /// The delivery.
    pub outgoing: Outgoing,
}

pub(super) type Proposal = Pin<Box<dyn Future<Output = Result<Outcome, Error>> + Send>>;

/// A proposal on its way. Dropping it does not undo it: the messages come back when their
/// invisible duration ends.
pub struct Taking {
    proposal: Proposal,
    first: Option<Result<Outcome, Error>>,
    reservation: Reservation,
    plan: Plan,
    /// Others wait for the outcome before they look at the same queues.
    exclusive: bool,
}

impl Taking {
    pub(super) fn new(
        proposal: Proposal,
        first: Option<Result<Outcome, Error>>,
        reservation: Reservation,
        plan: Plan,
        exclusive: bool,
    ) -> Self {
        Self { proposal, first, reservation, plan, exclusive }
    }
}

/// What a look at the queues led to.
enum Look {
    Taking(Box<Taking>),
    Nothing,
    /// There is something, but it must be judged first.
    Unknown,
}

impl Look {
    fn taking(self) -> Option<Taking> {
        match self {
            Self::Taking(taking) => Some(*taking),
            Self::Nothing | Self::Unknown => None,
        }
    }
}

impl std::fmt::Debug for Taking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Taking").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Broker {
    /// Waits for something to hand out and proposes it. `None`: the time to wait has passed.
    /// Nothing is proposed if this is dropped before it returns.
    pub async fn find(&self, poll: &Poll) -> Result<Option<Taking>, Error> {
        self.leading()?;
        if self.has_too_many_on_their_way() {
            return Err(Error::Overloaded(Bound::Answers));
        }
        self.clients().seen(&poll.client, Instant::now());
        match self.topic(&poll.topic, poll.deadline).await {
            Ok(config) => self.may_consume(poll, Some(&config))?,
            Err(Error::TopicNotFound(_)) => self.may_consume(poll, None)?,
            Err(error) => return Err(error),
        }
        self.must_not_owe(limited(&poll.group, Some(&poll.client)))?;
        let place = Place { group: poll.group.clone(), topic: poll.topic.clone() };
        if let Some(taking) = self.try_take(poll, &place).await? {
            return Ok(Some(taking));
        }
        loop {
            // In line first, then another look: what arrives in between rings.
            let Ok(wait) = self.waiting.join(&place) else {
                return Err(Error::Overloaded(Bound::LongPolls));
            };
            if self.is_stopping() {
                return Ok(None);
            }
            self.leading()?;
            if let Err(error) = self.may_consume(poll, self.view.topic(&poll.topic).as_ref()) {
                // The same is true for whoever else waits.
                self.waiting.pass_on(&place);
                return Err(error);
            }
            if let Some(taking) = self.try_take(poll, &place).await? {
                return Ok(Some(taking));
            }
            if let Some(due) = self.view.next_due(&poll.group, &poll.topic) {
                self.waiting.due_at(&place, due);
            }
            let until = poll.wait_until.into();
            if tokio::time::timeout_at(until, wait.called()).await.is_err() {
                return Ok(None);
            }
        }
    }

    fn may_consume(&self, poll: &Poll, topic: Option<&TopicConfig>) -> Result<(), Error> {
        match topic.map(|topic| topic.permission) {
            Some(Permission::Read | Permission::ReadWrite) => (),
            // Nothing was given up in this broker group yet.
            None if poll.topic.is_dead_letters() => (),
            None => return Err(Error::TopicNotFound(poll.topic.clone())),
            Some(Permission::Unspecified | Permission::None | Permission::Write) => {
                return Err(Error::NotReadable(poll.topic.clone()));
            }
        }
        match self.view.is_enabled(&poll.group) {
            true => Ok(()),
            false => Err(Error::Rejected(Rejection::GroupDisabled)),
        }
    }

    /// Proposes what there is to hand out; `None` if there is nothing.
    async fn try_take(&self, poll: &Poll, place: &Place) -> Result<Option<Taking>, Error> {
        if self.keeps_order(poll) {
            return self.try_take_in_order(poll, place).await;
        }
        let expression = match &poll.filter {
            Filter::Sql(expression) => expression,
            Filter::Tags(tags) => {
                let hashes = tags.hashes();
                let sieve = hashes.as_deref().map_or(Sieve::All, Sieve::Tags);
                let first = self.first_queue(poll, place);
                return Ok(self.look(poll, place, first, sieve).await?.taking());
            }
        };
        loop {
            let first = self.first_queue(poll, place);
            let verdicts = self.judge(poll, place, first, expression).await?;
            match self.look(poll, place, first, Sieve::Judged(&verdicts)).await? {
                // Messages came, or others took those that were judged: they get on meanwhile.
                Look::Unknown if Instant::now() < poll.wait_until => {
                    tokio::task::yield_now().await;
                }
                look => return Ok(look.taking()),
            }
        }
    }

    /// The queue asked for; else they take turns.
    pub(super) fn first_queue(&self, poll: &Poll, place: &Place) -> QueueId {
        poll.queue.unwrap_or_else(|| QueueId(self.lanes.at(place).lock().next_turn()))
    }

    /// Looks, marks and proposes in one go: commands stand in the log in the order of the marks.
    async fn look(
        &self,
        poll: &Poll,
        place: &Place,
        first: QueueId,
        sieve: Sieve<'_>,
    ) -> Result<Look, Error> {
        let lane = self.lanes.at(place);
        poll_fn(|context| {
            let mut marks = lane.lock();
            let wish =
                Wish { first, messages: poll.batch, bytes: ANSWER_BYTES, sieve, now: wall_now() };
            let mut plan =
                match self.view.plan(&poll.group, &poll.topic, |q| plan(q, &marks, &wish)) {
                    Ok(Some(plan)) if !plan.is_empty() => plan,
                    Ok(Some(plan)) if plan.unknown => return Ready::Ready(Ok(Look::Unknown)),
                    Ok(_) => return Ready::Ready(Ok(Look::Nothing)),
                    Err(error) => return Ready::Ready(Err(error)),
                };
            let marked = plan.marked();
            let command = Command::Pop(Pop {
                group: poll.group.clone(),
                topic: poll.topic.clone(),
                client: poll.client.clone(),
                auto_renew: poll.auto_renew,
                invisible_ms: millis(poll.invisible),
                picks: plan.take_picks(),
            });
            let reservation = lane.reserve(&mut marks, marked);
            let (proposal, first) = self.begin(&command, poll.deadline, context);
            drop(marks);
            if plan.more {
                self.waiting.pass_on(place);
            }
            let taking = Taking::new(proposal, first, reservation, plan, false);
            Ready::Ready(Ok(Look::Taking(Box::new(taking))))
        })
        .await
    }

    /// Proposes at once: commands stand in the log in the order in which this is called.
    pub(super) fn begin(
        &self,
        command: &Command,
        deadline: Instant,
        context: &mut Context<'_>,
    ) -> (Proposal, Option<Result<Outcome, Error>>) {
        let mut proposal = self.proposal(command, deadline);
        match proposal.as_mut().poll(context) {
            Ready::Ready(result) => (proposal, Some(result)),
            Ready::Pending => (proposal, None),
        }
    }

    fn proposal(&self, command: &Command, deadline: Instant) -> Proposal {
        let group = self.group.clone();
        let (fault, parts) = (self.settings.fault.clone(), command.encode());
        Box::pin(async move { super::propose(&group, &fault, parts, deadline).await })
    }

    /// Waits for the proposal and reads what was granted. Empty if others were faster, or if the
    /// filter did not want it after all.
    pub async fn take(self: &Arc<Self>, poll: &Poll, taking: Taking) -> Result<Delivery, Error> {
        let Taking { proposal, first, reservation, plan, exclusive } = taking;
        let outcome = match first {
            Some(result) => result,
            None => proposal.await,
        };
        let place = Place { group: poll.group.clone(), topic: poll.topic.clone() };
        let granted = match outcome {
            Ok(Outcome::Popped { granted }) => granted,
            Ok(other) => unexpected(&other),
            Err(error) => {
                if error.fate() == Fate::Unknown {
                    // Perhaps it has messages now that no answer will carry.
                    self.doubt([poll.client.clone()]);
                }
                drop(reservation);
                self.waiting.pass_on(&place);
                return Err(error);
            }
        };
        if granted.len() == plan.messages && !exclusive {
            reservation.fulfilled();
        } else {
            drop(reservation);
            self.waiting.pass_on(&place);
        }
        self.deliver(poll, granted, plan).await
    }

    async fn deliver(
        self: &Arc<Self>,
        poll: &Poll,
        granted: Vec<Granted>,
        plan: Plan,
    ) -> Result<Delivery, Error> {
        let handles: Vec<Handle> = granted.iter().map(handle_of).collect();
        let bytes = granted.iter().map(|g| u64::from(g.len)).sum::<u64>();
        let Some(lease) = self.receive_budget.take(usize::try_from(bytes).unwrap_or(usize::MAX))
        else {
            self.give_back(poll, handles);
            return Err(Error::Overloaded(Bound::ReceiveBytes));
        };
        let cold = granted.first().is_some_and(|granted| self.is_cold(granted.position));
        let read = if bytes <= INLINE_BYTES && !cold {
            self.read_all(poll, &granted, &plan)
        } else {
            let (broker, poll) = (Arc::clone(self), poll.clone());
            let task = tokio::task::spawn_blocking(move || broker.read_all(&poll, &granted, &plan));
            task.await.expect("reading does not panic")
        };
        match read {
            Ok((messages, unwanted)) => {
                let bodies = messages.iter().map(|delivered| delivered.message.body.len());
                self.charge(limited(&poll.group, Some(&poll.client)), bodies);
                self.consume_unwanted(poll, unwanted);
                Ok(Delivery { messages, _lease: Some(lease) })
            }
            Err(error) => {
                tracing::error!(%error, topic = %poll.topic, "message not readable");
                self.give_back(poll, handles);
                Err(error)
            }
        }
    }

    /// The messages, and the handles of those that only looked like what the filter wants: tags
    /// of equal hash, and repeats from before the filter changed.
    fn read_all(
        &self,
        poll: &Poll,
        granted: &[Granted],
        plan: &Plan,
    ) -> Result<(Vec<Delivered>, Vec<Handle>), Error> {
        let mut messages = Vec::with_capacity(granted.len());
        let mut unwanted = Vec::new();
        for granted in granted {
            let handle = handle_of(granted);
            let entry = (&poll.topic, granted.queue, granted.offset);
            let seen = (granted.position, granted.len);
            // It may have expired since, and its delivery with it.
            let Some(stored) = self.view.message_of(entry, seen)? else { continue };
            if !poll.filter.matches(&stored) {
                unwanted.push(handle);
                continue;
            }
            let stamp = plan.stamps.get(&(granted.queue, granted.offset)).copied();
            let stamp = match stamp {
                Some(stamp) => Some(stamp),
                None => self.view.visible_at(&poll.topic, granted.queue, granted.offset)?,
            };
            let message = super::assemble::assemble(self, poll, granted, stamp, stored);
            let place = (&poll.group, &poll.topic);
            self.metrics.delivered(place, message.body.len(), granted.attempt);
            let Granted { since, attempt, before, .. } = *granted;
            let outgoing = Outgoing { handle, since, attempt, before };
            messages.push(Delivered { message, outgoing });
        }
        Ok((messages, unwanted))
    }

    /// They count as consumed, like everything that the filter does not want.
    fn consume_unwanted(self: &Arc<Self>, poll: &Poll, handles: Vec<Handle>) {
        if handles.is_empty() {
            return;
        }
        let ack = Ack { group: poll.group.clone(), topic: poll.topic.clone(), handles };
        let broker = Arc::clone(self);
        tokio::spawn(async move {
            let command = Command::Ack(ack);
            // Otherwise they are delivered again, and looked at again.
            let _ = broker.propose(&command, Instant::now() + CLEAN_UP).await;
        });
    }

    /// The client cannot be served: its messages are visible again soon.
    fn give_back(self: &Arc<Self>, poll: &Poll, handles: Vec<Handle>) {
        if handles.is_empty() {
            return;
        }
        self.metrics.undelivered(handles.len());
        let broker = Arc::clone(self);
        let (group, topic) = (poll.group.clone(), poll.topic.clone());
        tokio::spawn(async move {
            let deadline = Instant::now() + CLEAN_UP;
            let moves = handles.into_iter().map(|handle| {
                broker.move_due(group.clone(), topic.clone(), handle, GIVEN_BACK_AFTER, deadline)
            });
            // What fails here comes back when its invisible duration ends.
            join_all(moves).await;
        });
    }
}

fn handle_of(granted: &Granted) -> Handle {
    Handle { queue: granted.queue, offset: granted.offset, delivery: granted.delivery }
}

/// How long a delivery of this call is invisible: renewed ones by the server's own rule, others as
/// asked for.
pub fn invisible_duration(
    auto_renew: bool,
    asked: Option<Duration>,
    min: Duration,
) -> Result<Duration, Error> {
    if auto_renew {
        return Ok(limits::AUTO_RENEW_INVISIBLE);
    }
    let asked = asked.unwrap_or(Duration::ZERO);
    if asked < min {
        return Err(Error::InvisibleTooSmall { asked, min });
    }
    if asked > limits::INVISIBLE_MAX {
        return Err(Error::InvisibleTooLarge { asked, max: limits::INVISIBLE_MAX });
    }
    Ok(asked)
}

/// How long to wait for a message: what is asked for, or what the deadline leaves beside a client's
/// own reserve, within the limits, and never beyond the deadline. Clients that are told not to wait
/// leave only the deadline of a call, which is less than the shortest poll and no mistake.
pub fn polling_time(asked: Option<Duration>, left: Duration) -> Result<Duration, Error> {
    let beside = left.saturating_sub(CLIENT_RESERVE);
    let wanted = asked.unwrap_or(beside).clamp(limits::LONG_POLL_MIN, limits::LONG_POLL_MAX);
    if wanted + ANSWER_RESERVE <= left {
        return Ok(wanted);
    }
    if left + limits::LONG_POLL_SLACK >= limits::LONG_POLL_MIN {
        return Ok(left - ANSWER_RESERVE);
    }
    if asked.is_none_or(|asked| asked <= beside) {
        return Ok(beside);
    }
    Err(Error::NoTimeToPoll { left, min: limits::LONG_POLL_MIN })
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_poll_waits_within_its_limits_and_its_deadline() {
        assert_eq!(polling_time(Some(S(10)), S(13)), Ok(S(10)));
        assert_eq!(polling_time(Some(S(0)), S(13)), Ok(S(5)), "no wait is legal, and clamped");
        assert_eq!(polling_time(Some(S(60)), S(90)), Ok(S(20)));
        assert_eq!(polling_time(None, S(13)), Ok(Duration::from_millis(11_500)));
        assert_eq!(polling_time(Some(S(20)), S(20)), Ok(S(20) - ANSWER_RESERVE));
        assert!(matches!(polling_time(Some(S(20)), S(3)), Err(Error::NoTimeToPoll { .. })));
        let beside = Duration::from_millis(1_500);
        assert_eq!(polling_time(Some(S(0)), S(3)), Ok(beside), "told not to wait");
        assert_eq!(polling_time(None, S(3)), Ok(beside), "told so by the deadline alone");
        assert_eq!(polling_time(None, S(1)), Ok(S(0)));
        let heard_late = S(5) - Duration::from_millis(40);
        assert_eq!(polling_time(Some(S(5)), heard_late), Ok(heard_late - ANSWER_RESERVE));
    }

    #[test]
    fn an_invisible_duration_has_limits_unless_the_server_renews() {
        let invisible = |renewed, asked| invisible_duration(renewed, asked, S(10));
        assert_eq!(invisible(true, None), Ok(S(60)));
        assert_eq!(invisible(true, Some(S(1))), Ok(S(60)));
        assert_eq!(invisible(false, Some(S(10))), Ok(S(10)));
        assert!(matches!(invisible(false, Some(S(9))), Err(Error::InvisibleTooSmall { .. })));
        assert!(matches!(invisible(false, None), Err(Error::InvisibleTooSmall { .. })));
        assert_eq!(invisible_duration(false, Some(S(1)), S(1)), Ok(S(1)));
        let long = S(12 * 3600 + 1);
        assert!(matches!(invisible(false, Some(long)), Err(Error::InvisibleTooLarge { .. })));
    }
}
