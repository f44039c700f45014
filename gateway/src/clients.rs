//! The clients of this access point: who they are, when they were last heard of, and what leaders
//! must be told about them. No clock, no network.
//!
//! Changes are numbered. Each session to a leader remembers the number that it has told, and asks
//! for what came after; a session that starts anew asks for everything.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use proto::{
    ClientId,
    session::{self, Gone, Lost},
    v2::{ClientType, Settings, TelemetryCommand},
};
use tokio::sync::mpsc;
use tonic::Status;

/// A client that was not heard of for this long is gone. Clients speak every 10 to 30 s.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(90);

/// Departures and losses that are kept for sessions that have not told them yet. A session that
/// lags behind more than that starts anew, which tells the same.
const DEPARTURES_MAX: usize = 4096;

/// The way to a client: one end of its Telemetry stream.
pub(crate) type Outbound = mpsc::Sender<Result<TelemetryCommand, Status>>;

/// Tells the Telemetry streams of one client apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct StreamId(u64);

/// Who a client is besides its id.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Identity {
    pub(crate) settings: Settings,
    pub(crate) language: String,
    pub(crate) version: String,
    pub(crate) address: String,
}

#[derive(Debug)]
struct Entry {
    heard: Instant,
    /// `None` for a client that was heard of and has not introduced itself here.
    identity: Option<Identity>,
    /// Number of the change that told of the identity; 0 while leaders think it is not here.
    told: u64,
    streams: Vec<(StreamId, Outbound)>,
}

/// What a session has to tell.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct News {
    pub(crate) clients: Vec<session::Client>,
    pub(crate) gone: Vec<Gone>,
    pub(crate) lost: Vec<Lost>,
    /// The number to ask with next time.
    pub(crate) upto: u64,
}

/// The session is too far behind: it must start anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Behind;

/// No room for one more client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) max: usize,
}

#[derive(Debug)]
enum Change {
    Registered(ClientId),
    Gone(Gone),
    Lost(Lost),
}

/// Everything about the clients of one access point.
#[derive(Debug)]
pub(crate) struct Clients {
    max: usize,
    entries: HashMap<ClientId, Entry>,
    /// By number. A client is in it at most once as registered.
    changes: BTreeMap<u64, Change>,
    departures: usize,
    /// Number of the last change.
    last: u64,
    /// A departure up to this number was forgotten.
    forgotten: u64,
    streams: u64,
}

