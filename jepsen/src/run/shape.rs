//! What a run consists of: queues, groups and clients for each workload.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::v2::MessageType;

use crate::generator::{
    Administrator, Client, Committer, Consumer, Keys, Ledger, Member, Producer, Reader, Teller,
};
use crate::history::{Group, Queue, Workload};

/// Invisible time of receives: as short as brokers of runs are told to allow.
pub(super) const INVISIBLE_MS: u64 = 1_000;
/// How long a receive waits for a message.
const WAIT_MS: u64 = 200;
/// Members stop to come and go so long before the faults end, in ns.
const SETTLE: u64 = 6_000_000_000;

/// A topic to make before the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topic {
    pub name: String,
    pub queues: u32,
    pub accepts: MessageType,
}

/// Between two requests of an administrator: more of them on one setting than a search can order
/// are not judged.
const ADMINISTRATOR: Duration = Duration::from_millis(25);
/// Between two requests of a member that comes and goes.
const MEMBER: Duration = Duration::from_millis(10);
/// Requests per second that one crowd of clients is for; more take more clients.
const CROWD_RATE: u64 = 1_000;
/// Crowds at most.
const CROWDS: u64 = 6;

/// How many times over the clients of a workload are needed for so many requests per second: each
/// of them has one under way at most.
pub(super) fn crowds(rate: u64) -> u32 {
    u32::try_from((rate / CROWD_RATE).clamp(1, CROWDS)).unwrap_or(1)
}

/// When a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// As the server lets it.
    Free,
    /// At its share of the rate; each of its requests leads to so many in all.
    Shared(u32),
    /// So long after the request before, on average, whatever the rate is.
    Every(Duration),
}

/// A client, and when it asks.
pub(super) struct Part {
    pub client: Box<dyn Client>,
    pub pace: Pace,
}

/// Everything of a run but the cluster.
#[derive(Default)]
pub(super) struct Shape {
    pub topics: Vec<Topic>,
    pub keys: Vec<Queue>,
    pub groups: Vec<Group>,
    pub parts: Vec<Part>,
    /// Queues that are read from every replica at the end.
    pub read_to_end: Vec<u32>,
    /// What producers of transactions decided, where there are any.
    pub ledger: Option<Arc<Mutex<Ledger>>>,
    senders: u32,
}

/// What the shape depends on beside the workloads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub broker_name: &'a str,
    /// When faults and senders end, in ns.
    pub ends: u64,
    /// The wall clock at time 0.
    pub wall_start_ms: u64,
    /// The message groups that lead to each of the queues of a shared topic.
    pub spread: &'a [String],
    /// How many times over the clients that can be many are there.
    pub crowds: u32,
}

impl Shape {
    pub(super) fn of(workloads: &[Workload], frame: Frame<'_>) -> Self {
        let mut shape = Self::default();
        for workload in workloads {
            shape.add(*workload, frame);
        }
        shape
    }

    fn add(&mut self, workload: Workload, frame: Frame<'_>) {
        let crowds = frame.crowds;
        match workload {
            Workload::Queue => {
                let keys = self.topics_of("queue", 2, MessageType::Normal, frame);
                // Two groups acknowledge each message.
                self.producers(4 * crowds, 3, |sender| Producer::new(sender, keys));
                self.group("queue-audit", keys, |g| g.max_attempts = Some(3));
                self.group("queue-billing", keys, |_| {});
                for (name, poisoned) in [("queue-audit", true), ("queue-billing", false)] {
                    self.consumers(3 * crowds, |_| Consumer { poisoned, ..consumer(name, keys) });
                }
            }
            Workload::Log => {
                let keys = self.topics_of("log", 4, MessageType::Normal, frame);
                self.read_to_end.extend(keys.all());
                self.producers(8 * crowds, 1, |sender| Producer {
                    batches: true,
                    ..Producer::new(sender, keys)
                });
                self.paced((0..6 * crowds).map(|_| Reader::new(keys)));
            }
            Workload::Offset => {
                let keys = self.topics_of("offset", 2, MessageType::Normal, frame);
                self.group("offset-billing", keys, |g| g.pulls = true);
                self.producers(2, 1, |sender| Producer {
                    batches: true,
                    ..Producer::new(sender, keys)
                });
                let committers = 4 * crowds;
                self.paced((0..committers).map(|nth| Committer {
                    bounded: true,
                    ..Committer::new("offset-billing", keys, nth, committers)
                }));
            }
            Workload::Fifo => {
                let keys = self.topics_of("fifo", 2, MessageType::Fifo, frame);
                self.group("fifo-audit", keys, |g| g.fifo = true);
                self.producers(4 * crowds, 2, |sender| Producer {
                    message_groups: 4,
                    ..Producer::new(sender, keys)
                });
                self.consumers(4 * crowds, |_| consumer("fifo-audit", keys));
            }
            Workload::Txn => {
                let keys = self.topics_of("txn", 1, MessageType::Transaction, frame);
                self.group("txn-audit", keys, |_| {});
                let ledger = Arc::new(Mutex::new(Ledger::default()));
                let tellers: Vec<Teller> =
                    (0..6 * crowds).map(|_| Teller::new(self.sender(), keys, &ledger)).collect();
                self.paced(tellers);
                self.consumers(3 * crowds, |_| consumer("txn-audit", keys));
                self.ledger = Some(ledger);
            }
            Workload::Delay => {
                let keys = self.topics_of("delay", 1, MessageType::Delay, frame);
                self.group("delay-audit", keys, |_| {});
                self.producers(3 * crowds, 2, |sender| Producer {
                    delay_from_wall_ms: Some(frame.wall_start_ms),
                    ..Producer::new(sender, keys)
                });
                self.consumers(3 * crowds, |_| consumer("delay-audit", keys));
            }
            Workload::Rebalance => self.rebalance(frame),
            Workload::Idem => {
                let keys = self.topics_of("idem", 2, MessageType::Normal, frame);
                self.read_to_end.extend(keys.all());
                self.group("idem-audit", keys, |_| {});
                self.producers(4 * crowds, 2, |sender| Producer {
                    again: true,
                    ..Producer::new(sender, keys)
                });
                self.consumers(2 * crowds, |_| consumer("idem-audit", keys));
                self.paced((0..2).map(|_| Reader { seeks: false, ..Reader::new(keys) }));
            }
            Workload::Broadcast => {
                let keys = self.topics_of("broadcast", 2, MessageType::Normal, frame);
                self.read_to_end.extend(keys.all());
                self.producers(2 * crowds, 1, |sender| Producer::new(sender, keys));
                self.paced((0..5 * crowds).map(|_| Reader { seeks: false, ..Reader::new(keys) }));
            }
            Workload::Meta => {
                let keys = self.topics_of("meta", 1, MessageType::Normal, frame);
                self.producers(1, 1, |sender| Producer::new(sender, keys));
                self.every(
                    ADMINISTRATOR,
                    (1..=3).map(|number| Administrator {
                        conditions: false,
                        ..Administrator::new(number, "meta-0")
                    }),
                );
            }
            Workload::Mix => {}
        }
    }

