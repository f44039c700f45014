//! Random steps, and the log that they become.
//!
//! Steps name things by small numbers, so that they meet. Handles and offsets are taken from what
//! the model holds at that point, most of the time.

use broker::command::{
    Ack, Again, Append, Backoff, ChangeInvisible, Command, GiveBack, GroupConfig, Handle,
    NewMessage, Outcome, Pick, Pop, PutGroup, PutTopic, Release, Renew, ResetTo, Returned,
    TopicConfig,
};
use bytes::{Bytes, BytesMut};
use commitlog::position::{LogId, LogOffset};
use proptest::prelude::*;
use proptest::sample::Index;
use proto::{ClientId, ConsumerGroup, QueueId, QueueOffset, Timestamp, Topic, v2};
use raft::{Entry, Payload};

use crate::administration;
use crate::model::{At, Model, Place};
use crate::offsets;
use crate::ordered_steps;
use crate::retention;
use crate::timers;
use crate::transactions::{TransactionStep, transaction_step};

/// The last one holds the dead letters of the last group.
pub(crate) const TOPICS: [&str; 4] = ["orders", "bills", "returns", "%DLQ%report"];
/// The last one keeps order, most of the time.
pub(crate) const GROUPS: [&str; 3] = ["audit", "billing", "report"];
pub(crate) const QUEUES: u32 = 3;
pub(crate) const CLIENTS: [&str; 3] = ["alpha", "beta", "gamma"];

pub(crate) fn topic(n: usize) -> Topic {
    TOPICS[n].parse().unwrap()
}

pub(crate) fn group(n: usize) -> ConsumerGroup {
    GROUPS[n].parse().unwrap()
}

