//! The network between nodes: a machine for each, a switch between them, and what is wrong with it.

mod rules;
mod switch;
mod tool;

pub use rules::{Cut, Rules};
pub use switch::Switch;
pub use tool::{command, output, run, run_input};
