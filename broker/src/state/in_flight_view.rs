//! What administrators ask about deliveries that are not acknowledged.

use proto::{ClientId, ConsumerGroup, QueueId, QueueOffset, Topic};

use super::State;
use crate::kv::in_flight::Delivery;

/// A delivery, and where and with whom the message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlightAt {
    pub topic: Topic,
    pub queue: QueueId,
    pub offset: QueueOffset,
    pub client: ClientId,
    /// With attempt 0 it only waits for its message group.
    pub delivery: Delivery,
}

impl State {
    /// Deliveries of a group, by topic, queue and offset, at most `most`; of one topic if one is
    /// named. `None` when there is no such group.
    #[must_use]
    pub fn in_flight(
        &self,
        group: &ConsumerGroup,
        topic: Option<&Topic>,
        most: usize,
    ) -> Option<Vec<InFlightAt>> {
        let group = self.groups.id(group)?;
        let mut topics: Vec<_> = self
            .subscriptions
            .iter()
            .filter(|((of, _), _)| *of == group)
            .map(|((_, topic), subscription)| (self.topics.get(topic).name(), subscription))
            .filter(|(name, _)| topic.is_none_or(|wanted| wanted == *name))
            .collect();
        topics.sort_by_key(|(name, _)| *name);
        let all = topics.into_iter().flat_map(|(name, subscription)| {
            subscription.in_flight.records().map(move |((queue, offset), record)| InFlightAt {
                topic: name.clone(),
                queue,
                offset,
                client: self.subscriptions.client(record.client).clone(),
                delivery: record.delivery,
            })
        });
        Some(all.take(most).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{Script, group, handle, topic};

    #[test]
    fn what_is_held_is_listed_until_it_is_acknowledged() {
        let mut script = Script::with_messages(9);
        let granted = script.at(100).pops_range(0..3);
        let offsets = |script: &Script, most| {
            let found = script.state.in_flight(&group(), Some(&topic()), most).unwrap();
            found.iter().map(|at| (at.offset.0, at.delivery.attempt)).collect::<Vec<_>>()
        };
        assert_eq!(offsets(&script, 9), [(0, 1), (1, 1), (2, 1)]);
        assert_eq!(offsets(&script, 2), [(0, 1), (1, 1)]);
        script.acks(&[handle(&granted[1])]);
        assert_eq!(offsets(&script, 9), [(0, 1), (2, 1)]);
        assert_eq!(script.state.in_flight(&"other".parse().unwrap(), None, 9), None);
        assert_eq!(script.state.in_flight(&group(), Some(&"no".parse().unwrap()), 9), Some(vec![]));
    }
}
