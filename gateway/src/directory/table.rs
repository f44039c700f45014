//! Merges what several sources say about one cluster. No clock, no network.
//!
//! Sources are the NameServers and, on a broker, the node's own group. A claim that names a leader
//! beats one that names none, and among those the higher Raft term wins; so a NameServer that was
//! cut off cannot bring back a deposed leader.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{BrokerName, Topic};

use super::{GroupView, MemberView, TopicRoute};

/// How long the last word of a source that started anew still counts. A restarted NameServer knows
/// nothing until the brokers' next heartbeat.
pub(super) const WARM_UP: Duration = Duration::from_secs(15);

/// Says which of two claims about a group's leader counts. Greater wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    names_leader: bool,
    term: u64,
}

impl Claim {
    pub fn of(group: &GroupView) -> Self {
        Self { names_leader: group.leader_id.is_some(), term: group.term }
    }
}

/// Whether `new` takes the place of `old`. Equal claims do: they are the same fact, told later.
pub fn better_claim(old: &GroupView, new: &GroupView) -> bool {
    Claim::of(new) >= Claim::of(old)
}

/// Everything known at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    pub groups: BTreeMap<BrokerName, Arc<GroupView>>,
    /// Shared, because it is large and changes seldom.
    pub topics: Arc<HashMap<Topic, Arc<TopicRoute>>>,
}

/// What one source said last.
#[derive(Debug, Default)]
struct Source {
    boot_id: u64,
    said: Word,
    /// What it said before it started anew, and until when that counts.
    before: Option<(Instant, Word)>,
}

#[derive(Debug, Default)]
struct Word {
    groups: Vec<Arc<GroupView>>,
    topics: Vec<Arc<TopicRoute>>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    sources: BTreeMap<String, Source>,
    /// Of all sources, as long as none of them said anything else.
    topics: Option<Arc<HashMap<Topic, Arc<TopicRoute>>>>,
}

impl Table {
    /// Takes the place of all that this source said before, unless the source started anew. `None`
    /// for topics that are as before.
    pub(super) fn put(
        &mut self,
        source: &str,
        boot_id: u64,
        groups: Vec<GroupView>,
        topics: Option<Vec<TopicRoute>>,
        now: Instant,
    ) {
        let entry = self.sources.entry(source.to_owned()).or_default();
        if entry.boot_id != 0 && entry.boot_id != boot_id {
            entry.before = Some((now + WARM_UP, std::mem::take(&mut entry.said)));
        }
        entry.boot_id = boot_id;
        entry.said.groups = groups.into_iter().map(Arc::new).collect();
        if let Some(topics) = topics {
            entry.said.topics = topics.into_iter().map(Arc::new).collect();
            self.topics = None;
        }
    }

    pub(super) fn put_groups(&mut self, source: &str, groups: Vec<GroupView>) {
        let entry = self.sources.entry(source.to_owned()).or_default();
        entry.said.groups = groups.into_iter().map(Arc::new).collect();
    }

    pub(super) fn put_topics(&mut self, source: &str, topics: Vec<TopicRoute>) {
        let entry = self.sources.entry(source.to_owned()).or_default();
        entry.said.topics = topics.into_iter().map(Arc::new).collect();
        self.topics = None;
    }

    /// The merged view, and when it must be asked again although nobody said anything new.
    pub(super) fn view(&mut self, now: Instant) -> (View, Option<Instant>) {
        let mut groups = BTreeMap::new();
        let mut again: Option<Instant> = None;
        for source in self.sources.values_mut() {
            if source.before.as_ref().is_some_and(|(until, _)| *until <= now) {
                source.before = None;
                self.topics = None;
            }
            if let Some((until, word)) = &source.before {
                again = Some(again.map_or(*until, |at| at.min(*until)));
                merge_groups(&mut groups, &word.groups);
            }
            merge_groups(&mut groups, &source.said.groups);
        }
        (View { groups, topics: self.topics() }, again)
    }

