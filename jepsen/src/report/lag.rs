//! How far behind the groups are.

use std::collections::BTreeMap;

use crate::history::{Answer, Call, Message, Observation};
use crate::judge::{Case, Fate};

use super::chart::{Canvas, linear};
use super::html::escape;

const HEIGHT: f64 = 220.0;
/// Groups that are drawn, by name.
const GROUPS: usize = 6;
/// Points of one line.
const POINTS: usize = 400;

/// How many messages wait, after each change: times in ns with counts.
type Steps = Vec<(u64, i64)>;

pub(super) fn lag(case: &Case<'_>, canvas: &Canvas) -> String {
    // A group, whether the cluster told it, and how it went.
    let mut lines: Vec<(String, bool, Steps)> = Vec::new();
    for (group, points) in unseen(case).into_iter().take(GROUPS) {
        lines.push((group.to_owned(), false, points));
    }
    let mut told: BTreeMap<&str, Steps> = BTreeMap::new();
    for seen in &case.record.observations {
        if let Observation::Lag { group, messages } = &seen.what {
            let messages = i64::try_from(*messages).unwrap_or(i64::MAX);
            told.entry(group).or_default().push((seen.time, messages));
        }
    }
    for (group, points) in told.into_iter().take(GROUPS) {
        lines.push((group.to_owned(), true, points));
    }
    let most = lines.iter().flat_map(|(.., points)| points).map(|(_, n)| *n).max().unwrap_or(1);
    let (scale, ticks) = linear(canvas, most as f64, HEIGHT);
    let mut names: Vec<&String> = lines.iter().map(|(name, ..)| name).collect();
    names.sort();
    names.dedup();
    let mut body = String::new();
    for (name, dotted, points) in &lines {
        let colour = names.iter().position(|n| *n == name).unwrap_or(0) % GROUPS;
        let every = points.len().div_ceil(POINTS).max(1);
        // The highest of each stretch: what is short must not vanish.
        let points: Vec<(f64, f64)> = points
            .chunks(every)
            .filter_map(|chunk| chunk.iter().max_by_key(|(_, n)| *n))
            .map(|(time, n)| (canvas.x(*time), canvas.y((*n).max(0) as f64, scale, HEIGHT)))
            .collect();
        let class = if *dotted { "dotted" } else { "" };
        let line = canvas.line(&points, class, name);
        body += &line.replacen("<path", &format!("<path stroke=\"var(--c{colour})\""), 1);
    }
    let legend: String = names
        .iter()
        .enumerate()
        .map(|(n, name)| {
            let colour = n % GROUPS;
            format!("<i style=\"background:var(--c{colour})\"></i>{}", escape(name))
        })
        .collect();
    canvas.draw(HEIGHT, &ticks, &body) + &format!("<p class=\"legend\">{legend}</p>")
}

/// Per group, how many acknowledged messages it has not received, after each change.
fn unseen<'a>(case: &Case<'a>) -> BTreeMap<&'a str, Steps> {
    let mut first: BTreeMap<&str, BTreeMap<Message, u64>> = BTreeMap::new();
    for op in &case.record.ops {
        if let (Call::Receive { group, .. }, Some(Answer::Receive { deliveries, .. })) =
            (&op.call, op.answer())
        {
            let seen = first.entry(group).or_default();
            for delivery in deliveries {
                let at = seen.entry(delivery.id).or_insert(op.ended);
                *at = (*at).min(op.ended);
            }
        }
    }
    let acked: Vec<(Message, u64)> = case
        .sends
        .by_id
        .iter()
        .filter(|(_, sent)| sent.fate == Fate::Done && !sent.half && sent.deliver_at.is_none())
        .map(|(id, sent)| (*id, sent.acked))
        .collect();
    let lines = first.into_iter().map(|(group, seen)| {
        let mut steps: Steps = acked.iter().map(|(_, at)| (*at, 1)).collect();
        steps.extend(acked.iter().filter_map(|(id, at)| Some((*seen.get(id)?.max(at), -1))));
        steps.sort_unstable();
        let mut lag = 0;
        for (_, step) in &mut steps {
            lag += *step;
            *step = lag;
        }
        (group, steps)
    });
    lines.collect()
}
