//! What became of each message.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Answer, Message};
use crate::judge::{Case, Fate};

use super::chart::{Canvas, LEFT, put};
use super::html::escape;

/// Height of the row of one queue.
const ROW: f64 = 46.0;
/// Rows that are drawn.
const ROWS: usize = 24;

/// From the least to the most alarming; the later is drawn over the earlier.
const FATES: [(&str, &str); 5] = [
    ("acknowledged and seen", "good"),
    ("refused", "fail"),
    ("of unknown fate, seen", "ok"),
    ("of unknown fate, not seen", "doubtful"),
    ("acknowledged and never seen", "bad"),
];

pub(super) fn lost(case: &Case<'_>, canvas: &Canvas) -> String {
    let seen = seen(case);
    let by_key = case.sends.by_key();
    let rows = by_key.len().min(ROWS);
    let top = canvas.top() + 14.0;
    let height = top + ROW * rows as f64 + 30.0;
    let mut body = String::new();
    let mut counts = [0u64; FATES.len()];
    let mut dots: BTreeMap<(usize, usize), BTreeSet<i64>> = BTreeMap::new();
    for (row, (key, sent)) in by_key.iter().take(ROWS).enumerate() {
        let y = top + ROW * row as f64;
        put(
            &mut body,
            format_args!(
                "<text x=\"{}\" y=\"{:.1}\">{}</text>\n",
                LEFT + 4.0,
                y,
                escape(&case.plan.queue(*key))
            ),
        );
        for (id, sent) in sent {
            let fate = match (sent.fate, seen.contains(id)) {
                (Fate::Done, true) => 0,
                (Fate::Failed, _) => 1,
                (Fate::Unknown, true) => 2,
                (Fate::Unknown, false) => 3,
                (Fate::Done, false) => 4,
            };
            counts[fate] += 1;
            dots.entry((fate, row)).or_default().insert(pixel(canvas.x(sent.began)));
        }
    }
    for ((fate, row), xs) in &dots {
        let y = top + 6.0 + ROW * *row as f64 + 6.0 * *fate as f64;
        let mut path = String::new();
        for x in xs {
            put(&mut path, format_args!("M{x} {y:.0}v4"));
        }
        let class = FATES[*fate].1;
        put(&mut body, format_args!("<path class=\"dots {class}\" d=\"{path}\"/>\n"));
    }
    let mut legend = String::new();
    for ((name, class), count) in FATES.iter().zip(counts) {
        let colour = if *class == "doubtful" { "doubt" } else { class };
        put(
            &mut legend,
            format_args!("<i style=\"background:var(--{colour})\"></i>{name}: {count}"),
        );
    }
    canvas.draw(height, &[], &body) + &format!("<p class=\"legend\">{legend}</p>")
}

#[allow(clippy::cast_possible_truncation, reason = "a place on a page of a thousand pixels")]
fn pixel(at: f64) -> i64 {
    at.round() as i64
}

/// Everything that anybody received or read.
fn seen(case: &Case<'_>) -> BTreeSet<Message> {
    let mut seen = BTreeSet::new();
    for answer in case.record.ops.iter().filter_map(|op| op.answer()) {
        match answer {
            Answer::Poll { entries, .. } => seen.extend(entries.iter().map(|e| e.id)),
            Answer::Receive { deliveries, .. } => seen.extend(deliveries.iter().map(|d| d.id)),
            Answer::DeadLetters { ids } => seen.extend(ids),
            _ => {}
        }
    }
    seen
}
