//! The documentation of every key, and the search for the nearest known one.

/// A setting and what it means.
pub(super) struct Key {
    /// Dotted path.
    pub(super) name: &'static str,
    /// For the reader of `--print-config`.
    pub(super) doc: &'static str,
}

const fn key(name: &'static str, doc: &'static str) -> Key {
    Key { name, doc }
}

/// All settings, in the order in which `--print-config` shows them: plain keys first, then tables.
pub(super) const KEYS: &[Key] = &[
    key("cluster", "The cluster that this broker group belongs to."),
    key("broker_name", "The broker group's name. Equal on all its replicas."),
    key("node_id", "This replica's number within the group, at least 1."),
    key(
        "raft_peers",
        "Initial voters, this node included: 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT.\nOnce the group exists, its replicated membership is used instead.",
    ),
    key(
        "join",
        "Raft addresses of members of a group that exists, any of them: HOST:PORT,HOST:PORT.\nA new replica, which waits there to be added (mqadmin addLearner). Instead of raft_peers.",
    ),
    key(
        "raft_listen",
        "Where this replica listens for its peers. Empty: at its address in raft_peers.\nNeeded with join.",
    ),
    key(
        "raft_advertise",
        "The address of `raft_listen` as the peers reach it. Empty: as `raft_listen`. Only with join.",
    ),
    key(
        "raft_secret_file",
        "File with the secret that the group's replicas share.\nWithout one, only peers on the loopback interface are accepted.",
    ),
    key("dev", "A group of one that is its own access point and creates topics on use."),
    key("listen", "Where clients connect: plaintext HTTP/2 and TLS on one port."),
    key("advertise", "The address of `listen` as others reach it. Empty: as `listen`."),
    key("namesrv", "NameServers to register with: HOST:PORT,HOST:PORT. Empty: none."),
    key("metrics", "HTTP for /metrics, /health, /ready and /status. Empty: off."),
    key("data_dir", "Where the log and the state live. One process at a time."),
    key(
        "flush",
        "sync: a message counts once a quorum has fsynced it.\nasync: once a quorum has written it; a power loss may lose acknowledged messages.",
    ),
    key("workers", "Threads that serve requests."),
    key(
        "auto_create_topics",
        "Create an unknown topic when it is first used, for any message type.",
    ),
    key("auto_create_queues", "Queues of a topic that is created on use."),
    key("max_delay", "How far ahead a message may be delivered; at most 10 years."),
    key(
        "route.mode",
        "What routes name. access-point: the address that the client dialled; split: producers\nspread over the replicas; direct: the leader.",
    ),
    key(
        "read.mode",
        "Who answers pulls and looks messages up. leader: what was stored before is found; follower:\nthe replica that is asked, as far as it has come.",
    ),
    key(
        "admin.secret_file",
        "File with the operators' secret. Administration that changes or copies something then takes\nit. Without one, everybody who reaches the client port may.",
    ),
    key("raft.heartbeat_interval", "Between two heartbeats of the leader."),
    key(
        "raft.election_timeout_min",
        "Silence of the leader before a follower may stand, at least.",
    ),
    key("raft.election_timeout_max", "The same, at most."),
    key(
        "raft.snapshot_rate",
        "Bytes per second at which the leader brings back a replica that the log does not reach.",
    ),
    key(
        "raft.scrub_rate",
        "Bytes per second at which segments, snapshot and state are read again, so that damage is\nfound while other replicas can repair it. 0: never.",
    ),
    key("raft.scrub_interval", "From the beginning of one such round to that of the next."),
    key(
        "raft.preferred_leader",
        "Whether the other replicas hand leadership to this one once it has caught up.",
    ),
    key("log.segment_size", "Size of a log file. Fixed when the group is created."),
    key(
        "log.retention_time",
        "How long messages are kept where the topic does not say. 0s: for ever.",
    ),
    key("log.dead_letter_retention_time", "The same for dead letters."),
    key(
        "log.retention_bytes",
        "Bytes of the log on each replica, in whole files; older messages end. 0: no bound.",
    ),
    key(
        "log.disk_high",
        "Percent of any replica's disk in use above which the oldest messages end early.\n100: never.",
    ),
    key(
        "log.disk_full",
        "Percent of the leader's disk, or of those of a majority, in use from which on sends get\nTOO_MANY_REQUESTS. 100: only when nothing can be written.",
    ),
    key("log.disk_reserve", "Free space of a disk that is plenty: with it neither bound counts."),
    key("tls.certificate_file", "PEM certificate chain to show. Empty: a new self-signed one."),
    key("tls.key_file", "PEM private key of the certificate."),
    key("limits.connections", "Client connections; further ones are closed at once."),
    key("limits.long_polls", "Receive calls that wait at a time; more get TOO_MANY_REQUESTS."),
    key("limits.send_bytes", "Bytes of sends in progress; more get TOO_MANY_REQUESTS."),
    key("limits.receive_bytes", "Bytes of deliveries in progress; more get TOO_MANY_REQUESTS."),
    key("limits.timers_per_second", "Delayed messages delivered in a second; the others are late."),
    key(
        "limits.invisible_min",
        "The shortest invisible duration that a receive may ask for; at most 1 minute.",
    ),
    key("limits.clients", "Clients that the leader keeps a registration of."),
    key(
        "transaction.timeout",
        "How long a producer is left alone before it is asked about a transaction that it has\nnot ended. A message may ask for another time.",
    ),
    key("transaction.check_interval", "Between two questions about one transaction."),
    key(
        "transaction.check_max",
        "Questions about one transaction; then it is given up and left to an administrator.",
    ),
    key("transaction.max_age", "A transaction that is older is given up, asked about or not."),
    key("shutdown.forward_for", "On SIGTERM: how long to go on forwarding after the hand-over."),
    key("shutdown.finish_within", "On SIGTERM: how long calls in progress may take."),
    key("tracing.filter", "Which log lines: error, warn, info, debug, trace, or per module."),
    key("tracing.format", "Log lines on stderr: text or json."),
    key(
        "otlp.endpoint",
        "Where metrics are pushed to besides being shown: http://HOST:PORT of an OpenTelemetry\ncollector (OTLP over HTTP). Empty: nowhere.",
    ),
    key("otlp.interval", "Between two pushes; at least 1 s."),
    key(
        "fault.hold",
        "For tests of the broker itself, refused by release builds: a moment to hold still at.",
    ),
    key("fault.disk", "The same: a call to the log's disk that fails: read N, write N or sync N."),
    key(
        "fault.bug",
        "For tests of the fault suite, refused by release builds: a bug to have, B01.",
    ),
    key(
        "fault.level",
        "For tests of upgrades, refused by release builds: the feature level that this build\npretends to understand. 0: its own.",
    ),
    key(
        "fault.wire",
        "The same: the only wire version that this build pretends to speak. 0: its own.",
    ),
];

