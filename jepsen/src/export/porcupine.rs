//! Operations with their call and return times, as Porcupine reads them.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};

use crate::history::{Op, Outcome, Record};

/// One element of the array.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Operation {
    client_id: u64,
    input: Value,
    call: i64,
    output: Value,
    r#return: i64,
}

/// Writes a JSON array of `{"ClientId", "Input", "Call", "Output", "Return"}`, times in ns. What
/// did not happen is left out; what may have happened returns at the end of time, without an output.
pub fn porcupine(record: &Record, mut to: impl Write) -> io::Result<()> {
    write!(to, "[")?;
    let happened = record.ops.iter().filter(|op| !op.is_failed());
    for (nth, op) in happened.enumerate() {
        let separator = if nth == 0 { "\n" } else { ",\n" };
        write!(to, "{separator}{}", serde_json::to_string(&operation(op))?)?;
    }
    writeln!(to, "\n]")
}

fn operation(op: &Op) -> Operation {
    let output = match &op.outcome {
        Outcome::Ok(answer) => json!(answer).get("value").cloned().unwrap_or_default(),
        Outcome::Failed(_) | Outcome::Unknown(_) => Value::Null,
    };
    Operation {
        client_id: op.process,
        input: json!(op.call),
        call: i64::try_from(op.began).unwrap_or(i64::MAX),
        output,
        r#return: i64::try_from(op.effective_until()).unwrap_or(i64::MAX),
    }
}
