//! Sequences of faults that chance rarely hits, by name.
//!
//! Each scenario checks that what it is about really happened, and says so in the history; a run
//! whose scenario did not come about proves nothing.

mod asks;
mod damage;
mod leaders;
mod members;
mod noise;
mod power;
mod scene;

use std::sync::Arc;

use anyhow::{Context, Result};

use super::{Class, Tools};
use crate::history::Observation;
use scene::Scene;

pub use asks::Asks;
pub use noise::RETENTION;

/// How scenarios are called in the option `--nemesis`.
pub const PREFIX: &str = "scenario:";

macro_rules! scenarios {
    ($($(#[doc = $doc:literal])+ $scenario:ident = $name:literal, $nodes:literal, [$($class:ident),*], $play:path;)*) => {
        /// A sequence of faults.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Scenario {
            $($(#[doc = $doc])+ $scenario,)*
        }

        impl Scenario {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$scenario),*];

            /// As it is asked for, without [`PREFIX`].
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$scenario => $name),* }
            }

            /// What it does, in a sentence.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$scenario => concat!($($doc),+)),* }
            }

            /// How many nodes it takes at least.
            #[must_use]
            pub fn nodes(self) -> u8 {
                match self { $(Self::$scenario => $nodes),* }
            }

            /// The faults that it is made of.
            #[must_use]
            pub fn classes(self) -> &'static [Class] {
                match self { $(Self::$scenario => &[$(Class::$class),*]),* }
            }

            async fn play(self, scene: &mut Scene) -> Result<bool> {
                match self { $(Self::$scenario => Box::pin($play(scene)).await),* }
            }
        }
    };
}

scenarios! {
    /// One node is cut off, another one loses power, and with these two for a majority the group
    /// goes on without the one that has everything.
    PartKill = "nats-part-kill", 3, [PartOne, Power], power::part_kill;
    /// The same with nodes that stand still.
    PauseKill = "nats-pause-kill", 3, [Pause, Power], power::pause_kill;
    /// The leader is cut off from the others while clients read from it and write to its successor.
    StaleLeader = "stale-leader", 3, [PartLeader], leaders::stale;
    /// The leader stands still until there is another one, goes on, and is asked at once.
    PauseLease = "pause-lease", 3, [Pause], leaders::pause_lease;
    /// A voter loses power a moment after an election, twice.
    VoteAmnesia = "vote-amnesia", 3, [Kill, Power], power::vote_amnesia;
    /// A follower comes back so late that it needs a snapshot, and then has to lead.
    SnapshotLag = "snapshot-lag", 3, [Kill], damage::snapshot_lag;
    /// A bit flips in the middle of a follower's log, and then it has to lead.
    FlipThenElect = "bitflip-then-elect", 3, [FlipLog], damage::flip_then_elect;
    /// A sync of the log fails, and then the power does.
    Fsyncgate = "fsyncgate", 3, [ErrorSync, Power], damage::fsyncgate;
    /// The leader's disk is full, and has space again.
    FullRecovers = "enospc-recover", 3, [Full], damage::full_recovers;
    /// One of five is cut off, three are killed, and a fourth is removed.
    MemberPartKill = "member-part-kill", 5, [PartOne, Kill, Remove], members::part_kill;
    /// Each node in turn loses power under load, three times round.
    RollingPower = "rolling-power", 3, [Power], power::rolling;
    /// The leadership is handed over twice in a row, and who had it is killed.
    TransferKill = "double-transfer-kill", 3, [Kill], leaders::transfer_kill;
    /// A follower's clock jumps ahead by five minutes, and then it has to lead.
    ClockLead = "clock-jump-lead", 3, [ClockBump], leaders::clock_lead;
    /// Everybody loses power, and once more while they recover.
    PowerTwice = "all-power-twice", 3, [PowerAll], power::twice;
    /// Votes are taken and given again and again, with snapshots in between.
    ReconfStorm = "reconf-storm", 3, [Demote, Backup], members::storm;
}

impl Scenario {
    /// The scenario of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|scenario| scenario.name() == name)
    }

    /// Whether the log lets go of what clients wrote: only who does not read it can tell what is
    /// right then.
    #[must_use]
    pub fn cuts_log(self) -> bool {
        self == Self::SnapshotLag
    }

    /// What the history counts when it came about.
    #[must_use]
    pub fn proof(self) -> String {
        format!("{PREFIX}{}", self.name())
    }
}

/// Plays these scenarios one after the other, each on a cluster that is whole.
pub async fn play(tools: &Arc<Tools>, scenarios: &[Scenario]) -> Result<()> {
    let mut scene = Scene::new(tools);
    for scenario in scenarios {
        scene.whole().await?;
        let played = scenario.play(&mut scene).await;
        // Whatever it left broken, the cluster is to come back.
        let mended = scene.mend().await;
        let came_about = played.with_context(|| scenario.proof())?;
        mended?;
        let count = u64::from(came_about);
        tools.recorder.observe(Observation::Count { what: scenario.proof(), count });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_its_name() {
        for scenario in Scenario::ALL {
            assert_eq!(Scenario::of(scenario.name()), Some(*scenario));
            assert!(!scenario.classes().is_empty());
        }
        assert_eq!(Scenario::ALL.len(), 15);
        assert_eq!(Scenario::of("earthquake"), None);
    }
}
