//! The faults by their names.

use serde::{Deserialize, Serialize};

use super::Need;

/// Whom a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Whoever leads when it begins.
    Leader,
    /// One that does not lead.
    Follower,
    /// Any one.
    One,
    /// Everybody.
    All,
    /// The cluster as such, and nobody in particular.
    Cluster,
    /// A NameServer.
    NameServer,
}

/// For how long a fault lasts, in ms.
type Lasts = std::ops::Range<u64>;

macro_rules! classes {
    ($($(#[doc = $doc:literal])+ $class:ident = $name:literal, $package:literal, $need:expr, [$($target:ident),+], $lasts:expr;)*) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Class {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $class,)*
        }

        impl Class {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$class),*];

            /// As in histories.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$class => $name),* }
            }

            /// The name that stands for it and its relatives.
            #[must_use]
            pub fn package(self) -> &'static str {
                match self { $(Self::$class => $package),* }
            }

            /// What the machine has to be able to do.
            #[must_use]
            pub fn need(self) -> Need {
                match self { $(Self::$class => $need),* }
            }

            /// Whom it may hit; more often those that are named more often.
            #[must_use]
            pub fn targets(self) -> &'static [Target] {
                match self { $(Self::$class => &[$(Target::$target),+]),* }
            }

            /// How long it lasts, in ms.
            #[must_use]
            pub fn lasts(self) -> Lasts {
                match self { $(Self::$class => $lasts),* }
            }

            /// What it does, in a sentence.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$class => concat!($($doc),+)),* }
            }
        }
    };
}

classes! {
    /// SIGKILL, and a start later.
    Kill = "kill", "kill", Need::Nothing, [Leader, Leader, Follower], 300..1_500;
    /// SIGKILL for everybody at once.
    KillAll = "kill-all", "kill", Need::Nothing, [All], 100..600;
    /// SIGSTOP, and SIGCONT later.
    Pause = "pause", "pause", Need::Nothing, [Leader, Leader, Follower], 500..3_500;
    /// SIGTERM, and a start once it has ended.
    Restart = "restart", "restart", Need::Nothing, [Leader, Leader, Follower], 200..600;
    /// SIGTERM and start with another program, one after the other.
    Upgrade = "upgrade", "upgrade", Need::Nothing, [Cluster], 100..200;
    /// SIGTERM and start, one after the other.
    Rolling = "restart-rolling", "restart", Need::Nothing, [Cluster], 100..200;
    /// The leader is cut off from the other nodes, and clients still reach it.
    PartLeader = "part-leader", "part", Need::Network, [Leader], 2_000..3_500;
    /// One node is cut off from the other nodes.
    PartOne = "part-one", "part", Need::Network, [Follower], 500..2_500;
    /// The nodes fall into two parts, the smaller one with the leader in it.
    PartHalves = "part-halves", "part", Need::Network, [Leader], 2_000..3_500;
    /// What the leader sends does not arrive, and it hears everybody.
    PartOneWay = "part-one-way", "part", Need::Network, [Leader, Follower], 1_000..3_000;
    /// Each node reaches its neighbours alone.
    PartRing = "part-ring", "part", Need::Network, [Cluster], 1_500..3_000;
    /// Two halves that reach each other over one node.
    PartBridge = "part-bridge", "part", Need::Network, [Cluster], 1_500..3_000;
    /// Clients do not reach the leader, which everybody else does.
    PartClients = "part-clients", "part", Need::Network, [Leader], 1_000..2_500;
    /// A share of all packets between nodes is dropped.
    Loss = "loss", "loss", Need::Network, [Cluster], 1_000..3_000;
    /// Connections to a node are reset.
    Reset = "reset", "reset", Need::Network, [Leader, Follower], 200..800;
    /// Whatever a node gets comes at a low rate.
    Bandwidth = "bandwidth", "bandwidth", Need::Shaping, [Leader, Follower], 1_000..3_000;
    /// The leadership is handed over, again and again.
    Transfer = "transfer", "transfer", Need::Nothing, [Cluster], 800..2_000;
    /// A NameServer is killed.
    NsKill = "ns-kill", "ns", Need::Nothing, [NameServer], 500..2_500;
    /// A NameServer is stopped, and goes on later.
    NsPause = "ns-pause", "ns", Need::Nothing, [NameServer], 500..2_500;
    /// Power is cut: what was not synced is gone.
    Power = "power", "power", Need::OwnDisk, [Leader, Leader, Follower], 100..600;
    /// The power of everybody is cut at once.
    PowerAll = "power-all", "power", Need::OwnDisk, [All], 50..400;
    /// Not a block is free on the disk.
    Full = "enospc", "enospc", Need::OwnDisk, [Leader, Follower], 800..2_000;
    /// The disk takes no writes for a while; who writes waits.
    Freeze = "fsfreeze", "freeze", Need::OwnDisk, [Leader, Follower], 500..4_000;
    /// The disk takes long for everything.
    SlowDisk = "slow-disk", "slow", Need::OwnDisk, [Leader, Follower], 800..2_500;
    /// A sync of the log answers EIO, once.
    ErrorSync = "eio-sync", "eio", Need::Nothing, [Leader, Follower], 1_000..2_000;
    /// A write to the log answers EIO, once.
    ErrorWrite = "eio-write", "eio", Need::Nothing, [Leader, Follower], 1_000..2_000;
    /// A read of the log answers EIO, once.
    ErrorRead = "eio-read", "eio", Need::Nothing, [Leader, Follower], 1_000..2_000;
    /// A bit flips in a file of the log of a node that is down.
    FlipLog = "bitflip-log", "bitflip", Need::Nothing, [One], 100..600;
    /// A bit flips in a table of the state of a node that is down.
    FlipState = "bitflip-state", "bitflip", Need::Nothing, [One], 100..600;
    /// A bit flips in the snapshot of a node that is down.
    FlipSnapshot = "bitflip-snapshot", "bitflip", Need::Nothing, [One], 100..600;
    /// A bit flips in one slot of a node's vote and term.
    FlipHardState = "bitflip-hardstate", "bitflip", Need::Nothing, [One], 100..600;
    /// A bit flips in one copy of who a node is.
    FlipIdentity = "bitflip-identity", "bitflip", Need::Nothing, [One], 100..600;
    /// A file of the log of a node that is down loses its end.
    TruncateLog = "truncate-log", "truncate", Need::Nothing, [One], 100..600;
    /// A table of the state of a node that is down loses its end.
    TruncateState = "truncate-state", "truncate", Need::Nothing, [One], 100..600;
    /// A file of the snapshot of a node that is down loses its end.
    TruncateSnapshot = "truncate-snapshot", "truncate", Need::Nothing, [One], 100..600;
    /// A replica loses its vote, and gets it back.
    Demote = "member-demote", "member", Need::Nothing, [Leader, Follower], 300..1_000;
    /// A replica is removed for good, and a new one added in its place.
    Remove = "member-remove", "member", Need::Nothing, [Leader, Follower], 300..1_000;
    /// A replica loses its disk, and a new one replaces it.
    Replace = "member-replace", "member", Need::Nothing, [Leader, Follower], 300..1_000;
    /// A copy is asked of each node, which makes a snapshot for it.
    Backup = "backup", "backup", Need::Nothing, [Cluster], 100..300;
    /// The wall clock jumps.
    ClockBump = "clock-bump", "clock", Need::Clock, [Leader, Follower], 500..2_000;
    /// The wall clock jumps to and fro.
    ClockStrobe = "clock-strobe", "clock", Need::Clock, [Leader, Follower], 800..2_500;
    /// The wall clock runs too fast.
    ClockDrift = "clock-drift", "clock", Need::Clock, [Leader, Follower], 1_000..3_000;
    /// Others want the processors.
    Cpu = "cpu", "cpu", Need::Nothing, [Cluster], 800..2_000;
}

