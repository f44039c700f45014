//! What can be wrong with the settings.

use std::path::PathBuf;

/// The settings cannot be used. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key that no setting has.
    #[error("unknown key {key:?} in {origin}{}", nearest.as_ref().map(|n| format!(": did you mean {n:?}?")).unwrap_or_default())]
    UnknownKey {
        /// As it was written.
        key: String,
        /// The layer that holds it.
        origin: String,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// A value of the wrong kind.
    #[error("{key} = {value:?} in {origin}: expected {wanted}")]
    BadValue {
        /// The setting.
        key: String,
        /// As it was written.
        value: String,
        /// What would do.
        wanted: &'static str,
        /// The layer that holds it.
        origin: String,
    },
    /// A setting that is read once, at the start.
    #[error(
        "{key} is read when the broker starts: change it where the broker is started, and restart \
         one replica after the other; what can be changed while it runs: {live}"
    )]
    NotLive {
        /// The setting.
        key: String,
        /// Those that are not.
        live: String,
    },
    /// `--set` without `=`.
    #[error("--set {text:?} is not KEY=VALUE")]
    NotAnAssignment {
        /// As it was written.
        text: String,
    },
    /// The file cannot be read.
    #[error("read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A layer does not parse, or a value breaks the grammar of its setting.
    #[error("{0}")]
    Parse(Box<figment::Error>),
    /// A setting that has no default is absent.
    #[error("{key} is needed: {hint}")]
    Missing {
        /// The setting.
        key: &'static str,
        /// How to give it.
        hint: &'static str,
    },
    /// One value that cannot work.
    #[error("{key} = {value:?}: {why}")]
    Invalid {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong.
        why: String,
    },
    /// Two values that cannot work together.
    #[error("{left} = {left_value:?} and {right} = {right_value:?}: {why}")]
    Conflict {
        /// One setting.
        left: &'static str,
        /// Its value.
        left_value: String,
        /// The other setting.
        right: &'static str,
        /// Its value.
        right_value: String,
        /// The relation that must hold.
        why: &'static str,
    },
}

impl From<figment::Error> for ConfigError {
    fn from(error: figment::Error) -> Self {
        ConfigError::Parse(Box::new(error))
    }
}
