//! Looking messages up: by id, by key, by time, by offset; and what became of one.

use std::{cmp::Reverse, time::Instant};

use proto::{ConsumerGroup, QueueId, QueueOffset, Timestamp, Topic, v2};

use super::{Broker, Reading};
use crate::{
    Error,
    state::{Backlog, Consumption, QueueEntry},
};

/// Messages of one answer.
const MOST: usize = 1000;
/// Bytes of messages after which an answer takes no further one.
const ANSWER_BYTES: u64 = 16 << 20;
/// Messages with the same hash of a key that are looked at, the latest first.
const CANDIDATES: usize = 10_000;

/// Which messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// With this id; several, if a client gave it twice.
    Id(String),
    /// With this among their keys.
    Key(String),
    /// At this place.
    Offset(QueueId, QueueOffset),
    /// Of one queue, or of all.
    Any(Option<QueueId>),
}

/// A question, and what limits the answer.
#[derive(Debug, Clone)]
pub struct Query {
    /// Of which topic.
    pub topic: Topic,
    /// Which messages.
    pub question: Question,
    /// That entered their queue at this time or later.
    pub from: Timestamp,
    /// And before this time.
    pub until: Timestamp,
    /// How many at most; the server has its own limit too.
    pub most: usize,
    /// Which replica may answer; `None` as this broker is set up.
    pub reading: Option<Reading>,
}

/// A message and where it is.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its queue.
    pub queue: QueueId,
    /// Its place there and in the log.
    pub entry: QueueEntry,
    /// As a pull would get it.
    pub message: v2::Message,
}

/// The answer to a query.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// By key and id: the latest first. Otherwise by queue and offset.
    pub found: Vec<Found>,
    /// There may be more.
    pub truncated: bool,
}

/// What became of a message in one consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// The group.
    pub group: ConsumerGroup,
    /// What is known.
    pub consumption: Consumption,
    /// Members of the group that are connected now do not want the message.
    pub unwanted: bool,
}

impl Broker {
    /// Looks messages up. Exact: keys are compared, not only their hashes. On the leader
    /// linearizable. A follower that may answer finds what it has applied, and leaves to the leader
    /// what it does not know: a topic, a queue, a place that it has not come to.
    pub async fn query(&self, query: &Query, deadline: Instant) -> Result<Answer, Error> {
        match self.reading_as(query.reading)? {
            Reading::Latest => {
                self.catch_up(deadline).await?;
                self.look_up(query)
            }
            Reading::Applied => {
                let at_a_place = matches!(query.question, Question::Offset(..));
                match self.look_up(query) {
                    Ok(answer) if !(at_a_place && answer.found.is_empty()) => Ok(answer),
                    Ok(_) | Err(_) => Err(self.elsewhere()),
                }
            }
        }
    }

    fn look_up(&self, query: &Query) -> Result<Answer, Error> {
        if self.view.topic(&query.topic).is_none() {
            return Err(Error::TopicNotFound(query.topic.clone()));
        }
        let most = query.most.clamp(1, MOST);
        let (candidates, more) = match &query.question {
            Question::Id(id) => self.candidates(query, crate::ops::send::id_hash(id))?,
            Question::Key(key) => self.candidates(query, proto::filter::tag_hash(key))?,
            Question::Offset(queue, offset) => {
                let found = self.view.entry(&query.topic, *queue, *offset)?;
                (found.into_iter().map(|entry| (*queue, entry)).collect(), false)
            }
            Question::Any(queue) => self.span(query, *queue, most)?,
        };
        self.read_answer(query, candidates, most, more)
    }

    /// Messages whose key has this hash, within the times asked for, the latest first.
    fn candidates(
        &self,
        query: &Query,
        hash: u64,
    ) -> Result<(Vec<(QueueId, QueueEntry)>, bool), Error> {
        let mut found = self.view.find_by_key(&query.topic, hash, CANDIDATES)?;
        let more = found.len() == CANDIDATES;
        found.retain(|(_, entry)| (query.from..query.until).contains(&entry.visible));
        found.sort_by_key(|(_, entry)| Reverse((entry.visible, entry.position)));
        // A message that names a key twice is listed twice.
        found.dedup_by_key(|(queue, entry)| (*queue, entry.offset));
        Ok((found, more))
    }

