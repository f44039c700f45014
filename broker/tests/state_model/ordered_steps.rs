//! Random deliveries in order, dead letters and their way back.

use broker::command::{Command, DeadLetter, FifoAgain, FifoFresh, FifoPick, PopFifo, Redrive};
use proptest::prelude::*;
use proto::{QueueId, QueueOffset};

use crate::model::{Model, Place};
use crate::steps::{
    GROUPS, HandleStep, QUEUES, TOPICS, client, group, handle, handle_step, place_of, topic,
};

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Pop {
        group: usize,
        topic: usize,
        client: usize,
        auto_renew: bool,
        invisible_ms: u64,
        attempt_id: Option<u64>,
        picks: Vec<PickStep>,
    },
    DeadLetter {
        handle: HandleStep,
    },
    Redrive {
        topic: usize,
        queue: u32,
        from: i8,
        count: u32,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct PickStep {
    queue: u32,
    /// Begins this far before or after the group's progress.
    from: i8,
    len: u64,
    /// Which offsets pass the filter, and which of them are not held back by the leader.
    wanted: u16,
    deliver: u16,
    /// All of one block, in order.
    block: Option<u64>,
    again: Vec<HandleStep>,
}

fn pick_step() -> impl Strategy<Value = PickStep> {
    let again = prop::collection::vec(handle_step(), 0..2);
    let from = prop_oneof![3 => Just(0), 1 => -2..3_i8];
    let block = prop_oneof![1 => Just(None), 3 => (0..3_u64).prop_map(Some)];
    (0..QUEUES, from, 0..14_u64, any::<u16>(), any::<u16>(), block, again).prop_map(
        |(queue, from, len, wanted, hold, block, again)| {
            // Most are delivered if they can be.
            let deliver = hold | hold.rotate_left(5) | hold.rotate_left(9);
            PickStep { queue, from, len, wanted, deliver, block, again }
        },
    )
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let ordered = GROUPS.len() - 1;
    let groups = prop_oneof![9 => Just(ordered), 1 => 0..GROUPS.len()];
    let topics = prop_oneof![2 => Just(0), 1 => 0..TOPICS.len()];
    let graves = TOPICS.len() - 1;
    let ms = prop::sample::select(vec![0_u64, 100, 60_000]);
    let attempt = prop_oneof![2 => Just(None), 1 => (0..4_u64).prop_map(Some)];
    let picks = prop::collection::vec(pick_step(), 0..3);
    prop_oneof![
        8 => (groups, topics, 0..3_usize, any::<bool>(), ms, attempt, picks).prop_map(
            |(group, topic, client, auto_renew, invisible_ms, attempt_id, picks)| Step::Pop {
                group, topic, client, auto_renew, invisible_ms, attempt_id, picks,
            }
        ),
        1 => handle_step().prop_map(|handle| Step::DeadLetter { handle }),
        3 => (prop_oneof![4 => Just(graves), 1 => 0..TOPICS.len()], 0..2_u32,
            prop_oneof![4 => Just(0), 1 => -1..2_i8], 0..4_u32,
        ).prop_map(|(topic, queue, from, count)| Step::Redrive { topic, queue, from, count }),
    ]
}

pub(crate) fn resolve(step: &Step, model: &Model) -> Command {
    match step.clone() {
        Step::Pop {
            group: g,
            topic: t,
            client: c,
            auto_renew,
            invisible_ms,
            attempt_id,
            picks,
        } => {
            let place = |queue| (group(g), topic(t), QueueId(queue));
            let picks = picks.iter().map(|step| pick(step, model, &place(step.queue))).collect();
            let (group, topic, client) = (group(g), topic(t), client(c));
            Command::PopFifo(PopFifo {
                group,
                topic,
                client,
                auto_renew,
                invisible_ms,
                attempt_id,
                picks,
            })
        }
        Step::DeadLetter { handle: step } => {
            let at = place_of(&step, model);
            let handle = handle(&step, model, |place| *place == at);
            let (group, topic, _) = at;
            Command::DeadLetter(DeadLetter { group, topic, handle })
        }
        Step::Redrive { topic: t, queue, from, count } => {
            let (topic, queue) = (topic(t), QueueId(queue));
            let next = model.redriven.get(&(topic.clone(), queue)).copied().unwrap_or_default();
            let from = QueueOffset(next.saturating_add_signed(from.into()));
            Command::Redrive(Redrive { topic, queue, from, count })
        }
    }
}

fn pick(step: &PickStep, model: &Model, place: &Place) -> FifoPick {
    let next = model.next_of(place);
    let from = next.saturating_add_signed(step.from.into());
    let to = from + step.len;
    let bit = |bits: u16, offset: u64| bits >> (offset - from) & 1 == 1;
    let fresh = (from..to).filter(|offset| bit(step.wanted, *offset)).map(|offset| FifoFresh {
        offset: QueueOffset(offset),
        block: block_at(model, place, offset),
        deliver: bit(step.deliver, offset),
    });
    let of_block = step.block.map(|block| model.block(place, block)).unwrap_or_default();
    let mut again: Vec<_> = of_block
        .into_iter()
        .map(|offset| (offset, model.held[&(place.clone(), offset)].delivery))
        .collect();
    again.extend(step.again.iter().map(|step| {
        let handle = handle(step, model, |other| other == place);
        (handle.offset.0, handle.delivery)
    }));
    let again = again.into_iter().map(|(offset, delivery)| FifoAgain {
        offset: QueueOffset(offset),
        delivery,
        block: block_at(model, place, offset),
    });
    FifoPick {
        queue: place.2,
        from: QueueOffset(from),
        to: QueueOffset(to),
        again: again.collect(),
        fresh: fresh.collect(),
    }
}

/// The tag stands in for the message group.
fn block_at(model: &Model, place: &Place, offset: u64) -> u64 {
    let queue = model.topics.get(&place.1).and_then(|t| t.queues.get(place.2.0 as usize));
    let entry = queue.and_then(|queue| queue.get(usize::try_from(offset).unwrap()));
    entry.map_or(0, |entry| entry.tag_hash)
}
