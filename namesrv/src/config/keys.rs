//! The documentation of every key, and the search for the nearest known one.

/// All settings in the order in which they are printed: plain keys first, then tables.
pub(super) const KEYS: &[(&str, &str)] = &[
    ("listen", "Where brokers and clients connect: plaintext HTTP/2 and TLS on one port."),
    ("metrics", "HTTP for /metrics, /health, /ready, /status, /rocketmq/nsaddr. Empty: off."),
    (
        "addresses",
        "All NameServers of the cluster, for /rocketmq/nsaddr: HOST:PORT;HOST:PORT.\nEmpty: this one.",
    ),
    ("workers", "Threads that serve requests."),
    (
        "route.mode",
        "What routes name. access-point: the address that the client dialled; split: producers\nspread over the replicas; direct: the leader.",
    ),
    ("tls.certificates", "PEM file with the certificate chain. Empty: one is made at each start."),
    ("tls.key", "PEM file with its private key."),
    ("limits.clients", "Clients that this access point keeps a registration of."),
    ("tracing.filter", "Which log lines: error, warn, info, debug, trace, or per module."),
    ("tracing.format", "Log lines on stderr: text or json."),
];

/// True for a setting's full path, and for the table of one.
pub(super) fn is_known(name: &str) -> bool {
    KEYS.iter().any(|(key, _)| *key == name || key.split_once('.').is_some_and(|(t, _)| t == name))
}

/// The known key that looks most like `unknown`, by its full path or its last part.
pub(super) fn nearest(unknown: &str) -> Option<String> {
    let distance = |key: &str| {
        let leaf = key.rsplit('.').next().unwrap_or(key);
        edit_distance(unknown, key).min(edit_distance(unknown, leaf))
    };
    // Farther away, a suggestion would only confuse.
    let farthest = unknown.chars().count().div_ceil(2);
    KEYS.iter()
        .map(|(key, _)| (distance(key), *key))
        .min()
        .filter(|(distance, _)| *distance <= farthest)
        .map(|(_, key)| key.to_owned())
}

fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (left, right, distance) in
            [("", "", 0), ("abc", "abc", 0), ("abc", "abd", 1), ("abc", "ac", 1), ("", "abc", 3)]
        {
            assert_eq!(edit_distance(left, right), distance, "{left} {right}");
        }
    }

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        assert_eq!(nearest("lisen").as_deref(), Some("listen"));
        assert_eq!(nearest("route.mood").as_deref(), Some("route.mode"));
        assert_eq!(nearest("certificate").as_deref(), Some("tls.certificates"));
        assert_eq!(nearest("zzzzzz"), None);
    }
}
