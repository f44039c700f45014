//! What was measured, as the Markdown table that `docs/performance.md` has.

use std::fmt;

use crate::size::Size;

/// One figure, and whether it is as good as it has to be, where that is said.
#[derive(Debug)]
struct Row {
    what: String,
    measured: String,
    reach: String,
    missed: bool,
}

/// Figures in the order in which they were taken. Each is shown at once, too.
#[derive(Debug)]
pub(crate) struct Table {
    size: Size,
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn new(size: Size) -> Self {
        Self { size, rows: Vec::new() }
    }

    /// A figure with nothing to reach.
    pub(crate) fn note(&mut self, what: impl Into<String>, measured: impl Into<String>) {
        self.push(what.into(), measured.into(), String::new(), false);
    }

    /// A figure that has to reach something, and whether it does.
    pub(crate) fn reach(
        &mut self,
        what: impl Into<String>,
        measured: impl Into<String>,
        reach: impl Into<String>,
        reached: bool,
    ) {
        self.push(what.into(), measured.into(), reach.into(), !reached);
    }

    fn push(&mut self, what: String, measured: String, reach: String, missed: bool) {
        let row = Row { what, measured, reach, missed };
        println!("  {row}");
        self.rows.push(row);
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missed = if self.missed { ": missed" } else { "" };
        write!(f, "| {} | {} | {}{missed} |", self.what, self.measured, self.reach)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.size.is_full() {
            writeln!(f, "At {} of the full sizes, which is a trial and no figure:\n", self.size)?;
        }
        writeln!(f, "| what | measured | to reach |")?;
        write!(f, "|---|---|---|")?;
        self.rows.iter().try_for_each(|row| write!(f, "\n{row}"))
    }
}