impl Clients {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            entries: HashMap::new(),
            changes: BTreeMap::new(),
            departures: 0,
            last: 0,
            forgotten: 0,
            streams: 0,
        }
    }

    /// Takes note that the client lives. A client that was given up is known again.
    /// Over the bound a new client is not noted: what it does is served all the same.
    pub(crate) fn heard(&mut self, id: &ClientId, now: Instant) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.heard = now;
            if entry.told == 0 && entry.identity.is_some() {
                self.tell_registered(id);
            }
        } else if self.entries.len() < self.max {
            let entry = Entry { heard: now, identity: None, told: 0, streams: Vec::new() };
            self.entries.insert(id.clone(), entry);
        }
    }

    /// The client says who it is. Returns whether that is news.
    pub(crate) fn register(
        &mut self,
        id: &ClientId,
        identity: Identity,
        now: Instant,
    ) -> Result<bool, Full> {
        self.heard(id, now);
        let Some(entry) = self.entries.get_mut(id) else {
            return Err(Full { max: self.max });
        };
        let news = entry.told == 0 || entry.identity.as_ref() != Some(&identity);
        entry.identity = Some(identity);
        if news {
            self.tell_registered(id);
        }
        Ok(news)
    }

    /// What a client says it is, if it has introduced itself here.
    pub(crate) fn kind(&self, id: &ClientId) -> Option<ClientType> {
        self.entries.get(id)?.identity.as_ref()?.settings.client_type?.try_into().ok()
    }

    /// Opens a way to the client.
    pub(crate) fn attach(
        &mut self,
        id: &ClientId,
        outbound: Outbound,
        now: Instant,
    ) -> Result<StreamId, Full> {
        self.heard(id, now);
        let Some(entry) = self.entries.get_mut(id) else {
            return Err(Full { max: self.max });
        };
        self.streams += 1;
        let stream = StreamId(self.streams);
        entry.streams.push((stream, outbound));
        Ok(stream)
    }

    /// Closes one. The client is not gone yet: it may come back, or speak on other connections.
    pub(crate) fn detach(&mut self, id: &ClientId, stream: StreamId) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.streams.retain(|(open, _)| *open != stream);
        }
    }

    /// The client said good-bye. Told even of one that never came here: what it left behind may be
    /// at a leader.
    pub(crate) fn terminate(&mut self, id: &ClientId, group: &str) {
        self.drop_entry(id);
        let gone = Gone { client_id: id.to_string(), group: group.to_owned(), terminated: true };
        self.tell_departure(Change::Gone(gone));
    }

    /// An answer to a receive call may not have reached the client.
    pub(crate) fn lost(&mut self, id: &ClientId) {
        self.tell_departure(Change::Lost(Lost { client_id: id.to_string() }));
    }

    /// Gives up those that were silent for too long. Returns how many.
    pub(crate) fn expire(&mut self, now: Instant) -> usize {
        let silent: Vec<ClientId> = self
            .entries
            .iter()
            .filter(|(_, entry)| now.saturating_duration_since(entry.heard) >= SILENCE_MAX)
            .map(|(id, _)| id.clone())
            .collect();
        for id in &silent {
            self.give_up(id);
        }
        silent.len()
    }

    /// One with an open stream keeps its entry, so that it is known again with its next word.
    fn give_up(&mut self, id: &ClientId) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let told = std::mem::take(&mut entry.told);
        entry.streams.retain(|(_, outbound)| !outbound.is_closed());
        if entry.streams.is_empty() {
            self.entries.remove(id);
        }
        if told != 0 {
            self.changes.remove(&told);
            let gone = Gone { client_id: id.to_string(), group: String::new(), terminated: false };
            self.tell_departure(Change::Gone(gone));
        }
    }

    fn drop_entry(&mut self, id: &ClientId) {
        if let Some(entry) = self.entries.remove(id) {
            self.changes.remove(&entry.told);
        }
    }

    fn tell_registered(&mut self, id: &ClientId) {
        self.last += 1;
        let entry = self.entries.get_mut(id).expect("the caller looked it up");
        let before = std::mem::replace(&mut entry.told, self.last);
        self.changes.remove(&before);
        self.changes.insert(self.last, Change::Registered(id.clone()));
    }

    fn tell_departure(&mut self, change: Change) {
        self.last += 1;
        self.changes.insert(self.last, change);
        self.departures += 1;
        if self.departures > DEPARTURES_MAX {
            self.forget_oldest_departure();
        }
    }

    fn forget_oldest_departure(&mut self) {
        let oldest = self
            .changes
            .iter()
            .find(|(_, change)| !matches!(change, Change::Registered(_)))
            .map(|(number, _)| *number);
        if let Some(number) = oldest {
            self.changes.remove(&number);
            self.departures -= 1;
            self.forgotten = number;
        }
    }

    /// Every client with an identity, for a session that begins; and the losses that are still
    /// remembered, which may have happened while there was none.
    pub(crate) fn everything(&self) -> News {
        let mut news = self.after(0);
        news.gone.clear();
        news
    }

    /// What happened after the change with this number, in order within each kind: a client that
    /// left and came back is told as gone first.
    pub(crate) fn since(&self, number: u64) -> Result<News, Behind> {
        if number < self.forgotten {
            return Err(Behind);
        }
        Ok(self.after(number))
    }

    fn after(&self, number: u64) -> News {
        let mut news = News { upto: self.last, ..News::default() };
        for change in self.changes.range(number + 1..).map(|(_, change)| change) {
            match change {
                Change::Registered(id) => news.clients.extend(self.describe(id)),
                Change::Gone(gone) => news.gone.push(gone.clone()),
                Change::Lost(lost) => news.lost.push(lost.clone()),
            }
        }
        news
    }

    fn describe(&self, id: &ClientId) -> Option<session::Client> {
        let identity = self.entries.get(id)?.identity.clone()?;
        Some(session::Client {
            client_id: id.to_string(),
            settings: Some(identity.settings),
            language: identity.language,
            version: identity.version,
            address: identity.address,
        })
    }

    /// Those heard of at or after this moment.
    pub(crate) fn heard_since(&self, since: Instant) -> Vec<String> {
        let alive = self.entries.iter().filter(|(_, entry)| entry.heard >= since);
        alive.map(|(id, _)| id.to_string()).collect()
    }

    /// The newest open ways to a client.
    pub(crate) fn outbound(&self, id: &str) -> Option<Outbound> {
        let streams = &self.entries.get(id)?.streams;
        let open = streams.iter().rev().find(|(_, outbound)| !outbound.is_closed());
        open.map(|(_, outbound)| outbound.clone())
    }

    /// Clients for which `matches` holds, with their settings and the ways to them.
    pub(crate) fn matching(
        &self,
        matches: impl Fn(&Settings) -> bool,
    ) -> Vec<(Identity, Outbound)> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        for (id, entry) in &self.entries {
            let Some(identity) = &entry.identity else { continue };
            if matches(&identity.settings) && seen.insert(id) {
                let open = entry.streams.iter().filter(|(_, outbound)| !outbound.is_closed());
                found.extend(open.map(|(_, outbound)| (identity.clone(), outbound.clone())));
            }
        }
        found
    }

    /// Clients known here, introduced or not.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ClientId {
        text.parse().expect("valid")
    }

    fn identity(version: &str) -> Identity {
        Identity { version: version.into(), ..Identity::default() }
    }

    fn names(news: &News) -> (Vec<&str>, Vec<&str>) {
        (
            news.clients.iter().map(|client| client.client_id.as_str()).collect(),
            news.gone.iter().map(|gone| gone.client_id.as_str()).collect(),
        )
    }

    #[test]
    fn a_session_is_told_what_it_has_not_heard() {
        let now = Instant::now();
        let mut clients = Clients::new(10);
        assert_eq!(clients.register(&id("a"), identity("1"), now), Ok(true));
        let upto = clients.everything().upto;
        assert_eq!(clients.register(&id("b"), identity("1"), now), Ok(true));
        clients.terminate(&id("a"), "g");
        let news = clients.since(upto).expect("not behind");
        assert_eq!(names(&news), (vec!["b"], vec!["a"]));
        assert!(news.gone[0].terminated);
        assert_eq!(names(&clients.since(news.upto).expect("not behind")), (vec![], vec![]));
        assert_eq!(names(&clients.everything()), (vec!["b"], vec![]));
    }

    #[test]
    fn the_same_settings_again_are_no_news() {
        let now = Instant::now();
        let mut clients = Clients::new(10);
        assert_eq!(clients.register(&id("a"), identity("1"), now), Ok(true));
        assert_eq!(clients.register(&id("a"), identity("1"), now), Ok(false));
        assert_eq!(clients.register(&id("a"), identity("2"), now), Ok(true));
        assert_eq!(names(&clients.since(0).expect("not behind")), (vec!["a"], vec![]));
    }

    #[test]
    fn a_silent_client_is_gone_and_its_next_word_brings_it_back() {
        let start = Instant::now();
        let mut clients = Clients::new(10);
        let (outbound, _inbound) = mpsc::channel(1);
        clients.register(&id("a"), identity("1"), start).expect("room");
        clients.attach(&id("a"), outbound, start).expect("room");
        assert_eq!(clients.expire(start + SILENCE_MAX - Duration::from_millis(1)), 0);
        assert_eq!(clients.expire(start + SILENCE_MAX), 1);
        let news = clients.since(1).expect("not behind");
        assert_eq!(names(&news), (vec![], vec!["a"]));
        assert!(!news.gone[0].terminated);
        clients.heard(&id("a"), start + SILENCE_MAX);
        assert_eq!(names(&clients.since(news.upto).expect("not behind")), (vec!["a"], vec![]));
    }

    #[test]
    fn a_silent_client_without_a_stream_is_forgotten() {
        let start = Instant::now();
        let mut clients = Clients::new(10);
        clients.heard(&id("a"), start);
        assert_eq!(clients.expire(start + SILENCE_MAX), 1);
        assert_eq!(clients.len(), 0);
        let news = clients.since(0).expect("not behind");
        assert_eq!(names(&news), (vec![], vec![]), "leaders never knew it");
    }

    #[test]
    fn over_the_bound_nobody_is_taken_in_and_those_inside_stay() {
        let now = Instant::now();
        let mut clients = Clients::new(1);
        clients.register(&id("a"), identity("1"), now).expect("room");
        assert_eq!(clients.register(&id("b"), identity("1"), now), Err(Full { max: 1 }));
        clients.heard(&id("b"), now);
        assert_eq!(clients.len(), 1);
        assert_eq!(clients.register(&id("a"), identity("2"), now), Ok(true));
    }

    #[test]
    fn a_session_that_missed_a_departure_must_start_anew() {
        let mut clients = Clients::new(10);
        for n in 0..=DEPARTURES_MAX {
            clients.terminate(&id(&format!("c{n}")), "");
        }
        assert_eq!(clients.since(0), Err(Behind));
        assert_eq!(clients.since(1).expect("not behind").gone.len(), DEPARTURES_MAX);
    }

    #[test]
    fn commands_go_to_the_newest_open_stream() {
        let now = Instant::now();
        let mut clients = Clients::new(10);
        let (old, _old_end) = mpsc::channel(1);
        let (new, new_end) = mpsc::channel(1);
        clients.attach(&id("a"), old.clone(), now).expect("room");
        let stream = clients.attach(&id("a"), new.clone(), now).expect("room");
        assert!(clients.outbound("a").expect("open").same_channel(&new));
        drop(new_end);
        assert!(clients.outbound("a").expect("open").same_channel(&old));
        clients.detach(&id("a"), stream);
        assert!(clients.outbound("b").is_none());
    }

    #[test]
    fn those_heard_of_lately_are_alive() {
        let start = Instant::now();
        let mut clients = Clients::new(10);
        clients.heard(&id("a"), start);
        clients.heard(&id("b"), start + Duration::from_secs(5));
        assert_eq!(clients.heard_since(start + Duration::from_secs(1)), ["b"]);
    }
}