    fn topics(&mut self) -> Arc<HashMap<Topic, Arc<TopicRoute>>> {
        let merged = self.topics.get_or_insert_with(|| {
            let before = self.sources.values().filter_map(|source| source.before.as_ref());
            let before = before.flat_map(|(_, word)| &word.topics);
            let said = self.sources.values().flat_map(|source| &source.said.topics);
            Arc::new(newest(before.chain(said)))
        });
        Arc::clone(merged)
    }
}

/// Each topic once, in its highest version; of equals the later one. Topics for dead letters come
/// into being in each broker group by itself, so they are wherever any of their versions says.
pub fn newest<'a>(
    routes: impl IntoIterator<Item = &'a Arc<TopicRoute>>,
) -> HashMap<Topic, Arc<TopicRoute>> {
    let mut newest: HashMap<Topic, Arc<TopicRoute>> = HashMap::new();
    for route in routes {
        let Some(known) = newest.get_mut(&route.topic) else {
            newest.insert(route.topic.clone(), Arc::clone(route));
            continue;
        };
        let (newer, older) =
            if known.version <= route.version { (route, &*known) } else { (&*known, route) };
        *known = match route.topic.is_dead_letters() {
            true => together(newer, older),
            false => Arc::clone(newer),
        };
    }
    newest
}

/// The newer one, also in the broker groups that only the older one names.
fn together(newer: &Arc<TopicRoute>, older: &TopicRoute) -> Arc<TopicRoute> {
    let names = |name: &BrokerName| newer.placement.iter().any(|(known, _)| known == name);
    let more: Vec<_> = older.placement.iter().filter(|(name, _)| !names(name)).cloned().collect();
    if more.is_empty() {
        return Arc::clone(newer);
    }
    let mut route = TopicRoute::clone(newer);
    route.placement.extend(more);
    route.placement.sort();
    Arc::new(route)
}

fn merge_groups(merged: &mut BTreeMap<BrokerName, Arc<GroupView>>, said: &[Arc<GroupView>]) {
    for group in said {
        match merged.get_mut(&group.broker_name) {
            None => {
                merged.insert(group.broker_name.clone(), Arc::clone(group));
            }
            Some(known) => *known = Arc::new(combine(known, group)),
        }
    }
}

/// The better claim, with what the other one knows about members added.
fn combine(old: &GroupView, new: &GroupView) -> GroupView {
    let (better, other) = if better_claim(old, new) { (new, old) } else { (old, new) };
    let mut merged = better.clone();
    if better.group_id != other.group_id {
        return merged;
    }
    for member in &other.members {
        match merged.members.iter_mut().find(|known| known.node_id == member.node_id) {
            Some(known) => complete(known, member),
            None => merged.members.push(member.clone()),
        }
    }
    merged.members.sort_by_key(|member| member.node_id);
    if merged.cluster.is_empty() {
        merged.cluster.clone_from(&other.cluster);
    }
    if merged.leader.is_none() {
        merged.leader = merged.leader_id.and_then(|id| {
            let leader = merged.members.iter().find(|member| member.node_id == id)?;
            (!leader.client_address.is_empty()).then(|| leader.client_address.clone())
        });
    }
    merged
}

fn complete(known: &mut MemberView, other: &MemberView) {
    known.alive |= other.alive;
    if known.client_address.is_empty() {
        known.client_address.clone_from(&other.client_address);
    }
    if known.raft_address.is_empty() {
        known.raft_address.clone_from(&other.raft_address);
    }
}

#[cfg(test)]
mod tests {
    use proto::v2::{MessageType, Permission};

    use super::*;

    fn group(term: u64, leader: Option<u64>) -> GroupView {
        let members = [1, 2, 3].map(|node_id| MemberView {
            node_id,
            raft_address: String::new(),
            client_address: format!("127.0.0.1:808{node_id}"),
            voter: true,
            alive: true,
        });
        GroupView {
            cluster: "DefaultCluster".into(),
            broker_name: "broker-a".parse().expect("valid"),
            group_id: "g".into(),
            term,
            leader_id: leader,
            leader: leader.map(|id| format!("127.0.0.1:808{id}")),
            members: members.to_vec(),
        }
    }

    fn topic(version: u64, queues: u32) -> TopicRoute {
        TopicRoute {
            topic: "orders".parse().expect("valid"),
            permission: Permission::ReadWrite,
            accepts: vec![MessageType::Normal],
            placement: vec![("broker-a".parse().expect("valid"), queues)],
            version,
        }
    }

