//! Transactions: nothing is seen before its commit or after its rollback, everything committed
//! arrives, and money is neither made nor lost.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Answer, Call, Message, Op, Resolution};
use crate::judge::grants::Deliveries;
use crate::judge::{Case, Fate, Finding, Kind, MS};

/// Everything about one transaction.
#[derive(Default)]
struct Transfer<'a> {
    from: u32,
    to: u32,
    amount: u64,
    fate: Option<Fate>,
    /// When the half message was acknowledged; `u64::MAX` if it never was.
    prepared: u64,
    decided: Option<Resolution>,
    ends: Vec<(&'a Op, Resolution)>,
    checks: Vec<(&'a Op, Resolution)>,
    prepare: Option<&'a Op>,
}

impl<'a> Transfer<'a> {
    /// Requests and answers to checks that may have resolved it so.
    fn asked(&self, for_it: Resolution) -> impl Iterator<Item = &'a Op> {
        let all = self.ends.iter().chain(&self.checks);
        all.filter(move |(op, how)| *how == for_it && !op.is_failed()).map(|(op, _)| *op)
    }

    /// The first confirmed end of this kind.
    fn confirmed(&self, as_it: Resolution) -> Option<&'a Op> {
        let ends = self.ends.iter().filter(move |(op, how)| *how == as_it && op.is_ok());
        ends.map(|(op, _)| *op).min_by_key(|op| op.ended)
    }
}

pub(crate) fn check(case: &Case<'_>) -> Finding {
    let mut finding = Finding::default();
    let (transfers, given_up) = transfers(case);
    finding.count("transactions", transfers.len());
    finding.count("given up", given_up.len());
    let groups = Deliveries::of(case);
    for (tx, transfer) in &transfers {
        conflict(*tx, transfer, &mut finding);
        questions(case, *tx, transfer, &given_up, &mut finding);
    }
    for (name, deliveries) in &groups {
        let Some(group) = case.plan.group(name) else { continue };
        let mine = |tx: &Message| {
            case.sends.by_id.get(tx).is_some_and(|sent| group.keys.contains(&sent.key))
        };
        for (tx, transfer) in transfers.iter().filter(|(tx, _)| mine(tx)) {
            visibility(name, *tx, transfer, deliveries, &mut finding);
        }
        if !transfers.keys().any(mine) {
            continue;
        }
        if case.record.drained_group(name) {
            let mine: Vec<_> = transfers.iter().filter(|(tx, _)| mine(tx)).collect();
            arrivals(name, &mine, deliveries, &given_up, &mut finding);
            balances(name, &mine, deliveries, &given_up, &mut finding);
        } else {
            finding
                .doubt(format!("{name} did not read to the end, so lost commits cannot be told"));
        }
    }
    finding
}

fn transfers<'a>(case: &Case<'a>) -> (BTreeMap<Message, Transfer<'a>>, BTreeSet<Message>) {
    let mut transfers: BTreeMap<Message, Transfer<'_>> = BTreeMap::new();
    let mut given_up = BTreeSet::new();
    let mut unanswered = Vec::new();
    for op in &case.record.ops {
        match (&op.call, op.answer()) {
            (Call::Prepare { tx, from, to, amount, .. }, _) => {
                let transfer = transfers.entry(*tx).or_default();
                (transfer.from, transfer.to, transfer.amount) = (*from, *to, *amount);
                transfer.prepare = Some(op);
                let sent = case.sends.by_id.get(tx);
                transfer.fate = sent.map(|s| s.fate);
                transfer.prepared = sent.map_or(u64::MAX, |s| s.acked);
            }
            (Call::Decide { tx, resolution }, _) => {
                transfers.entry(*tx).or_default().decided = Some(*resolution);
            }
            (Call::End { tx, resolution }, _) => {
                transfers.entry(*tx).or_default().ends.push((op, *resolution));
            }
            (Call::Check { tx }, Some(Answer::Check { resolution })) => {
                transfers.entry(*tx).or_default().checks.push((op, *resolution));
            }
            (Call::Check { tx }, None) if !op.is_failed() => unanswered.push((*tx, op)),
            (Call::Parked {}, Some(Answer::Parked { txs })) => given_up.extend(txs),
            _ => {}
        }
    }
    // The cluster asked, and may have got the answer although nobody heard that it did: what the
    // producer's ledger says, in which what nobody decided is a rollback.
    for (tx, op) in unanswered {
        let transfer = transfers.entry(tx).or_default();
        let said = transfer.decided.unwrap_or(Resolution::Rollback);
        transfer.checks.push((op, said));
    }
    (transfers, given_up)
}

fn conflict(tx: Message, transfer: &Transfer<'_>, finding: &mut Finding) {
    let commit = transfer.confirmed(Resolution::Commit);
    let rollback = transfer.confirmed(Resolution::Rollback);
    if let (Some(commit), Some(rollback)) = (commit, rollback) {
        finding.add(Kind::Conflict, [commit, rollback], || {
            format!("a commit and a rollback of {tx} were both confirmed")
        });
    }
}

