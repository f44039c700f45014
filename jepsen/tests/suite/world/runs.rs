//! One run per workload.

use std::sync::{Arc, Mutex};

use jepsen::generator::{
    Administrator, Client, Committer, Consumer, Keys, Ledger, Member, Producer, Questions, Reader,
    Teller,
};
use jepsen::history::{Group, Limits, Plan, Queue, Wants, Workload};

use super::{History, SECOND, run};

/// All workloads with a run of their own.
pub const ALL: [Workload; 10] = [
    Workload::Queue,
    Workload::Log,
    Workload::Offset,
    Workload::Fifo,
    Workload::Txn,
    Workload::Delay,
    Workload::Rebalance,
    Workload::Idem,
    Workload::Broadcast,
    Workload::Meta,
];

const WALL_START_MS: u64 = 1_790_000_000_000;

fn plan(workload: Workload, keys: u32, seed: u64) -> Plan {
    let queue = |id| Queue { topic: "orders".into(), broker: "broker-a".into(), id };
    let group = |name: &str| Group {
        name: name.into(),
        keys: (0..keys).collect(),
        fifo: workload == Workload::Fifo,
        exclusive: workload == Workload::Rebalance,
        pulls: matches!(workload, Workload::Offset | Workload::Rebalance),
        max_attempts: (name == "audit" && workload == Workload::Queue).then_some(3),
    };
    let groups = match workload {
        Workload::Log | Workload::Broadcast | Workload::Meta => Vec::new(),
        Workload::Offset | Workload::Rebalance => vec![group("billing")],
        _ => vec![group("audit"), group("billing")],
    };
    Plan {
        run: format!("rj-{workload:?}-{seed}").to_lowercase(),
        workloads: vec![workload],
        nemeses: vec!["kill".into()],
        seed,
        nodes: vec!["n1".into(), "n2".into(), "n3".into()],
        keys: (0..keys).map(queue).collect(),
        groups,
        wall_start_ms: WALL_START_MS,
        version: "model".into(),
        command: format!("jepsen run -w {workload:?} -n kill --seed {seed}").to_lowercase(),
        limits: Limits {
            transaction_timeout_ms: 1_000,
            check_interval_ms: 2_000,
            rebalance_ms: 2_000,
            ..Limits::default()
        },
        wants: Wants {
            faults: [("kill".to_owned(), 3)].into(),
            leader_changes: 3,
            ..Wants::default()
        },
    }
}

fn boxed(clients: impl IntoIterator<Item = impl Client + 'static>) -> Vec<Box<dyn Client>> {
    clients.into_iter().map(|c| Box::new(c) as Box<dyn Client>).collect()
}

/// A history of `workload` on a cluster that is right.
pub fn history(workload: Workload, seed: u64) -> History {
    let keys = if workload == Workload::Queue { 1 } else { 2 };
    let plan = plan(workload, keys, seed);
    let keys = Keys::first(keys);
    let producers = |make: fn(Producer) -> Producer| {
        boxed((1..=2).map(move |sender| make(Producer::new(sender, keys))))
    };
    let consumers = || {
        let of = |group: &'static str| {
            (0..3).map(move |_| {
                let poisoned = workload == Workload::Queue && group == "audit";
                let dead_letters_at = Some(43 * SECOND);
                Consumer { poisoned, dead_letters_at, ..Consumer::new(group, keys) }
            })
        };
        boxed(of("audit").chain(of("billing")))
    };
    let readers = |count: u32| boxed((0..count).map(move |_| Reader::new(keys)));
    let mut clients: Vec<Box<dyn Client>> = Vec::new();
    match workload {
        Workload::Queue => {
            clients.extend(producers(|p| p));
            clients.extend(consumers());
        }
        Workload::Log => {
            clients.extend(producers(|p| Producer { batches: true, ..p }));
            clients.extend(readers(3));
        }
        Workload::Offset => {
            clients.extend(boxed((0..4).map(|nth| Committer::new("billing", keys, nth, 4))));
            clients.extend(producers(|p| p));
        }
        Workload::Fifo => {
            clients.extend(producers(|p| Producer { message_groups: 3, ..p }));
            clients.extend(consumers());
        }
        Workload::Txn => {
            let ledger = Arc::new(Mutex::new(Ledger::default()));
            clients.extend(boxed((1..=3).map(|sender| Teller::new(sender, keys, &ledger))));
            clients.extend(boxed([Questions { ledger, after: super::broker::TIMEOUT }]));
            clients.extend(consumers());
        }
        Workload::Delay => {
            clients
                .extend(producers(|p| Producer { delay_from_wall_ms: Some(WALL_START_MS), ..p }));
            clients.extend(consumers());
        }
        Workload::Rebalance => {
            clients.extend(producers(|p| p));
            clients.extend(boxed([Reader {
                group: Some("billing".into()),
                commits: true,
                resume: true,
                ..Reader::new(keys)
            }]));
            let member = |n| Member::new("billing", &format!("m{n}"), 12 * SECOND);
            clients.extend(boxed((0..3).map(|n| Member { stays: n == 0, ..member(n) })));
        }
        Workload::Idem => {
            clients.extend(producers(|p| Producer { again: true, ..p }));
            clients.extend(consumers());
            clients.extend(readers(1));
        }
        Workload::Broadcast => {
            clients.extend(producers(|p| p));
            clients.extend(boxed((0..4).map(|_| Reader { seeks: false, ..Reader::new(keys) })));
        }
        Workload::Meta => {
            clients.extend(boxed((1..=3).map(|number| Administrator::new(number, "orders"))));
            clients.extend(producers(|p| p));
        }
        Workload::Mix => unreachable!("a mix is made of the others"),
    }
    run(plan, clients, seed)
}