    fn leader(table: &mut Table, now: Instant) -> Option<u64> {
        table.view(now).0.groups.values().next().and_then(|group| group.leader_id)
    }

    #[test]
    fn the_highest_term_wins_whoever_says_it() {
        let now = Instant::now();
        let mut table = Table::default();
        table.put("n1", 1, vec![group(5, Some(2))], Some(vec![]), now);
        table.put("n2", 1, vec![group(4, Some(1))], Some(vec![]), now);
        assert_eq!(leader(&mut table, now), Some(2));
        table.put("n2", 1, vec![group(6, Some(3))], Some(vec![]), now);
        assert_eq!(leader(&mut table, now), Some(3));
    }

    #[test]
    fn a_claim_without_a_leader_does_not_hide_one() {
        let now = Instant::now();
        let mut table = Table::default();
        table.put("n1", 1, vec![group(5, Some(2))], Some(vec![]), now);
        table.put("own", 1, vec![group(9, None)], Some(vec![]), now);
        assert_eq!(leader(&mut table, now), Some(2));
    }

    #[test]
    fn a_restarted_source_keeps_its_last_word_until_it_is_warm() {
        let now = Instant::now();
        let mut table = Table::default();
        table.put("n1", 1, vec![group(5, Some(2))], Some(vec![topic(1, 8)]), now);
        table.put("n1", 2, vec![], Some(vec![]), now);
        let (view, again) = table.view(now);
        assert_eq!((view.groups.len(), view.topics.len()), (1, 1));
        assert_eq!(again, Some(now + WARM_UP));
        let (view, again) = table.view(now + WARM_UP);
        assert_eq!((view.groups.len(), view.topics.len(), again), (0, 0, None));
    }

    #[test]
    fn the_higher_version_of_a_topic_wins() {
        let now = Instant::now();
        let mut table = Table::default();
        table.put("n1", 1, vec![], Some(vec![topic(2, 16)]), now);
        table.put("n2", 1, vec![], Some(vec![topic(1, 8)]), now);
        let (view, _) = table.view(now);
        assert_eq!(view.topics.values().next().expect("one").placement[0].1, 16);
    }

    #[test]
    fn dead_letters_are_wherever_any_group_says() {
        let route = |name: &str, version, groups: &[&str]| {
            let placement = groups.iter().map(|name| (name.parse().expect("valid"), 1)).collect();
            let base = topic(version, 1);
            Arc::new(TopicRoute { topic: name.parse().expect("valid"), placement, ..base })
        };
        let placed = |name: &str| -> Vec<String> {
            let all = [
                route(name, 2, &["broker-b", "broker-c"]),
                route(name, 3, &["broker-b", "broker-d"]),
                route(name, 2, &["broker-a", "broker-b"]),
            ];
            let merged = newest(&all).remove(&all[0].topic).expect("it is there");
            assert_eq!(merged.version, 3);
            merged.placement.iter().map(|(name, _)| name.as_str()[7..].to_owned()).collect()
        };
        assert_eq!(placed("%DLQ%audit"), ["a", "b", "c", "d"]);
        assert_eq!(placed("orders"), ["b", "d"]);
    }

    #[test]
    fn topics_that_are_as_before_stay() {
        let now = Instant::now();
        let mut table = Table::default();
        table.put("n1", 1, vec![group(1, Some(1))], Some(vec![topic(2, 16)]), now);
        let (before, _) = table.view(now);
        table.put("n1", 1, vec![group(2, Some(2))], None, now);
        let (after, _) = table.view(now);
        assert!(Arc::ptr_eq(&before.topics, &after.topics), "not even copied");
        assert_ne!(before.groups, after.groups);
    }

    #[test]
    fn a_dropped_topic_is_gone_at_once_when_the_source_did_not_restart() {
        let now = Instant::now();
        let mut table = Table::default();
        table.put("n1", 1, vec![], Some(vec![topic(2, 16)]), now);
        table.put("n1", 1, vec![], Some(vec![]), now);
        assert!(table.view(now).0.topics.is_empty());
    }
}
