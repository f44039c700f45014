//! What clients are told about where queues are.
//!
//! Every answer obeys the strictest client: one address per broker, broker id 0, queue ids from 0,
//! no unspecified permission or type, never empty, and the same order each time.

use std::{borrow::Cow, sync::Arc};

use proto::{
    BrokerName, QueueId,
    v2::{
        Assignment, Broker, Endpoints, Language, MessageQueue, MessageType, Permission, Resource,
    },
};

use crate::{
    GroupView, RouteMode, TopicRoute,
    endpoints::{of_text, to_text},
};

/// Separates the broker group from the node id in the names that split routes give to replicas. No
/// broker name contains it.
const REPLICA_MARK: char = '~';

/// Who asks, and what they see.
pub(crate) struct Asker<'a> {
    pub(crate) mode: RouteMode,
    pub(crate) language: Language,
    /// The address that the client dialled.
    pub(crate) dialled: Endpoints,
    /// The topic as the client spelled it.
    pub(crate) topic: Resource,
    /// The directory.
    pub(crate) group: &'a dyn Fn(&BrokerName) -> Option<Arc<GroupView>>,
}

impl Asker<'_> {
    /// The answer to QueryRoute; never empty.
    pub(crate) fn queues(&self, route: &TopicRoute) -> Vec<MessageQueue> {
        match self.mode {
            RouteMode::AccessPoint => self.all_queues(route, |_| self.dialled.clone()),
            RouteMode::Split if self.splits(route) => self.split(route),
            RouteMode::Split => self.all_queues(route, |_| self.dialled.clone()),
            RouteMode::Direct => self.all_queues(route, |name| self.leader(name)),
        }
    }

    /// The answer to QueryAssignment; `None` when the topic cannot be read.
    pub(crate) fn assignments(&self, route: &TopicRoute, fifo: bool) -> Option<Vec<Assignment>> {
        if !readable(route) {
            return None;
        }
        let mut assignments = Vec::new();
        for (name, queues) in &route.placement {
            // A consumer that keeps no order gets one assignment that stands for every queue. Where the
            // topic is only read any more, one is enough for those that do as well: it leads to all
            // that there are.
            let ids = if fifo { 0..id((*queues).max(1)) } else { -1..0 };
            assignments.extend(ids.map(|id| self.assignment(route, name, id)));
        }
        Some(assignments)
    }

    /// The answer to QueryAssignment for a member that shares the queues with others; `None` when
    /// the topic cannot be read, and no assignment when there are more members than queues.
    pub(crate) fn shared(
        &self,
        route: &TopicRoute,
        share: &[(BrokerName, QueueId)],
    ) -> Option<Vec<Assignment>> {
        let assignment =
            |(name, queue): &(BrokerName, QueueId)| self.assignment(route, name, id(queue.0));
        readable(route).then(|| share.iter().map(assignment).collect())
    }

    fn assignment(&self, route: &TopicRoute, name: &BrokerName, id: i32) -> Assignment {
        let endpoints = match self.mode {
            RouteMode::AccessPoint | RouteMode::Split => self.dialled.clone(),
            RouteMode::Direct => self.leader(name),
        };
        let mut queue = self.queue(route, id, route.permission, name.as_str(), endpoints);
        queue.accept_message_types = Vec::new();
        Assignment { message_queue: Some(queue) }
    }

    fn all_queues(
        &self,
        route: &TopicRoute,
        endpoints: impl Fn(&BrokerName) -> Endpoints,
    ) -> Vec<MessageQueue> {
        let mut all = Vec::new();
        for (name, queues) in &route.placement {
            let endpoints = endpoints(name);
            all.extend((0..id(*queues)).map(|id| {
                self.queue(route, id, route.permission, name.as_str(), endpoints.clone())
            }));
            // Nothing is sent there any more, but what is there must be found.
            if *queues == 0 && readable(route) {
                all.push(self.queue(route, 0, Permission::Read, name.as_str(), endpoints));
            }
        }
        all
    }

    /// The leader's address; while there is none, the node that was asked, which waits and forwards.
    fn leader(&self, name: &BrokerName) -> Endpoints {
        (self.group)(name)
            .and_then(|group| group.leader.as_deref().and_then(of_text))
            .unwrap_or_else(|| self.dialled.clone())
    }

    /// Whether this client copes with several names for one broker group: it must move to another
    /// one when an address dies, and order within message groups must not hang on the choice.
    fn splits(&self, route: &TopicRoute) -> bool {
        let copes = match self.language {
            Language::Java | Language::DotNet | Language::Python | Language::NodeJs => true,
            Language::Rust
            | Language::Golang
            | Language::Cpp
            | Language::Unspecified
            | Language::Php
            | Language::Ruby
            | Language::ObjectiveC
            | Language::Dart
            | Language::Kotlin => false,
        };
        copes && !route.accepts.contains(&MessageType::Fifo)
    }

    /// Consumers stay at the address that they dialled; producers may also use each living replica,
    /// under a name that never moves to another address.
    fn split(&self, route: &TopicRoute) -> Vec<MessageQueue> {
        let mut all: Vec<_> = route
            .placement
            .iter()
            .map(|(name, queues)| {
                let permission = if *queues > 0 { route.permission } else { Permission::Read };
                self.queue(route, 0, permission, name.as_str(), self.dialled.clone())
            })
            .collect();
        if !matches!(route.permission, Permission::Write | Permission::ReadWrite) {
            return all;
        }
        let dialled = to_text(&self.dialled);
        let replicas: Vec<Vec<(String, Endpoints)>> = route
            .placement
            .iter()
            .filter(|(_, queues)| *queues > 0)
            .map(|(name, _)| replicas(name, (self.group)(name).as_deref(), &dialled))
            .collect();
        // Group by group in turn: a client that tries the next entry then tries another group.
        let most = replicas.iter().map(Vec::len).max().unwrap_or(0);
        for nth in 0..most {
            for (name, endpoints) in replicas.iter().filter_map(|group| group.get(nth)) {
                all.push(self.queue(route, 0, Permission::Write, name, endpoints.clone()));
            }
        }
        all
    }

    fn queue(
        &self,
        route: &TopicRoute,
        id: i32,
        permission: Permission,
        name: &str,
        endpoints: Endpoints,
    ) -> MessageQueue {
        MessageQueue {
            topic: Some(self.topic.clone()),
            id,
            permission: permission.into(),
            broker: Some(Broker { name: name.to_owned(), id: 0, endpoints: Some(endpoints) }),
            accept_message_types: route.accepts.iter().map(|kind| i32::from(*kind)).collect(),
        }
    }
}