    fn rebalance(&mut self, frame: Frame<'_>) {
        let queues = u32::try_from(frame.spread.len()).expect("few queues");
        let from = u32::try_from(self.keys.len()).expect("few queues");
        let name = String::from("rebalance-0");
        let queue = |id| Queue { topic: name.clone(), broker: frame.broker_name.into(), id };
        self.keys.extend((0..queues).map(queue));
        self.topics.push(Topic { name: name.clone(), queues, accepts: MessageType::Fifo });
        let keys = Keys { from, count: queues };
        self.group("rebalance-billing", keys, |g| {
            g.exclusive = true;
            g.pulls = true;
        });
        self.producers(2, 1, |sender| Producer {
            group_of_key: frame.spread.to_vec(),
            ..Producer::new(sender, keys)
        });
        self.paced([Reader {
            group: Some("rebalance-billing".into()),
            commits: true,
            resume: true,
            ..Reader::new(keys)
        }]);
        let settles = frame.ends.saturating_sub(SETTLE);
        let members = (0..4).map(|nth| Member {
            stays: nth == 0,
            crashes: false,
            ..Member::new("rebalance-billing", &format!("member-{nth}"), settles)
        });
        self.every(MEMBER, members);
    }

    /// Topics of one queue each: where a message goes is then known before it is sent.
    fn topics_of(
        &mut self,
        workload: &str,
        count: u32,
        accepts: MessageType,
        frame: Frame<'_>,
    ) -> Keys {
        let from = u32::try_from(self.keys.len()).expect("few queues");
        for nth in 0..count {
            let name = format!("{workload}-{nth}");
            let broker = frame.broker_name.to_owned();
            self.keys.push(Queue { topic: name.clone(), broker, id: 0 });
            self.topics.push(Topic { name, queues: 1, accepts });
        }
        Keys { from, count }
    }

    fn group(&mut self, name: &str, keys: Keys, with: impl FnOnce(&mut Group)) {
        let mut group = Group { name: name.into(), keys: keys.all().collect(), ..Group::default() };
        with(&mut group);
        self.groups.push(group);
    }

    fn sender(&mut self) -> u32 {
        self.senders += 1;
        self.senders
    }

    fn producers(&mut self, count: u32, entails: u32, make: impl Fn(u32) -> Producer) {
        for _ in 0..count {
            let producer = make(self.sender());
            self.add_clients(Pace::Shared(entails), [producer]);
        }
    }

    fn consumers(&mut self, count: u32, make: impl Fn(u32) -> Consumer) {
        self.add_clients(Pace::Free, (0..count).map(make));
    }

    fn paced(&mut self, clients: impl IntoIterator<Item = impl Client + 'static>) {
        self.add_clients(Pace::Shared(1), clients);
    }

    fn every(&mut self, pace: Duration, clients: impl IntoIterator<Item = impl Client + 'static>) {
        self.add_clients(Pace::Every(pace), clients);
    }

    fn add_clients(
        &mut self,
        pace: Pace,
        clients: impl IntoIterator<Item = impl Client + 'static>,
    ) {
        let part = |client| Part { client: Box::new(client) as Box<dyn Client>, pace };
        self.parts.extend(clients.into_iter().map(part));
    }
}

fn consumer(group: &str, keys: Keys) -> Consumer {
    Consumer { invisible_ms: INVISIBLE_MS, wait_ms: WAIT_MS, ..Consumer::new(group, keys) }
}
