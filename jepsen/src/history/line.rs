//! An event as one line of JSON, and a file of them.

use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::history::{Body, Event, Failure, Fault, Process};

/// A history that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read the history")]
    Read(#[source] io::Error),
    #[error("history line {line} is no event")]
    Line { line: u64, source: serde_json::Error },
    #[error("history line {line} has index {index}")]
    OutOfOrder { line: u64, index: u64 },
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Name {
    Number(u64),
    Text(String),
}

/// The members of a line, in the order in which they are written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    index: u64,
    time: u64,
    process: Name,
    r#type: String,
    f: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    value: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
    #[serde(default, skip_serializing_if = "Ext::is_empty")]
    ext: Ext,
}

/// What Jepsen's tools do not know.
#[derive(Default, Serialize, Deserialize)]
struct Ext {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<String>,
}

impl Ext {
    fn is_empty(&self) -> bool {
        self.node.is_none()
    }
}

/// Reads a history event by event. A line that is no event is an error, not skipped; nothing that
/// comes after an error means anything.
pub fn events(from: impl BufRead) -> impl Iterator<Item = Result<Event, Error>> {
    (1..).zip(from.lines()).map(|(line, text)| {
        let text = text.map_err(Error::Read)?;
        let event = Event::from_line(&text).map_err(|source| Error::Line { line, source })?;
        if event.index != line - 1 {
            return Err(Error::OutOfOrder { line, index: event.index });
        }
        Ok(event)
    })
}

/// Reads a whole history.
pub fn read(from: impl BufRead) -> Result<Vec<Event>, Error> {
    events(from).collect()
}

impl Event {
    /// The line of this event, without its end.
    ///
    /// # Panics
    /// Never: an event is plain data.
    #[must_use]
    pub fn to_line(&self) -> String {
        serde_json::to_string(&self.line()).expect("an event is plain data")
    }

    /// Reads what [`Event::to_line`] wrote.
    pub fn from_line(text: &str) -> Result<Self, serde_json::Error> {
        let line: Line = serde_json::from_str(text)?;
        let process = match line.process {
            Name::Number(number) => Process::Client(number),
            Name::Text(name) if name == "nemesis" => Process::Nemesis,
            Name::Text(name) if name == "observer" => Process::Observer,
            Name::Text(name) => return Err(unknown(&format!("process {name}"))),
        };
        let body = match (process, line.r#type.as_str()) {
            (Process::Nemesis, "info") => {
                let fault = Fault::deserialize(line.value)?;
                Body::Fault(Fault { class: line.f, ..fault })
            }
            (Process::Observer, "info") => Body::Observed(tagged(line.f, line.value)?),
            (Process::Client(_), "invoke") => {
                Body::Invoke { call: tagged(line.f, line.value)?, node: line.ext.node }
            }
            (Process::Client(_), "ok") => Body::Ok(tagged(line.f, line.value)?),
            (Process::Client(_), "fail") => {
                Body::Fail { name: line.f, failure: line.error.unwrap_or_default() }
            }
            (Process::Client(_), "info") => {
                Body::Info { name: line.f, failure: line.error.unwrap_or_default() }
            }
            (_, other) => return Err(unknown(&format!("type {other} of {process}"))),
        };
        Ok(Self { index: line.index, time: line.time, process, body })
    }

    fn line(&self) -> Line {
        let process = match self.process {
            Process::Client(number) => Name::Number(number),
            Process::Nemesis | Process::Observer => Name::Text(self.process.to_string()),
        };
        let node = match &self.body {
            Body::Invoke { node, .. } => node.clone(),
            Body::Ok(_)
            | Body::Fail { .. }
            | Body::Info { .. }
            | Body::Fault(_)
            | Body::Observed(_) => None,
        };
        let (r#type, f, value, error) = match &self.body {
            Body::Invoke { call, .. } => ("invoke", call.name(), content(call), None),
            Body::Ok(answer) => ("ok", answer.name(), content(answer), None),
            Body::Fail { name, failure } => ("fail", &**name, Value::Null, Some(failure.clone())),
            Body::Info { name, failure } => ("info", &**name, Value::Null, Some(failure.clone())),
            Body::Fault(fault) => ("info", &*fault.class, json!(fault), None),
            Body::Observed(seen) => ("info", seen.name(), content(seen), None),
        };
        Line {
            index: self.index,
            time: self.time,
            process,
            r#type: r#type.to_owned(),
            f: f.to_owned(),
            value,
            error,
            ext: Ext { node },
        }
    }
}

/// The `value` of something that is `{"f": name, "value": value}` by itself.
fn content(tagged: &impl Serialize) -> Value {
    let mut whole = json!(tagged);
    whole.get_mut("value").map(Value::take).unwrap_or_default()
}

fn tagged<T: for<'de> Deserialize<'de>>(f: String, value: Value) -> Result<T, serde_json::Error> {
    let value = if value.is_null() { json!({}) } else { value };
    let members = [("f".to_owned(), Value::String(f)), ("value".to_owned(), value)];
    T::deserialize(Value::Object(Map::from_iter(members)))
}

fn unknown(what: &str) -> serde_json::Error {
    serde::de::Error::custom(format!("unknown {what}"))
}
