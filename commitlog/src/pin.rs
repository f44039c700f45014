//! Keeps segments from being removed while they are read as files.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::position::LogOffset;
use crate::shared::Shared;

/// What is pinned at the moment.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    made: u64,
    from: BTreeMap<u64, LogOffset>,
}

impl Pins {
    /// `below`, or the lowest pin if that is lower.
    pub(crate) fn bound(&self, below: LogOffset) -> LogOffset {
        self.from.values().copied().min().map_or(below, |pinned| pinned.min(below))
    }
}

/// Segments from here on are neither removed nor used again as long as this lives.
#[derive(Debug)]
pub struct Pin {
    shared: Arc<Shared>,
    id: u64,
    from: LogOffset,
}

impl Pin {
    /// Pins everything that is there.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let (id, from) = {
            let mut inner = shared.inner();
            let from = inner.segments.values().next().map_or(inner.tail.end, |first| first.base());
            inner.pins.made += 1;
            let id = inner.pins.made;
            inner.pins.from.insert(id, from);
            (id, from)
        };
        Self { shared, id, from }
    }

    /// Where the log started when it was pinned.
    #[must_use]
    pub fn from(&self) -> LogOffset {
        self.from
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.shared.inner().pins.from.remove(&self.id);
    }
}
