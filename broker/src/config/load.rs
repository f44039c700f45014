//! Lays the layers over each other and refuses what no setting answers to.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use figment::{
    Figment, Profile,
    providers::{Format, Serialized, Toml},
};
use serde_json::Value;

use super::{Args, Config, ConfigError, keys};

/// Environment variables of ours start so; `__` separates table and key.
const PREFIX: &str = "RAFTMQ_";
/// Ours by prefix, but no setting: it names the file.
const CONFIG_FILE_VARIABLE: &str = "RAFTMQ_CONFIG";
/// RocketMQ's own variable, honoured everywhere.
const NAMESRV_VARIABLE: &str = "NAMESRV_ADDR";

/// The checked settings from all layers. `environment` is the process's, or a test's.
pub fn load(
    args: &Args,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    Ok(load_from(args, environment)?.config)
}

/// Settings, and where they come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// Checked.
    pub config: Config,
    /// Of those that are not the default: a file, a variable, `--set` or a flag.
    pub origins: BTreeMap<String, String>,
}

impl From<Config> for Loaded {
    /// Made by a program, not by an operator.
    fn from(config: Config) -> Self {
        Loaded { config, origins: BTreeMap::new() }
    }
}

/// The same, and the layer that each setting is from.
///
/// # Errors
/// As for [`load`].
pub fn load_from(
    args: &Args,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    let mut origins = BTreeMap::new();
    let kinds = flatten(&to_json(&Config::default()));
    let mut layers = Figment::new();
    if let Some(path) = &args.config {
        let (figment, keys) = file(path)?;
        layers = layers.merge(figment);
        origins.extend(keys.into_iter().map(|key| (key, path.display().to_string())));
    }
    for assignment in assignments(args, environment)? {
        origins.insert(assignment.key.clone(), assignment.origin.clone());
        layers = layers.merge(assignment.typed(&kinds)?);
    }
    let preset = match layers.extract_inner::<bool>("dev") {
        Ok(true) => Config::dev(),
        Ok(false) | Err(_) => Config::default(),
    };
    let config: Config = Figment::from(Serialized::defaults(&preset)).merge(layers).extract()?;
    config.validate()?;
    if config.dev {
        let (plain, preset) = (&kinds, flatten(&to_json(&Config::dev())));
        let set = preset.into_iter().filter(|(key, value)| plain.get(key) != Some(value));
        for (key, _) in set {
            origins.entry(key).or_insert_with(|| "--dev".to_owned());
        }
    }
    Ok(Loaded { config, origins })
}

/// The settings with one of them set to this text.
pub(super) fn set(config: &Config, key: &str, value: &str) -> Result<Config, ConfigError> {
    let (key, value, origin) = (key.to_owned(), value.to_owned(), "the change".to_owned());
    let kinds = flatten(&to_json(&Config::default()));
    let assignment = Assignment { key, value, origin }.typed(&kinds)?;
    let config: Config = Figment::from(Serialized::defaults(config)).merge(assignment).extract()?;
    config.validate()?;
    Ok(config)
}

/// One `key = value` and the layer it came from.
struct Assignment {
    key: String,
    value: String,
    origin: String,
}

/// From the weakest to the strongest: environment, `--set`, flags.
fn assignments(
    args: &Args,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<Assignment>, ConfigError> {
    let variables: BTreeMap<String, String> = environment.into_iter().collect();
    let mut found = Vec::new();
    if let Some(value) = variables.get(NAMESRV_VARIABLE) {
        let (key, origin) = ("namesrv".to_owned(), NAMESRV_VARIABLE.to_owned());
        found.push(Assignment { key, value: value.clone(), origin });
    }
    for (name, value) in &variables {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if name != CONFIG_FILE_VARIABLE {
            let key = rest.to_lowercase().replace("__", ".");
            found.push(Assignment { key, value: value.clone(), origin: name.clone() });
        }
    }
    for text in &args.set {
        let Some((key, value)) = text.split_once('=') else {
            return Err(ConfigError::NotAnAssignment { text: text.clone() });
        };
        let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
        found.push(Assignment { key, value, origin: "--set".to_owned() });
    }
    for (key, value) in args.assignments() {
        let origin = format!("--{}", key.replace('_', "-"));
        found.push(Assignment { key: key.to_owned(), value, origin });
    }
    Ok(found)
}

impl Assignment {
    /// Text becomes what the setting's default is: a name such as `007` stays text.
    fn typed(self, kinds: &BTreeMap<String, Value>) -> Result<Serialized<Value>, ConfigError> {
        let Some(kind) = kinds.get(&self.key) else {
            return Err(unknown(self.key, self.origin));
        };
        let value = match kind {
            Value::Bool(_) => self.value.parse().map(Value::Bool).map_err(|_| "true or false"),
            Value::Number(_) => {
                self.value.parse::<u64>().map(Value::from).map_err(|_| "a whole number")
            }
            Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                Ok(Value::String(self.value.clone()))
            }
        };
        match value {
            Ok(value) => Ok(Serialized::default(&self.key, value)),
            Err(wanted) => {
                let Assignment { key, value, origin } = self;
                Err(ConfigError::BadValue { key, value, wanted, origin })
            }
        }
    }
}

