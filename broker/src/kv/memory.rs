//! The store in memory: for simulation and for tests.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use bytes::{Buf as _, BufMut as _, TryGetError};

use super::{Batch, Durable, Edit, Error, Family, Kv, Look, Visit};

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

    /// Memory needs no checksums.
    fn reread(&self, _: Family, _: &[u8], _: u64) -> Result<(u64, Option<Vec<u8>>), Error> {
        Ok((0, None))
    }

    fn checkpoint(&self, into: &Path, look: &mut Look<'_>) -> Result<(), Error> {
        self.flush(Durable::Now)?;
        let copy = self.crashed();
        let path = into.join(COPY);
        let io = |action| move |source| Error::Io { action, path: into.join(COPY), source };
        std::fs::create_dir(into).map_err(io("create the directory of"))?;
        let mut file = std::fs::File::create(path).map_err(io("create"))?;
        file.write_all(&encode(&copy.lock().durable)).map_err(io("write"))?;
        file.sync_all().map_err(io("sync"))?;
        look(&copy)
    }

    fn restore(&self, from: &Path) -> Result<(), Error> {
        let path = from.join(COPY);
        let bytes = std::fs::read(&path).map_err(|source| Error::Io {
            action: "read",
            path: path.clone(),
            source,
        })?;
        let problem = "a record is cut off";
        let live = decode(&bytes).map_err(|_| Error::Copy { path, problem })?;
        *self.lock() = Inner { durable: live.clone(), live, unflushed: vec![] };
        Ok(())
    }
}

/// Name of the one file of a copy.
const COPY: &str = "records";

/// `family 1 | key length 4 | value length 4 | key | value`, for each record.
fn encode(records: &Records) -> Vec<u8> {
    let mut out = Vec::new();
    for family in Family::ALL {
        for (key, value) in &records[family.index()] {
            out.push(family as u8);
            for part in [key, value] {
                out.put_u32(u32::try_from(part.len()).expect("records are small"));
            }
            out.extend_from_slice(key);
            out.extend_from_slice(value);
        }
    }
    out
}

fn decode(mut bytes: &[u8]) -> Result<Records, TryGetError> {
    let mut records = Records::default();
    while bytes.has_remaining() {
        let family = usize::from(bytes.try_get_u8()?);
        let (key, value) = (bytes.try_get_u32()? as usize, bytes.try_get_u32()? as usize);
        let short = TryGetError { requested: key + value, available: bytes.len() };
        if bytes.len() < key + value || family >= records.len() {
            return Err(short);
        }
        let (key, rest) = bytes.split_at(key);
        let (value, rest) = rest.split_at(value);
        records[family].insert(key.to_vec(), value.to_vec());
        bytes = rest;
    }
    Ok(records)
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
