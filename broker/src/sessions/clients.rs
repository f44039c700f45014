//! Who is connected: producers and consumers of the whole cluster, as the access points tell it.
//! Knows no clock and no network.
//!
//! An access point repeats all its clients whenever its stream to this node is new, so nothing
//! here outlives the process. A client counts as alive until it was not heard of for
//! [`SILENCE`] by any access point, or said good-bye.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use commitlog::Bug;
use proto::{ClientId, ConsumerGroup, Filter, Topic, session, v2};

/// A client that nobody heard of for so long is gone.
pub const SILENCE: Duration = Duration::from_secs(90);

/// A member of a group that pulls, that nobody heard of for so long, gets no share: three times what
/// official clients leave between two heartbeats.
const PULLS_WITHIN: Duration = Duration::from_secs(30);

/// A client as it last introduced itself.
#[derive(Debug, Clone)]
pub struct Client {
    /// Producer or a kind of consumer.
    pub kind: v2::ClientType,
    /// By its own word.
    pub language: String,
    /// By its own word.
    pub version: String,
    /// Where it connects from.
    pub address: String,
    /// Consumers only.
    pub group: Option<ConsumerGroup>,
    /// What it produces to (no filter) or is subscribed to.
    pub topics: BTreeMap<Topic, Option<Filter>>,
    /// When it was heard of.
    pub last_seen: Instant,
}

/// Every client that this node knows.
#[derive(Debug)]
pub struct Clients {
    bound: usize,
    known: HashMap<ClientId, Client>,
    /// Of these, the producers by topic.
    producers: HashMap<Topic, BTreeSet<ClientId>>,
    /// Clients that ask without having introduced themselves here, and when they last did.
    strangers: HashMap<ClientId, Instant>,
    conflicts_told: HashSet<(ConsumerGroup, Topic)>,
}

/// A client that is no more, with what it may hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Departed {
    /// Who.
    pub client: ClientId,
    /// On behalf of which group it consumed.
    pub group: Option<ConsumerGroup>,
}

/// Members of one group that want different messages of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Their group.
    pub group: ConsumerGroup,
    /// What they disagree about.
    pub topic: Topic,
    /// Each expression with one client that has it; `None` for no subscription at all.
    pub views: Vec<(Option<Filter>, ClientId)>,
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "consumer group {} subscribes to {} differently:", self.group, self.topic)?;
        for (n, (filter, client)) in self.views.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            match filter {
                Some(filter) => write!(f, "{comma} {client} with \"{filter}\"")?,
                None => write!(f, "{comma} {client} not at all")?,
            };
        }
        Ok(())
    }
}

