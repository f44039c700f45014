//! The two tools: `mqadmin` administers a cluster, `mqbench` loads and measures one.
//!
//! Both are libraries with a thin `main`, so that tests can drive them.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod admin;
pub mod bench;
pub mod connect;
pub mod failure;
pub mod output;
pub mod terminal;
