//! What the cluster as a whole does with one operation at one moment.

use std::collections::{BTreeMap, BTreeSet};

use jepsen::history::{Answer, Call, Change, Delivery, Entry, Key, Message, Plan, Resolution};

use super::MS;

/// Messages that one receive or poll hands out.
const BATCH: usize = 8;
/// Age of a half message before its producer is asked.
pub const TIMEOUT: u64 = 1_000 * MS;

struct Lease {
    until: u64,
    handle: u64,
}

#[derive(Default)]
struct Group {
    fifo: bool,
    max_attempts: u32,
    leases: BTreeMap<Message, Lease>,
    attempts: BTreeMap<Message, u32>,
    gone: BTreeSet<Message>,
    /// Below these places in the logs everything is gone.
    heads: BTreeMap<Key, usize>,
    dead: Vec<Message>,
    offsets: BTreeMap<Key, u64>,
    members: BTreeSet<String>,
    keys: Vec<Key>,
}

struct Half {
    key: Key,
    ended: Option<Resolution>,
}

#[derive(Default)]
pub struct Broker {
    wall_start_ms: u64,
    logs: Vec<Vec<Message>>,
    message_groups: BTreeMap<Message, String>,
    stored: BTreeMap<Message, u64>,
    timers: BTreeMap<(u64, Message), Key>,
    fired: BTreeSet<Message>,
    recalled: BTreeSet<Message>,
    groups: BTreeMap<String, Group>,
    halves: BTreeMap<Message, Half>,
    registers: BTreeMap<String, u64>,
    sets: BTreeMap<String, BTreeSet<u64>>,
    handles: u64,
}

impl Broker {
    pub fn new(plan: &Plan) -> Self {
        let mut broker = Self {
            wall_start_ms: plan.wall_start_ms,
            logs: vec![Vec::new(); plan.keys.len()],
            ..Self::default()
        };
        for group in &plan.groups {
            let state = Group {
                fifo: group.fifo,
                max_attempts: group.max_attempts.unwrap_or(u32::MAX),
                keys: group.keys.clone(),
                ..Group::default()
            };
            broker.groups.insert(group.name.clone(), state);
        }
        broker
    }

    /// Whether a receive would find nothing, so that it waits.
    pub fn waits(&mut self, call: &Call, now: u64) -> bool {
        self.fire(now);
        matches!(call, Call::Receive { group, key, .. } if self.ready(group, *key, now).is_empty())
    }

    fn fire(&mut self, now: u64) {
        while let Some(timer) = self.timers.first_entry() {
            if now < timer.key().0 {
                return;
            }
            let ((_, id), key) = timer.remove_entry();
            self.append(key, id);
            self.fired.insert(id);
        }
    }

    fn append(&mut self, key: Key, id: Message) -> u64 {
        let log = &mut self.logs[key as usize];
        // A repeated send gets the offset of the first one.
        *self.stored.entry(id).or_insert_with(|| {
            log.push(id);
            log.len() as u64 - 1
        })
    }