impl Clients {
    /// Nobody is known; at most `bound` clients will be.
    pub fn new(bound: usize) -> Self {
        Clients {
            bound,
            known: HashMap::new(),
            producers: HashMap::new(),
            strangers: HashMap::new(),
            conflicts_told: HashSet::new(),
        }
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// True if nobody is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// A client introduced itself, or changed its settings. Returns conflicts that are new by it.
    /// Beyond the bound a newcomer is not remembered: it can work, but is not listed.
    pub fn announce(&mut self, wire: &session::Client, now: Instant) -> Vec<Conflict> {
        let Ok(id) = wire.client_id.parse::<ClientId>() else { return Vec::new() };
        if !self.known.contains_key(&id) && self.known.len() >= self.bound {
            return Vec::new();
        }
        self.strangers.remove(&id);
        let client = Client::of(wire, now);
        let group = client.group.clone();
        if let Some(before) = self.known.remove(&id) {
            self.forget_producer(&id, &before);
        }
        if client.kind == v2::ClientType::Producer {
            for topic in client.topics.keys() {
                self.producers.entry(topic.clone()).or_default().insert(id.clone());
            }
        }
        self.known.insert(id, client);
        let Some(group) = group else { return Vec::new() };
        let mut new = self.conflicts_of(&group);
        new.retain(|c| self.conflicts_told.insert((c.group.clone(), c.topic.clone())));
        new
    }

    /// The client was heard of.
    pub fn seen(&mut self, id: &ClientId, now: Instant) {
        match self.known.get_mut(id) {
            Some(client) => client.last_seen = now,
            None if self.strangers.len() < self.bound || self.strangers.contains_key(id) => {
                self.strangers.insert(id.clone(), now);
            }
            None => (),
        }
    }

    /// An access point says that the client is gone. If it did not say good-bye itself, others may
    /// still hear of it.
    pub fn gone(&mut self, id: &ClientId, terminated: bool, now: Instant) -> Option<Departed> {
        if Bug::B31.is_sown() || !terminated && self.heard_of(id, now) {
            return None;
        }
        self.strangers.remove(id);
        let client = self.known.remove(id)?;
        self.forget_producer(id, &client);
        Some(Departed { client: id.clone(), group: client.group })
    }

    /// Removes and returns those that nobody heard of for [`SILENCE`].
    pub fn expire(&mut self, now: Instant) -> Vec<Departed> {
        let silent = |seen: Instant| now.saturating_duration_since(seen) >= SILENCE;
        self.strangers.retain(|_, seen| !silent(*seen));
        let expired: Vec<_> = self.known.extract_if(|_, client| silent(client.last_seen)).collect();
        expired.iter().for_each(|(id, client)| self.forget_producer(id, client));
        expired.into_iter().map(|(client, gone)| Departed { client, group: gone.group }).collect()
    }

    fn forget_producer(&mut self, id: &ClientId, client: &Client) {
        for topic in client.topics.keys() {
            if let Some(producers) = self.producers.get_mut(topic) {
                producers.remove(id);
                if producers.is_empty() {
                    self.producers.remove(topic);
                }
            }
        }
    }

    /// Whether anybody heard of the client within [`SILENCE`].
    pub fn heard_of(&self, id: &ClientId, now: Instant) -> bool {
        let seen = self.known.get(id).map(|client| client.last_seen);
        seen.max(self.strangers.get(id).copied())
            .is_some_and(|seen| now.saturating_duration_since(seen) < SILENCE)
    }

    /// Everybody who introduced himself.
    pub fn iter(&self) -> impl Iterator<Item = (&ClientId, &Client)> {
        self.known.iter()
    }

    /// Living members of a consumer group that pull a topic's queues and ask for a share of them,
    /// in order. One that names no topics takes part in all.
    pub fn pulling(&self, group: &ConsumerGroup, topic: &Topic, now: Instant) -> Vec<ClientId> {
        let takes_part = |client: &Client| {
            client.kind == v2::ClientType::PullConsumer
                && client.group.as_ref() == Some(group)
                && (client.topics.is_empty() || client.topics.contains_key(topic))
                && now.saturating_duration_since(client.last_seen) < PULLS_WITHIN
        };
        let members = self.known.iter().filter(|(_, client)| takes_part(client));
        let mut members: Vec<ClientId> = members.map(|(id, _)| id.clone()).collect();
        members.sort();
        members
    }

    /// Producers that announced the topic, in the order of their ids.
    pub fn producers(&self, topic: &Topic) -> Vec<ClientId> {
        self.producers.get(topic).into_iter().flatten().cloned().collect()
    }

    /// Every disagreement there is.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let mut groups: Vec<&ConsumerGroup> =
            self.known.values().filter_map(|client| client.group.as_ref()).collect();
        groups.sort();
        groups.dedup();
        groups.into_iter().flat_map(|group| self.conflicts_of(group)).collect()
    }

