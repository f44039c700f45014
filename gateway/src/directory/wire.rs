//! Directory entries as the registry protocol carries them.

use proto::{BrokerName, Topic, registry, v2};

use super::{GroupView, MemberView, TopicRoute};

/// An entry that the registry protocol allows and this system does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("topic name {0:?} is not valid")]
    Topic(String),
    #[error("broker name {0:?} is not valid")]
    Broker(String),
    #[error("topic {topic} has permission {permission}, which is none of the known ones")]
    Permission { topic: Topic, permission: i32 },
    #[error("topic {0} accepts no message type that is known")]
    Accepts(Topic),
    #[error("topic {0} has no queues")]
    NoQueues(Topic),
}

impl TopicRoute {
    /// Checks an entry as received.
    pub fn from_wire(wire: &registry::TopicRoute) -> Result<Self, WireError> {
        let topic: Topic = wire.topic.parse().map_err(|_| WireError::Topic(wire.topic.clone()))?;
        let placement = wire.placement.iter().map(|p| (p.broker_name.as_str(), p.queues));
        Self::checked(topic, wire.permission, &wire.accepts, placement, wire.version)
    }

    /// Checks the parts of an entry: see the fields for what must hold.
    pub fn checked<'a>(
        topic: Topic,
        permission: i32,
        accepts: &[i32],
        placement: impl Iterator<Item = (&'a str, u32)>,
        version: u64,
    ) -> Result<Self, WireError> {
        let permission = match v2::Permission::try_from(permission) {
            Ok(v2::Permission::Unspecified) | Err(_) => {
                return Err(WireError::Permission { topic, permission });
            }
            Ok(known) => known,
        };
        let accepts: Vec<_> = accepts
            .iter()
            .filter_map(|kind| v2::MessageType::try_from(*kind).ok())
            .filter(|kind| *kind != v2::MessageType::Unspecified)
            .collect();
        if accepts.is_empty() {
            return Err(WireError::Accepts(topic));
        }
        let mut placed = Vec::new();
        for (name, queues) in placement {
            let name: BrokerName = name.parse().map_err(|_| WireError::Broker(name.to_owned()))?;
            placed.push((name, queues));
        }
        if placed.iter().all(|(_, queues)| *queues == 0) {
            return Err(WireError::NoQueues(topic));
        }
        placed.sort();
        placed.dedup_by(|a, b| a.0 == b.0);
        Ok(Self { topic, permission, accepts, placement: placed, version })
    }

    /// The entry as it travels.
    pub fn to_wire(&self) -> registry::TopicRoute {
        registry::TopicRoute {
            topic: self.topic.to_string(),
            permission: self.permission.into(),
            accepts: self.accepts.iter().map(|kind| i32::from(*kind)).collect(),
            placement: self
                .placement
                .iter()
                .map(|(name, queues)| registry::TopicQueues {
                    broker_name: name.to_string(),
                    queues: *queues,
                })
                .collect(),
            version: self.version,
        }
    }
}

impl GroupView {
    /// Checks an entry as received.
    pub fn from_wire(wire: &registry::GroupRoute) -> Result<Self, WireError> {
        let broker_name =
            wire.broker_name.parse().map_err(|_| WireError::Broker(wire.broker_name.clone()))?;
        let is_alive = |id| wire.alive.iter().any(|member| member.node_id == id);
        let mut members: Vec<_> = wire
            .members
            .iter()
            .chain(
                wire.alive.iter().filter(|a| wire.members.iter().all(|m| m.node_id != a.node_id)),
            )
            .map(|member| MemberView {
                node_id: member.node_id,
                raft_address: member.raft_address.clone(),
                client_address: member.client_address.clone(),
                voter: member.voter,
                alive: is_alive(member.node_id),
            })
            .collect();
        members.sort_by_key(|member| member.node_id);
        let leader_id = (wire.leader_id != 0).then_some(wire.leader_id);
        Ok(Self {
            cluster: wire.cluster.clone(),
            broker_name,
            group_id: wire.group_id.clone(),
            term: wire.term,
            leader_id,
            leader: leader_id.and_then(|id| address_of(&members, id)),
            members,
        })
    }

    /// The entry as it travels.
    pub fn to_wire(&self) -> registry::GroupRoute {
        let wire = |member: &MemberView| registry::Member {
            node_id: member.node_id,
            raft_address: member.raft_address.clone(),
            client_address: member.client_address.clone(),
            voter: member.voter,
        };
        registry::GroupRoute {
            cluster: self.cluster.clone(),
            broker_name: self.broker_name.to_string(),
            group_id: self.group_id.clone(),
            term: self.term,
            leader_id: self.leader_id.unwrap_or(0),
            alive: self.members.iter().filter(|member| member.alive).map(wire).collect(),
            members: self.members.iter().map(wire).collect(),
        }
    }
}

/// Client address of a member, where it is known.
fn address_of(members: &[MemberView], node_id: u64) -> Option<String> {
    let member = members.iter().find(|member| member.node_id == node_id)?;
    (!member.client_address.is_empty()).then(|| member.client_address.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> registry::TopicRoute {
        registry::TopicRoute {
            topic: "orders".into(),
            permission: v2::Permission::ReadWrite.into(),
            accepts: vec![v2::MessageType::Normal.into()],
            placement: vec![
                registry::TopicQueues { broker_name: "broker-b".into(), queues: 4 },
                registry::TopicQueues { broker_name: "broker-a".into(), queues: 8 },
            ],
            version: 7,
        }
    }

    #[test]
    fn a_topic_is_sorted_by_broker_name_and_survives_the_wire() {
        let route = TopicRoute::from_wire(&topic()).expect("valid");
        assert_eq!(route.placement[0].0.to_string(), "broker-a");
        assert_eq!(TopicRoute::from_wire(&route.to_wire()), Ok(route));
    }

    #[test]
    fn a_topic_without_permission_types_or_queues_is_refused() {
        let mut wire = topic();
        wire.permission = 0;
        assert!(matches!(TopicRoute::from_wire(&wire), Err(WireError::Permission { .. })));
        let mut wire = topic();
        wire.accepts = vec![0, 99];
        assert!(matches!(TopicRoute::from_wire(&wire), Err(WireError::Accepts(_))));
        let mut wire = topic();
        wire.placement[0].queues = 0;
        let closed = TopicRoute::from_wire(&wire).expect("the other one takes messages");
        assert_eq!(closed.placement.iter().map(|(_, queues)| *queues).collect::<Vec<_>>(), [8, 0]);
        wire.placement[1].queues = 0;
        assert!(matches!(TopicRoute::from_wire(&wire), Err(WireError::NoQueues(_))));
    }

    #[test]
    fn a_group_survives_the_wire() {
        let member = |node_id, alive| MemberView {
            node_id,
            raft_address: format!("r{node_id}"),
            client_address: format!("c{node_id}"),
            voter: true,
            alive,
        };
        let group = GroupView {
            cluster: "DefaultCluster".into(),
            broker_name: "broker-a".parse().expect("valid"),
            group_id: "g".into(),
            term: 3,
            leader_id: Some(2),
            leader: Some("c2".into()),
            members: vec![member(1, false), member(2, true)],
        };
        assert_eq!(GroupView::from_wire(&group.to_wire()), Ok(group));
    }
}
