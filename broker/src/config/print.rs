//! `--print-config`: a file that could be given back with `--config`.

use serde_json::Value;

use super::{Config, keys, load};

/// Every setting with its meaning above it, as TOML.
pub fn print(config: &Config) -> String {
    let values = load::flatten(&load::to_json(config));
    let defaults = load::flatten(&load::to_json(&Config::default()));
    let mut text = String::new();
    let mut table = "";
    for key in keys::KEYS {
        if keys::HIDDEN.contains(&key.name) && values.get(key.name) == defaults.get(key.name) {
            continue;
        }
        let (own_table, leaf) = key.name.split_once('.').unwrap_or(("", key.name));
        if own_table != table {
            text.push_str(&format!("[{own_table}]\n"));
            table = own_table;
        }
        for line in key.doc.lines() {
            text.push_str(&format!("# {line}\n"));
        }
        let value = values.get(key.name).unwrap_or(&Value::Null);
        // JSON's text of strings, numbers and booleans is TOML's too.
        text.push_str(&format!("{leaf} = {value}\n\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use clap::Parser;

    use super::*;
    use crate::config::{Args, load};

    #[test]
    fn what_is_printed_can_be_read_back() {
        let config = Config { cluster: "a \"quoted\" name".into(), ..Config::dev() };
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(print(&config).as_bytes()).expect("write");
        let path = file.path().to_str().expect("a path");
        let args = Args::parse_from(["broker", "--config", path]);
        assert_eq!(load(&args, []).expect("good settings"), config);
    }

    #[test]
    fn faults_are_shown_to_those_who_set_them() {
        let mut config = Config::dev();
        assert!(!print(&config).contains("[fault]"));
        config.fault.hold = "after Fire 1s".into();
        assert!(print(&config).contains("hold = \"after Fire 1s\""));
    }
}