    fn conflicts_of(&self, group: &ConsumerGroup) -> Vec<Conflict> {
        let mut members: Vec<(&ClientId, &Client)> =
            self.known.iter().filter(|(_, c)| c.group.as_ref() == Some(group)).collect();
        members.sort_by_key(|(id, _)| *id);
        let mut topics: Vec<&Topic> = members.iter().flat_map(|(_, c)| c.topics.keys()).collect();
        topics.sort();
        topics.dedup();
        let mut found = Vec::new();
        for topic in topics {
            let mut views: Vec<(Option<Filter>, ClientId)> = Vec::new();
            for (id, member) in &members {
                let view = member.topics.get(topic).cloned().flatten();
                if !views.iter().any(|(known, _)| *known == view) {
                    views.push((view, (*id).clone()));
                }
            }
            if views.len() > 1 {
                found.push(Conflict { group: group.clone(), topic: topic.clone(), views });
            }
        }
        found
    }
}

impl Client {
    fn of(wire: &session::Client, now: Instant) -> Self {
        let settings = wire.settings.clone().unwrap_or_default();
        let mut topics = BTreeMap::new();
        let mut group = None;
        match &settings.pub_sub {
            Some(v2::settings::PubSub::Publishing(publishing)) => {
                for resource in &publishing.topics {
                    if let Ok(topic) = Topic::from_resource(Some(resource)) {
                        topics.insert(topic, None);
                    }
                }
            }
            Some(v2::settings::PubSub::Subscription(subscription)) => {
                group = ConsumerGroup::from_resource(subscription.group.as_ref()).ok();
                for entry in &subscription.subscriptions {
                    let filter = Filter::from_expression(entry.expression.as_ref());
                    // The access point has refused what does not parse; an older one may not have.
                    if let (Ok(topic), Ok(filter)) =
                        (Topic::from_resource(entry.topic.as_ref()), filter)
                    {
                        topics.insert(topic, Some(filter));
                    }
                }
            }
            None => (),
        }
        Client {
            kind: settings.client_type(),
            language: wire.language.clone(),
            version: wire.version.clone(),
            address: wire.address.clone(),
            group,
            topics,
            last_seen: now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumer(id: &str, subscriptions: &[(&str, &str)]) -> session::Client {
        let entry = |(topic, expression): &(&str, &str)| v2::SubscriptionEntry {
            topic: Some(v2::Resource { name: (*topic).into(), ..Default::default() }),
            expression: Some(v2::FilterExpression {
                r#type: v2::FilterType::Tag.into(),
                expression: (*expression).into(),
            }),
        };
        let subscription = v2::Subscription {
            group: Some(v2::Resource { name: "g".into(), ..Default::default() }),
            subscriptions: subscriptions.iter().map(entry).collect(),
            ..Default::default()
        };
        session::Client {
            client_id: id.into(),
            settings: Some(v2::Settings {
                client_type: Some(v2::ClientType::SimpleConsumer.into()),
                pub_sub: Some(v2::settings::PubSub::Subscription(subscription)),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn id(text: &str) -> ClientId {
        text.parse().expect("a client id")
    }

    #[test]
    fn members_that_want_different_messages_are_reported_once() {
        let now = Instant::now();
        let mut clients = Clients::new(10);
        assert!(clients.announce(&consumer("a", &[("t", "x || y")]), now).is_empty());
        assert!(clients.announce(&consumer("b", &[("t", "y||x")]), now).is_empty(), "the same");
        let new = clients.announce(&consumer("c", &[("t", "*")]), now);
        assert_eq!(new.len(), 1);
        let text = new[0].to_string();
        assert!(text.contains("group g") && text.contains("a with") && text.contains("c with"));
        assert!(clients.announce(&consumer("d", &[("t", "z")]), now).is_empty(), "told before");
        assert_eq!(clients.conflicts().len(), 1, "but still listed");
    }

    #[test]
    fn a_member_without_a_subscription_differs_too() {
        let now = Instant::now();
        let mut clients = Clients::new(10);
        clients.announce(&consumer("a", &[("t", "*")]), now);
        let new = clients.announce(&consumer("b", &[("u", "*")]), now);
        assert_eq!(new.len(), 2);
        assert!(new[0].to_string().contains("not at all"));
    }

    #[test]
    fn who_pulls_has_a_share_while_it_is_heard_of() {
        let now = Instant::now();
        let mut clients = Clients::new(10);
        for name in ["b", "a"] {
            let mut puller = consumer(name, &[("t", "*")]);
            let settings = puller.settings.as_mut().expect("it has some");
            settings.client_type = Some(v2::ClientType::PullConsumer.into());
            clients.announce(&puller, now);
        }
        clients.announce(&consumer("pops", &[("t", "*")]), now);
        let (group, topic) = ("g".parse().expect("valid"), "t".parse().expect("valid"));
        assert_eq!(clients.pulling(&group, &topic, now), [id("a"), id("b")]);
        let later = now + PULLS_WITHIN;
        clients.seen(&id("b"), later);
        assert_eq!(clients.pulling(&group, &topic, later), [id("b")]);
        clients.seen(&id("a"), later);
        assert_eq!(clients.pulling(&group, &topic, later), [id("a"), id("b")], "back again");
    }

    #[test]
    fn producers_are_found_by_topic_while_they_are_there() {
        let now = Instant::now();
        let mut clients = Clients::new(10);
        let producer = |id: &str, topics: &[&str]| {
            let resource =
                |name: &&str| v2::Resource { name: (*name).into(), ..Default::default() };
            let topics = topics.iter().map(resource).collect();
            let publishing = v2::Publishing { topics, ..Default::default() };
            let settings = v2::Settings {
                client_type: Some(v2::ClientType::Producer.into()),
                pub_sub: Some(v2::settings::PubSub::Publishing(publishing)),
                ..Default::default()
            };
            session::Client { client_id: id.into(), settings: Some(settings), ..Default::default() }
        };
        let of = |clients: &Clients, topic: &str| -> Vec<String> {
            let topic = topic.parse().expect("a topic");
            clients.producers(&topic).iter().map(ToString::to_string).collect()
        };
        clients.announce(&producer("b", &["t"]), now);
        clients.announce(&producer("a", &["t", "u"]), now);
        clients.announce(&consumer("c", &[("t", "*")]), now);
        assert_eq!(
            (of(&clients, "t"), of(&clients, "u")),
            (vec!["a".into(), "b".into()], vec!["a".into()])
        );
        clients.announce(&producer("a", &["u"]), now);
        assert_eq!(of(&clients, "t"), ["b"]);
        clients.gone(&id("b"), true, now);
        assert!(of(&clients, "t").is_empty());
        clients.expire(now + SILENCE);
        assert!(of(&clients, "u").is_empty());
    }

    #[test]
    fn a_client_is_gone_after_silence_or_good_bye() {
        let now = Instant::now();
        let mut clients = Clients::new(10);
        clients.announce(&consumer("a", &[("t", "*")]), now);
        clients.announce(&consumer("b", &[("t", "*")]), now);
        assert_eq!(clients.gone(&id("a"), false, now), None, "heard of just now");
        let departed = clients.gone(&id("a"), true, now).expect("said good-bye");
        assert_eq!(departed.group.expect("a consumer").as_str(), "g");

        clients.seen(&id("b"), now + SILENCE / 2);
        assert!(clients.expire(now + SILENCE).is_empty());
        assert_eq!(clients.expire(now + SILENCE * 2).len(), 1);
        assert!(clients.is_empty());
    }

    #[test]
    fn a_stranger_is_heard_of_but_not_listed() {
        let now = Instant::now();
        let mut clients = Clients::new(1);
        clients.seen(&id("s"), now);
        assert!(clients.heard_of(&id("s"), now));
        assert!(clients.is_empty());
        clients.announce(&consumer("a", &[]), now);
        clients.announce(&consumer("b", &[]), now);
        assert_eq!(clients.len(), 1, "the bound holds");
    }
}
