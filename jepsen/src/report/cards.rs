//! What is wrong, each with the part of the history that shows it.

use crate::history::Plan;
use crate::judge::{Judgement, Slice};

use super::chart::put;
use super::html::escape;

pub(super) fn cards(plan: &Plan, slices: &[Slice], judgement: &Judgement) -> String {
    let mut html = String::new();
    for (kind, count) in judgement.kinds() {
        let of_kind: Vec<&Slice> = slices.iter().filter(|s| s.anomaly.kind == kind).collect();
        put(
            &mut html,
            format_args!(
                "<div class=\"card\"><h3>{kind} <small>{count} &times; &middot; {}</small></h3>\n",
                escape(kind.meaning().trim())
            ),
        );
        for slice in of_kind {
            put(&mut html, format_args!("<p>{}</p>\n", escape(&slice.anomaly.what)));
            if !slice.lines.is_empty() {
                lines(slice, &mut html);
            }
        }
        put(
            &mut html,
            format_args!("<p>reproduce: <code>{}</code></p></div>\n", escape(&plan.command)),
        );
    }
    for (name, doubt) in judgement.doubts() {
        put(
            &mut html,
            format_args!(
                "<div class=\"card doubt\"><h3>unknown <small>{}</small></h3><p>{}</p></div>\n",
                escape(name),
                escape(doubt)
            ),
        );
    }
    if html.is_empty() { html } else { format!("<section><h2>Anomalies</h2>{html}</section>\n") }
}

/// The events that show it, and, on demand, what happened around them.
fn lines(slice: &Slice, html: &mut String) {
    let all = || slice.lines.iter().zip(&slice.own);
    table(all().filter(|(_, own)| **own), html);
    let count = slice.lines.len();
    put(html, format_args!("<details><summary>{count} events with those around it</summary>\n"));
    table(all(), html);
    html.push_str("</details>\n");
}

fn table<'a>(lines: impl Iterator<Item = (&'a String, &'a bool)>, html: &mut String) {
    html.push_str("<div class=\"slice\"><table class=\"mono\">\n");
    for (line, own) in lines {
        let class = if *own { " class=\"own\"" } else { "" };
        put(html, format_args!("<tr{class}><td>{}</td></tr>\n", escape(line)));
    }
    html.push_str("</table></div>\n");
}