/// Settings that can be changed while the broker runs, the same on all replicas of a group.
pub(super) const LIVE: &[&str] = &[
    "auto_create_topics",
    "auto_create_queues",
    "max_delay",
    "read.mode",
    "log.retention_time",
    "log.dead_letter_retention_time",
    "log.retention_bytes",
    "limits.timers_per_second",
    "limits.invisible_min",
    "transaction.timeout",
    "transaction.check_interval",
    "transaction.check_max",
    "transaction.max_age",
];

/// Settings that operators are not shown while they have their defaults.
pub(super) const HIDDEN: &[&str] =
    &["fault.hold", "fault.disk", "fault.bug", "fault.level", "fault.wire"];

/// Farther than this, a suggestion would only confuse.
const LARGEST_DISTANCE: usize = 6;

/// The known key that looks most like `unknown`.
pub(super) fn nearest(unknown: &str) -> Option<String> {
    let by_distance = |name: &str| {
        let leaf = name.rsplit('.').next().unwrap_or(name);
        edit_distance(unknown, name).min(edit_distance(unknown, leaf))
    };
    KEYS.iter()
        .map(|key| (by_distance(key.name), key.name))
        .min()
        .filter(|(distance, _)| *distance <= LARGEST_DISTANCE.min(unknown.len().div_ceil(2)))
        .map(|(_, name)| name.to_owned())
}

/// True for a setting's full path.
pub(super) fn is_known(name: &str) -> bool {
    KEYS.iter().any(|key| key.name == name)
}

fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let substitute = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        assert_eq!(nearest("listne").as_deref(), Some("listen"));
        assert_eq!(nearest("segment_sise").as_deref(), Some("log.segment_size"));
        assert_eq!(nearest("raft.hartbeat_interval").as_deref(), Some("raft.heartbeat_interval"));
        assert_eq!(nearest("zzzzzzzzzzzzzzzz"), None);
    }
}
