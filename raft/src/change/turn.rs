//! Whose turn it is to change the membership: one change at a time.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::ChangeError;

#[derive(Debug, Clone, Default)]
pub(crate) struct Turn {
    lock: Arc<Mutex<()>>,
    /// What holds the lock.
    what: Arc<std::sync::Mutex<String>>,
}

impl Turn {
    pub(crate) fn take(&self, what: &str) -> Result<OwnedMutexGuard<()>, ChangeError> {
        let taken = self.lock.clone().try_lock_owned();
        let mut holder = self.what.lock().expect("no holder panics");
        match taken {
            Ok(guard) => {
                what.clone_into(&mut holder);
                Ok(guard)
            }
            Err(_taken) => Err(ChangeError::Busy(holder.clone())),
        }
    }

    /// What is being done.
    pub(crate) fn holder(&self) -> Option<String> {
        let free = self.lock.try_lock().is_ok();
        (!free).then(|| self.what.lock().expect("no holder panics").clone())
    }
}
