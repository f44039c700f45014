//! How each fault is installed and taken away.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Result;
use rand::rngs::StdRng;

use super::engine::Aim;
use super::{Class, Effect, Step, Tools, backup, clock, damage, disk, errors, links, membership};
use super::{pressure, processes, shaping, transfer};

/// Does what the step says to whom it was aimed at.
pub(super) async fn install(
    tools: &Arc<Tools>,
    (fault, step): (u64, &Step),
    aim: &Aim,
    random: &mut StdRng,
) -> Result<Effect> {
    let places = &aim.places;
    match step.class {
        Class::Kill | Class::KillAll => processes::kill(tools, places).await?,
        Class::Pause => processes::pause(tools, places)?,
        Class::Restart => processes::stop(tools, places).await?,
        Class::Rolling => processes::roll(tools, None).await?,
        Class::Upgrade => processes::roll(tools, tools.upgrade.as_deref()).await?,
        Class::NsKill => processes::kill_nameserver(tools, aim.nameserver).await?,
        Class::NsPause => processes::pause_nameserver(tools, aim.nameserver)?,
        Class::PartLeader
        | Class::PartOne
        | Class::PartHalves
        | Class::PartOneWay
        | Class::PartRing
        | Class::PartBridge
        | Class::PartClients
        | Class::Loss => links::cut(tools, fault, step.class, places, random).await?,
        Class::Reset => links::reset(tools, places, step.lasts_ms).await?,
        Class::Bandwidth => shaping::narrow(tools, places, random).await?,
        Class::Transfer => transfer::storm(tools, step.lasts_ms, random).await?,
        Class::Backup => {
            let skipped = backup::of_all(tools).await == 0;
            return Ok(Effect { skipped, ..Effect::default() });
        }
        Class::Demote | Class::Remove | Class::Replace => {
            membership::take(tools, step.class, places).await?;
        }
        Class::Power | Class::PowerAll => return disk::cut_power(tools, places).await,
        Class::Full => disk::fill(tools, places).await?,
        Class::Freeze => disk::freeze(tools, places).await?,
        Class::SlowDisk => disk::stutter(tools, places, step.lasts_ms, random).await?,
        Class::ErrorSync | Class::ErrorWrite | Class::ErrorRead => {
            errors::arm(tools, step.class, places, random).await?;
        }
        Class::FlipLog
        | Class::FlipState
        | Class::FlipSnapshot
        | Class::FlipHardState
        | Class::FlipIdentity
        | Class::TruncateLog
        | Class::TruncateState
        | Class::TruncateSnapshot => {
            return damage::damage(tools, step.class, places, random).await;
        }
        Class::ClockBump | Class::ClockStrobe | Class::ClockDrift => {
            return clock::disturb(tools, step, places, random).await;
        }
        Class::Cpu => pressure::processors(step.lasts_ms)?,
    }
    Ok(Effect::default())
}

/// Takes it away again.
pub(super) async fn heal(tools: &Arc<Tools>, (fault, step): (u64, &Step), aim: &Aim) -> Result<()> {
    let places: &BTreeSet<usize> = &aim.places;
    match step.class {
        Class::Kill
        | Class::KillAll
        | Class::Restart
        | Class::FlipLog
        | Class::FlipState
        | Class::FlipSnapshot
        | Class::FlipHardState
        | Class::FlipIdentity
        | Class::TruncateLog
        | Class::TruncateState
        | Class::TruncateSnapshot => processes::start(tools, places),
        Class::Pause => processes::resume(tools, places),
        Class::NsKill | Class::NsPause => processes::heal_nameserver(tools, aim.nameserver),
        Class::PartLeader
        | Class::PartOne
        | Class::PartHalves
        | Class::PartOneWay
        | Class::PartRing
        | Class::PartBridge
        | Class::PartClients
        | Class::Loss => links::mend(tools, fault).await?,
        Class::Bandwidth => shaping::widen(tools, places).await?,
        Class::Demote | Class::Remove | Class::Replace => {
            membership::give_back(tools, step.class, places).await?;
        }
        Class::Power | Class::PowerAll => disk::restore_power(tools, places).await?,
        Class::Full => disk::empty(tools, places).await?,
        Class::Freeze => disk::thaw(tools, places).await?,
        Class::ErrorSync | Class::ErrorWrite | Class::ErrorRead => {
            errors::disarm(tools, places).await?;
        }
        Class::ClockBump | Class::ClockStrobe | Class::ClockDrift => {
            clock::set_right(tools, places)?;
        }
        // Over when their time is.
        Class::Rolling
        | Class::Upgrade
        | Class::Reset
        | Class::Transfer
        | Class::Backup
        | Class::SlowDisk
        | Class::Cpu => {}
    }
    Ok(())
}
