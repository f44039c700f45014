//! Topics, and where their queues begin and end.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use proto::{QueueId, QueueOffset, Topic};

use crate::command::{Retention, TopicConfig};
use crate::kv::queue_head::QueueHead;
use crate::kv::topic_standing::TopicStanding;
use crate::kv::{self, Kv, TopicId};

/// A topic of this broker group.
#[derive(Debug)]
pub struct TopicState {
    name: Topic,
    config: TopicConfig,
    standing: TopicStanding,
    /// One per queue that the topic ever had; those that are not readable are empty.
    heads: Vec<QueueHead>,
}

impl TopicState {
    #[must_use]
    pub fn name(&self) -> &Topic {
        &self.name
    }

    #[must_use]
    pub fn config(&self) -> &TopicConfig {
        &self.config
    }

    /// How much of it is kept.
    #[must_use]
    pub fn retention(&self) -> Retention {
        self.standing.retention
    }

    /// Queues that can be read: ids from 0 on. More than take messages, while queues that the topic
    /// is to lose are not drained; and never none, so that a message that was accepted earlier has
    /// somewhere to go.
    #[must_use]
    pub fn readable(&self) -> u32 {
        self.standing.readable
    }

    /// The offsets that a queue holds; `None` when there is no such queue.
    #[must_use]
    pub fn offsets(&self, queue: QueueId) -> Option<Range<QueueOffset>> {
        self.head(queue).map(|head| head.min..head.max)
    }

    /// The queue, or one that takes messages in its place if it does not any more; the first one where
    /// none does.
    pub(super) fn instead_of(&self, queue: QueueId) -> QueueId {
        QueueId(queue.0 % self.config.queues.max(1))
    }

    /// Names the command that created it.
    pub(super) fn born(&self) -> u64 {
        self.standing.born
    }

    pub(super) fn standing(&self) -> &TopicStanding {
        &self.standing
    }

    /// Of a queue that can be read.
    pub(super) fn head(&self, queue: QueueId) -> Option<&QueueHead> {
        self.heads[..self.standing.readable as usize].get(queue.0 as usize)
    }

    pub(super) fn head_mut(&mut self, queue: QueueId) -> Option<&mut QueueHead> {
        self.heads[..self.standing.readable as usize].get_mut(queue.0 as usize)
    }

    /// Of all queues that the topic ever had.
    pub(super) fn heads(&self) -> &[QueueHead] {
        &self.heads
    }
}

/// All topics, by name and by id.
#[derive(Debug)]
pub(super) struct Topics {
    ids: HashMap<Topic, TopicId>,
    by_id: BTreeMap<TopicId, TopicState>,
    /// What the next topic gets.
    next: TopicId,
    /// Queues of all topics.
    queues: u32,
}

impl Topics {
    /// `next` is the id that the next topic gets.
    pub(super) fn load(kv: &dyn Kv, next: TopicId) -> Result<Self, kv::Error> {
        let mut topics = Self { ids: HashMap::new(), by_id: BTreeMap::new(), next, queues: 0 };
        for (id, name, config) in kv::topic::load(kv)? {
            assert!(id < next, "the next topic id is higher than any that was given out");
            topics.insert(id, name, config);
        }
        kv::topic_standing::load(kv, |id, standing| {
            topics.by_id.get_mut(&id).ok_or("there is no such topic")?.standing = standing;
            Ok(())
        })?;
        kv::queue_head::load(kv, |id, queue, head| {
            let topic = topics.by_id.get_mut(&id).ok_or("there is no such topic")?;
            let place = queue.0 as usize;
            if topic.heads.len() <= place {
                topic.heads.resize(place + 1, QueueHead::default());
            }
            topic.heads[place] = head;
            Ok(())
        })?;
        for topic in topics.by_id.values_mut() {
            let readable = topic.standing.readable as usize;
            topic.heads.resize(topic.heads.len().max(readable), QueueHead::default());
            topics.queues += count(topic);
        }
        Ok(topics)
    }

