//! Lays the layers over each other and refuses what no setting answers to.

use std::{collections::BTreeMap, fmt::Write, path::Path};

use figment::{
    Figment,
    providers::{Format, Serialized, Toml},
};
use serde_json::Value;

use super::{Args, Config, ConfigError, keys};

/// Environment variables of ours start so; `__` separates table and key.
const PREFIX: &str = "RAFTMQ_";

/// Ours by prefix, but no setting: it names the file.
const CONFIG_FILE_VARIABLE: &str = "RAFTMQ_CONFIG";

/// RocketMQ's own variable: all NameServers of the cluster.
const ADDRESSES_VARIABLE: &str = "NAMESRV_ADDR";

/// The checked settings from all layers. `environment` is the process's, or a test's.
pub fn load(
    args: &Args,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let defaults = Config::default();
    let kinds = flatten(&to_json(&defaults));
    let mut layers = Figment::from(Serialized::defaults(&defaults));
    if let Some(path) = &args.config {
        layers = layers.merge(file(path)?);
    }
    for assignment in assignments(args, environment)? {
        layers = layers.merge(assignment.typed(&kinds)?);
    }
    let config: Config = layers.extract()?;
    config.validate()?;
    Ok(config)
}

/// Every setting with its value and its meaning, as a file that `--config` reads.
pub fn print(config: &Config) -> String {
    let values = flatten(&to_json(config));
    let mut text = String::new();
    let mut table = "";
    for (key, doc) in keys::KEYS {
        let (of, leaf) = key.split_once('.').unwrap_or(("", key));
        if of != table {
            writeln!(text, "[{of}]").expect("a String takes any text");
            table = of;
        }
        for line in doc.lines() {
            writeln!(text, "# {line}").expect("a String takes any text");
        }
        // A JSON text or number is one in TOML too.
        writeln!(text, "{leaf} = {}\n", values[*key]).expect("a String takes any text");
    }
    text
}

/// One `key = value` and the layer that it came from.
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
    if let Some(value) = variables.get(ADDRESSES_VARIABLE) {
        let (key, origin) = ("addresses".to_owned(), ADDRESSES_VARIABLE.to_owned());
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
            return Err(ConfigError::NotAnAssignment(text.clone()));
        };
        let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
        found.push(Assignment { key, value, origin: "--set".to_owned() });
    }
    for (key, value) in args.assignments() {
        found.push(Assignment { key: key.to_owned(), value, origin: format!("--{key}") });
    }
    Ok(found)
}

impl Assignment {
    /// Text becomes what the setting's default is.
    fn typed(self, kinds: &BTreeMap<String, Value>) -> Result<Serialized<Value>, ConfigError> {
        let Self { key, value, origin } = self;
        let Some(kind) = kinds.get(&key) else { return Err(unknown(key, origin)) };
        let typed = if kind.is_number() {
            let Ok(number) = value.parse::<u64>() else {
                return Err(ConfigError::NotANumber { key, value, origin });
            };
            Value::from(number)
        } else {
            Value::from(value)
        };
        Ok(Serialized::default(&key, typed))
    }
}

fn file(path: &Path) -> Result<Figment, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
    let figment = Figment::from(Toml::string(&text));
    for key in flatten(&figment.extract::<Value>()?).into_keys() {
        if !keys::is_known(&key) {
            return Err(unknown(key, path.display().to_string()));
        }
    }
    Ok(figment)
}

fn unknown(key: String, origin: String) -> ConfigError {
    let nearest = keys::nearest(&key);
    ConfigError::UnknownKey { key, origin, nearest }
}

fn to_json(config: &Config) -> Value {
    serde_json::to_value(config).expect("settings have text keys and plain values")
}

/// `{a: {b: 1}}` becomes `a.b = 1`.
fn flatten(value: &Value) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    walk("", value, &mut flat);
    flat
}

fn walk(path: &str, value: &Value, flat: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(&path, value, flat);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            flat.insert(path.to_owned(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn load_with(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let arguments = std::iter::once(&"namesrv").chain(arguments);
        let args = Args::try_parse_from(arguments).expect("known flags");
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        load(&args, environment)
    }

    fn error(arguments: &[&str], environment: &[(&str, &str)]) -> String {
        load_with(arguments, environment).expect_err("must be refused").to_string()
    }

    #[test]
    fn every_setting_is_documented_and_every_documented_key_is_one() {
        let mut keys: Vec<_> = keys::KEYS.iter().map(|(key, _)| (*key).to_owned()).collect();
        keys.sort();
        let settings: Vec<_> = flatten(&to_json(&Config::default())).into_keys().collect();
        assert_eq!(keys, settings);
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let config = Config::default();
        let read: Config = Figment::from(Toml::string(&print(&config))).extract().expect("valid");
        assert_eq!(read, config);
    }

    #[test]
    fn later_layers_win() {
        let environment = [("RAFTMQ_LISTEN", "e:1"), ("RAFTMQ_ROUTE__MODE", "split")];
        let config = load_with(&["--set", "listen=s:1"], &environment).expect("valid");
        assert_eq!((config.listen.as_str(), config.route.mode.as_str()), ("s:1", "split"));
        let config =
            load_with(&["--set", "listen=s:1", "--listen", "f:1"], &environment).expect("valid");
        assert_eq!(config.listen, "f:1");
    }

    #[test]
    fn the_address_list_is_rocketmqs_variable_or_this_one() {
        let config = load_with(&[], &[("NAMESRV_ADDR", "a:1;b:2")]).expect("valid");
        assert_eq!(config.address_list(), ["a:1", "b:2"]);
        assert_eq!(load_with(&[], &[]).expect("valid").address_list(), ["127.0.0.1:9876"]);
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        let text = error(&["--set", "route.mod=split"], &[]);
        assert!(
            text.contains("route.mod") && text.contains("did you mean \"route.mode\""),
            "{text}"
        );
        assert!(error(&[], &[("RAFTMQ_LISTNE", "a:1")]).contains("RAFTMQ_LISTNE"));
    }

    #[test]
    fn bad_values_are_named() {
        assert!(error(&["--listen", "nowhere"], &[]).contains("listen"));
        assert!(error(&["--set", "workers=many"], &[]).contains("workers"));
        assert!(error(&["--set", "workers=0"], &[]).contains("workers"));
        assert!(error(&["--set", "route.mode=random"], &[]).contains("route.mode"));
        assert!(error(&["--set", "tls.key=k.pem"], &[]).contains("tls.certificates"));
        assert!(error(&["--set", "listen"], &[]).contains("KEY=VALUE"));
        assert!(error(&["--config", "/does/not/exist.toml"], &[]).contains("/does/not/exist.toml"));
    }
}