/// What the file says, and the keys that it sets.
fn file(path: &Path) -> Result<(Figment, Vec<String>), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
    let figment = Figment::from(Toml::string(&text)).select(Profile::Default);
    let written = flatten(&figment.extract::<Value>()?);
    let known_tables: BTreeSet<&str> =
        keys::KEYS.iter().filter_map(|key| key.name.split_once('.')).map(|(t, _)| t).collect();
    for key in written.keys() {
        if !keys::is_known(key) && !known_tables.contains(key.as_str()) {
            return Err(unknown(key.clone(), path.display().to_string()));
        }
    }
    Ok((figment, written.into_keys().collect()))
}

pub(super) fn unknown(key: String, origin: String) -> ConfigError {
    let nearest = keys::nearest(&key);
    ConfigError::UnknownKey { key, origin, nearest }
}

pub(super) fn to_json(config: &Config) -> Value {
    serde_json::to_value(config).expect("a configuration has string keys and plain values")
}

/// `{a: {b: 1}}` becomes `a.b = 1`.
pub(super) fn flatten(value: &Value) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    walk("", value, &mut flat);
    flat
}

fn walk(path: &str, value: &Value, flat: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) if !fields.is_empty() || path.is_empty() => {
            for (name, inner) in fields {
                let inner_path =
                    if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                walk(&inner_path, inner, flat);
            }
        }
        leaf => {
            flat.insert(path.to_owned(), leaf.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, time::Duration};

    use super::*;
    use crate::config::Size;

    fn args(list: &[&str]) -> Args {
        use clap::Parser;
        Args::parse_from([&["broker"], list].concat())
    }

    fn of_three() -> Vec<&'static str> {
        vec!["--broker-name", "b", "--node-id", "2", "--raft-peers", "1=h:1,2=h:2,3=h:3"]
    }

    fn variables(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn documentation_and_settings_name_the_same_keys() {
        let documented: BTreeSet<String> =
            keys::KEYS.iter().map(|key| key.name.to_owned()).collect();
        let existing: BTreeSet<String> =
            flatten(&to_json(&Config::default())).into_keys().collect();
        assert_eq!(documented, existing);
    }

    #[test]
    fn flags_win_over_set_over_environment_over_file() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        write!(file, "listen = 'file:1'\nmetrics = 'file:2'\ncluster = 'file'\ndata_dir = 'file'")
            .expect("write");
        let path = file.path().to_str().expect("a path").to_owned();
        let mut list = of_three();
        list.extend(["--config", &path, "--set", "metrics=set:2", "--set", "listen=set:1"]);
        list.extend(["--listen", "flag:1"]);
        let environment = [("RAFTMQ_CLUSTER", "env"), ("RAFTMQ_METRICS", "env:2")];
        let config = load(&args(&list), variables(&environment)).expect("good settings");
        assert_eq!(config.listen, "flag:1");
        assert_eq!(config.metrics, "set:2");
        assert_eq!(config.cluster, "env");
        assert_eq!(config.data_dir, Path::new("file"));
    }

    #[test]
    fn tables_durations_and_sizes_can_be_set_by_text() {
        let mut list = of_three();
        list.extend(["--set", "raft.heartbeat_interval=100ms", "--set", "log.segment_size=32MiB"]);
        let environment = [("RAFTMQ_LIMITS__LONG_POLLS", "7"), ("NAMESRV_ADDR", "a:1;b:2")];
        let config = load(&args(&list), variables(&environment)).expect("good settings");
        assert_eq!(config.raft.heartbeat_interval, Duration::from_millis(100));
        assert_eq!(config.log.segment_size, Size::mib(32));
        assert_eq!(config.limits.long_polls, 7);
        assert_eq!(config.namesrv.0, ["a:1", "b:2"]);
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one_in_every_layer() {
        let mut list = of_three();
        list.extend(["--set", "listne=x:1"]);
        let error = load(&args(&list), []).expect_err("an unknown key").to_string();
        assert!(error.contains("listne") && error.contains("\"listen\""), "{error}");

        let environment = variables(&[("RAFTMQ_RAFT__HARTBEAT_INTERVAL", "1s")]);
        let error = load(&args(&of_three()), environment).expect_err("unknown").to_string();
        assert!(error.contains("raft.heartbeat_interval"), "{error}");

        let mut file = tempfile::NamedTempFile::new().expect("a file");
        write!(file, "[limits]\nlong_pols = 3").expect("write");
        let path = file.path().to_str().expect("a path").to_owned();
        let mut list = of_three();
        list.extend(["--config", &path]);
        let error = load(&args(&list), []).expect_err("an unknown key").to_string();
        assert!(error.contains("limits.long_polls"), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named_with_its_layer() {
        let mut list = of_three();
        list.extend(["--set", "limits.long_polls=many"]);
        let error = load(&args(&list), []).expect_err("no number").to_string();
        assert!(error.contains("whole number") && error.contains("--set"), "{error}");

        let mut list = of_three();
        list.extend(["--set", "raft.heartbeat_interval=soon"]);
        let error = load(&args(&list), []).expect_err("no duration").to_string();
        assert!(error.contains("heartbeat_interval"), "{error}");

        let mut list = of_three();
        list.extend(["--set", "dev"]);
        assert!(matches!(
            load(&args(&list), []),
            Err(ConfigError::NotAnAssignment { text }) if text == "dev"
        ));
    }

    #[test]
    fn dev_needs_nothing_else_and_yields_to_flags() {
        let config = load(&args(&["--dev"]), []).expect("good settings");
        assert_eq!(config, Config::dev());
        let config = load(&args(&["--dev", "--broker-name", "mine"]), []).expect("good settings");
        assert_eq!(config.broker_name, "mine");
        assert!(config.auto_create_topics);
    }
}
