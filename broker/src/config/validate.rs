//! Relations between settings, each refused with the values that break it.

use std::{net::SocketAddr, time::Duration};

use proto::{BrokerName, limits::AUTO_RENEW_INVISIBLE};

use super::{Config, ConfigError, Size, units::check_address};

/// Fewer heartbeats than this within an election timeout, and one lost packet costs an election.
const HEARTBEATS_PER_ELECTION: u32 = 2;
const MOST_WORKERS: usize = 1024;
/// Longer is a slip of the pen.
const LONGEST_DELAY: Duration = Duration::from_hours(10 * 365 * 24);
const MOST_QUEUES: u32 = 1024;
/// Slower than this, a replica that is brought back would hardly ever arrive.
const SLOWEST_SNAPSHOT: Size = Size(64 << 10);
/// The file that is written, the one before it, and one to go.
const LEAST_SEGMENTS: u64 = 3;
/// Making a page costs what a scrape of it costs.
const SHORTEST_PUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Every question is a record in the log.
const SHORTEST_CHECK_INTERVAL: Duration = Duration::from_millis(100);

impl Config {
    /// Checks what a single field's type cannot say.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_identity()?;
        self.check_addresses()?;
        self.check_timing()?;
        self.check_bounds()?;
        self.check_otlp()?;
        self.disk_fault().map_err(|why| invalid("fault.disk", &self.fault.disk, why))?;
        self.bug().map_err(|why| invalid("fault.bug", &self.fault.bug, why))?;
        for (key, pretended) in [("fault.level", self.fault.level), ("fault.wire", self.fault.wire)]
        {
            if pretended > 0 && !cfg!(debug_assertions) {
                let why = "it is for tests of the broker itself; this is a release build";
                return Err(invalid(key, &pretended.to_string(), why.to_owned()));
            }
        }
        self.hold().map(drop).map_err(|why| invalid("fault.hold", &self.fault.hold, why))
    }

    fn check_identity(&self) -> Result<(), ConfigError> {
        if self.raft_peers.0.is_empty() && self.join.0.is_empty() {
            let hint = "give --raft-peers 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT, --join HOST:PORT \
                        for a new replica of a group that exists, or --dev for a broker of one";
            return Err(ConfigError::Missing { key: "raft_peers", hint });
        }
        if self.broker_name.is_empty() {
            let hint = "give --broker-name, equal on all replicas of the group";
            return Err(ConfigError::Missing { key: "broker_name", hint });
        }
        if let Err(error) = self.broker_name.parse::<BrokerName>() {
            return Err(invalid("broker_name", &self.broker_name, error.to_string()));
        }
        if self.cluster.is_empty() {
            return Err(ConfigError::Missing { key: "cluster", hint: "give --cluster NAME" });
        }
        if self.node_id == 0 {
            let hint = "give --node-id, this replica's number in --raft-peers";
            return Err(ConfigError::Missing { key: "node_id", hint });
        }
        self.check_arrival()?;
        if self.join.0.is_empty() && !self.raft_peers.0.contains_key(&self.node_id) {
            return Err(ConfigError::Conflict {
                left: "node_id",
                left_value: self.node_id.to_string(),
                right: "raft_peers",
                right_value: self.raft_peers.clone().into(),
                why: "the list of peers includes this node",
            });
        }
        if self.dev && self.raft_peers.0.len() > 1 {
            return Err(ConfigError::Conflict {
                left: "dev",
                left_value: "true".into(),
                right: "raft_peers",
                right_value: self.raft_peers.clone().into(),
                why: "a development broker is a group of one",
            });
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<(), ConfigError> {
        check_address(&self.listen).map_err(|why| invalid("listen", &self.listen, why))?;
        if !self.advertise.is_empty() {
            check_address(&self.advertise)
                .map_err(|why| invalid("advertise", &self.advertise, why))?;
        }
        let tls = &self.tls;
        let (has_certificate, has_key) =
            (!tls.certificate_file.as_os_str().is_empty(), !tls.key_file.as_os_str().is_empty());
        if has_certificate != has_key {
            return Err(ConfigError::Conflict {
                left: "tls.certificate_file",
                left_value: tls.certificate_file.display().to_string(),
                right: "tls.key_file",
                right_value: tls.key_file.display().to_string(),
                why: "a certificate is of no use without its key",
            });
        }
        if !self.metrics.is_empty() {
            check_address(&self.metrics).map_err(|why| invalid("metrics", &self.metrics, why))?;
        }
        let everywhere =
            self.listen.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified());
        if everywhere && self.advertise.is_empty() {
            return Err(ConfigError::Conflict {
                left: "listen",
                left_value: self.listen.clone(),
                right: "advertise",
                right_value: String::new(),
                why: "a node that listens on every interface must say which address others use",
            });
        }
        Ok(())
    }

    /// A node founds its group with others, or comes to one that exists.
    fn check_arrival(&self) -> Result<(), ConfigError> {
        let addresses =
            [("raft_listen", &self.raft_listen), ("raft_advertise", &self.raft_advertise)];
        for (key, address) in addresses.into_iter().filter(|(_, address)| !address.is_empty()) {
            check_address(address).map_err(|why| invalid(key, address, why))?;
        }
        let conflict = |left, left_value: String, right, right_value: String, why| {
            Err(ConfigError::Conflict { left, left_value, right, right_value, why })
        };
        let join = String::from(self.join.clone());
        if self.join.0.is_empty() {
            if !self.raft_advertise.is_empty() {
                let why = "the address of a founding replica is the one in raft_peers";
                return conflict("raft_advertise", self.raft_advertise.clone(), "join", join, why);
            }
            return Ok(());
        }
        if !self.raft_peers.0.is_empty() {
            let why = "a replica founds a group with its peers or joins one that exists, not both";
            let peers = self.raft_peers.clone().into();
            return conflict("join", join, "raft_peers", peers, why);
        }
        if self.raft_listen.is_empty() {
            let hint = "give --raft-listen HOST:PORT, where the peers of the new replica reach it";
            return Err(ConfigError::Missing { key: "raft_listen", hint });
        }
        let everywhere = self.raft_listen.parse::<SocketAddr>();
        if everywhere.is_ok_and(|at| at.ip().is_unspecified()) && self.raft_advertise.is_empty() {
            let why = "a replica that listens on every interface must say where its peers reach it";
            let listen = self.raft_listen.clone();
            return conflict("raft_listen", listen, "raft_advertise", String::new(), why);
        }
        Ok(())
    }

    fn check_timing(&self) -> Result<(), ConfigError> {
        if self.transaction.check_interval < SHORTEST_CHECK_INTERVAL {
            let found = format!("{:?}", self.transaction.check_interval);
            let why = format!("must be at least {SHORTEST_CHECK_INTERVAL:?}");
            return Err(invalid("transaction.check_interval", &found, why));
        }
        let raft = &self.raft;
        if raft.heartbeat_interval.is_zero() {
            return Err(invalid("raft.heartbeat_interval", "0", "must be longer".into()));
        }
        if raft.heartbeat_interval * HEARTBEATS_PER_ELECTION > raft.election_timeout_min {
            return Err(ConfigError::Conflict {
                left: "raft.heartbeat_interval",
                left_value: format!("{:?}", raft.heartbeat_interval),
                right: "raft.election_timeout_min",
                right_value: format!("{:?}", raft.election_timeout_min),
                why: "an election timeout holds at least two heartbeats",
            });
        }
        if raft.election_timeout_min >= raft.election_timeout_max {
            return Err(ConfigError::Conflict {
                left: "raft.election_timeout_min",
                left_value: format!("{:?}", raft.election_timeout_min),
                right: "raft.election_timeout_max",
                right_value: format!("{:?}", raft.election_timeout_max),
                why: "the timeouts of two nodes must be able to differ",
            });
        }
        Ok(())
    }

    fn check_bounds(&self) -> Result<(), ConfigError> {
        if !(1..=MOST_WORKERS).contains(&self.workers) {
            let why = format!("must be 1 to {MOST_WORKERS}");
            return Err(invalid("workers", &self.workers.to_string(), why));
        }
        if !(1..=MOST_QUEUES).contains(&self.auto_create_queues) {
            let why = format!("must be 1 to {MOST_QUEUES}");
            return Err(invalid("auto_create_queues", &self.auto_create_queues.to_string(), why));
        }
        if self.max_delay > LONGEST_DELAY {
            let why = "must be at most 10 years".to_owned();
            return Err(invalid("max_delay", &format!("{:?}", self.max_delay), why));
        }
        if self.raft.snapshot_rate < SLOWEST_SNAPSHOT {
            let found = self.raft.snapshot_rate.to_string();
            let why = format!("must be at least {SLOWEST_SNAPSHOT}");
            return Err(invalid("raft.snapshot_rate", &found, why));
        }
        self.check_retention()?;
        // Zero would be no lease at all, and more than the server's own renewal gives is odd.
        let shortest = self.limits.invisible_min;
        if shortest.is_zero() || AUTO_RENEW_INVISIBLE < shortest {
            let why = format!("must be more than 0 and at most {AUTO_RENEW_INVISIBLE:?}");
            return Err(invalid("limits.invisible_min", &format!("{shortest:?}"), why));
        }
        let limits = [
            ("limits.connections", self.limits.connections),
            ("limits.long_polls", self.limits.long_polls),
            ("limits.clients", self.limits.clients),
            ("limits.timers_per_second", self.limits.timers_per_second as usize),
        ];
        for (key, value) in limits {
            if value == 0 {
                return Err(invalid(key, "0", "nothing could be served".into()));
            }
        }
        Ok(())
    }
}