pub(crate) fn client(n: usize) -> ClientId {
    CLIENTS[n].parse().unwrap()
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    PutTopic {
        topic: usize,
        queues: u32,
        version: u64,
        permission: v2::Permission,
        create_only: bool,
    },
    PutGroup {
        group: usize,
        max_attempts: u32,
        usual_order: bool,
    },
    Ordered(ordered_steps::Step),
    Timers(timers::Step),
    Retention(retention::Step),
    Append {
        topic: usize,
        queue: u32,
        messages: Vec<MessageStep>,
    },
    Pop {
        group: usize,
        topic: usize,
        client: usize,
        auto_renew: bool,
        invisible_ms: u64,
        picks: Vec<PickStep>,
    },
    /// Of deliveries to the group and topic that the first of them was made to.
    Ack {
        handles: Vec<HandleStep>,
    },
    ChangeInvisible {
        handle: HandleStep,
        invisible_ms: u64,
    },
    Renew {
        group: usize,
        topic: usize,
        queue: u32,
        client: usize,
        trusted_since: u64,
        invisible_ms: u64,
    },
    Release {
        group: usize,
        client: usize,
        after_ms: u64,
    },
    /// Deliveries to the group and topic of the first of them, each with what its attempts go
    /// back to, and whether this is about an earlier hand-out of it.
    GiveBack {
        back: Vec<(HandleStep, u32, bool)>,
    },
    Commit {
        group: usize,
        topic: usize,
        queue: u32,
        offset: u64,
    },
    Reset {
        group: usize,
        topic: usize,
        queues: Vec<(u32, ResetTo)>,
    },
    /// The reset that is pending, or one that never was.
    Follow {
        group: usize,
        topic: usize,
        queue: u32,
        wrong: bool,
    },
    Transaction(TransactionStep),
    Administer(Command),
    /// Log time goes on before the next entry.
    Wait {
        ms: u64,
    },
    /// A new leader's mark, or a membership, instead of commands.
    Blank {
        membership: bool,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct MessageStep {
    tag_hash: u64,
    key_hashes: Vec<u64>,
    pub(crate) dedupe: Option<u8>,
    len: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct PickStep {
    queue: u32,
    /// Begins this far before or after the group's progress.
    from: i8,
    len: u64,
    /// Which offsets pass the filter.
    wanted: u16,
    again: Vec<HandleStep>,
}

/// One of the deliveries in flight, or an invented one.
#[derive(Debug, Clone)]
pub(crate) struct HandleStep {
    which: Index,
    wrong: bool,
}

pub(crate) fn handle_step() -> impl Strategy<Value = HandleStep> {
    (any::<Index>(), prop::bool::weighted(0.1))
        .prop_map(|(which, wrong)| HandleStep { which, wrong })
}

pub(crate) fn message_step() -> impl Strategy<Value = MessageStep> {
    let keys = prop::collection::vec(0..5_u64, 0..3);
    (0..3_u64, keys, any::<Option<u8>>(), 0..40_usize).prop_map(
        |(tag_hash, key_hashes, dedupe, len)| MessageStep {
            tag_hash,
            key_hashes,
            dedupe: dedupe.map(|id| id % 24),
            len,
        },
    )
}

fn pick_step() -> impl Strategy<Value = PickStep> {
    let again = prop::collection::vec(handle_step(), 0..3);
    (0..QUEUES, prop_oneof![3 => Just(0), 1 => -2..3_i8], 0..14_u64, any::<u16>(), again)
        .prop_map(|(queue, from, len, wanted, again)| PickStep { queue, from, len, wanted, again })
}

fn permission() -> impl Strategy<Value = v2::Permission> {
    let rare = prop::sample::select(vec![v2::Permission::Read, v2::Permission::Write]);
    prop_oneof![8 => Just(v2::Permission::ReadWrite), 1 => rare]
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    // The first of each comes up most, so that steps meet.
    let often = |count| prop_oneof![2 => Just(0), 1 => 0..count];
    let (topics, groups) = (often(TOPICS.len()), often(GROUPS.len()));
    let clients = often(CLIENTS.len());
    let ms = || prop::sample::select(vec![0_u64, 100, 60_000, 600_000]);
    // Closing a topic is rare: nothing can be sent to it then.
    let queues = prop_oneof![9 => 1..=QUEUES, 1 => Just(0)];
    prop_oneof![
        2 => (topics.clone(), queues, 1..6_u64, permission(), any::<bool>()).prop_map(
            |(topic, queues, version, permission, create_only)| Step::PutTopic {
                topic, queues, version, permission, create_only,
            }
        ),
        1 => (groups.clone(), 0..9_u32, prop::bool::weighted(0.9)).prop_map(
            |(group, max_attempts, usual_order)| Step::PutGroup { group, max_attempts, usual_order }
        ),
        8 => ordered_steps::step().prop_map(Step::Ordered),
        8 => timers::step(topics.clone().boxed()).prop_map(Step::Timers),
        4 => retention::step().prop_map(Step::Retention),
        6 => (topics.clone(), 0..QUEUES, prop::collection::vec(message_step(), 1..6))
            .prop_map(|(topic, queue, messages)| Step::Append { topic, queue, messages }),
        8 => (
            groups.clone(), topics.clone(), clients.clone(), any::<bool>(), ms(),
            prop::collection::vec(pick_step(), 0..4),
        ).prop_map(|(group, topic, client, auto_renew, invisible_ms, picks)| Step::Pop {
            group, topic, client, auto_renew, invisible_ms, picks,
        }),
        4 => offsets::step(groups.clone().boxed(), topics.clone().boxed()),
        2 => administration::step(groups.clone().boxed(), topics.clone().boxed()),
        4 => prop::collection::vec(handle_step(), 1..5).prop_map(|handles| Step::Ack { handles }),
        2 => (handle_step(), ms())
            .prop_map(|(handle, invisible_ms)| Step::ChangeInvisible { handle, invisible_ms }),
        2 => (groups.clone(), topics.clone(), 0..QUEUES, clients.clone(), ms(), ms()).prop_map(
            |(group, topic, queue, client, trusted_since, invisible_ms)| Step::Renew {
                group, topic, queue, client, trusted_since, invisible_ms,
            }
        ),
        1 => (groups, clients, ms())
            .prop_map(|(group, client, after_ms)| Step::Release { group, client, after_ms }),
        1 => prop::collection::vec((handle_step(), 0..3_u32, prop::bool::weighted(0.1)), 1..5)
            .prop_map(|back| Step::GiveBack { back }),
        1 => prop::sample::select(vec![60_000, 600_000, 4_000_000])
            .prop_map(|ms| Step::Wait { ms }),
        5 => transaction_step().prop_map(Step::Transaction),
        3 => (0..120_u64).prop_map(|ms| Step::Wait { ms }),
        1 => any::<bool>().prop_map(|membership| Step::Blank { membership }),
    ]
}

/// Entries, and what the model says about them.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) entries: Vec<Entry>,
    pub(crate) outcomes: Vec<Vec<Outcome>>,
    /// The model after the last entry.
    pub(crate) model: Model,
    pub(crate) stamp: u64,
}

impl Log {
    pub(crate) fn of(entries: &[Vec<Step>]) -> Self {
        let mut log =
            Self { entries: vec![], outcomes: vec![], model: Model::default(), stamp: 1_000_000 };
        // Most logs should get somewhere.
        for topic in 0..2 {
            let step = Step::PutTopic {
                topic,
                queues: 2,
                version: 1,
                permission: v2::Permission::ReadWrite,
                create_only: false,
            };
            log.push(&[step]);
        }
        let last = GROUPS.len() - 1;
        log.push(&[Step::PutGroup { group: last, max_attempts: 3, usual_order: true }]);
        entries.iter().for_each(|steps| log.push(steps));
        log
    }

    fn push(&mut self, steps: &[Step]) {
        let index = self.entries.len() as u64;
        let mut commands = vec![];
        let mut outcomes = vec![];
        let mut position = index * 1_000_000;
        for step in steps {
            match step {
                Step::Wait { ms } => self.stamp += ms,
                Step::Blank { membership } => return self.push_blank(index, *membership),
                _ => {}
            }
        }
        for step in steps {
            let Some(command) = resolve(step, &self.model, self.stamp) else { continue };
            let mut bytes = BytesMut::new();
            command.encode().iter().for_each(|part| bytes.extend_from_slice(part));
            let end = position + bytes.len() as u64;
            let at = At { stamp: self.stamp, delivery: (index << 20) | commands.len() as u64, end };
            outcomes.push(self.model.apply(at, &command));
            commands.push(raft::Command { position: LogOffset(position), bytes: bytes.freeze() });
            position = end;
        }
        self.push_entry(index, Payload::Batch(commands), outcomes);
    }

    fn push_blank(&mut self, index: u64, membership: bool) {
        let payload = match membership {
            true => Payload::Membership(Bytes::from(index.to_string())),
            false => Payload::Blank,
        };
        self.push_entry(index, payload, vec![]);
    }

    fn push_entry(&mut self, index: u64, payload: Payload, outcomes: Vec<Outcome>) {
        let log_id = LogId::new(1 + index / 10, index);
        self.entries.push(Entry { log_id, stamp: self.stamp, payload });
        self.outcomes.push(outcomes);
    }
}

/// The command that a step means now; none when it only moves time.
fn resolve(step: &Step, model: &Model, now: u64) -> Option<Command> {
    Some(match step.clone() {
        Step::Wait { .. } | Step::Blank { .. } => return None,
        Step::PutTopic { topic: t, queues, version, permission, create_only } => {
            let config = TopicConfig {
                queues,
                permission,
                accepts: vec![v2::MessageType::Normal],
                placement: vec![("broker-a".parse().unwrap(), queues)],
                version,
            };
            Command::PutTopic(PutTopic { topic: topic(t), config, create_only })
        }
        Step::Timers(step) => timers::resolve(&step, model, now),
        Step::Ordered(step) => ordered_steps::resolve(&step, model),
        Step::Retention(step) => retention::resolve(&step, model),
        Step::PutGroup { group: g, max_attempts, usual_order } => {
            let fifo = (g == GROUPS.len() - 1) == usual_order;
            let config = GroupConfig { fifo, max_attempts, backoff: Backoff::default() };
            Command::PutGroup(PutGroup { group: group(g), config })
        }
        Step::Append { topic: t, queue, messages } => Command::Append(Append {
            topic: topic(t),
            queue: QueueId(queue),
            messages: messages.iter().map(new_message).collect(),
        }),
        Step::Pop { group: g, topic: t, client: c, auto_renew, invisible_ms, picks } => {
            let place = |queue| (group(g), topic(t), QueueId(queue));
            let picks = picks.iter().map(|step| pick(step, model, &place(step.queue))).collect();
            let (group, topic, client) = (group(g), topic(t), client(c));
            Command::Pop(Pop { group, topic, client, auto_renew, invisible_ms, picks })
        }
        Step::Ack { handles } => {
            let (group, topic, _) = place_of(&handles[0], model);
            let held = |place: &Place| (&place.0, &place.1) == (&group, &topic);
            let handles = handles.iter().map(|step| handle(step, model, held)).collect();
            Command::Ack(Ack { group: group.clone(), topic: topic.clone(), handles })
        }
        Step::ChangeInvisible { handle: step, invisible_ms } => {
            let at = place_of(&step, model);
            let handle = handle(&step, model, |place| *place == at);
            let (group, topic, _) = at;
            Command::ChangeInvisible(ChangeInvisible { group, topic, handle, invisible_ms })
        }
        Step::Renew { group: g, topic: t, queue, client: c, trusted_since, invisible_ms } => {
            let (group, topic, client) = (group(g), topic(t), client(c));
            let (queue, trusted_since) = (QueueId(queue), Timestamp(trusted_since));
            Command::Renew(Renew { group, topic, queue, client, trusted_since, invisible_ms })
        }
        Step::Commit { group: g, topic: t, queue, offset } => {
            offsets::commit(group(g), topic(t), QueueId(queue), offset)
        }
        Step::Reset { group: g, topic: t, queues } => offsets::reset(group(g), topic(t), &queues),
        Step::Follow { group: g, topic: t, queue, wrong } => {
            offsets::follow((group(g), topic(t), QueueId(queue)), wrong, model)
        }
        Step::Administer(command) => command,
        Step::Release { group: g, client: c, after_ms } => {
            Command::Release(Release { client: client(c), group: group(g), after_ms })
        }
        Step::GiveBack { back } => give_back(&back, model),
        Step::Transaction(step) => step.command(model),
    })
}

fn give_back(back: &[(HandleStep, u32, bool)], model: &Model) -> Command {
    let at = place_of(&back[0].0, model);
    let returned = |(step, attempt, earlier): &(HandleStep, u32, bool)| {
        let handle = handle(step, model, |place| (&place.0, &place.1) == (&at.0, &at.1));
        let place = (at.0.clone(), at.1.clone(), handle.queue);
        let since = model.held.get(&(place, handle.offset.0)).map_or(0, |held| held.since);
        let since = Timestamp(since.saturating_sub(u64::from(*earlier)));
        Returned { handle, since, attempt: *attempt }
    };
    let deliveries = back.iter().map(returned).collect();
    Command::GiveBack(GiveBack { group: at.0.clone(), topic: at.1.clone(), deliveries })
}

pub(crate) fn new_message(step: &MessageStep) -> NewMessage {
    NewMessage {
        tag_hash: step.tag_hash,
        key_hashes: step.key_hashes.clone(),
        dedupe: step.dedupe.map(u128::from),
        bytes: Bytes::from(vec![b'x'; step.len]),
    }
}

fn pick(step: &PickStep, model: &Model, place: &Place) -> Pick {
    let next = model.next_of(place);
    let from = next.saturating_add_signed(step.from.into());
    let to = from + step.len;
    let wanted = (from..to).filter(|offset| step.wanted >> (offset - from) & 1 == 1);
    let again = step.again.iter().map(|step| {
        let Handle { offset, delivery, .. } = handle(step, model, |other| other == place);
        Again { offset, delivery }
    });
    Pick {
        queue: place.2,
        from: QueueOffset(from),
        to: QueueOffset(to),
        fresh: wanted.map(QueueOffset).collect(),
        again: again.collect(),
    }
}

/// Where some delivery was made; some place when none is in flight.
pub(crate) fn place_of(step: &HandleStep, model: &Model) -> Place {
    let held: Vec<_> = model.held.keys().collect();
    match held.is_empty() {
        true => (group(0), topic(0), QueueId(0)),
        false => held[step.which.index(held.len())].0.clone(),
    }
}

pub(crate) fn handle(step: &HandleStep, model: &Model, among: impl Fn(&Place) -> bool) -> Handle {
    let held: Vec<_> = model.held.iter().filter(|((place, _), _)| among(place)).collect();
    if held.is_empty() || step.wrong {
        let queue = QueueId(u32::try_from(step.which.index(QUEUES as usize)).unwrap());
        let offset = QueueOffset(step.which.index(6) as u64);
        return Handle { queue, offset, delivery: step.which.index(40) as u64 };
    }
    let ((place, offset), held) = held[step.which.index(held.len())];
    Handle { queue: place.2, offset: QueueOffset(*offset), delivery: held.delivery }
}
