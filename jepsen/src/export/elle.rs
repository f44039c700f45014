//! Queues as lists: sends append, reads show the list, as Elle's list-append model has it.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};

use crate::history::{Answer, Call, Key, Op, Outcome, Record};

/// What was written, and what the model has no place for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    pub appends: u64,
    pub reads: u64,
    /// Reads that did not begin at the beginning, by readers that left something out.
    pub left_out: u64,
}

/// Writes one transaction of one operation per line, requests and outcomes apart.
///
/// A read of a log shows a window. A reader that read from the beginning without a hole has seen
/// the whole list up to its last read, so that is what its read says; others are left out.
pub fn elle(record: &Record, mut to: impl Write) -> io::Result<Exported> {
    let mut exported = Exported::default();
    let mut seen: BTreeMap<(u64, Key), Vec<u64>> = BTreeMap::new();
    let mut lines: Vec<(u64, Value)> = Vec::new();
    for op in &record.ops {
        match (&op.call, &op.outcome) {
            (Call::Send { key, ids, message_group: None, deliver_at: None }, outcome) => {
                let value: Vec<Value> = ids.iter().map(|id| json!(["append", key, id.0])).collect();
                let kind = match outcome {
                    Outcome::Ok(_) => "ok",
                    Outcome::Failed(_) => "fail",
                    Outcome::Unknown(_) => "info",
                };
                exported.appends += 1;
                pair(op, kind, &json!(value), &json!(value), &mut lines);
            }
            (Call::Poll { key, .. }, Outcome::Ok(Answer::Poll { entries, .. })) => {
                let list = seen.entry((op.process, *key)).or_default();
                let begins = entries.first().map_or(list.len() as u64, |e| e.offset);
                if begins != list.len() as u64 {
                    exported.left_out += 1;
                    continue;
                }
                list.extend(entries.iter().map(|e| e.id.0));
                exported.reads += 1;
                let (asked, told) = (json!([["r", key, null]]), json!([["r", key, list]]));
                pair(op, "ok", &asked, &told, &mut lines);
            }
            _ => {}
        }
    }
    lines.sort_by_key(|(index, _)| *index);
    for (nth, (_, mut line)) in lines.into_iter().enumerate() {
        line["index"] = json!(nth);
        writeln!(to, "{line}")?;
    }
    Ok(exported)
}

fn pair(op: &Op, kind: &str, asked: &Value, told: &Value, lines: &mut Vec<(u64, Value)>) {
    let line = |time: u64, kind: &str, value: &Value| json!({"index": 0, "type": kind, "f": "txn", "process": op.process, "time": time, "value": value});
    lines.push((op.index, line(op.began, "invoke", asked)));
    if let Some(completion) = op.completion {
        lines.push((completion, line(op.ended, kind, told)));
    }
}