    pub fn apply(&mut self, call: &Call, now: u64) -> Result<Answer, &'static str> {
        self.fire(now);
        Ok(match call {
            Call::Send { key, ids, message_group, deliver_at } => {
                for (id, group) in ids.iter().zip(message_group.iter().cycle()) {
                    self.message_groups.insert(*id, group.clone());
                }
                let at = deliver_at.map(|at| at.saturating_sub(self.wall_start_ms) * MS);
                let offsets = match at {
                    None => ids.iter().map(|id| self.append(*key, *id)).collect(),
                    Some(at) => {
                        self.timers.extend(ids.iter().map(|id| ((at, *id), *key)));
                        Vec::new()
                    }
                };
                Answer::Send { offsets }
            }
            Call::Recall { id } => {
                let timer = self.timers.keys().find(|(_, timer)| timer == id).copied();
                if let Some(timer) = timer {
                    self.timers.remove(&timer);
                    self.recalled.insert(*id);
                } else if !self.fired.contains(id) && !self.recalled.contains(id) {
                    return Err("no such message");
                }
                Answer::Recall { done: self.recalled.contains(id) }
            }
            Call::Poll { key, from, .. } => {
                let log = &self.logs[*key as usize];
                let from = usize::try_from(from.expect("readers say where")).expect("small");
                let entries = log.iter().enumerate().skip(from).take(BATCH);
                let entry = |(at, id): (usize, &Message)| Entry { offset: at as u64, id: *id };
                Answer::Poll { entries: entries.map(entry).collect(), corrupt: Vec::new() }
            }
            Call::MaxOffset { key } => {
                Answer::MaxOffset { offset: self.logs[*key as usize].len() as u64 }
            }
            Call::MinOffset { .. } => Answer::MinOffset { offset: 0 },
            Call::Lookup { id, .. } => Answer::Lookup { offset: self.stored.get(id).copied() },
            Call::Receive { group, key, invisible_ms, .. } => {
                self.receive(group, *key, now + invisible_ms * MS, now)
            }
            Call::Ack { group, id, handle } => {
                let group = self.groups.get_mut(group).expect("a group of the plan");
                let lease = group.leases.get(id).filter(|l| l.handle == *handle && now < l.until);
                lease.ok_or("the handle has expired")?;
                group.leases.remove(id);
                group.gone.insert(*id);
                Answer::Ack {}
            }
            Call::ChangeInvisible { group, id, handle, invisible_ms } => {
                self.handles += 1;
                let group = self.groups.get_mut(group).expect("a group of the plan");
                let lease = group.leases.get_mut(id);
                let lease = lease.filter(|l| l.handle == *handle && now < l.until);
                let lease = lease.ok_or("the handle has expired")?;
                *lease = Lease { until: now + invisible_ms * MS, handle: self.handles };
                Answer::ChangeInvisible { handle: self.handles }
            }
            Call::DeadLetters { group } => {
                Answer::DeadLetters { ids: self.groups[group].dead.clone() }
            }
            Call::Commit { group, key, offset } => {
                self.group(group).offsets.insert(*key, *offset);
                Answer::Commit {}
            }
            Call::Query { group, key } => {
                Answer::Query { offset: self.groups[group].offsets.get(key).copied() }
            }
            Call::Resume { group, key } => {
                let offset = self.groups[group].offsets.get(key).copied().unwrap_or(0);
                Answer::Resume { offset }
            }
            Call::Prepare { tx, key, .. } => {
                self.halves.insert(*tx, Half { key: *key, ended: None });
                Answer::Prepare {}
            }
            Call::Decide { .. } => Answer::Decide {},
            Call::End { tx, resolution } => {
                self.end(*tx, *resolution)?;
                Answer::End {}
            }
            // What the producer answers is in its own ledger; see the client.
            Call::Check { .. } => return Err("the client answers"),
            Call::Parked {} => Answer::Parked { txs: Vec::new() },
            Call::Member { group, member, change } => {
                let members = &mut self.group(group).members;
                match change {
                    Change::Join => members.insert(member.clone()),
                    Change::Leave | Change::Crash => members.remove(member),
                };
                Answer::Member {}
            }
            Call::Assignment { group, member } => {
                let group = &self.groups[group];
                let (place, count) =
                    (group.members.iter().position(|m| m == member), group.members.len());
                let place = place.ok_or("no member")?;
                let mine = group.keys.iter().skip(place).step_by(count);
                Answer::Assignment { keys: mine.copied().collect() }
            }
            Call::Write { register, value } => {
                self.registers.insert(register.clone(), *value);
                Answer::Write {}
            }
            Call::Cas { register, expected, value } => {
                let done = self.registers.get(register) == Some(expected);
                if done {
                    self.registers.insert(register.clone(), *value);
                }
                Answer::Cas { done }
            }
            Call::Read { register } => {
                Answer::Read { value: self.registers.get(register).copied() }
            }
            Call::Add { set, element } => {
                self.sets.entry(set.clone()).or_default().insert(*element);
                Answer::Add {}
            }
            Call::Remove { set, element } => {
                self.sets.entry(set.clone()).or_default().remove(element);
                Answer::Remove {}
            }
            Call::List { set } => {
                let elements = self.sets.get(set).into_iter().flatten().copied().collect();
                Answer::List { elements }
            }
            Call::Route { .. } => Answer::Route { leader: None },
        })
    }

    fn group(&mut self, name: &str) -> &mut Group {
        self.groups.get_mut(name).expect("a group of the plan")
    }

    /// Ends a transaction; the first end stands.
    fn end(&mut self, tx: Message, resolution: Resolution) -> Result<(), &'static str> {
        let half = self.halves.get_mut(&tx).ok_or("no such transaction")?;
        match half.ended {
            Some(ended) if ended == resolution => return Ok(()),
            Some(_) => return Err("it ended otherwise"),
            None => half.ended = Some(resolution),
        }
        let key = half.key;
        if resolution == Resolution::Commit {
            self.append(key, tx);
        }
        Ok(())
    }

    /// Answers a question about a transaction on behalf of its producer.
    pub fn answer_check(&mut self, tx: Message, resolution: Resolution) {
        if resolution != Resolution::Undecided {
            // A question that comes after the end changes nothing.
            let _ = self.end(tx, resolution);
        }
    }

    /// What a receive would get: places in the log.
    fn ready(&mut self, group: &str, key: Key, now: u64) -> Vec<Message> {
        let log = &self.logs[key as usize];
        let state = self.groups.get_mut(group).expect("a group of the plan");
        let head = state.heads.get(&key).copied().unwrap_or(0);
        let more = log[head..].iter().take_while(|id| state.gone.contains(id)).count();
        state.heads.insert(key, head + more);
        let group = &self.groups[group];
        // A message group is with one consumer at a time.
        let leased = group.leases.iter().filter(|(_, lease)| now < lease.until && group.fifo);
        let blocked: BTreeSet<&str> =
            leased.filter_map(|(id, _)| self.message_groups.get(id)).map(String::as_str).collect();
        let mut ready = Vec::new();
        for id in
            self.logs[key as usize][head + more..].iter().filter(|id| !group.gone.contains(id))
        {
            let leased = group.leases.get(id).is_some_and(|lease| now < lease.until);
            let order = self.message_groups.get(id).filter(|_| group.fifo).map(String::as_str);
            if leased {
                continue;
            }
            if order.is_some_and(|order| blocked.contains(order)) {
                continue;
            }
            ready.push(*id);
            if ready.len() == BATCH {
                break;
            }
        }
        ready
    }

    fn receive(&mut self, name: &str, key: Key, until: u64, now: u64) -> Answer {
        let mut deliveries = Vec::new();
        for id in self.ready(name, key, now) {
            self.handles += 1;
            let handle = self.handles;
            let offset = self.stored.get(&id).copied();
            let group = self.group(name);
            let attempt = group.attempts.entry(id).or_default();
            if *attempt == group.max_attempts {
                group.gone.insert(id);
                group.dead.push(id);
                continue;
            }
            *attempt += 1;
            let attempt = *attempt;
            group.leases.insert(id, Lease { until, handle });
            deliveries.push(Delivery { id, offset, handle, attempt });
        }
        Answer::Receive { deliveries, corrupt: Vec::new() }
    }
}
