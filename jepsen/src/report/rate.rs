//! How much was done per second.

use std::collections::BTreeMap;

use crate::history::Outcome;
use crate::judge::Case;

use super::chart::{Canvas, linear};

const HEIGHT: f64 = 220.0;
const SECOND: u64 = 1_000_000_000;

pub(super) fn rate(case: &Case<'_>, canvas: &Canvas) -> String {
    let seconds = canvas.end() / SECOND + 1;
    let mut bins: BTreeMap<&str, BTreeMap<u64, u64>> = BTreeMap::new();
    for op in case.record.ops.iter().filter(|op| op.ended < u64::MAX) {
        let outcome = match op.outcome {
            Outcome::Ok(_) => "ok",
            Outcome::Failed(_) => "fail",
            Outcome::Unknown(_) => "info",
        };
        *bins.entry(outcome).or_default().entry(op.ended / SECOND).or_default() += 1;
    }
    let most = bins.values().flat_map(BTreeMap::values).max().copied().unwrap_or(1);
    let (scale, ticks) = linear(canvas, most as f64, HEIGHT);
    let mut body = String::new();
    let mut legend = String::new();
    for (outcome, bins) in &bins {
        let points: Vec<(f64, f64)> = (0..seconds)
            .map(|second| {
                let count = bins.get(&second).copied().unwrap_or(0) as f64;
                (canvas.x(second * SECOND + SECOND / 2), canvas.y(count, scale, HEIGHT))
            })
            .collect();
        body += &canvas.line(&points, outcome, outcome);
        legend += &format!("<i style=\"background:var(--{outcome})\"></i>{outcome}");
    }
    canvas.draw(HEIGHT, &ticks, &body) + &format!("<p class=\"legend\">{legend}</p>")
}
