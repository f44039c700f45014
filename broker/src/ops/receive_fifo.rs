//! Handing messages out in the order of their message groups: read what is unknown, look, propose.
//!
//! The message group is in the message, which is in the log. It is read while nothing is locked,
//! and kept for the next look: a position names a message for ever.

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{Arc, Mutex},
    task::Poll as Ready,
};

use commitlog::position::LogOffset;
use proto::{
    Filter, QueueId,
    clock::{millis, wall_now},
    tag_hash, v2,
};

use super::{
    ANSWER_BYTES, Broker, Poll,
    pick::{Plan, Wish},
    pick_fifo::{Looked, plan_in_order},
    receive::Taking,
};
use crate::{
    Error,
    command::{Command, FifoPick, PopFifo},
    delivery::{Lane, Marked, Marks, Place},
    filter::Sieve,
};

/// Message groups remembered, of 16 bytes each and as much for their place; over it all are
/// forgotten.
const BLOCKS_KEPT: usize = 65_536;
/// Rounds of reading before a call takes what it found, or waits.
const ROUNDS: usize = 32;

/// Hashes of the message groups of messages that were looked at.
#[derive(Debug, Default)]
pub(crate) struct Blocks(Mutex<HashMap<LogOffset, u64>>);

impl Blocks {
    pub(super) fn get(&self, message: LogOffset) -> Option<u64> {
        self.0.lock().expect("no holder panics").get(&message).copied()
    }

    fn keep(&self, message: LogOffset, block: u64) {
        let mut kept = self.0.lock().expect("no holder panics");
        if kept.len() >= BLOCKS_KEPT {
            kept.clear();
        }
        kept.insert(message, block);
    }
}

/// The block of a message: messages without a message group share one.
fn block_of(message: &v2::Message) -> u64 {
    let system = message.system_properties.as_ref();
    tag_hash(system.and_then(|system| system.message_group.as_deref()).unwrap_or_default())
}

enum Look {
    Taking(Box<Taking>),
    Nothing,
    /// These must be read first.
    Unread(Vec<(LogOffset, u32)>),
}

impl Broker {
    /// Proposes what there is to hand out in order; `None` if there is nothing.
    pub(super) async fn try_take_in_order(
        &self,
        poll: &Poll,
        place: &Place,
    ) -> Result<Option<Taking>, Error> {
        let hashes = match &poll.filter {
            Filter::Tags(tags) => tags.hashes(),
            Filter::Sql(_) => None,
        };
        let sieve = hashes.as_deref().map_or(Sieve::All, Sieve::Tags);
        let first = self.first_queue(poll, place);
        let kept = matches!(poll.filter, Filter::Tags(_)).then_some(&self.blocks);
        let mut looked = Looked::beside(kept);
        for round in 0.. {
            match self.look_in_order(poll, place, first, sieve, &looked, round < ROUNDS).await? {
                Look::Taking(taking) => return Ok(Some(*taking)),
                Look::Unread(unread) => {
                    for (position, len) in unread {
                        self.read_block(poll, position, len, &mut looked)?;
                    }
                    tokio::task::yield_now().await;
                }
                Look::Nothing => return Ok(None),
            }
        }
        unreachable!("the last round does not ask for more")
    }

    fn read_block(
        &self,
        poll: &Poll,
        position: LogOffset,
        len: u32,
        looked: &mut Looked<'_>,
    ) -> Result<(), Error> {
        let message = match self.view.message(position, len) {
            Err(_) if self.view.is_gone(position) => return Ok(()),
            read => read?,
        };
        let block = block_of(&message);
        self.blocks.keep(position, block);
        // Tags were compared by hash, and are compared by name before the message goes out.
        let wanted = matches!(poll.filter, Filter::Tags(_)) || poll.filter.matches(&message);
        looked.add(position, wanted, block);
        Ok(())
    }

    /// Looks, marks and proposes in one go. With `may_read` it asks for what is unread rather than
    /// take less than is wished for.
    async fn look_in_order(
        &self,
        poll: &Poll,
        place: &Place,
        first: QueueId,
        sieve: Sieve<'_>,
        looked: &Looked<'_>,
        may_read: bool,
    ) -> Result<Look, Error> {
        let lane = self.lanes.at(place);
        poll_fn(|context| {
            let mut marks = lane.lock();
            let repeated =
                |id: &u64| self.view.is_repeated(&poll.group, &poll.topic, &poll.client, *id);
            if poll.attempt_id.as_ref().is_some_and(repeated) {
                let taking =
                    self.propose_in_order(context, poll, &lane, &mut marks, (vec![], vec![]));
                return Ready::Ready(Ok(taking(Plan::default())));
            }
            let wish =
                Wish { first, messages: poll.batch, bytes: ANSWER_BYTES, sieve, now: wall_now() };
            let plan = self.view.plan(&poll.group, &poll.topic, |queues| {
                plan_in_order(queues, &marks, looked, &wish)
            });
            let mut plan = match plan {
                Ok(Some(plan)) => plan,
                Ok(None) => return Ready::Ready(Ok(Look::Nothing)),
                Err(error) => return Ready::Ready(Err(error)),
            };
            if may_read && !plan.plan.full && !plan.unread.is_empty() {
                return Ready::Ready(Ok(Look::Unread(plan.unread)));
            }
            if plan.is_empty() {
                return Ready::Ready(Ok(Look::Nothing));
            }
            let proposed = (plan.marked(), plan.take_picks());
            let taking = self.propose_in_order(context, poll, &lane, &mut marks, proposed);
            Ready::Ready(Ok(taking(plan.plan)))
        })
        .await
    }

    fn propose_in_order(
        &self,
        context: &mut std::task::Context<'_>,
        poll: &Poll,
        lane: &Arc<Lane>,
        marks: &mut Marks,
        (marked, picks): (Vec<(QueueId, Marked)>, Vec<FifoPick>),
    ) -> impl FnOnce(Plan) -> Look + use<> {
        let command = Command::PopFifo(PopFifo {
            group: poll.group.clone(),
            topic: poll.topic.clone(),
            client: poll.client.clone(),
            auto_renew: poll.auto_renew,
            invisible_ms: millis(poll.invisible),
            attempt_id: poll.attempt_id,
            picks,
        });
        let reservation = lane.reserve(marks, marked);
        let (proposal, first) = self.begin(&command, poll.deadline, context);
        move |plan| Look::Taking(Box::new(Taking::new(proposal, first, reservation, plan, true)))
    }

    /// Whether messages are handed out to the group in order.
    pub(super) fn keeps_order(&self, poll: &Poll) -> bool {
        self.view.consumer_group(&poll.group).is_some_and(|config| config.fifo)
    }
}
