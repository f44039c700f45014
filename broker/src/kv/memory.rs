//! The store in memory: for simulation and for tests.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard};

use super::{Batch, Durable, Edit, Error, Family, Kv, Visit};

type Records = [BTreeMap<Vec<u8>, Vec<u8>>; Family::ALL.len()];

/// Ordered maps. Remembers what a crash would leave: everything up to the last flush.
#[derive(Debug, Default)]
pub struct Memory {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    live: Records,
    durable: Records,
    unflushed: Vec<Step>,
}

/// What happened since the last flush.
#[derive(Debug)]
enum Step {
    Write(Batch),
    Trim(Family, Vec<u8>),
}

impl Memory {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The store as it is found after a crash.
    #[must_use]
    pub fn crashed(&self) -> Self {
        let durable = self.lock().durable.clone();
        Self { inner: Mutex::new(Inner { live: durable.clone(), durable, unflushed: vec![] }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the lock")
    }
}

impl Kv for Memory {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.lock().live[family.index()].get(key).cloned())
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        below: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        if from >= below {
            return Ok(());
        }
        let inner = self.lock();
        let range = (Bound::Included(from), Bound::Excluded(below));
        for (key, value) in inner.live[family.index()].range::<[u8], _>(range) {
            if visit(key, value)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, batch: &Batch) -> Result<(), Error> {
        let mut inner = self.lock();
        write(&mut inner.live, batch);
        inner.unflushed.push(Step::Write(batch.clone()));
        Ok(())
    }

    fn flush(&self, _: Durable) -> Result<(), Error> {
        let mut inner = self.lock();
        let Inner { durable, unflushed, .. } = &mut *inner;
        for step in unflushed.drain(..) {
            match step {
                Step::Write(batch) => write(durable, &batch),
                Step::Trim(family, key) => trim(durable, family, &key),
            }
        }
        Ok(())
    }

    fn trim(&self, family: Family, key: &[u8]) -> Result<(), Error> {
        let mut inner = self.lock();
        trim(&mut inner.live, family, key);
        inner.unflushed.push(Step::Trim(family, key.to_vec()));
        Ok(())
    }
}

fn trim(records: &mut Records, family: Family, key: &[u8]) {
    let records = &mut records[family.index()];
    *records = records.split_off(key);
}

fn write(records: &mut Records, batch: &Batch) {
    for (family, edit) in batch.changes() {
        let records = &mut records[family.index()];
        match edit {
            Edit::Put { key, value } => drop(records.insert(key.to_vec(), value.to_vec())),
            Edit::Delete { key } => drop(records.remove(key)),
            Edit::DeleteRange { from, below } => {
                let mut gone = records.split_off(from);
                records.append(&mut gone.split_off(below));
            }
        }
    }
}
