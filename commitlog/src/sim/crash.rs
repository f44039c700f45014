//! What is left after the power went.

use super::{Change, Inode, SimDisk, State, small};

/// Bytes that a disk writes all or nothing.
const SECTOR: usize = 512;

/// Which of the changes that were not synced are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// None: the process died, the machine did not.
    Nothing,
    /// All of them.
    Unsynced,
    /// The first `changes` are kept, and the first `bytes` of the next one if it is a write.
    AfterPrefix { changes: usize, bytes: usize },
    /// Only this one.
    Only { change: usize },
    /// Each change, and of writes each sector of 512 bytes, by the throw of a coin.
    Random { seed: u64 },
    /// Writes only reserved their space: sizes are kept, the bytes read as zeros.
    Zeroed,
}

impl SimDisk {
    /// The disk that a machine finds that lost power now: `loss` chooses one of the many
    /// possibilities. This disk is left as it is.
    #[must_use]
    pub fn after_crash(&self, loss: Loss) -> Self {
        let old = self.state();
        let mut new = State {
            inodes: old.inodes.clone(),
            durable_names: old.durable_names.clone(),
            capacity: old.capacity,
            ..State::default()
        };
        let mut coin = Coin(match loss {
            Loss::Random { seed } => seed,
            _ => 0,
        });
        for (i, change) in old.pending.iter().enumerate() {
            for kept in surviving(change, i, loss, &mut coin) {
                new.apply_durably(kept);
            }
        }
        new.names = new.durable_names.clone();
        for Inode { live, durable } in &mut new.inodes {
            live.clone_from(durable);
        }
        drop(old);
        let disk = Self::new();
        *disk.state() = new;
        disk
    }
}

/// What is left of one change.
fn surviving(change: &Change, i: usize, loss: Loss, coin: &mut Coin) -> Vec<Change> {
    let whole = |keep: bool| if keep { vec![change.clone()] } else { Vec::new() };
    match loss {
        Loss::Nothing => whole(true),
        Loss::Unsynced => whole(false),
        Loss::Only { change: lost } => whole(i != lost),
        Loss::AfterPrefix { changes, bytes } if i == changes => cut(change, bytes),
        Loss::AfterPrefix { changes, .. } => whole(i < changes),
        Loss::Random { .. } => by_sector(change, coin),
        Loss::Zeroed => zeroed(change),
    }
}

fn cut(change: &Change, bytes: usize) -> Vec<Change> {
    let Change::Write { inode, position, data } = change else { return Vec::new() };
    let data = data[..bytes.min(data.len())].to_vec();
    if data.is_empty() {
        return Vec::new();
    }
    vec![Change::Write { inode: *inode, position: *position, data }]
}

fn zeroed(change: &Change) -> Vec<Change> {
    match change {
        Change::Write { inode, position, data } => {
            vec![Change::Grow { inode: *inode, len: position + data.len() }]
        }
        other => vec![other.clone()],
    }
}

fn by_sector(change: &Change, coin: &mut Coin) -> Vec<Change> {
    let Change::Write { inode, position, data } = change else {
        return if coin.heads() { vec![change.clone()] } else { Vec::new() };
    };
    let mut kept = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let sector_end = (position + at + 1).next_multiple_of(SECTOR) - position;
        let end = sector_end.min(data.len());
        if coin.heads() {
            let data = data[at..end].to_vec();
            kept.push(Change::Write { inode: *inode, position: position + at, data });
        }
        at = end;
    }
    kept
}

/// A small generator (SplitMix64), so that a seed means the same on every machine for ever.
struct Coin(u64);

impl Coin {
    fn heads(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        small((z ^ (z >> 31)) & 1) == 1
    }
}
