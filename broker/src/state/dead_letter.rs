//! Messages are given up: they leave their queue for the dead-letter queue of the consumer group,
//! as an entry that points to where they always were.

use proto::{ConsumerGroup, QueueId, Timestamp, Topic, v2};

use super::{At, State, limits};
use crate::command::{
    DeadLetter, Effect, Outcome, Rejection, TopicConfig, dead_letter_placement, dead_letter_topic,
};
use crate::kv::consume_queue::Entry;
use crate::kv::dead_letter::Origin;
use crate::kv::in_flight::Place;
use crate::kv::{self, TopicId};

/// Dead letters of a broker group are in one queue, unless an administrator adds others.
const QUEUE: QueueId = QueueId(0);

impl State {
    pub(super) fn dead_letter(&mut self, at: At, c: &DeadLetter) -> Result<Outcome, kv::Error> {
        let Some(topic) = self.topics.id(&c.topic) else {
            return Ok(Outcome::Rejected(Rejection::TopicNotFound));
        };
        let Some(group) = self.groups.id(&c.group) else {
            return Ok(Outcome::Rejected(Rejection::GroupNotFound));
        };
        let place = Place { group, topic, queue: c.handle.queue, offset: c.handle.offset };
        let Some(record) = self.subscriptions.find(&place) else {
            let known = self.oldest_delivery(group, topic, c.handle.queue) <= c.handle.delivery;
            let next = self.subscriptions.next(group, topic, c.handle.queue);
            let done = known && c.handle.offset < next;
            return Ok(match done {
                true => Outcome::DeadLettered,
                false => Outcome::Rejected(Rejection::InvalidHandle),
            });
        };
        let delivery = record.delivery;
        if delivery.id != c.handle.delivery || delivery.due <= at.stamp {
            return Ok(Outcome::Rejected(Rejection::InvalidHandle));
        }
        if !self.bury(at.stamp, &c.group, &place, delivery.attempt)? {
            return Ok(Outcome::Rejected(Rejection::TooManyTopics { max: limits::TOPICS }));
        }
        if let Some(visible) = self.block_moved(at.stamp, &place, delivery.order) {
            let (group, topic, queue) = (c.group.clone(), c.topic.clone(), place.queue);
            self.change.effects.push(Effect::Visible { group, topic, queue, at: visible });
        }
        Ok(Outcome::DeadLettered)
    }

    /// Moves a message in flight to the dead-letter queue. False, and nothing is changed, when
    /// there can be no such queue.
    pub(super) fn bury(
        &mut self,
        stamp: Timestamp,
        group: &ConsumerGroup,
        place: &Place,
        attempts: u32,
    ) -> Result<bool, kv::Error> {
        let Some(graves) = self.ensure_dead_letter_topic(group, place.topic) else {
            return Ok(false);
        };
        let found = self.entries_at(place.topic, place.queue, &[place.offset])?[0];
        let entry = Entry {
            position: found.position,
            len: found.len,
            tag_hash: found.tag_hash,
            visible: stamp,
        };
        self.retained.add(graves, entry.position, 1, entry.len.into());
        let offset = self.enqueue_late(graves, QUEUE, entry);
        let origin =
            Origin { topic: place.topic, queue: place.queue, offset: place.offset, attempts };
        kv::dead_letter::put(&mut self.change.batch, (graves, QUEUE, offset), &origin);
        self.change.origins.insert((graves, QUEUE, offset), origin);
        self.subscriptions.remove(place);
        kv::in_flight::delete(&mut self.change.batch, place);
        Ok(true)
    }

    /// Adds an entry to a queue for a message that is in the log already.
    pub(super) fn enqueue_late(
        &mut self,
        topic: TopicId,
        queue: QueueId,
        entry: Entry,
    ) -> proto::QueueOffset {
        let head = self.topics.get(topic).head(queue).expect("the queue was checked").max;
        let offset = self.enqueue(topic, queue, entry);
        self.change.grown.entry((topic, queue)).or_insert(head);
        let name = self.topics.get(topic).name().clone();
        self.change.effects.push(Effect::Appended { topic: name, queue });
        self.unflushed.work += 1;
        offset
    }

    /// The topic for a group's dead letters; `None` when there can be no further topic or queue.
    fn ensure_dead_letter_topic(
        &mut self,
        group: &ConsumerGroup,
        origin: TopicId,
    ) -> Option<TopicId> {
        let placement = dead_letter_placement(&self.topics.get(origin).config().placement);
        let topic = dead_letter_topic(group);
        let Some((id, known)) = self.topics.find(&topic) else {
            let full = self.topics.len() >= limits::TOPICS as usize
                || self.topics.queues() >= limits::QUEUES;
            return (!full).then(|| self.add_dead_letter_topic(topic, placement));
        };
        // Consumers look for dead letters wherever the group's topics are.
        let mut config = known.config().clone();
        let hosts =
            |name: &proto::BrokerName| config.placement.iter().any(|(known, _)| known == name);
        let more: Vec<_> = placement.into_iter().filter(|(name, _)| !hosts(name)).collect();
        if !more.is_empty() {
            config.version += more.len() as u64;
            config.placement.extend(more);
            config.placement.sort();
            kv::topic::put(&mut self.change.batch, id, &topic, &config);
            self.topics.replace(id, config);
            self.topics_version += 1;
            self.change.effects.push(Effect::TopicChanged { topic });
        }
        Some(id)
    }

    fn add_dead_letter_topic(
        &mut self,
        topic: Topic,
        placement: Vec<(proto::BrokerName, u32)>,
    ) -> TopicId {
        let config = TopicConfig {
            queues: 1,
            // Only the server puts messages there.
            permission: v2::Permission::Read,
            accepts: vec![v2::MessageType::Normal],
            // The more broker groups host it, the newer it is.
            version: placement.len() as u64,
            placement,
        };
        self.add_topic(topic, config)
    }
}