impl Config {
    fn check_otlp(&self) -> Result<(), ConfigError> {
        let endpoint = self.otlp_endpoint();
        endpoint.map_err(|why| invalid("otlp.endpoint", &self.otlp.endpoint, why))?;
        if self.otlp.interval < SHORTEST_PUSH_INTERVAL {
            let found = format!("{:?}", self.otlp.interval);
            let why = format!("must be at least {SHORTEST_PUSH_INTERVAL:?}");
            return Err(invalid("otlp.interval", &found, why));
        }
        Ok(())
    }

    fn check_retention(&self) -> Result<(), ConfigError> {
        let log = &self.log;
        for (key, percent) in [("log.disk_high", log.disk_high), ("log.disk_full", log.disk_full)] {
            if !(1..=100).contains(&percent) {
                let why = "is a percentage: 1 to 100".to_owned();
                return Err(invalid(key, &percent.to_string(), why));
            }
        }
        let bytes = log.retention_bytes.0;
        if bytes > 0 && bytes < LEAST_SEGMENTS * log.segment_size.0 {
            let why = format!("must be at least {LEAST_SEGMENTS} files of log.segment_size");
            return Err(invalid("log.retention_bytes", &log.retention_bytes.to_string(), why));
        }
        Ok(())
    }
}

fn invalid(key: &'static str, value: &str, why: String) -> ConfigError {
    ConfigError::Invalid { key, value: value.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Peers, RaftConfig};

    fn refused(config: &Config) -> String {
        config.validate().expect_err("a refusal").to_string()
    }

    #[test]
    fn a_node_belongs_to_its_own_list_of_peers() {
        let config = Config { node_id: 9, ..Config::dev() };
        assert!(refused(&config).contains("node_id = \"9\""));
    }

    #[test]
    fn without_peers_the_text_says_what_to_give() {
        let config = Config { raft_peers: Peers::default(), ..Config::dev() };
        assert!(refused(&config).contains("--raft-peers"));
        assert!(refused(&Config::default()).contains("--dev"));
    }

    #[test]
    fn a_new_replica_joins_with_an_address_and_without_a_list_of_peers() {
        let join = || Config {
            broker_name: "broker-a".into(),
            node_id: 4,
            join: "a:1,b:2".parse().expect("a list"),
            raft_listen: "c:3".into(),
            ..Config::default()
        };
        assert!(join().validate().is_ok());
        let config = Config { raft_listen: String::new(), ..join() };
        assert!(refused(&config).contains("--raft-listen"));
        let config = Config { raft_peers: Peers::one(4, "c:3"), ..join() };
        assert!(refused(&config).contains("not both"));
        let config = Config { raft_listen: "0.0.0.0:3".into(), ..join() };
        assert!(refused(&config).contains("raft_advertise"));
        let config = Config { raft_advertise: "d:3".into(), ..config };
        assert!(config.validate().is_ok());
        let config = Config { raft_advertise: "d:3".into(), ..Config::dev() };
        assert!(refused(&config).contains("raft_advertise"));
    }

    #[test]
    fn an_election_holds_heartbeats_and_has_a_spread() {
        let raft = RaftConfig {
            heartbeat_interval: Duration::from_millis(400),
            election_timeout_min: Duration::from_millis(600),
            election_timeout_max: Duration::from_millis(900),
            ..Config::dev().raft
        };
        assert!(refused(&Config { raft, ..Config::dev() }).contains("two heartbeats"));
        let raft = RaftConfig {
            heartbeat_interval: Duration::from_millis(100),
            election_timeout_min: Duration::from_millis(900),
            election_timeout_max: Duration::from_millis(900),
            ..Config::dev().raft
        };
        assert!(refused(&Config { raft, ..Config::dev() }).contains("differ"));
    }

    #[test]
    fn a_fault_must_make_sense() {
        let mut config = Config::dev();
        config.fault.hold = "after lunch 1h".into();
        assert!(refused(&config).contains("fault.hold"));
        config.fault.hold = "after Fire 1s".into();
        assert_eq!(config.validate().is_ok(), cfg!(debug_assertions));
        config.fault.bug = "B07".into();
        assert_eq!(config.validate().is_ok(), cfg!(debug_assertions));
        config.fault.bug = "B99".into();
        assert!(!cfg!(debug_assertions) || refused(&config).contains("fault.bug"));
    }

    #[test]
    fn bounds_of_disk_and_log_make_sense() {
        let with = |change: fn(&mut Config)| {
            let mut config = Config::dev();
            change(&mut config);
            refused(&config)
        };
        assert!(with(|c| c.log.disk_full = 101).contains("percentage"));
        assert!(with(|c| c.log.disk_high = 0).contains("percentage"));
        assert!(with(|c| c.log.retention_bytes.0 = 1).contains("3 files"));
    }

    #[test]
    fn listening_everywhere_needs_an_address_to_tell() {
        let config = Config { listen: "0.0.0.0:8081".into(), ..Config::dev() };
        assert!(refused(&config).contains("advertise"));
        let config = Config { advertise: "broker:8081".into(), ..config };
        assert!(config.validate().is_ok());
    }
}
