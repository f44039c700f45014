//! Who led when.

use crate::history::Observation;
use crate::judge::Case;

use super::chart::{Canvas, put};
use super::html::escape;

const ROW: f64 = 22.0;
/// Colours of the style sheet.
const COLOURS: u64 = 6;

pub(super) fn ribbon(case: &Case<'_>, canvas: &Canvas) -> String {
    let mut reigns: Vec<(u64, &str, u64)> = Vec::new();
    for seen in &case.record.observations {
        if let Observation::Leader { node, term } = &seen.what {
            let same = reigns.last().is_some_and(|(_, last, of)| last == node && of == term);
            if !same {
                reigns.push((seen.time, node, *term));
            }
        }
    }
    let top = canvas.top();
    let height = top + ROW * case.plan.nodes.len() as f64 + 28.0;
    let mut ticks = Vec::new();
    for (row, node) in case.plan.nodes.iter().enumerate() {
        ticks.push((top + ROW * row as f64 + ROW / 2.0, node.clone()));
    }
    let mut body = String::new();
    for (nth, (from, node, term)) in reigns.iter().enumerate() {
        let Some(row) = case.plan.nodes.iter().position(|n| n == node) else { continue };
        let to = reigns.get(nth + 1).map_or(canvas.end(), |(next, ..)| *next);
        let (x, width) = (canvas.x(*from), (canvas.x(to) - canvas.x(*from)).max(1.0));
        let (y, colour) = (top + ROW * row as f64 + 3.0, term % COLOURS);
        put(
            &mut body,
            format_args!(
                "<g><title>{} led in term {term} from {} ms</title><rect x=\"{x:.1}\" y=\"{y:.1}\" \
                 width=\"{width:.1}\" height=\"{}\" fill=\"var(--c{colour})\" opacity=\".8\"/>",
                escape(node),
                from / 1_000_000,
                ROW - 6.0
            ),
        );
        if 24.0 < width {
            put(
                &mut body,
                format_args!(
                    "<text x=\"{:.1}\" y=\"{:.1}\" style=\"fill:var(--paper)\">{term}</text>",
                    x + 5.0,
                    y + 12.0
                ),
            );
        }
        body.push_str("</g>\n");
    }
    canvas.draw(height, &ticks, &body)
}