fn visibility(
    name: &str,
    tx: Message,
    transfer: &Transfer<'_>,
    deliveries: &Deliveries<'_>,
    finding: &mut Finding,
) {
    let Some(first) = deliveries.grants_of(tx).next() else { return };
    let prepare = transfer.prepare.into_iter();
    let asked = transfer.asked(Resolution::Commit).map(|op| op.began).min();
    if let Some(rollback) = transfer.confirmed(Resolution::Rollback) {
        let ops = prepare.chain([rollback, first.op]);
        finding.add(Kind::PhantomCommit, ops, || format!("{name} got {tx}, which was rolled back"));
    } else if asked.is_none() && transfer.decided == Some(Resolution::Rollback) {
        finding.add(Kind::PhantomCommit, prepare.chain([first.op]), || {
            format!("{name} got {tx}, of which its producer decided a rollback")
        });
    } else if asked.is_none_or(|asked| first.op.ended < asked) {
        finding.add(Kind::EarlyHalf, prepare.chain([first.op]), || {
            format!("{name} got {tx} before anybody asked for its commit")
        });
    }
}

/// Whether a transaction has to be delivered once everything is quiet.
fn must_arrive(tx: Message, transfer: &Transfer<'_>, given_up: &BTreeSet<Message>) -> bool {
    let confirmed = transfer.confirmed(Resolution::Commit).is_some();
    let decided = transfer.decided == Some(Resolution::Commit) && transfer.fate == Some(Fate::Done);
    confirmed || decided && !given_up.contains(&tx)
}

fn arrivals(
    name: &str,
    transfers: &[(&Message, &Transfer<'_>)],
    deliveries: &Deliveries<'_>,
    given_up: &BTreeSet<Message>,
    finding: &mut Finding,
) {
    for (tx, transfer) in transfers {
        let arrived = deliveries.of_message.contains_key(tx) || deliveries.dead.contains_key(tx);
        if !arrived && must_arrive(**tx, transfer, given_up) {
            let ops = transfer.prepare.into_iter().chain(transfer.ends.iter().map(|(op, _)| *op));
            finding.add(Kind::LostCommit, ops, || {
                format!("{tx} was committed, and {name} never got it")
            });
        }
    }
}

/// Senders are debited for what they committed, receivers are credited for what came, once each.
fn balances(
    name: &str,
    transfers: &[(&Message, &Transfer<'_>)],
    deliveries: &Deliveries<'_>,
    given_up: &BTreeSet<Message>,
    finding: &mut Finding,
) {
    let mut accounts: BTreeMap<u32, i128> = BTreeMap::new();
    let mut events = Vec::new();
    for (tx, transfer) in transfers {
        let amount = i128::from(transfer.amount);
        let debited = transfer.decided == Some(Resolution::Commit)
            && (deliveries.of_message.contains_key(tx) || must_arrive(**tx, transfer, given_up));
        let credited = deliveries.of_message.contains_key(tx) || deliveries.dead.contains_key(tx);
        if debited {
            *accounts.entry(transfer.from).or_default() -= amount;
        }
        if credited {
            *accounts.entry(transfer.to).or_default() += amount;
        }
        if debited != credited {
            events.extend(transfer.prepare.map(|op| op.index));
        }
    }
    let sum: i128 = accounts.values().sum();
    if sum != 0 {
        events.truncate(8);
        finding.add_at(Kind::Unbalanced, events, || {
            format!("for {name} the sum of {} accounts changed by {sum}", accounts.len())
        });
    }
}

fn questions(
    case: &Case<'_>,
    tx: Message,
    transfer: &Transfer<'_>,
    given_up: &BTreeSet<Message>,
    finding: &mut Finding,
) {
    let limits = &case.plan.limits;
    let (timeout, interval) = (limits.transaction_timeout_ms * MS, limits.check_interval_ms * MS);
    let slack = limits.redelivery_ms * MS;
    finding.count("checks", transfer.checks.len());
    let ends = [Resolution::Commit, Resolution::Rollback].map(|how| transfer.confirmed(how));
    let resolved = ends.into_iter().flatten().min_by_key(|op| op.ended);
    if let Some(resolved) = resolved {
        for (check, _) in &transfer.checks {
            if resolved.ended + interval + slack >= check.began {
                continue;
            }
            finding.count("checks after the end", 1);
            let calm = case.timeline.calm(resolved.ended, check.began).is_some();
            if calm {
                finding.add(Kind::CheckAfterResolve, [resolved, *check], || {
                    format!("the producer of {tx} was asked long after its end was confirmed")
                });
            }
        }
        return;
    }
    // An end of unknown outcome may have been the end.
    let silent = transfer.ends.iter().all(|(op, _)| op.is_failed());
    if !silent || !transfer.checks.is_empty() || transfer.fate != Some(Fate::Done) {
        return;
    }
    // Faults that come often leave no time to ask in between; after the last one there must be.
    let Some((settled, _)) = case.timeline.calm(case.record.end, case.record.end) else { return };
    let due = transfer.prepared.max(settled).saturating_add(timeout + interval + slack);
    if due < case.record.end && !given_up.contains(&tx) {
        finding.add(Kind::CheckMissing, transfer.prepare, || {
            format!("{tx} was left without an end, and nobody asked its producer")
        });
    }
}
