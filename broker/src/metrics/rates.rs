//! How much passes in a second, over the windows that RocketMQ shows, in total and by topic and
//! consumer group. Counted by this process while it leads.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::Hash,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use proto::{ConsumerGroup, Timestamp, Topic, clock::wall_now};

/// Between two looks at the counters.
pub const TICK: Duration = Duration::from_secs(10);
/// Looks that are kept: those of 10 minutes.
const TICKS: usize = 60;
/// Looks of a minute.
const MINUTE: usize = 6;
const HOUR: Duration = Duration::from_hours(1);
const HOURS: usize = 24;
const DAY_MS: u64 = 24 * 3600 * 1000;
/// Topics, and pairs of consumer group and topic, that are counted by themselves.
const PLACES: usize = 10_000;

/// Messages and bytes so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages.
    pub messages: u64,
    /// Bytes of them.
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, more: Tally) {
        self.messages += more.messages;
        self.bytes += more.bytes;
    }
}

/// Messages in a second over the last 10 s, minute and 10 minutes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Windows(pub [f64; 3]);

/// What passes at one place.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Flow {
    /// Over the last minute.
    pub messages_per_second: f64,
    /// Over the last minute.
    pub bytes_per_second: f64,
    /// Messages of the last 24 hours.
    pub messages_in_a_day: u64,
    /// Since the process started.
    pub total: Tally,
}

/// Counters that are looked at every [`TICK`].
#[derive(Debug, Default)]
struct Place {
    now: Tally,
    /// As of the last looks, the latest last; fewer for a place that is new.
    seen: VecDeque<Tally>,
    /// As of the last full hours.
    hours: VecDeque<u64>,
}

impl Place {
    fn look(&mut self, most: usize, hour: bool) {
        self.seen.push_back(self.now);
        if self.seen.len() > most {
            self.seen.pop_front();
        }
        if hour {
            self.hours.push_back(self.now.messages);
            if self.hours.len() > HOURS {
                self.hours.pop_front();
            }
        }
    }

    /// What came since the look `back` looks ago, and how many looks that is.
    fn since(&self, back: usize) -> (Tally, usize) {
        let back = back.min(self.seen.len());
        let then = match self.seen.len().checked_sub(back) {
            Some(at) if back > 0 => self.seen[at],
            _ => Tally::default(),
        };
        let more = Tally {
            messages: self.now.messages - then.messages,
            bytes: self.now.bytes - then.bytes,
        };
        (more, back)
    }

    fn in_a_day(&self) -> u64 {
        // Until a day has passed, everything counts.
        let then = if self.hours.len() == HOURS { self.hours[0] } else { 0 };
        self.now.messages - then
    }

    /// Nothing came for a day.
    fn is_idle(&self) -> bool {
        self.hours.len() == HOURS && self.in_a_day() == 0
    }
}

/// Messages at the last midnights (UTC), and now.
#[derive(Debug, Default)]
struct Days {
    yesterday: u64,
    today: u64,
}

struct Book {
    put: Place,
    got: Place,
    put_days: Days,
    got_days: Days,
    day: u64,
    topics: HashMap<Topic, Place>,
    groups: HashMap<ConsumerGroup, HashMap<Topic, Place>>,
    pairs: usize,
    /// When the counters were looked at, the latest last.
    looks: VecDeque<Instant>,
    begun: Instant,
    hour: Instant,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Rates {
    started: Timestamp,
    book: Mutex<Book>,
}

impl Default for Rates {
    fn default() -> Self {
        Self::begun_at(wall_now(), Instant::now())
    }
}

impl Rates {
    fn begun_at(started: Timestamp, begun: Instant) -> Self {
        let book = Book {
            put: Place::default(),
            got: Place::default(),
            put_days: Days::default(),
            got_days: Days::default(),
            day: started.0 / DAY_MS,
            topics: HashMap::new(),
            groups: HashMap::new(),
            pairs: 0,
            looks: VecDeque::new(),
            begun,
            hour: begun,
        };
        Self { started, book: Mutex::new(book) }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no holder panics")
    }

