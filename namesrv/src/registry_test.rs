use proto::{
    registry::{self, Member, TopicQueues},
    v2::{MessageType, Permission},
};

use super::*;

/// A report of a node of broker-a in group g.
fn report(node_id: u64, term: u64, leader_id: u64) -> RegisterRequest {
    let role = if node_id == leader_id { Role::Leader } else { Role::Follower };
    let members = [1, 2, 3].map(|node_id| Member {
        node_id,
        raft_address: format!("r{node_id}"),
        client_address: format!("c{node_id}"),
        voter: true,
    });
    RegisterRequest {
        cluster: "DefaultCluster".into(),
        broker_name: "broker-a".into(),
        group_id: "g".into(),
        node_id,
        client_address: format!("c{node_id}"),
        role: role.into(),
        term,
        leader_id,
        members: members.to_vec(),
        boot_id: 1,
        ..Default::default()
    }
}

fn with_topics(mut report: RegisterRequest, version: u64, topics: &[&str]) -> RegisterRequest {
    report.topics_version = version;
    report.has_topics = true;
    report.topics = topics
        .iter()
        .map(|name| registry::TopicRoute {
            topic: (*name).into(),
            permission: Permission::ReadWrite.into(),
            accepts: vec![MessageType::Normal.into()],
            placement: vec![TopicQueues { broker_name: "broker-a".into(), queues: 8 }],
            version,
        })
        .collect();
    report
}

fn taken(registry: &mut Registry, now: Instant, report: &RegisterRequest) -> bool {
    let response = registry.register(now, report);
    assert_eq!(response.refused, "");
    response.topics_wanted
}

fn refused(registry: &mut Registry, now: Instant, report: &RegisterRequest) -> String {
    let response = registry.register(now, report);
    assert_ne!(response.refused, "", "the report should be refused");
    response.refused
}

#[test]
fn a_broker_that_speaks_only_newer_versions_is_told_so() {
    let (mut registry, now) = (Registry::default(), Instant::now());
    let newer = RegisterRequest { wire_oldest: 2, wire_newest: 3, ..report(1, 1, 1) };
    let text = refused(&mut registry, now, &newer);
    assert!(text.contains("2 to 3") && text.contains("this release 1"), "{text}");
    let both = RegisterRequest { wire_oldest: 1, wire_newest: 3, ..report(1, 1, 1) };
    taken(&mut registry, now, &both);
}

fn group(registry: &mut Registry) -> GroupView {
    let view = registry.view();
    let group = view.groups.values().next().expect("a group is known");
    GroupView::clone(group)
}

fn topics(registry: &mut Registry) -> Vec<String> {
    let mut names: Vec<_> = registry.view().topics.keys().map(ToString::to_string).collect();
    names.sort();
    names
}

#[test]
fn the_highest_term_names_the_leader() {
    let now = Instant::now();
    let mut registry = Registry::default();
    taken(&mut registry, now, &report(1, 4, 1));
    taken(&mut registry, now, &report(2, 5, 2));
    // The old leader does not know yet.
    taken(&mut registry, now, &report(1, 4, 1));
    let group = group(&mut registry);
    assert_eq!((group.term, group.leader_id, group.leader.as_deref()), (5, Some(2), Some("c2")));
}

#[test]
fn followers_know_the_leader_before_it_has_registered() {
    let now = Instant::now();
    let mut registry = Registry::default();
    taken(&mut registry, now, &report(3, 5, 2));
    assert_eq!(group(&mut registry).leader.as_deref(), Some("c2"));
}

#[test]
fn an_election_does_not_hide_the_leader() {
    let now = Instant::now();
    let mut registry = Registry::default();
    taken(&mut registry, now, &report(1, 4, 1));
    taken(&mut registry, now, &report(2, 9, 0));
    assert_eq!(group(&mut registry).leader_id, Some(1));
}

#[test]
fn a_silent_node_is_dead_after_15_seconds() {
    let start = Instant::now();
    let mut registry = Registry::default();
    taken(&mut registry, start, &report(1, 4, 1));
    let later = start + Duration::from_secs(10);
    taken(&mut registry, later, &report(2, 4, 1));
    assert_eq!(registry.expire(start + DEAD_AFTER - Duration::from_millis(1)), 0);
    assert_eq!(registry.expire(start + DEAD_AFTER), 1);
    let alive: Vec<_> =
        group(&mut registry).members.iter().filter(|m| m.alive).map(|m| m.node_id).collect();
    assert_eq!(alive, [2]);
    assert_eq!(registry.expire(later + DEAD_AFTER), 1);
    assert!(registry.view().groups.is_empty(), "a group without topics is gone with its last node");
    assert_eq!(registry.nodes(), 0);
}

#[test]
fn a_group_that_is_down_stays_known_with_its_topics_until_it_comes_back() {
    let start = Instant::now();
    let mut registry = Registry::default();
    taken(&mut registry, start, &with_topics(report(1, 4, 1), 1, &["orders"]));
    assert_eq!(registry.expire(start + DEAD_AFTER), 1);
    let down = group(&mut registry);
    assert_eq!((down.term, down.leader_id, down.leader), (4, None, None));
    assert!(down.members.len() == 3 && down.members.iter().all(|member| !member.alive));
    assert_eq!((topics(&mut registry), registry.nodes()), (vec!["orders".into()], 0));
    let mut again = report(2, 5, 2);
    again.topics_version = 1;
    assert!(!taken(&mut registry, start + DEAD_AFTER, &again), "its topics are known");
    assert_eq!(group(&mut registry).leader_id, Some(2));
}

