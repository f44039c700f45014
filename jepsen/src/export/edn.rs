//! Events as EDN maps, one a line, as Jepsen's own tools read them.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::Value;

use crate::history::Event;

/// Members whose text is a name.
const NAMES: [&str; 2] = ["type", "f"];

/// Writes one map per event.
pub fn edn(events: &[Event], mut to: impl Write) -> io::Result<()> {
    for event in events {
        let line: Value = serde_json::from_str(&event.to_line())?;
        let mut text = String::new();
        map(&line, &mut text);
        writeln!(to, "{text}")?;
    }
    Ok(())
}

fn map(line: &Value, to: &mut String) {
    let Value::Object(members) = line else { return };
    to.push('{');
    for (nth, (name, value)) in members.iter().enumerate() {
        if 0 < nth {
            to.push_str(", ");
        }
        to.push_str(&keyword(name));
        to.push(' ');
        match value {
            Value::String(text) if NAMES.contains(&name.as_str()) => to.push_str(&keyword(text)),
            // Whoever is not a client goes by a name.
            Value::String(text) if name == "process" => to.push_str(&keyword(text)),
            value => term(value, to),
        }
    }
    to.push('}');
}

/// Jepsen writes names with hyphens.
fn keyword(name: &str) -> String {
    format!(":{}", name.replace('_', "-"))
}

fn term(value: &Value, to: &mut String) {
    match value {
        Value::Null => to.push_str("nil"),
        Value::Bool(_) | Value::Number(_) => {
            let _ = write!(to, "{value}");
        }
        Value::String(text) => string(text, to),
        Value::Array(items) => {
            to.push('[');
            for (nth, item) in items.iter().enumerate() {
                if 0 < nth {
                    to.push(' ');
                }
                term(item, to);
            }
            to.push(']');
        }
        Value::Object(_) => map(value, to),
    }
}

fn string(text: &str, to: &mut String) {
    to.push('"');
    for c in text.chars() {
        match c {
            '"' => to.push_str("\\\""),
            '\\' => to.push_str("\\\\"),
            '\n' => to.push_str("\\n"),
            '\r' => to.push_str("\\r"),
            '\t' => to.push_str("\\t"),
            c => to.push(c),
        }
    }
    to.push('"');
}