    /// Messages were stored.
    pub(super) fn sent(&self, topic: &Topic, more: Tally) {
        let mut book = self.book();
        book.put.now.add(more);
        if let Some(place) = find(&mut book.topics, topic, PLACES) {
            place.now.add(more);
        }
    }

    /// A message was handed out.
    pub(super) fn delivered(&self, (group, topic): (&ConsumerGroup, &Topic), more: Tally) {
        let mut book = self.book();
        book.got.now.add(more);
        let book = &mut *book;
        let Some(topics) = find(&mut book.groups, group, PLACES) else { return };
        let before = topics.len();
        let bound = before + PLACES.saturating_sub(book.pairs);
        if let Some(place) = find(topics, topic, bound) {
            place.now.add(more);
        }
        book.pairs += topics.len() - before;
    }

    /// Looks at the counters; to be called every [`TICK`].
    pub fn look(&self) {
        self.look_at(Instant::now(), wall_now());
    }

    fn look_at(&self, now: Instant, wall: Timestamp) {
        let mut book = self.book();
        let book = &mut *book;
        let hour = now.saturating_duration_since(book.hour) >= HOUR;
        if hour {
            book.hour = now;
        }
        book.looks.push_back(now);
        if book.looks.len() > TICKS {
            book.looks.pop_front();
        }
        book.put.look(TICKS, hour);
        book.got.look(TICKS, hour);
        book.topics.values_mut().for_each(|place| place.look(MINUTE, hour));
        book.groups.values_mut().flat_map(HashMap::values_mut).for_each(|p| p.look(MINUTE, hour));
        if hour {
            book.topics.retain(|_, place| !place.is_idle());
            book.groups.values_mut().for_each(|topics| topics.retain(|_, p| !p.is_idle()));
            book.groups.retain(|_, topics| !topics.is_empty());
            book.pairs = book.groups.values().map(HashMap::len).sum();
        }
        let day = wall.0 / DAY_MS;
        if day != book.day {
            book.day = day;
            for (days, place) in [(&mut book.put_days, &book.put), (&mut book.got_days, &book.got)]
            {
                (days.yesterday, days.today) = (days.today, place.now.messages);
            }
        }
    }

    /// When the process started.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// Everything that was stored.
    pub fn put(&self) -> Tally {
        self.book().put.now
    }

    /// Everything that was handed out.
    pub fn got(&self) -> Tally {
        self.book().got.now
    }

    /// Stored in a second.
    pub fn put_windows(&self) -> Windows {
        let book = self.book();
        book.windows(&book.put, Instant::now())
    }

    /// Handed out in a second.
    pub fn got_windows(&self) -> Windows {
        let book = self.book();
        book.windows(&book.got, Instant::now())
    }

    /// Messages stored up to yesterday's midnight, today's, and now.
    pub fn put_days(&self) -> [u64; 3] {
        let book = self.book();
        [book.put_days.yesterday, book.put_days.today, book.put.now.messages]
    }

    /// The same for messages handed out.
    pub fn got_days(&self) -> [u64; 3] {
        let book = self.book();
        [book.got_days.yesterday, book.got_days.today, book.got.now.messages]
    }

    /// What was sent to each topic, by name.
    pub fn topics(&self) -> Vec<(Topic, Flow)> {
        let (book, now) = (self.book(), Instant::now());
        let sorted: BTreeMap<_, _> = book.topics.iter().collect();
        sorted.into_iter().map(|(name, place)| (name.clone(), book.flow(place, now))).collect()
    }

