//! A run on one page: self-contained HTML with inline SVG, readable without a script.

mod cards;
mod chart;
mod html;
mod lag;
mod latency;
mod leaders;
mod lost;
mod rate;
mod tables;

use crate::history::{Plan, Record};
use crate::judge::{Case, Judgement, Slice, Validity};
use chart::Canvas;
use html::escape;

const STYLE: &str = include_str!("report/style.css");

/// The page of one run.
#[must_use]
pub fn page(plan: &Plan, record: &Record, judgement: &Judgement, slices: &[Slice]) -> String {
    let case = Case::new(plan, record);
    let canvas = Canvas::new(&case);
    let sections = [
        banner(plan, judgement),
        cards::cards(plan, slices, judgement),
        figure("Leaders", "who led, by term", &leaders::ribbon(&case, &canvas)),
        figure(
            "Latency",
            "each operation; shape by kind, colour by outcome",
            &latency::raw(&case, &canvas),
        ),
        figure(
            "Latency of writes",
            "sends, commits and settings that succeeded, per hundredth of the run",
            &latency::quantiles(&case, &canvas),
        ),
        figure("Rate", "operations per second, by outcome", &rate::rate(&case, &canvas)),
        figure("Messages", "each by the time at which it was sent", &lost::lost(&case, &canvas)),
        figure(
            "Unseen",
            "acknowledged messages that a group has not received yet; lag as the cluster told it is dotted",
            &lag::lag(&case, &canvas),
        ),
        tables::recoveries(judgement),
        tables::findings(judgement),
        tables::faults(&case),
    ];
    html::document(&format!("{}: {}", plan.run, judgement.valid), STYLE, &sections.concat())
}

fn figure(title: &str, what: &str, svg: &str) -> String {
    let (title, what) = (escape(title), escape(what));
    format!("<section><h2>{title} <small>{what}</small></h2>{svg}</section>\n")
}

fn banner(plan: &Plan, judgement: &Judgement) -> String {
    let class = match judgement.valid {
        Validity::Valid => "valid",
        Validity::Unknown => "unknown",
        Validity::Invalid => "invalid",
    };
    let kinds = judgement.kinds();
    let said = match judgement.valid {
        Validity::Valid => "nothing happened that must not".to_owned(),
        Validity::Unknown => "the record cannot show that nothing is wrong".to_owned(),
        Validity::Invalid => {
            let kinds: Vec<String> =
                kinds.iter().map(|(k, count)| format!("{count} {k}")).collect();
            kinds.join(", ")
        }
    };
    let workloads: Vec<String> =
        plan.workloads.iter().map(|w| format!("{w:?}").to_lowercase()).collect();
    let nodes = plan.nodes.join(" ");
    format!(
        "<header class=\"{class}\"><h1>{} <small>{}</small></h1><p>{}</p>\
         <p class=\"facts\">{} &middot; {} &middot; {} &middot; seed {} &middot; {}</p>\
         <p>reproduce: <code>{}</code></p></header>\n",
        judgement.valid,
        escape(&plan.run),
        escape(&said),
        escape(&workloads.join(" ")),
        escape(&plan.nemeses.join(" ")),
        escape(&nodes),
        plan.seed,
        escape(&plan.version),
        escape(&plan.command),
    )
}

/// The page over many runs: each with the path of its directory.
#[must_use]
pub fn index(runs: &[(String, Judgement)]) -> String {
    let mut rows = String::new();
    for (path, judgement) in runs {
        let kinds: Vec<String> =
            judgement.kinds().iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let doubts: Vec<&str> = judgement.doubts().map(|(_, doubt)| doubt).collect();
        let said = if kinds.is_empty() { doubts.join("; ") } else { kinds.join(", ") };
        let operations = judgement.coverage.counts.get("operations").copied().unwrap_or(0);
        let gap = judgement.recoveries.iter().map(|r| r.gap_ms).max();
        rows += &format!(
            "<tr class=\"{valid}\"><td>{valid}</td><td><a href=\"{path}/report.html\">{run}</a></td>\
             <td>{seed}</td><td>{operations}</td><td>{faults}</td><td>{gap}</td><td>{said}</td></tr>\n",
            valid = judgement.valid,
            path = escape(path),
            run = escape(&judgement.run),
            seed = judgement.seed,
            faults = judgement.recoveries.len(),
            gap = gap.map_or_else(String::new, |gap| format!("{gap} ms")),
            said = escape(&said),
        );
    }
    let count = |valid| runs.iter().filter(|(_, j)| j.valid == valid).count();
    let (valid, invalid) = (count(Validity::Valid), count(Validity::Invalid));
    let body = format!(
        "<header><h1>{} runs</h1><p>{valid} valid, {invalid} invalid, {} unknown</p></header>\
         <section><table><tr><th>verdict</th><th>run</th><th>seed</th><th>operations</th>\
         <th>faults</th><th>longest gap</th><th></th></tr>\n{rows}</table></section>",
        runs.len(),
        count(Validity::Unknown),
    );
    html::document("runs", STYLE, &body)
}
