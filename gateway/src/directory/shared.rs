//! A view that one task publishes and everybody reads.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, RwLock},
};

use proto::{BrokerName, Topic};
use tokio::sync::watch;

use super::{Directory, GroupView, TopicRoute, View};

/// Holds the newest [`View`]. Readers never wait for a publisher.
#[derive(Debug)]
pub struct Shared {
    view: RwLock<Arc<View>>,
    /// Every group that hosts a topic of the view.
    hosts: RwLock<Arc<BTreeSet<BrokerName>>>,
    changes: watch::Sender<u64>,
    /// Leaders that refusing nodes named; each is dropped once a claim names one.
    hints: Mutex<HashMap<BrokerName, String>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            view: RwLock::default(),
            hosts: RwLock::default(),
            changes: watch::Sender::new(0),
            hints: Mutex::default(),
        }
    }
}

impl Shared {
    /// Replaces the view and wakes those that wait for a change, if it is one.
    pub fn publish(&self, view: View) {
        {
            let mut current = self.view.write().expect("no holder panics");
            if **current == view {
                return;
            }
            self.drop_answered_hints(&view);
            if !Arc::ptr_eq(&current.topics, &view.topics) {
                *self.hosts.write().expect("no holder panics") = Arc::new(hosts(&view));
            }
            *current = Arc::new(view);
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// The newest view.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().expect("no holder panics"))
    }

    fn drop_answered_hints(&self, view: &View) {
        let mut hints = self.hints.lock().expect("no holder panics");
        hints.retain(|name, _| view.groups.get(name).is_some_and(|group| group.leader.is_none()));
    }
}

impl Directory for Shared {
    fn topic(&self, topic: &Topic) -> Option<Arc<TopicRoute>> {
        self.view.read().expect("no holder panics").topics.get(topic).cloned()
    }

    fn group(&self, name: &BrokerName) -> Option<Arc<GroupView>> {
        let group = self.view.read().expect("no holder panics").groups.get(name).cloned()?;
        if group.leader.is_some() {
            return Some(group);
        }
        let hint = self.hints.lock().expect("no holder panics").get(name).cloned();
        match hint {
            None => Some(group),
            Some(address) => {
                let mut hinted = (*group).clone();
                hinted.leader = Some(address);
                Some(Arc::new(hinted))
            }
        }
    }

    fn groups(&self) -> Vec<BrokerName> {
        let view = self.view();
        let mut names: Vec<_> = view.groups.keys().cloned().collect();
        let hosts = Arc::clone(&self.hosts.read().expect("no holder panics"));
        let unheard = hosts.iter().filter(|name| !view.groups.contains_key(*name));
        names.extend(unheard.cloned());
        names.sort();
        names
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn report_leader(&self, name: &BrokerName, client_address: &str) {
        let leaderless = self
            .view
            .read()
            .expect("no holder panics")
            .groups
            .get(name)
            .is_some_and(|group| group.leader.is_none());
        if !leaderless {
            return;
        }
        let old = self
            .hints
            .lock()
            .expect("no holder panics")
            .insert(name.clone(), client_address.to_owned());
        if old.as_deref() != Some(client_address) {
            self.changes.send_modify(|count| *count += 1);
        }
    }
}

fn hosts(view: &View) -> BTreeSet<BrokerName> {
    let mut hosts = BTreeSet::new();
    for (name, _) in view.topics.values().flat_map(|topic| &topic.placement) {
        if !hosts.contains(name) {
            hosts.insert(name.clone());
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use proto::v2::{MessageType, Permission};

    use super::*;

    fn view(leader: Option<&str>) -> View {
        let name: BrokerName = "broker-a".parse().expect("valid");
        let group = GroupView {
            cluster: String::new(),
            broker_name: name.clone(),
            group_id: String::new(),
            term: 1,
            leader_id: leader.map(|_| 1),
            leader: leader.map(str::to_owned),
            members: Vec::new(),
        };
        View { groups: [(name, Arc::new(group))].into(), ..View::default() }
    }

    fn leader(shared: &Shared) -> Option<String> {
        shared.group(&"broker-a".parse().expect("valid")).expect("known").leader.clone()
    }

    #[test]
    fn the_same_view_again_is_no_change() {
        let shared = Shared::default();
        shared.publish(view(None));
        let changed = shared.changed();
        shared.publish(view(None));
        assert!(!changed.has_changed().expect("open"));
        shared.publish(view(Some("c1")));
        assert!(changed.has_changed().expect("open"));
    }

    #[test]
    fn a_group_that_hosts_a_topic_exists_although_nobody_heard_of_it() {
        let shared = Shared::default();
        let names = |list: &[&str]| -> Vec<BrokerName> {
            list.iter().map(|name| name.parse().expect("valid")).collect()
        };
        let route = TopicRoute {
            topic: "orders".parse().expect("valid"),
            permission: Permission::ReadWrite,
            accepts: vec![MessageType::Normal],
            placement: vec![
                (names(&["broker-0"]).remove(0), 1),
                (names(&["broker-b"]).remove(0), 1),
            ],
            version: 1,
        };
        let topics = Arc::new([(route.topic.clone(), Arc::new(route))].into());
        shared.publish(View { topics, ..view(None) });
        assert_eq!(shared.groups(), names(&["broker-0", "broker-a", "broker-b"]));
        shared.publish(view(None));
        assert_eq!(shared.groups(), names(&["broker-a"]));
    }

    #[test]
    fn a_hint_counts_only_while_no_leader_is_known() {
        let shared = Shared::default();
        let name = "broker-a".parse().expect("valid");
        shared.publish(view(None));
        shared.report_leader(&name, "c2");
        assert_eq!(leader(&shared).as_deref(), Some("c2"));
        shared.publish(view(Some("c1")));
        shared.report_leader(&name, "c3");
        assert_eq!(leader(&shared).as_deref(), Some("c1"));
        shared.publish(view(None));
        assert_eq!(leader(&shared), None, "an old hint does not come back");
    }
}