    /// What was handed to each consumer group of each topic, by name.
    pub fn groups(&self) -> Vec<(ConsumerGroup, Topic, Flow)> {
        let (book, now) = (self.book(), Instant::now());
        let pairs = book.groups.iter().flat_map(|(group, topics)| {
            topics.iter().map(move |(topic, place)| ((group, topic), place))
        });
        let sorted: BTreeMap<_, _> = pairs.collect();
        let flow = |((group, topic), place): ((&ConsumerGroup, &Topic), &Place)| {
            (group.clone(), topic.clone(), book.flow(place, now))
        };
        sorted.into_iter().map(flow).collect()
    }
}

impl Book {
    /// Since the look `back` looks ago, or since the beginning.
    fn elapsed(&self, back: usize, now: Instant) -> f64 {
        let since = match self.looks.len().checked_sub(back) {
            Some(at) if back > 0 => self.looks[at],
            // A place that is newer than the last look is as old as that one at most.
            _ => self.looks.back().copied().unwrap_or(self.begun),
        };
        now.saturating_duration_since(since).as_secs_f64().max(1.0)
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate is for people")]
    fn windows(&self, place: &Place, now: Instant) -> Windows {
        Windows([1, MINUTE, TICKS].map(|back| {
            let (more, back) = place.since(back);
            more.messages as f64 / self.elapsed(back, now)
        }))
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate is for people")]
    fn flow(&self, place: &Place, now: Instant) -> Flow {
        let (more, back) = place.since(MINUTE);
        let elapsed = self.elapsed(back, now);
        Flow {
            messages_per_second: more.messages as f64 / elapsed,
            bytes_per_second: more.bytes as f64 / elapsed,
            messages_in_a_day: place.in_a_day(),
            total: place.now,
        }
    }
}

/// The entry of a key, new if there is room.
fn find<'a, K: Hash + Eq + Clone, V: Default>(
    map: &'a mut HashMap<K, V>,
    key: &K,
    bound: usize,
) -> Option<&'a mut V> {
    if !map.contains_key(key) {
        if map.len() >= bound {
            return None;
        }
        map.insert(key.clone(), V::default());
    }
    map.get_mut(key)
}

impl std::fmt::Debug for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Book").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: Tally = Tally { messages: 1, bytes: 100 };

    #[test]
    fn rates_are_over_their_windows() {
        let begun = Instant::now();
        let rates = Rates::begun_at(Timestamp(0), begun);
        let topic: Topic = "t".parse().unwrap();
        let at = |tick: u32| begun + TICK * tick;
        // 20 messages in each of the first 6 ticks, then none.
        for tick in 1..=12 {
            for _ in 0..(if tick <= 6 { 20 } else { 0 }) {
                rates.sent(&topic, MESSAGE);
            }
            rates.look_at(at(tick), Timestamp(u64::from(tick)));
        }
        let book = rates.book();
        let windows = book.windows(&book.put, at(12));
        assert_eq!(windows, Windows([0.0, 0.0, 100.0 / 110.0]));
        drop(book);
        for _ in 0..30 {
            rates.sent(&topic, MESSAGE);
        }
        let book = rates.book();
        let flow = book.flow(&book.topics[&topic], at(13));
        assert_eq!((flow.messages_per_second, flow.bytes_per_second), (0.5, 50.0));
        assert_eq!((flow.messages_in_a_day, flow.total.messages), (150, 150));
    }

    #[test]
    fn days_begin_at_midnight() {
        let begun = Instant::now();
        let rates = Rates::begun_at(Timestamp(0), begun);
        let place = (&"g".parse().unwrap(), &"t".parse().unwrap());
        rates.delivered(place, MESSAGE);
        rates.look_at(begun, Timestamp(DAY_MS));
        rates.delivered(place, MESSAGE);
        rates.look_at(begun, Timestamp(2 * DAY_MS));
        rates.delivered(place, MESSAGE);
        assert_eq!(rates.got_days(), [1, 2, 3]);
        assert_eq!(rates.groups()[0].2.total.messages, 3);
    }

    #[test]
    fn what_was_idle_for_a_day_is_forgotten_and_what_is_of_a_day_is_no_more() {
        let begun = Instant::now();
        let rates = Rates::begun_at(Timestamp(0), begun);
        let (idle, busy): (Topic, Topic) = ("idle".parse().unwrap(), "busy".parse().unwrap());
        rates.sent(&idle, MESSAGE);
        for hour in 1..=30 {
            rates.sent(&busy, MESSAGE);
            rates.look_at(begun + HOUR * hour, Timestamp(0));
        }
        let topics = rates.topics();
        assert_eq!(topics.len(), 1, "{topics:?}");
        assert_eq!((topics[0].1.messages_in_a_day, topics[0].1.total.messages), (23, 30));
    }
}
