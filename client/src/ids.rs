//! Names that this process makes up: of clients and of messages.

use std::{
    fmt::Write as _,
    fs, process,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use proto::{Timestamp, clock};

/// 2021-01-01T00:00:00Z, from which message ids count their seconds.
const EPOCH_SECONDS: u64 = 1_609_459_200;

/// `host@process@count@random`: differs from that of every other client.
pub(crate) fn client_id() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let random: u32 = rand::random();
    format!("{}@{}@{count}@{random:08x}", host(), process::id())
}

/// The machine's name as far as it can be a part of a header.
pub(crate) fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().filter(char::is_ascii_graphic).take(64).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// The same, looked up once.
pub(crate) fn host_once() -> &'static str {
    static HOST: OnceLock<String> = OnceLock::new();
    HOST.get_or_init(host)
}

/// A message id of version 1, 34 hexadecimal digits: version, 6 bytes of the machine, 2 of the
/// process, 4 of time, 4 of a counter. The machine's are drawn, because containers share their
/// network addresses and process numbers.
pub(crate) fn message_id() -> String {
    static PREFIX: OnceLock<String> = OnceLock::new();
    static START: OnceLock<u32> = OnceLock::new();
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let prefix = PREFIX.get_or_init(|| {
        let machine: [u8; 6] = rand::random();
        let process = process::id() & 0xFFFF;
        let machine: String = machine.iter().map(|byte| format!("{byte:02X}")).collect();
        format!("01{machine}{process:04X}")
    });
    let start = START.get_or_init(|| seconds(clock::wall_now()));
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut id = String::with_capacity(34);
    // The counter wraps after 2^32 messages; the start of the process and the draw stay.
    let _ = write!(id, "{prefix}{start:08X}{count:08X}");
    id
}

fn seconds(now: Timestamp) -> u32 {
    let since = (now.0 / 1000).saturating_sub(EPOCH_SECONDS);
    u32::try_from(since & u64::from(u32::MAX)).expect("masked")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn message_ids_look_like_those_of_other_clients_and_differ() {
        let ids: HashSet<String> = (0..1000).map(|_| message_id()).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            assert_eq!(id.len(), 34, "{id}");
            assert!(id.starts_with("01"), "{id}");
            assert!(id.chars().all(|c| c.is_ascii_digit() || ('A'..='F').contains(&c)), "{id}");
        }
    }

    #[test]
    fn client_ids_differ_and_are_valid() {
        let (one, other) = (client_id(), client_id());
        assert_ne!(one, other);
        assert!(one.parse::<proto::ClientId>().is_ok());
    }
}
