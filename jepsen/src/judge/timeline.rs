//! When the cluster was broken, and when it had settled again.

use std::collections::BTreeMap;

use crate::history::{Observation, Phase, Record};

/// One fault, from the first touch to the moment at which the cluster served again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Band {
    pub fault: u64,
    pub class: String,
    pub targets: Vec<String>,
    pub began: u64,
    /// When it was known to bite, if it ever was.
    pub installed: Option<u64>,
    /// When it was taken away; absent if it never was.
    pub healed: Option<u64>,
    /// The first sighting of a ready cluster after that; `u64::MAX` if there is none.
    pub settled: u64,
    pub leader: bool,
    pub majority: bool,
    pub lost_bytes: u64,
    pub skew_ms: u64,
    /// Indexes of its events.
    pub events: Vec<u64>,
}

/// The faults of a run in the order of their beginnings, without those that were skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeline {
    pub bands: Vec<Band>,
    /// How many were skipped for want of a safe target, per class.
    pub skipped: BTreeMap<String, u64>,
    /// Stretches of time in which nothing was broken, in order.
    calm: Vec<(u64, u64)>,
}

impl Timeline {
    #[must_use]
    pub fn of(record: &Record) -> Self {
        let mut timeline = Self::default();
        let mut open: BTreeMap<u64, Band> = BTreeMap::new();
        for seen in &record.faults {
            let fault = &seen.what;
            if fault.phase == Phase::Skipped {
                open.remove(&fault.fault);
                *timeline.skipped.entry(fault.class.clone()).or_default() += 1;
                continue;
            }
            let band = open.entry(fault.fault).or_insert_with(|| Band {
                fault: fault.fault,
                class: fault.class.clone(),
                targets: Vec::new(),
                began: seen.time,
                installed: None,
                healed: None,
                settled: u64::MAX,
                leader: false,
                majority: false,
                lost_bytes: 0,
                skew_ms: 0,
                events: Vec::new(),
            });
            for target in &fault.targets {
                if !band.targets.contains(target) {
                    band.targets.push(target.clone());
                }
            }
            band.leader |= fault.leader;
            band.majority |= fault.majority;
            band.lost_bytes += fault.lost_bytes.unwrap_or(0);
            band.skew_ms = band.skew_ms.max(fault.skew_ms.unwrap_or(0));
            band.events.push(seen.index);
            match fault.phase {
                Phase::Installed => band.installed = Some(seen.time),
                Phase::Healed => band.healed = Some(seen.time),
                Phase::Invoked | Phase::Indeterminate | Phase::Skipped => {}
            }
        }
        timeline.bands = open.into_values().collect();
        timeline.bands.sort_by_key(|b| (b.began, b.fault));
        timeline.settle(record);
        timeline
    }

    fn settle(&mut self, record: &Record) {
        let ready: Vec<u64> = record
            .observations
            .iter()
            .filter(|o| o.what == Observation::Ready {})
            .map(|o| o.time)
            .collect();
        for band in &mut self.bands {
            let Some(healed) = band.healed else { continue };
            let next = ready.partition_point(|r| *r < healed);
            band.settled = ready.get(next).copied().unwrap_or(u64::MAX);
        }
        let mut from = 0;
        for band in &self.bands {
            if from < band.began {
                self.calm.push((from, band.began));
            }
            from = from.max(band.settled);
        }
        if from < u64::MAX {
            self.calm.push((from, u64::MAX));
        }
    }

    /// The stretch without any fault that holds all of `began..ended`.
    #[must_use]
    pub fn calm(&self, began: u64, ended: u64) -> Option<(u64, u64)> {
        let after = self.calm.partition_point(|(from, _)| *from <= began);
        let (from, to) = *self.calm.get(after.checked_sub(1)?)?;
        (ended <= to).then_some((from, to))
    }

    /// The stretches without any fault, in order.
    pub fn calm_stretches(&self) -> impl Iterator<Item = (u64, u64)> {
        self.calm.iter().copied()
    }

    /// The beginning of the first calm stretch that reaches beyond `time`: when the cluster had
    /// settled, or has been calm since.
    #[must_use]
    pub fn settled_at(&self, time: u64) -> u64 {
        let next = self.calm.partition_point(|(_, to)| *to <= time);
        self.calm.get(next).map_or(u64::MAX, |(from, _)| *from)
    }

    /// The most that a wall clock was moved in this run, in ms.
    #[must_use]
    pub fn skew_ms(&self) -> u64 {
        self.bands.iter().map(|b| b.skew_ms).max().unwrap_or(0)
    }

    /// When the last fault was taken away; absent if one never was.
    #[must_use]
    pub fn last_heal(&self) -> Option<u64> {
        self.bands.iter().map(|b| b.healed).try_fold(0, |last, healed| Some(last.max(healed?)))
    }
}
