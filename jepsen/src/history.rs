//! What clients asked, what they were told, and what was done to the cluster meanwhile: the record
//! of one fault run.
//!
//! A run is a directory: `test.json` ([`Plan`]) says what was asked for, `history.jsonl` holds one
//! [`Event`] per line. Times are nanoseconds since the start of the run, of one monotonic clock in
//! the one process that hosts all clients, so "after" means after for all of them.
//!
//! ```text
//! {"index":0,"time":1203345,"process":3,"type":"invoke","f":"send","value":{"key":0,"ids":[7]}}
//! {"index":1,"time":4410021,"process":3,"type":"ok","f":"send","value":{"offsets":[887]}}
//! {"index":2,"time":4500000,"process":7,"type":"invoke","f":"query","value":{"group":"g","key":0}}
//! {"index":3,"time":7500000,"process":7,"type":"fail","f":"query","error":{"code":50002,"text":"no leader"}}
//! {"index":4,"time":6000000,"process":"nemesis","type":"info","f":"kill","value":{"fault":1,"targets":["n1"],"phase":"installed","leader":true}}
//! ```
//!
//! `type` is Jepsen's: `ok` happened, `fail` did not and never will, `info` may have happened or
//! may yet. After `info` a process is never used again. An invocation without a completion counts
//! as `info`.

mod answer;
mod call;
mod event;
mod fault;
mod line;
mod observation;
mod ops;
mod plan;
mod writer;

pub use answer::{Answer, Delivery, Entry};
pub use call::{Call, Change, Key, Resolution};
pub use event::{Body, Event, Failure, Process};
pub use fault::{Fault, Phase};
pub use line::{Error, events, read};
pub use observation::Observation;
pub use ops::{Op, Outcome, Record, Seen, Unpaired};
pub use plan::{Group, Limits, Plan, Queue, Wants, Workload};
pub use writer::Writer;

pub use crate::accounting::Message;
