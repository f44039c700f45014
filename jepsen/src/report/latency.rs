//! How long operations took.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Call, Op, Outcome};
use crate::judge::Case;

use super::chart::{Canvas, Scale, put};
use super::html::escape;

const HEIGHT: f64 = 300.0;
/// From 100 µs to 100 s, in ms.
const SCALE: Scale = Scale::Log { from: 0.1, to: 100_000.0 };
/// Parts of the run that have quantiles of their own.
const WINDOWS: u64 = 100;
/// Shapes of dots: kinds of operations beyond that share them.
const SHAPES: usize = 5;

fn ticks(canvas: &Canvas) -> Vec<(f64, String)> {
    let marks = [(0.1, "0.1 ms"), (1.0, "1 ms"), (10.0, "10 ms"), (100.0, "100 ms")];
    let more = [(1_000.0, "1 s"), (10_000.0, "10 s"), (100_000.0, "100 s")];
    let all = marks.into_iter().chain(more);
    all.map(|(at, label)| (canvas.y(at, SCALE, HEIGHT), label.to_owned())).collect()
}

fn millis(op: &Op) -> f64 {
    op.ended.saturating_sub(op.began) as f64 / 1e6
}

fn outcome(op: &Op) -> &'static str {
    match op.outcome {
        Outcome::Ok(_) => "ok",
        Outcome::Failed(_) => "fail",
        Outcome::Unknown(_) => "info",
    }
}

/// Each operation as a dot; those that would cover each other are drawn once.
pub(super) fn raw(case: &Case<'_>, canvas: &Canvas) -> String {
    let mut kinds: Vec<&str> = Vec::new();
    let mut dots: BTreeMap<(&str, usize), BTreeSet<(i64, i64)>> = BTreeMap::new();
    for op in case.record.ops.iter().filter(|op| op.ended < u64::MAX) {
        let name = op.call.name();
        let kind = kinds.iter().position(|k| *k == name).unwrap_or_else(|| {
            kinds.push(name);
            kinds.len() - 1
        });
        let (x, y) = (canvas.x(op.ended), canvas.y(millis(op), SCALE, HEIGHT));
        dots.entry((outcome(op), kind % SHAPES)).or_default().insert((pixel(x), pixel(y)));
    }
    let mut body = String::new();
    // What went well is drawn first, so that the rest is not covered.
    for wanted in ["ok", "fail", "info"] {
        for ((outcome, shape), dots) in dots.iter().filter(|((o, _), _)| *o == wanted) {
            let mut path = String::new();
            for (x, y) in dots {
                put(&mut path, format_args!("M{x} {y}{}", glyph(*shape)));
            }
            let round = if *shape == 0 { " round" } else { "" };
            put(&mut body, format_args!("<path class=\"dots{round} {outcome}\" d=\"{path}\"/>\n"));
        }
    }
    let mut legend = String::new();
    for outcome in ["ok", "fail", "info"] {
        put(&mut legend, format_args!("<i style=\"background:var(--{outcome})\"></i>{outcome}"));
    }
    let shapes = ["dot", "dash", "bar", "cross", "corner"];
    let named: Vec<String> = kinds
        .iter()
        .enumerate()
        .map(|(kind, name)| format!("{} {}", shapes[kind % SHAPES], escape(name)))
        .collect();
    let svg = canvas.draw(HEIGHT, &ticks(canvas), &body);
    format!("{svg}<p class=\"legend\">{legend} &middot; {}</p>", named.join(", "))
}

#[allow(clippy::cast_possible_truncation, reason = "a place on a page of a thousand pixels")]
fn pixel(at: f64) -> i64 {
    at.round() as i64
}

fn glyph(shape: usize) -> &'static str {
    match shape {
        0 => "h0",
        1 => "m-2 0h4",
        2 => "m0-2v4",
        3 => "m-2-2l4 4m-4 0l4-4",
        _ => "m-2-2v4h4",
    }
}

/// The write latencies of each part of the run.
pub(super) fn quantiles(case: &Case<'_>, canvas: &Canvas) -> String {
    let mut windows: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for op in case.record.ops.iter().filter(|op| op.is_ok() && is_write(op)) {
        let window = u128::from(op.ended) * u128::from(WINDOWS) / u128::from(canvas.end());
        let window = u64::try_from(window).unwrap_or(WINDOWS);
        windows.entry(window).or_default().push(op.ended - op.began);
    }
    windows.values_mut().for_each(|took| took.sort_unstable());
    let mut body = String::new();
    for (percent, colour) in [(50, "good"), (95, "ok"), (99, "doubtful"), (100, "bad")] {
        let points: Vec<(f64, f64)> = windows
            .iter()
            .map(|(window, took)| {
                let at = (took.len() - 1) * percent / 100;
                let middle = canvas.end() / WINDOWS * window + canvas.end() / WINDOWS / 2;
                let ms = took[at] as f64 / 1e6;
                (canvas.x(middle), canvas.y(ms, SCALE, HEIGHT))
            })
            .collect();
        body += &canvas.line(&points, colour, &format!("{percent} %"));
    }
    let legend = "<p class=\"legend\"><i style=\"background:var(--good)\"></i>median\
                  <i style=\"background:var(--ok)\"></i>95 %\
                  <i style=\"background:var(--doubt)\"></i>99 %\
                  <i style=\"background:var(--bad)\"></i>longest</p>";
    canvas.draw(HEIGHT, &ticks(canvas), &body) + legend
}

fn is_write(op: &Op) -> bool {
    matches!(
        op.call,
        Call::Send { .. }
            | Call::Prepare { .. }
            | Call::End { .. }
            | Call::Commit { .. }
            | Call::Write { .. }
            | Call::Cas { .. }
            | Call::Add { .. }
            | Call::Remove { .. }
    )
}
