//! Registers whose written values are unique: linearizability without a search.
//!
//! After Gibbons and Korach: all operations on one value (its write and the reads that returned it)
//! must lie together in any order that explains the answers. With `first_end` the earliest end and
//! `last_begin` the latest beginning among them, the value is current at least from `first_end` to
//! `last_begin` if that is forwards in time; else there is a moment at which all of them can lie.
//! An order exists exactly if no read ends before its write begins, no two forward zones overlap,
//! and no backward zone lies within a forward one. Sorting is all it takes.

use std::collections::BTreeMap;

/// An operation on a register. `value` `None` is the state before any write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unique {
    /// How the caller calls it.
    pub id: usize,
    pub write: bool,
    pub value: Option<u64>,
    pub began: u64,
    /// `u64::MAX` for a write of unknown outcome.
    pub ended: u64,
}

/// Why no order explains the answers, with the operations that show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// A value was read that nobody wrote.
    NoWrite { read: usize, value: u64 },
    /// A read ended before the write of its value began.
    BeforeWrite { read: usize, write: usize },
    /// Two values would both have to be current at once.
    Overlap { first: Vec<usize>, second: Vec<usize> },
    /// All operations on one value lie where another value was current throughout.
    Within { inner: Vec<usize>, outer: Vec<usize> },
}

impl Wrong {
    /// The operations that show it.
    #[must_use]
    pub fn ids(&self) -> Vec<usize> {
        match self {
            Self::NoWrite { read, .. } => vec![*read],
            Self::BeforeWrite { read, write } => vec![*write, *read],
            Self::Overlap { first, second } => [&first[..], second].concat(),
            Self::Within { inner, outer } => [&outer[..], inner].concat(),
        }
    }
}

/// The operations on one value.
struct Zone {
    /// The one that ends first and the one that begins last.
    extremes: (Unique, Unique),
    read: bool,
}

impl Zone {
    fn first_end(&self) -> u64 {
        self.extremes.0.ended
    }

    fn last_begin(&self) -> u64 {
        self.extremes.1.began
    }

    fn is_forward(&self) -> bool {
        self.first_end() < self.last_begin()
    }

    fn ids(&self) -> Vec<usize> {
        vec![self.extremes.0.id, self.extremes.1.id]
    }
}

/// Whether some order of `ops` explains what the reads returned. A write that is given must have
/// been able to happen; one of unknown outcome (`ended` is `u64::MAX`) need not have.
///
/// # Panics
/// When two writes have the same value: then this method does not apply.
pub fn zones(ops: &[Unique]) -> Result<(), Wrong> {
    let mut writes: BTreeMap<Option<u64>, Unique> = BTreeMap::new();
    for op in ops.iter().filter(|op| op.write) {
        assert!(writes.insert(op.value, *op).is_none(), "{:?} is written twice", op.value);
    }
    let mut zones: BTreeMap<Option<u64>, Zone> = BTreeMap::new();
    for (value, write) in &writes {
        zones.insert(*value, Zone { extremes: (*write, *write), read: false });
    }
    for read in ops.iter().filter(|op| !op.write) {
        // What a register holds before the first write was written before everything.
        let zone = match (zones.get_mut(&read.value), read.value) {
            (Some(zone), _) => zone,
            (None, Some(value)) => return Err(Wrong::NoWrite { read: read.id, value }),
            (None, None) => {
                let initial = Unique { ended: 0, began: 0, write: true, ..*read };
                zones.entry(None).or_insert(Zone { extremes: (initial, *read), read: true })
            }
        };
        if let Some(write) = writes.get(&read.value).filter(|write| read.ended < write.began) {
            return Err(Wrong::BeforeWrite { read: read.id, write: write.id });
        }
        let (first, last) = &mut zone.extremes;
        if read.ended < first.ended {
            *first = *read;
        }
        if last.began < read.began {
            *last = *read;
        }
        zone.read = true;
    }
    // A write of unknown outcome that nobody saw need not have happened.
    zones.retain(|_, zone| zone.read || zone.first_end() < u64::MAX);
    order_exists(zones.into_values().collect())
}

fn order_exists(zones: Vec<Zone>) -> Result<(), Wrong> {
    let (mut forward, backward): (Vec<Zone>, Vec<Zone>) =
        zones.into_iter().partition(Zone::is_forward);
    forward.sort_by_key(Zone::first_end);
    for pair in forward.windows(2) {
        if pair[1].first_end() < pair[0].last_begin() {
            return Err(Wrong::Overlap { first: pair[0].ids(), second: pair[1].ids() });
        }
    }
    for inner in &backward {
        // Forward zones do not overlap, so only the last that begins before it can hold it.
        let after = forward.partition_point(|zone| zone.first_end() < inner.last_begin());
        let Some(outer) = after.checked_sub(1).map(|place| &forward[place]) else { continue };
        if inner.first_end() < outer.last_begin() {
            return Err(Wrong::Within { inner: inner.ids(), outer: outer.ids() });
        }
    }
    Ok(())
}