    /// Everything within the times asked for, by queue and offset, up to one more than `most`.
    fn span(
        &self,
        query: &Query,
        queue: Option<QueueId>,
        most: usize,
    ) -> Result<(Vec<(QueueId, QueueEntry)>, bool), Error> {
        let queues = match queue {
            Some(queue) => {
                self.view.queue(&query.topic, queue)?;
                vec![queue]
            }
            None => self.view.queue_ends(&query.topic).into_iter().map(|(id, ..)| id).collect(),
        };
        let mut found = Vec::new();
        for queue in queues {
            let from = self.view.offset_at(&query.topic, queue, query.from)?;
            let left = most + 1 - found.len();
            let (_, entries) = self.view.stretch(&query.topic, queue, from, left)?;
            let within = entries.into_iter().take_while(|entry| entry.visible < query.until);
            found.extend(within.map(|entry| (queue, entry)));
            if found.len() > most {
                break;
            }
        }
        Ok((found, false))
    }

    fn read_answer(
        &self,
        query: &Query,
        candidates: Vec<(QueueId, QueueEntry)>,
        most: usize,
        more: bool,
    ) -> Result<Answer, Error> {
        let mut answer = Answer { found: Vec::new(), truncated: more };
        let mut bytes = 0;
        for (queue, entry) in candidates {
            if answer.found.len() == most || bytes >= ANSWER_BYTES {
                answer.truncated = true;
                break;
            }
            let Some(message) = self.stored(&query.topic, queue, &entry)? else { continue };
            if query.question.wants(&message) {
                bytes += u64::from(entry.len);
                answer.found.push(Found { queue, entry, message });
            }
        }
        Ok(answer)
    }

    /// What became of a message in each group that consumes its topic. Linearizable.
    pub async fn track(
        &self,
        topic: &Topic,
        queue: QueueId,
        offset: QueueOffset,
        deadline: Instant,
    ) -> Result<Vec<Track>, Error> {
        self.leading()?;
        self.catch_up(deadline).await?;
        let range = self.view.queue(topic, queue)?;
        let entry = self.view.entry(topic, queue, offset)?;
        let out_of_range =
            crate::command::Rejection::OffsetOutOfRange { min: range.start, max: range.end };
        let entry = entry.ok_or(Error::Rejected(out_of_range))?;
        let message = self.stored(topic, queue, &entry)?;
        let message = message.ok_or(Error::Rejected(out_of_range))?;
        let clients = self.clients();
        let tracks = self.view.consumptions(topic, queue, offset).into_iter();
        Ok(tracks
            .map(|(group, consumption)| {
                let members = clients.iter().filter(|(_, c)| c.group.as_ref() == Some(&group));
                let filters: Vec<_> =
                    members.filter_map(|(_, c)| c.topics.get(topic)?.as_ref()).collect();
                let unwanted =
                    !filters.is_empty() && !filters.iter().any(|filter| filter.matches(&message));
                Track { group, consumption, unwanted }
            })
            .collect())
    }

    /// What a consumer group has before it, in one topic or in every one that it consumed.
    /// Linearizable and exact.
    pub async fn backlog(
        &self,
        group: &ConsumerGroup,
        topic: Option<&Topic>,
        deadline: Instant,
    ) -> Result<Vec<(Topic, Backlog)>, Error> {
        self.leading()?;
        self.catch_up(deadline).await?;
        self.view.backlog(group, topic, proto::clock::wall_now())
    }
}

impl Question {
    fn wants(&self, message: &v2::Message) -> bool {
        let Some(system) = &message.system_properties else {
            return !matches!(self, Self::Id(_) | Self::Key(_));
        };
        match self {
            Self::Id(id) => system.message_id == *id,
            Self::Key(key) => system.keys.contains(key),
            Self::Offset(..) | Self::Any(_) => true,
        }
    }
}
