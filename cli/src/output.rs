//! What a command has to say: for people as text and tables, for programs as JSON.

use std::io::{self, Write};

use comfy_table::{Table, presets};
use serde_json::Value;

/// The result of one command.
#[derive(Clone, Debug, Default)]
pub struct Report {
    parts: Vec<Part>,
    json: Value,
    /// Why the command fails although it has something to show.
    failed: Option<String>,
}

#[derive(Clone, Debug)]
enum Part {
    Line(String),
    Rows(Rows),
}

/// A table.
#[derive(Clone, Debug)]
pub struct Rows {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Rows {
    pub fn new<const N: usize>(header: [&'static str; N]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Adds a row of as many cells as the header has.
    pub fn push<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.header.len(), "a row has a cell for each column");
        self.rows.push(cells.into());
    }
}

impl Report {
    /// A report that programs see as this.
    pub fn new(json: Value) -> Self {
        Self { parts: Vec::new(), json, failed: None }
    }

    #[must_use]
    pub fn line(mut self, text: impl Into<String>) -> Self {
        self.parts.push(Part::Line(text.into()));
        self
    }

    #[must_use]
    pub fn rows(mut self, rows: Rows) -> Self {
        self.parts.push(Part::Rows(rows));
        self
    }

    /// The command ends with an error for this reason once the report is written.
    #[must_use]
    pub fn failing(mut self, why: impl Into<String>) -> Self {
        self.failed = Some(why.into());
        self
    }

    /// What programs see.
    pub fn json(&self) -> &Value {
        &self.json
    }

    pub fn failure(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    pub fn write(&self, as_json: bool, out: &mut dyn Write) -> io::Result<()> {
        if as_json {
            return writeln!(out, "{:#}", self.json);
        }
        writeln!(out, "{}", self.text())
    }

    /// What people see.
    pub fn text(&self) -> String {
        let show = |part: &Part| match part {
            Part::Line(text) => text.clone(),
            Part::Rows(rows) => table(rows).trim_fmt(),
        };
        self.parts.iter().map(show).collect::<Vec<_>>().join("\n")
    }
}

fn table(rows: &Rows) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(rows.header.clone());
    for row in &rows.rows {
        table.add_row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut rows = Rows::new(["topic", "queues"]);
        rows.push(["orders".into(), "8".into()]);
        Report::new(serde_json::json!({ "topic": "orders" })).line("one topic").rows(rows)
    }

    fn written(as_json: bool) -> String {
        let mut out = Vec::new();
        report().write(as_json, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn people_see_text_and_tables() {
        let text = written(false);
        assert!(text.starts_with("one topic\n"), "{text}");
        assert!(text.contains("orders"), "{text}");
    }

    #[test]
    fn programs_see_json_and_nothing_else() {
        let json: Value = serde_json::from_str(&written(true)).unwrap();
        assert_eq!(json["topic"], "orders");
    }
}