impl Class {
    /// The classes that a word stands for: one of that name, or those of a package.
    #[must_use]
    pub fn of(word: &str) -> Vec<Self> {
        let named = Self::ALL.iter().filter(|class| class.name() == word);
        let named: Vec<Self> = named.copied().collect();
        let exact = named.is_empty() || Self::ALL.iter().any(|c| c.package() == word);
        if exact {
            return Self::ALL.iter().filter(|class| class.package() == word).copied().collect();
        }
        named
    }

    /// Whether it is meant to leave no majority.
    #[must_use]
    pub fn takes_majority(self) -> bool {
        matches!(self, Self::KillAll | Self::PowerAll)
    }

    /// Whether it touches all nodes a little, so that nothing else may be broken meanwhile.
    #[must_use]
    pub fn is_everywhere(self) -> bool {
        matches!(
            self,
            Self::PartRing | Self::PartBridge | Self::Rolling | Self::Upgrade | Self::Loss
        )
    }

    /// Whether it needs five nodes to be something else than another class.
    #[must_use]
    pub fn needs_five(self) -> bool {
        matches!(self, Self::PartRing | Self::PartBridge)
    }
}

#[cfg(test)]
mod tests {
    use super::Class;

    #[test]
    fn a_word_stands_for_a_package_or_for_one_class() {
        assert_eq!(Class::of("kill"), [Class::Kill, Class::KillAll]);
        assert_eq!(Class::of("kill-all"), [Class::KillAll]);
        assert_eq!(Class::of("part-leader"), [Class::PartLeader]);
        assert_eq!(Class::of("part").len(), 7);
        assert_eq!(Class::of("nonsense"), []);
    }
}