    pub(super) fn id(&self, name: &Topic) -> Option<TopicId> {
        self.ids.get(name).copied()
    }

    pub(super) fn find(&self, name: &Topic) -> Option<(TopicId, &TopicState)> {
        let id = self.id(name)?;
        Some((id, self.get(id)))
    }

    /// The topic of an id that was given out, unless it was deleted.
    pub(super) fn find_id(&self, id: TopicId) -> Option<&TopicState> {
        self.by_id.get(&id)
    }

    /// The topic of an id that is in use. Whatever refers to a topic goes with it, so an id that is
    /// found in the state is in use; one that was kept elsewhere needs [`Topics::find_id`].
    pub(super) fn get(&self, id: TopicId) -> &TopicState {
        self.find_id(id).expect("what refers to a topic goes with it")
    }

    pub(super) fn get_mut(&mut self, id: TopicId) -> &mut TopicState {
        self.by_id.get_mut(&id).expect("what refers to a topic goes with it")
    }

    /// Whether a message that entered a queue is kept.
    pub(super) fn holds(&self, id: TopicId, queue: QueueId, offset: QueueOffset) -> bool {
        let head = self.find_id(id).and_then(|topic| topic.head(queue));
        head.is_some_and(|head| head.min <= offset)
    }

    /// In the order of creation.
    pub(super) fn iter(&self) -> impl Iterator<Item = &TopicState> {
        self.by_id.values()
    }

    /// Of all topics, ascending.
    pub(super) fn ids(&self) -> impl Iterator<Item = TopicId> {
        self.by_id.keys().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// What the next topic gets.
    pub(super) fn next_id(&self) -> TopicId {
        self.next
    }

    /// Queues of all topics together, those among them that are not readable any more.
    pub(super) fn queues(&self) -> u32 {
        self.queues
    }

    /// A new topic, created by the command that `born` names.
    pub(super) fn add(&mut self, name: Topic, config: TopicConfig, born: u64) -> TopicId {
        let id = self.next;
        self.next = TopicId(id.0.checked_add(1).expect("4 billion topics are not created"));
        let readable = config.queues.max(1);
        self.queues += readable;
        self.insert(id, name, config);
        let topic = self.get_mut(id);
        topic.standing = TopicStanding { born, readable, ..TopicStanding::default() };
        topic.heads = vec![QueueHead::default(); readable as usize];
        id
    }

    fn insert(&mut self, id: TopicId, name: Topic, config: TopicConfig) {
        self.ids.insert(name.clone(), id);
        let standing = TopicStanding::default();
        self.by_id.insert(id, TopicState { name, config, standing, heads: vec![] });
    }

    /// Replaces the settings of a topic. Queues that it has no more stay readable.
    pub(super) fn replace(&mut self, id: TopicId, config: TopicConfig) {
        let before = count(self.get(id));
        let topic = self.get_mut(id);
        topic.standing.readable = topic.standing.readable.max(config.queues);
        let queues = topic.heads.len().max(config.queues as usize);
        topic.heads.resize(queues, QueueHead::default());
        topic.config = config;
        self.queues += count(self.get(id)) - before;
    }

    /// Makes the last readable queue of a topic unreadable. It is empty from then on.
    pub(super) fn close_last(&mut self, id: TopicId) -> (QueueId, QueueHead) {
        let topic = self.get_mut(id);
        let last = QueueId(topic.standing.readable - 1);
        let head = &mut topic.heads[last.0 as usize];
        head.min = head.max;
        topic.standing.readable -= 1;
        (last, *head)
    }

    pub(super) fn set_retention(&mut self, id: TopicId, retention: Retention) {
        self.get_mut(id).standing.retention = retention;
    }

    pub(super) fn remove(&mut self, id: TopicId) {
        let topic = self.by_id.remove(&id).expect("it was found");
        self.ids.remove(&topic.name);
        self.queues -= count(&topic);
    }
}

fn count(topic: &TopicState) -> u32 {
    u32::try_from(topic.heads.len()).expect("queues are bounded")
}
