//! Bounds of one broker group's state. They are part of what a command does, so all replicas must
//! have the same: changing one changes the meaning of the log.

use std::time::Duration;

/// Topics.
pub const TOPICS: u32 = 100_000;
/// Queues of all topics.
pub const QUEUES: u32 = 1_000_000;
/// Consumer groups.
pub const CONSUMER_GROUPS: u32 = 100_000;
/// Quotas of topics, consumer groups and clients.
pub const QUOTAS: u32 = 100_000;
/// Settings of brokers that were changed while they ran.
pub const LIVE_SETTINGS: u32 = 256;
/// Deliveries of one consumer group in one queue that are not acknowledged yet. A queue that has
/// as many gives out nothing new until some are acknowledged.
pub const IN_FLIGHT_PER_QUEUE: u32 = 65_536;
/// The same for the whole broker group. They are kept in memory, at 150 bytes each.
pub const IN_FLIGHT: usize = 1_000_000;
/// Messages that wait for their time. They are kept in the store, at about 60 bytes each.
pub const TIMERS: u64 = 100_000_000;
/// How long after its time a delayed message is known as recalled or delivered, in log time.
pub const RECALL_KNOWN: Duration = Duration::from_hours(24);
/// How long a send is remembered, in log time...
pub const DEDUPE_WINDOW: Duration = Duration::from_secs(10 * 60);
/// ...and how many of the latest sends. They are kept in memory, at 40 bytes each.
pub const DEDUPE_SENDS: u64 = 1 << 20;
/// Transactions that have not ended, the parked ones among them. They are kept in memory, at 250
/// bytes each.
pub const TRANSACTIONS: u32 = 262_144;
/// How long it is remembered how a transaction ended, in log time...
pub const RESOLUTION_WINDOW: Duration = Duration::from_hours(24);
/// ...and how many of the latest ends. They are kept in memory, at 70 bytes each.
pub const RESOLUTIONS: usize = 262_144;

const _: () = assert!((IN_FLIGHT_PER_QUEUE as usize) < IN_FLIGHT);