#[cfg(test)]
mod tests {
    use proto::{QueueOffset, Timestamp};

    use super::super::script::{Script, config, group, handle, pick, pop, put_topic, topic};
    use super::*;
    use crate::command::{
        AckOutcome, Again, Command, GroupConfig, Handle, Pick, PutGroup, Redrive,
    };

    fn graves() -> Topic {
        "%DLQ%audit".parse().unwrap()
    }

    fn gives_up(script: &mut Script, handle: Handle) -> Outcome {
        script.does(Command::DeadLetter(DeadLetter { group: group(), topic: topic(), handle }))
    }

    fn redrives(script: &mut Script, from: u64, count: u32) -> Outcome {
        let from = QueueOffset(from);
        script.does(Command::Redrive(Redrive { topic: graves(), queue: QUEUE, from, count }))
    }

    fn positions(script: &Script, topic: &Topic) -> Vec<u64> {
        let all = script.state.scan(topic, QUEUE, QueueOffset(0), 99).unwrap();
        all.iter().map(|entry| entry.position.0).collect()
    }

    const INVALID: Outcome = Outcome::Rejected(Rejection::InvalidHandle);

    #[test]
    fn a_message_given_up_is_in_the_dead_letter_queue_once() {
        let mut script = Script::with_messages(2);
        let held = script.pops_range(0..2);
        assert_eq!(gives_up(script.at(5), handle(&held[1])), Outcome::DeadLettered);
        assert_eq!(gives_up(&mut script, handle(&held[1])), Outcome::DeadLettered, "again");
        assert_eq!(script.acks(&[handle(&held[1])]), [AckOutcome::Acked]);
        let script = script.restarted();
        assert_eq!(script.progress(), (2, 0, 1));
        assert_eq!(positions(&script, &graves()), positions(&script, &topic())[1..]);
        let config = script.state.topic(&graves()).unwrap().config().clone();
        assert_eq!((config.queues, config.permission), (1, v2::Permission::Read));
        assert_eq!(config.placement, [("broker-a".parse().unwrap(), 1)]);
    }

    #[test]
    fn who_does_not_hold_it_cannot_give_it_up() {
        let mut script = Script::with_messages(2);
        let held = script.pops_range(0..1);
        let never = Handle { offset: QueueOffset(1), ..handle(&held[0]) };
        assert_eq!(gives_up(&mut script, never), INVALID);
        assert_eq!(gives_up(&mut script, Handle { delivery: 1, ..handle(&held[0]) }), INVALID);
        assert_eq!(gives_up(script.at(60_000), handle(&held[0])), INVALID, "it has ended");
        assert_eq!(script.state.topic(&graves()).map(|topic| topic.config().queues), None);
    }

    #[test]
    fn attempts_used_up_make_a_dead_letter() {
        let mut script = Script::with_messages(1);
        let config = GroupConfig { max_attempts: 2, ..GroupConfig::default() };
        script.does(Command::PutGroup(PutGroup { group: group(), config }));
        let mut last = script.pops_range(0..1);
        let again = |of: &crate::command::Granted| {
            let again = vec![Again { offset: of.offset, delivery: of.delivery }];
            pop("worker", vec![Pick { again, ..pick(0, 0..0, &[]) }])
        };
        last = script.at(60_000).pops(again(&last[0]));
        assert_eq!(last[0].attempt, 2);
        assert!(script.at(120_000).pops(again(&last[0])).is_empty());
        assert_eq!(script.progress(), (1, 1, 0));
        assert_eq!(positions(&script, &graves()), positions(&script, &topic()));
        let appended = Effect::Appended { topic: graves(), queue: QUEUE };
        assert!(script.effects.contains(&appended));
    }

    #[test]
    fn dead_letters_go_back_in_order_and_once() {
        let mut script = Script::with_messages(3);
        let held = script.pops_range(0..3);
        held.iter().rev().for_each(|g| drop(gives_up(&mut script, handle(g))));
        let mut script = script.restarted();
        let next = QueueOffset(2);
        assert_eq!(redrives(script.at(9), 0, 2), Outcome::Redriven { count: 2, next });
        let stale = Outcome::Rejected(Rejection::StaleRedrive { next });
        assert_eq!(redrives(&mut script, 0, 2), stale);
        let mut script = script.restarted();
        assert_eq!(script.state.redriven_to(&graves(), QUEUE), next);
        let next = QueueOffset(3);
        assert_eq!(redrives(&mut script, 2, 9), Outcome::Redriven { count: 1, next });
        assert_eq!(redrives(&mut script, 3, 9), Outcome::Redriven { count: 0, next });
        let all = positions(&script, &topic());
        let (before, after) = all.split_at(3);
        assert_eq!(after, [before[2], before[1], before[0]]);
        let entry = script.state.entry(&topic(), QUEUE, QueueOffset(3)).unwrap().unwrap();
        assert_eq!(entry.visible, Timestamp(9));
    }

    #[test]
    fn dead_letters_of_more_places_make_the_topic_known_there() {
        let mut script = Script::with_messages(1);
        let mut wide = config(1, 2);
        wide.placement.push(("broker-b".parse().unwrap(), 4));
        let held = script.pops_range(0..1);
        gives_up(&mut script, handle(&held[0]));
        script.does(put_topic("orders", wide));
        script.appends(0, &[super::super::script::message("more")]);
        let held = script.pops_range(1..2);
        gives_up(&mut script, handle(&held[0]));
        let config = script.state.topic(&graves()).unwrap().config().clone();
        assert_eq!((config.placement.len(), config.version), (2, 2));
    }
}
