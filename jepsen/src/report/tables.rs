//! Figures: what each fault cost, what each checker looked at.

use std::collections::BTreeMap;

use crate::judge::{Case, Judgement, Recovery};

use super::chart::put;
use super::html::escape;

/// Single faults that are listed; their classes are summed up in any case.
const LISTED: usize = 200;

/// The longest time without a successful send, per fault and per class of faults.
pub(super) fn recoveries(judgement: &Judgement) -> String {
    if judgement.recoveries.is_empty() {
        return String::new();
    }
    let mut classes: BTreeMap<(&str, bool), Vec<&Recovery>> = BTreeMap::new();
    for recovery in &judgement.recoveries {
        classes.entry((&recovery.class, recovery.leader)).or_default().push(recovery);
    }
    let mut html = String::from(
        "<section><h2>Recovery <small>longest time without a successful send, in ms</small></h2>\
         <table><tr><th>fault</th><th>hit</th><th class=\"number\">times</th>\
         <th class=\"number\">median</th><th class=\"number\">longest</th>\
         <th class=\"number\">allowed</th></tr>\n",
    );
    for ((class, leader), recoveries) in &classes {
        let mut gaps: Vec<u64> = recoveries.iter().map(|r| r.gap_ms).collect();
        gaps.sort_unstable();
        let (median, longest) = (gaps[(gaps.len() - 1) / 2], gaps[gaps.len() - 1]);
        let allowed = recoveries.iter().filter_map(|r| r.allowed_ms).min();
        put(
            &mut html,
            format_args!(
                "<tr><td>{}</td><td>{}</td><td class=\"number\">{}</td>\
                 <td class=\"number\">{median}</td><td class=\"number{}\">{longest}</td>\
                 <td class=\"number\">{}</td></tr>\n",
                escape(class),
                if *leader { "a leader" } else { "others" },
                gaps.len(),
                if allowed.is_some_and(|allowed| allowed < longest) { " over" } else { "" },
                allowed.map_or_else(String::new, |allowed| allowed.to_string()),
            ),
        );
    }
    html += "</table><details><summary>each fault</summary><table><tr><th>at</th><th>fault</th>\
             <th>targets</th><th class=\"number\">gap</th><th class=\"number\">sends meanwhile</th></tr>\n";
    for recovery in judgement.recoveries.iter().take(LISTED) {
        put(
            &mut html,
            format_args!(
                "<tr><td>{} ms</td><td>{}</td><td>{}</td><td class=\"number\">{}</td>\
                 <td class=\"number\">{}</td></tr>\n",
                recovery.at_ms,
                escape(&recovery.class),
                escape(&recovery.targets.join(" ")),
                recovery.gap_ms,
                recovery.sends,
            ),
        );
    }
    html + "</table></details></section>\n"
}

/// Each checker with its verdict and what it counted.
pub(super) fn findings(judgement: &Judgement) -> String {
    let mut html = String::from(
        "<section><h2>Checkers</h2><table><tr><th>verdict</th><th>checker</th><th>counted</th></tr>\n",
    );
    for (name, finding) in judgement.findings() {
        let valid = finding.validity();
        let counts: Vec<String> =
            finding.counts.iter().map(|(what, count)| format!("{what}: {count}")).collect();
        put(
            &mut html,
            format_args!(
                "<tr class=\"{valid}\"><td>{valid}</td><td>{}</td><td>{}</td></tr>\n",
                escape(name),
                escape(&counts.join(", "))
            ),
        );
    }
    html + "</table></section>\n"
}

/// What the nemesis could not do.
pub(super) fn faults(case: &Case<'_>) -> String {
    if case.timeline.skipped.is_empty() {
        return String::new();
    }
    let skipped: Vec<String> = case
        .timeline
        .skipped
        .iter()
        .map(|(class, count)| format!("{} {count} times", escape(class)))
        .collect();
    format!(
        "<section><h2>Skipped <small>no safe target at the time</small></h2><p>{}</p></section>\n",
        skipped.join(", ")
    )
}