fn readable(route: &TopicRoute) -> bool {
    matches!(route.permission, Permission::Read | Permission::ReadWrite)
}

fn id(queues: u32) -> i32 {
    i32::try_from(queues).unwrap_or(i32::MAX)
}

fn replicas(
    name: &BrokerName,
    group: Option<&GroupView>,
    dialled: &str,
) -> Vec<(String, Endpoints)> {
    let members = group.map_or(&[][..], |group| &group.members);
    members
        .iter()
        .filter(|member| member.alive && member.client_address != dialled)
        .filter_map(|member| {
            let endpoints = of_text(&member.client_address)?;
            Some((format!("{name}{REPLICA_MARK}{}", member.node_id), endpoints))
        })
        .collect()
}

/// The broker group behind a name from a route; `None` when it is no name of ours.
pub(crate) fn group_of(name: &str) -> Option<BrokerName> {
    let group: Cow<'_, str> = match name.split_once(REPLICA_MARK) {
        Some((group, _node)) => group.into(),
        None => name.into(),
    };
    group.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemberView;

    fn route(accepts: MessageType) -> TopicRoute {
        TopicRoute {
            topic: "orders".parse().expect("valid"),
            permission: Permission::ReadWrite,
            accepts: vec![accepts],
            placement: vec![
                ("broker-a".parse().expect("valid"), 2),
                ("broker-b".parse().expect("valid"), 1),
            ],
            version: 1,
        }
    }

    fn group(name: &BrokerName) -> Option<Arc<GroupView>> {
        let port = if name.as_str() == "broker-a" { 8080 } else { 8090 };
        let members = [1, 2, 3].map(|node_id| MemberView {
            node_id,
            raft_address: String::new(),
            client_address: format!("10.0.0.1:{}", port + node_id),
            voter: true,
            alive: node_id != 3,
        });
        Some(Arc::new(GroupView {
            cluster: String::new(),
            broker_name: name.clone(),
            group_id: String::new(),
            term: 1,
            leader_id: None,
            leader: (name.as_str() == "broker-a").then(|| "10.0.0.1:8081".into()),
            members: members.to_vec(),
        }))
    }

    fn asker(mode: RouteMode, language: Language) -> Asker<'static> {
        Asker {
            mode,
            language,
            dialled: of_text("mq.example:9876").expect("valid"),
            topic: Resource { resource_namespace: "ns".into(), name: "orders".into() },
            group: &group,
        }
    }

    /// `name/id permission@address`, for reading.
    fn text(queues: &[MessageQueue]) -> Vec<String> {
        queues
            .iter()
            .map(|queue| {
                let broker = queue.broker.as_ref().expect("set");
                assert_eq!(broker.id, 0);
                let endpoints = broker.endpoints.as_ref().expect("set");
                assert_eq!(endpoints.addresses.len(), 1);
                let permission = queue.permission().as_str_name();
                format!("{}/{} {permission}@{}", broker.name, queue.id, to_text(endpoints))
            })
            .collect()
    }

    #[test]
    fn the_access_point_is_the_address_of_everything() {
        for language in [Language::Java, Language::Rust] {
            let queues =
                asker(RouteMode::AccessPoint, language).queues(&route(MessageType::Normal));
            let expected = [
                "broker-a/0 READ_WRITE@mq.example:9876",
                "broker-a/1 READ_WRITE@mq.example:9876",
                "broker-b/0 READ_WRITE@mq.example:9876",
            ];
            assert_eq!(text(&queues), expected);
            assert_eq!(queues[0].topic.as_ref().expect("set").resource_namespace, "ns");
            assert_eq!(queues[0].accept_message_types, [i32::from(MessageType::Normal)]);
        }
    }

    #[test]
    fn where_a_topic_is_closed_it_is_only_read() {
        let mut route = route(MessageType::Normal);
        route.placement[1].1 = 0;
        let all = |mode| text(&asker(mode, Language::Python).queues(&route));
        let expected = [
            "broker-a/0 READ_WRITE@mq.example:9876",
            "broker-a/1 READ_WRITE@mq.example:9876",
            "broker-b/0 READ@mq.example:9876",
        ];
        assert_eq!(all(RouteMode::AccessPoint), expected);
        let split = all(RouteMode::Split);
        assert!(split.contains(&expected[2].to_owned()), "{split:?}");
        assert!(split.iter().all(|queue| !queue.starts_with("broker-b~")), "{split:?}");
        let asker = asker(RouteMode::AccessPoint, Language::Java);
        for fifo in [false, true] {
            let assignments = asker.assignments(&route, fifo).expect("readable");
            let of_b = assignments.iter().filter_map(|a| a.message_queue.as_ref()?.broker.as_ref());
            assert_eq!(of_b.filter(|broker| broker.name == "broker-b").count(), 1);
        }
    }

    #[test]
    fn direct_routes_name_the_leader_and_keep_a_leaderless_group() {
        let queues = asker(RouteMode::Direct, Language::Java).queues(&route(MessageType::Normal));
        let expected = [
            "broker-a/0 READ_WRITE@10.0.0.1:8081",
            "broker-a/1 READ_WRITE@10.0.0.1:8081",
            "broker-b/0 READ_WRITE@mq.example:9876",
        ];
        assert_eq!(text(&queues), expected);
    }

    #[test]
    fn split_routes_give_producers_the_living_replicas_in_turn() {
        let queues = asker(RouteMode::Split, Language::Python).queues(&route(MessageType::Normal));
        let expected = [
            "broker-a/0 READ_WRITE@mq.example:9876",
            "broker-b/0 READ_WRITE@mq.example:9876",
            "broker-a~1/0 WRITE@10.0.0.1:8081",
            "broker-b~1/0 WRITE@10.0.0.1:8091",
            "broker-a~2/0 WRITE@10.0.0.1:8082",
            "broker-b~2/0 WRITE@10.0.0.1:8092",
        ];
        assert_eq!(text(&queues), expected);
    }

    #[test]
    fn clients_that_hold_on_to_an_address_and_ordered_topics_are_not_split() {
        let whole = |language, kind| asker(RouteMode::Split, language).queues(&route(kind)).len();
        for language in [Language::Rust, Language::Golang, Language::Cpp, Language::Unspecified] {
            assert_eq!(whole(language, MessageType::Normal), 3);
        }
        assert_eq!(whole(Language::Python, MessageType::Fifo), 3);
    }

    #[test]
    fn names_from_routes_lead_back_to_the_group() {
        let name = |text: &str| group_of(text).map(|name| name.to_string());
        assert_eq!(name("broker-a~12").as_deref(), Some("broker-a"));
        assert_eq!(name("broker-a").as_deref(), Some("broker-a"));
        assert_eq!(name(""), None);
        assert_eq!(name("a/b"), None);
    }

    #[test]
    fn one_assignment_stands_for_a_group_and_ordered_consumers_get_every_queue() {
        let asker = asker(RouteMode::AccessPoint, Language::Java);
        let ids = |fifo| -> Vec<(String, i32)> {
            asker
                .assignments(&route(MessageType::Normal), fifo)
                .expect("readable")
                .into_iter()
                .filter_map(|assignment| assignment.message_queue)
                .map(|queue| (queue.broker.expect("set").name, queue.id))
                .collect()
        };
        assert_eq!(ids(false), [("broker-a".into(), -1), ("broker-b".into(), -1)]);
        let all = [("broker-a".into(), 0), ("broker-a".into(), 1), ("broker-b".into(), 0)];
        assert_eq!(ids(true), all);
    }

    #[test]
    fn a_topic_that_cannot_be_read_has_no_assignments() {
        let mut route = route(MessageType::Normal);
        route.permission = Permission::Write;
        assert!(asker(RouteMode::AccessPoint, Language::Java).assignments(&route, false).is_none());
    }
}
