//! Topics, and where their queues begin and end.

use std::collections::HashMap;
use std::ops::Range;

use proto::{QueueId, QueueOffset, Topic};

use crate::command::TopicConfig;
use crate::kv::queue_head::QueueHead;
use crate::kv::{self, Kv, TopicId};

/// A topic of this broker group.
#[derive(Debug)]
pub struct TopicState {
    name: Topic,
    config: TopicConfig,
    /// One per queue: `config.queues`.
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

    /// The offsets that a queue holds; `None` when there is no such queue.
    #[must_use]
    pub fn offsets(&self, queue: QueueId) -> Option<Range<QueueOffset>> {
        self.head(queue).map(|head| head.min..head.max)
    }

    pub(super) fn head(&self, queue: QueueId) -> Option<&QueueHead> {
        self.heads.get(queue.0 as usize)
    }

    pub(super) fn head_mut(&mut self, queue: QueueId) -> Option<&mut QueueHead> {
        self.heads.get_mut(queue.0 as usize)
    }

    pub(super) fn heads(&self) -> &[QueueHead] {
        &self.heads
    }
}

/// All topics, by name and by id. Ids are places in the list, which is never reordered.
#[derive(Debug, Default)]
pub(super) struct Topics {
    ids: HashMap<Topic, TopicId>,
    list: Vec<TopicState>,
    /// Queues of all topics.
    queues: u32,
}

impl Topics {
    pub(super) fn load(kv: &dyn Kv) -> Result<Self, kv::Error> {
        let mut topics = Self::default();
        for (id, name, config) in kv::topic::load(kv)? {
            let added = topics.add(name, config);
            assert_eq!(added, id, "topic ids are given out without gaps");
        }
        kv::queue_head::load(kv, |topic, queue, head| {
            let topic = topics.list.get_mut(topic.0 as usize).ok_or("there is no such topic")?;
            *topic.head_mut(queue).ok_or("the topic has fewer queues")? = head;
            Ok(())
        })?;
        Ok(topics)
    }

    pub(super) fn id(&self, name: &Topic) -> Option<TopicId> {
        self.ids.get(name).copied()
    }

    pub(super) fn find(&self, name: &Topic) -> Option<(TopicId, &TopicState)> {
        let id = self.id(name)?;
        Some((id, self.get(id)))
    }

    /// The topic of an id that was given out.
    pub(super) fn get(&self, id: TopicId) -> &TopicState {
        &self.list[id.0 as usize]
    }

    pub(super) fn get_mut(&mut self, id: TopicId) -> &mut TopicState {
        &mut self.list[id.0 as usize]
    }

    /// In the order of creation.
    pub(super) fn iter(&self) -> impl Iterator<Item = &TopicState> {
        self.list.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Queues of all topics together.
    pub(super) fn queues(&self) -> u32 {
        self.queues
    }

    pub(super) fn add(&mut self, name: Topic, config: TopicConfig) -> TopicId {
        let id = TopicId(u32::try_from(self.list.len()).expect("topics are bounded"));
        self.queues += config.queues;
        self.ids.insert(name.clone(), id);
        let heads = vec![QueueHead::default(); config.queues as usize];
        self.list.push(TopicState { name, config, heads });
        id
    }

    /// Replaces the settings of a topic. Its queues never become fewer.
    pub(super) fn replace(&mut self, id: TopicId, config: TopicConfig) {
        let topic = &mut self.list[id.0 as usize];
        let grown = config.queues.checked_sub(topic.config.queues);
        self.queues += grown.expect("a topic never loses queues");
        topic.heads.resize(config.queues as usize, QueueHead::default());
        topic.config = config;
    }
}
