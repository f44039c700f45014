//! The settings of a node, what administrators laid over them while it runs, and where each comes
//! from.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Config, ConfigError, Loaded, keys, load};

/// Where a value comes from that nobody set.
const DEFAULT: &str = "default";
/// Where a value comes from that all replicas share.
const REPLICATED: &str = "replicated";
/// Where the value comes from that a program chose.
const PROGRAM: &str = "program";

/// What a node was started with.
#[derive(Debug, Clone)]
pub struct Book {
    own: Loaded,
}

/// Settings after those that all replicas share were laid over.
#[derive(Debug)]
pub struct LaidOver {
    /// In force.
    pub config: Config,
    /// Keys that do not go with this node's own settings, and why; these keep their own value.
    pub refused: Vec<(String, ConfigError)>,
}

/// A setting as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Dotted path.
    pub key: &'static str,
    /// As in the file, without quotation marks.
    pub value: String,
    /// `default`, `replicated`, or what set it.
    pub origin: String,
    /// It can be changed while the broker runs.
    pub live: bool,
    /// As `--print-config` says it.
    pub meaning: &'static str,
}

impl Book {
    /// Of a node that was started so.
    pub fn new(own: Loaded) -> Self {
        Book { own }
    }

    /// The settings in force when these are laid over.
    pub fn with(&self, live: &BTreeMap<String, String>) -> LaidOver {
        let mut laid_over = LaidOver { config: self.own.config.clone(), refused: Vec::new() };
        for (key, value) in live {
            match set(&laid_over.config, key, value) {
                Ok(config) => laid_over.config = config,
                Err(why) => laid_over.refused.push((key.clone(), why)),
            }
        }
        laid_over
    }

    /// Whether a setting may be set so on top of these, or be each node's own again.
    ///
    /// # Errors
    /// The key is unknown, or cannot be changed while brokers run; or the value is wrong.
    pub fn check(
        &self,
        live: &BTreeMap<String, String>,
        key: &str,
        value: Option<&str>,
    ) -> Result<(), ConfigError> {
        match value {
            Some(value) => set(&self.with(live).config, key, value).map(drop),
            None => check_live(key),
        }
    }

    /// Every setting, in the order of `--print-config`.
    pub fn entries(&self, live: &BTreeMap<String, String>) -> Vec<Entry> {
        let laid_over = self.with(live);
        let values = load::flatten(&load::to_json(&laid_over.config));
        let defaults = load::flatten(&load::to_json(&Config::default()));
        let refused = |key: &str| laid_over.refused.iter().any(|(refused, _)| refused == key);
        let origin = |key: &str| {
            if live.contains_key(key) && !refused(key) {
                return REPLICATED.to_owned();
            }
            let set = self.own.origins.get(key).cloned();
            let unset = if values.get(key) == defaults.get(key) { DEFAULT } else { PROGRAM };
            set.unwrap_or_else(|| unset.to_owned())
        };
        let entry = |key: &keys::Key| Entry {
            key: key.name,
            value: text(values.get(key.name).unwrap_or(&Value::Null)),
            origin: origin(key.name),
            live: keys::LIVE.contains(&key.name),
            meaning: key.doc,
        };
        let hidden =
            |key: &keys::Key| keys::HIDDEN.contains(&key.name) && origin(key.name) == DEFAULT;
        keys::KEYS.iter().filter(|key| !hidden(key)).map(entry).collect()
    }
}

fn set(config: &Config, key: &str, value: &str) -> Result<Config, ConfigError> {
    check_live(key)?;
    load::set(config, key, value)
}

fn check_live(key: &str) -> Result<(), ConfigError> {
    if !keys::is_known(key) {
        return Err(load::unknown(key.to_owned(), "the change".to_owned()));
    }
    if !keys::LIVE.contains(&key) {
        return Err(ConfigError::NotLive { key: key.to_owned(), live: keys::LIVE.join(", ") });
    }
    Ok(())
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, time::Duration};

    use clap::Parser;

    use super::*;
    use crate::config::{Args, load_from};

    fn none() -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn live(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn origin(entries: &[Entry], key: &str) -> (String, String) {
        let entry = entries.iter().find(|entry| entry.key == key).expect("it is listed");
        (entry.value.clone(), entry.origin.clone())
    }

    #[test]
    fn each_value_is_listed_with_its_origin() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        write!(file, "max_delay = '2h'\n[log]\nretention_time = '5h'").expect("write");
        let path = file.path().to_str().expect("a path").to_owned();
        let args = ["broker", "--dev", "--config", &path, "--set", "limits.clients=7"];
        let args = Args::parse_from([&args[..], &["--listen", "127.0.0.1:1"]].concat());
        let environment = [("RAFTMQ_WORKERS".to_owned(), "3".to_owned())];
        let book = Book::new(load_from(&args, environment).expect("good settings"));
        let entries = book.entries(&live(&[("log.retention_time", "9h")]));
        let of = |key| origin(&entries, key);
        let pair = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
        assert_eq!(of("cluster"), pair("DefaultCluster", "default"));
        assert_eq!(of("broker_name"), pair("broker-a", "--dev"));
        assert_eq!(of("max_delay"), pair("2h", &path));
        assert_eq!(of("limits.clients"), pair("7", "--set"));
        assert_eq!(of("listen"), pair("127.0.0.1:1", "--listen"));
        assert_eq!(of("workers"), pair("3", "RAFTMQ_WORKERS"));
        assert_eq!(of("log.retention_time"), pair("9h", "replicated"));
        assert!(entries.iter().all(|entry| !entry.key.starts_with("fault.")));
    }

    #[test]
    fn what_is_laid_over_is_checked_like_everything_else() {
        let book = Book::new(Config::dev().into());
        assert!(book.check(&none(), "max_delay", Some("1h")).is_ok());
        assert!(book.check(&none(), "max_delay", None).is_ok());
        for (key, value, said) in [
            ("max_delya", "1h", "max_delay"),
            ("max_delay", "soon", "max_delay"),
            ("transaction.check_max", "many", "whole number"),
            ("transaction.check_interval", "1ms", "at least"),
            ("listen", "h:1", "restart"),
            ("fault.hold", "after Fire 1s", "restart"),
        ] {
            let refused = book.check(&none(), key, Some(value)).expect_err(key).to_string();
            assert!(refused.contains(said), "{key}: {refused}");
        }
    }

    #[test]
    fn what_does_not_go_with_a_nodes_own_settings_leaves_them_as_they_are() {
        let mut config = Config::dev();
        config.log.segment_size.0 = 1 << 30;
        let book = Book::new(config.into());
        let all = live(&[("log.retention_bytes", "1GiB"), ("max_delay", "1h")]);
        let laid_over = book.with(&all);
        assert_eq!(laid_over.refused.len(), 1);
        assert_eq!(laid_over.config.log.retention_bytes.0, 0);
        assert_eq!(laid_over.config.max_delay, Duration::from_hours(1));
        assert_eq!(origin(&book.entries(&all), "log.retention_bytes").1, "default");
    }

    #[test]
    fn every_key_that_can_be_changed_exists() {
        assert!(keys::LIVE.iter().all(|key| keys::is_known(key)));
    }
}
