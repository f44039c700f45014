//! What an operator or an embedding program may choose, and who the log belongs to.

use std::fmt;
use std::time::Duration;

use crate::frame::FRAME_HEADER;
use crate::header::SEGMENT_HEADER;

/// Segments are multiples of this, so that they are multiples of every page and sector size.
pub const SEGMENT_UNIT: u64 = 4096;
/// Positions inside a segment fit 32 bits.
pub const SEGMENT_SIZE_MAX: u64 = 2 << 30;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes of a segment file. Part of the format: the same on all replicas of a group and fixed
    /// for its life. Default 256 MiB.
    pub segment_size: u64,
    /// Largest body of one entry in bytes. Default 16 MiB.
    pub max_body: u32,
    /// When an append counts as done. Default `Sync`.
    pub flush: Flush,
    /// Bytes written before they are synced, even if more is queued. Default 8 MiB.
    pub sync_group_bytes: u64,
    /// Bytes of the log's end that are kept in memory. What is not written yet is always kept, on
    /// top of this bound. Default 64 MiB.
    pub tail_cache_bytes: u64,
    /// Segments reserved ahead of need. Default 1.
    pub spare_segments: u32,
    /// Fill reserved segments with zeros instead of only allocating them: syncs get cheaper on
    /// some file systems, every byte is written twice. Default off.
    pub zero_fill: bool,
    /// The synced mark is made durable at least every so many bytes, and when the log is idle. It
    /// costs two more syncs. Default 32 MiB.
    pub mark_every_bytes: u64,
    /// Damage in the last segment ends the log there, even in what was synced: what was behind it
    /// is lost here. Only for a node that has noted that it may lack what it acknowledged. Default
    /// off: damage is refused.
    pub cut_damage: bool,
}

/// When an append is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Once it is durable. Many appends share one sync.
    Sync,
    /// Once the operating system has it. It is synced in the background, when `max_bytes` or
    /// `max_delay` are reached; a power failure may take what was not. Membership entries, votes
    /// and purges are synced nevertheless.
    Async { max_bytes: u64, max_delay: Duration },
}

impl Flush {
    /// 32 MiB or 200 ms.
    pub const ASYNC: Self =
        Self::Async { max_bytes: 32 << 20, max_delay: Duration::from_millis(200) };
}

impl Default for Config {
    fn default() -> Self {
        Self {
            segment_size: 256 << 20,
            max_body: 16 << 20,
            flush: Flush::Sync,
            sync_group_bytes: 8 << 20,
            tail_cache_bytes: 64 << 20,
            spare_segments: 1,
            zero_fill: false,
            mark_every_bytes: 32 << 20,
            cut_damage: false,
        }
    }
}

/// A configuration that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error(
        "segment_size {0} is not a multiple of {SEGMENT_UNIT}, or not between two units and {SEGMENT_SIZE_MAX}"
    )]
    SegmentSize(u64),
    #[error("max_body {max_body} does not fit a segment of {segment_size} bytes, at most {most}")]
    MaxBody { max_body: u32, segment_size: u64, most: u64 },
    #[error("{0} must not be 0")]
    Zero(&'static str),
}

impl Config {
    /// The defaults with segments of `segment_size` bytes and bodies that fit them.
    #[must_use]
    pub fn with_segment_size(segment_size: u64) -> Self {
        let most = Self::largest_body(segment_size);
        let default = Self::default();
        let max_body = u32::try_from(most).map_or(default.max_body, |m| m.min(default.max_body));
        Self { segment_size, max_body, ..default }
    }

    fn largest_body(segment_size: u64) -> u64 {
        segment_size.saturating_sub(SEGMENT_HEADER + FRAME_HEADER)
    }

    /// # Errors
    /// The first relation between fields that does not hold.
    pub fn validate(&self) -> Result<(), Invalid> {
        let size = self.segment_size;
        let sizes = 2 * SEGMENT_UNIT..=SEGMENT_SIZE_MAX;
        if !size.is_multiple_of(SEGMENT_UNIT) || !sizes.contains(&size) {
            return Err(Invalid::SegmentSize(size));
        }
        let most = Self::largest_body(size);
        if u64::from(self.max_body) > most {
            return Err(Invalid::MaxBody { max_body: self.max_body, segment_size: size, most });
        }
        let nonzero = [
            ("sync_group_bytes", self.sync_group_bytes),
            ("mark_every_bytes", self.mark_every_bytes),
            ("spare_segments", u64::from(self.spare_segments)),
        ];
        match nonzero.iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(Invalid::Zero(name)),
            None => Ok(()),
        }
    }

    /// Most bytes that can be written and not yet synced at any moment. Recovery relies on it: a
    /// valid frame that lies further behind a damaged place proves that the place was synced.
    pub(crate) fn unsynced_bound(&self) -> u64 {
        let group = self.sync_group_bytes + u64::from(self.max_body) + 2 * FRAME_HEADER;
        match self.flush {
            Flush::Sync => group,
            Flush::Async { max_bytes, .. } => 2 * max_bytes + group,
        }
    }
}

/// Names a broker group for ever. Drawn when the group is initialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u128);

/// 32 hexadecimal digits.
impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Names one run of the operating system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootId(pub u128);

impl BootId {
    /// The running kernel's boot id; `None` where the kernel does not tell. Without it every start
    /// counts as one after a power failure.
    #[must_use]
    pub fn current() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        u128::from_str_radix(&digits, 16).ok().map(Self)
    }
}

/// Who opens the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub node_id: u64,
    /// `None` while the group has not been initialised; then whatever the directory holds counts.
    pub group_id: Option<GroupId>,
    /// See [`BootId::current`].
    pub boot_id: Option<BootId>,
}
