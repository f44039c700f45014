//! The one reason why this node stops by itself.

use std::any::Any;
use std::sync::Arc;

use tokio::sync::watch;

use crate::Error;

/// Carries the first fatal error from where it happened to whoever ends the process.
#[derive(Debug, Clone)]
pub(crate) struct Failure(watch::Sender<Option<Arc<Error>>>);

impl Default for Failure {
    fn default() -> Failure {
        Failure(watch::Sender::new(None))
    }
}

impl Failure {
    /// Later errors are consequences of the first, and are only logged.
    pub(crate) fn report(&self, error: Error) {
        tracing::error!(error = %Chain(&error), "node stops");
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(Arc::new(error));
            }
            is_first
        });
    }

    /// Resolves once something fatal happened; never otherwise.
    pub(crate) async fn wait(&self) -> Arc<Error> {
        let mut receiver = self.0.subscribe();
        match receiver.wait_for(Option::is_some).await {
            Ok(error) => error.clone().expect("waited for it"),
            Err(_) => unreachable!("self holds the sender"),
        }
    }
}

/// What a panic said.
#[derive(Debug, thiserror::Error)]
#[error("panicked: {0}")]
pub(crate) struct Panicked(String);

impl From<&(dyn Any + Send)> for Panicked {
    fn from(panic: &(dyn Any + Send)) -> Panicked {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Panicked(text.unwrap_or_else(|| "without a message".to_owned()))
    }
}

/// An error with its sources.
pub(crate) struct Chain<'a>(pub &'a (dyn std::error::Error + 'a));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