#[test]
fn a_group_that_left_with_its_topics_drained_is_gone() {
    let now = Instant::now();
    let mut registry = Registry::default();
    taken(&mut registry, now, &with_topics(report(1, 4, 1), 1, &["orders"]));
    taken(&mut registry, now, &with_topics(report(1, 4, 1), 2, &[]));
    registry.expire(now + DEAD_AFTER);
    assert!(registry.view().groups.is_empty());
}

#[test]
fn another_group_under_the_name_of_a_dead_one_begins_without_its_topics() {
    let now = Instant::now();
    let mut registry = Registry::default();
    taken(&mut registry, now, &with_topics(report(1, 4, 1), 1, &["orders"]));
    registry.expire(now + DEAD_AFTER);
    let mut other = report(1, 1, 1);
    other.group_id = "other".into();
    assert!(taken(&mut registry, now + DEAD_AFTER, &other), "it is asked for its own");
    assert!(topics(&mut registry).is_empty());
    assert_eq!(group(&mut registry).group_id, "other");
}

#[test]
fn a_node_that_leaves_is_out_at_once_and_its_late_reports_are_refused() {
    let now = Instant::now();
    let mut registry = Registry::default();
    taken(&mut registry, now, &report(1, 4, 1));
    taken(&mut registry, now, &report(2, 4, 1));
    let goodbye = UnregisterRequest {
        cluster: "DefaultCluster".into(),
        broker_name: "broker-a".into(),
        node_id: 1,
        boot_id: 1,
    };
    registry.unregister(&goodbye);
    let left = group(&mut registry);
    assert_eq!(left.leader_id, None, "the others' word about it is old");
    assert!(left.members.iter().all(|member| member.node_id != 1 || !member.alive));
    assert!(refused(&mut registry, now, &report(1, 4, 1)).contains("good-bye"));
    let mut again = report(1, 6, 1);
    again.boot_id = 2;
    taken(&mut registry, now, &again);
    assert_eq!(group(&mut registry).leader_id, Some(1));
}

#[test]
fn a_good_bye_of_an_earlier_start_changes_nothing() {
    let now = Instant::now();
    let mut registry = Registry::default();
    taken(&mut registry, now, &report(1, 4, 1));
    let old = UnregisterRequest {
        broker_name: "broker-a".into(),
        node_id: 1,
        boot_id: 99,
        ..Default::default()
    };
    registry.unregister(&old);
    assert_eq!(registry.nodes(), 1);
}

#[test]
fn a_second_group_under_a_known_name_is_refused_while_the_first_lives() {
    let now = Instant::now();
    let mut registry = Registry::default();
    taken(&mut registry, now, &report(1, 4, 1));
    let mut other = report(1, 40, 1);
    other.group_id = "other".into();
    let text = refused(&mut registry, now, &other);
    assert!(text.contains("broker-a") && text.contains("other"), "{text}");
    assert_eq!(group(&mut registry).group_id, "g");
    registry.expire(now + DEAD_AFTER);
    taken(&mut registry, now + DEAD_AFTER, &other);
}

#[test]
fn reports_that_overtook_each_other_are_refused() {
    let now = Instant::now();
    let mut registry = Registry::default();
    taken(&mut registry, now, &report(1, 5, 1));
    assert!(refused(&mut registry, now, &report(1, 4, 1)).contains("term"));
    let mut restarted = report(1, 4, 0);
    restarted.boot_id = 2;
    taken(&mut registry, now, &restarted);
}

#[test]
fn reports_without_a_name_a_group_or_a_node_are_refused() {
    let now = Instant::now();
    let mut registry = Registry::default();
    let mut nameless = report(1, 1, 1);
    nameless.broker_name = "a/b".into();
    refused(&mut registry, now, &nameless);
    let mut groupless = report(1, 1, 1);
    groupless.group_id.clear();
    refused(&mut registry, now, &groupless);
    refused(&mut registry, now, &report(0, 1, 1));
    assert_eq!(registry.nodes(), 0);
}

#[test]
fn topics_are_those_of_the_leader_and_asked_for_when_they_differ() {
    let now = Instant::now();
    let mut registry = Registry::default();
    taken(&mut registry, now, &with_topics(report(2, 4, 1), 1, &["from-a-follower"]));
    assert!(topics(&mut registry).is_empty());
    let mut leader = report(1, 4, 1);
    leader.topics_version = 1;
    assert!(taken(&mut registry, now, &leader), "they are not known yet");
    assert!(!taken(&mut registry, now, &with_topics(leader.clone(), 1, &["orders"])));
    assert_eq!(topics(&mut registry), ["orders"]);
    assert!(!taken(&mut registry, now, &leader), "this version is known");
    leader.topics_version = 2;
    assert!(taken(&mut registry, now, &leader));
    assert_eq!(topics(&mut registry), ["orders"], "the old ones count until the new ones are here");
}

#[test]
fn a_deposed_leaders_topics_are_ignored() {
    let now = Instant::now();
    let mut registry = Registry::default();
    taken(&mut registry, now, &with_topics(report(2, 5, 2), 7, &["new"]));
    taken(&mut registry, now, &with_topics(report(1, 4, 1), 6, &["old"]));
    assert_eq!(topics(&mut registry), ["new"]);
}

#[test]
fn a_new_leader_with_the_same_topics_need_not_send_them() {
    let now = Instant::now();
    let mut registry = Registry::default();
    taken(&mut registry, now, &with_topics(report(1, 4, 1), 7, &["orders"]));
    let mut next = report(2, 5, 2);
    next.topics_version = 7;
    assert!(!taken(&mut registry, now, &next));
    taken(&mut registry, now, &with_topics(report(1, 4, 1), 6, &["old"]));
    assert_eq!(topics(&mut registry), ["orders"]);
}
