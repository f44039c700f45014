//! The end of a run: everything is healed, read to its end from every replica, and compared.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use proto::admin;
use tokio::task::JoinSet;

use super::progress::Progress;
use super::recorder::Recorder;
use super::shape::INVISIBLE_MS;
use super::watch::Watch;
use super::worker::perform;
use crate::client::{Known, Rpc, Wire};
use crate::db::Cluster;
use crate::history::{Answer, Call, Group, Key, Message, Observation, Outcome, Process};
use crate::nemesis::transfer_to;

/// A group is read to its end when nothing came for the longest invisible time and this, in ms.
const QUIET_MS: u64 = 2_000;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// Who sends the sentinels.
const SENTINELS: u32 = 1 << 30;

/// What the end of a run needs.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub cluster: Arc<Cluster>,
    pub recorder: Arc<Recorder>,
    pub progress: Arc<Progress>,
    pub watch: Arc<Watch>,
    pub known: Arc<Known>,
    /// The first number of a process that nobody else uses, and how many there are between.
    pub process: u64,
    pub processes: u64,
    pub until: Instant,
}

impl End {
    fn has_time(&self) -> bool {
        Instant::now() < self.until
    }

    /// One request, asked at one access point after the other until it is answered.
    async fn insist(&self, nth: u64, at: Option<usize>, mut call: Call) -> Option<Answer> {
        let mut wire = Wire::new(&self.known, self.cluster.points(&format!("end-{nth}")), 0);
        if let Some(at) = at {
            wire.move_to(at);
        }
        let mut process = self.process + nth;
        let mut count = 0;
        while self.has_time() {
            if let Call::Send { ids, .. } = &mut call {
                // Another message each time: a repeated one might be another's.
                count += 1;
                let sender = SENTINELS + u32::try_from(nth).unwrap_or(0);
                *ids = vec![Message::new(sender, count)];
            }
            let who = Process::Client(process);
            match perform(&self.recorder, who, &mut wire, &call, &self.progress).await {
                Outcome::Ok(answer) => return Some(answer),
                Outcome::Unknown(_) => process += self.processes,
                Outcome::Failed(_) => {}
            }
            if at.is_none() {
                wire.move_on();
            }
            tokio::time::sleep(PAUSE).await;
        }
        None
    }

    /// Reads these queues from every replica in turn, each while it leads.
    pub(super) async fn read(&self, keys: &[Key]) {
        while !self.progress.is_quiet() && self.has_time() {
            tokio::time::sleep(PAUSE).await;
        }
        if keys.is_empty() {
            return;
        }
        // Each queue ends with a message that nobody else sent.
        let mut ends: Vec<(Key, u64)> = Vec::new();
        for key in keys {
            let call = Call::Send { key: *key, ids: vec![], message_group: None, deliver_at: None };
            let nth = u64::from(*key);
            if let Some(Answer::Send { offsets }) = self.insist(nth, None, call).await {
                ends.extend(offsets.first().map(|offset| (*key, *offset)));
            }
        }
        let mut whole = ends.clone();
        for place in 0..self.cluster.nodes.len() {
            if !self.lead(place).await {
                return;
            }
            let mut reads = JoinSet::new();
            for (key, end) in ends.clone() {
                let this = self.clone();
                reads.spawn(async move { this.read_one(place, key, end).await.then_some(key) });
            }
            let read: Vec<Option<Key>> = reads.join_all().await;
            whole.retain(|(key, _)| read.contains(&Some(*key)));
        }
        for (key, _) in whole {
            self.recorder.observe(Observation::DrainedKey { key });
        }
    }

    /// Makes a node the leader.
    async fn lead(&self, place: usize) -> bool {
        let id = self.cluster.nodes[place].id();
        while self.has_time() {
            if self.watch.leader().is_some_and(|(leader, _)| leader == place) {
                return true;
            }
            let rpc = Rpc::new(self.cluster.nodes[place].client);
            transfer_to(&rpc, self.cluster.broker_name(), id).await;
            tokio::time::sleep(4 * PAUSE).await;
        }
        false
    }

    async fn read_one(&self, place: usize, key: Key, end: u64) -> bool {
        let nth = 1_000 + u64::from(key) * 100 + place as u64;
        let mut next = 0;
        while next <= end {
            let call = Call::Poll { key, from: Some(next), group: None };
            let Some(Answer::Poll { entries, .. }) = self.insist(nth, Some(place), call).await
            else {
                return false;
            };
            // A read that finds nothing below the end is for the checker to judge.
            let Some(last) = entries.last() else { return false };
            next = last.offset + 1;
        }
        true
    }

    /// Waits until each group has got everything, at least `least` after now, and looks at what was
    /// given up.
    pub(super) async fn groups(&self, groups: &[Group], least: Duration) {
        let since = self.recorder.now();
        let least = u64::try_from(least.as_nanos()).unwrap_or(u64::MAX);
        let quiet = (INVISIBLE_MS + INVISIBLE_MS / 2 + QUIET_MS) * 1_000_000;
        let mut left: Vec<&Group> = groups.iter().filter(|group| !group.pulls).collect();
        while !left.is_empty() && self.has_time() {
            let now = self.recorder.now();
            left.retain(|group| {
                let drained = since + least < now
                    && self.progress.is_quiet()
                    && self.progress.is_drained(&group.name, &group.keys, since, quiet);
                if drained {
                    self.recorder.observe(Observation::DrainedGroup { group: group.name.clone() });
                }
                !drained
            });
            tokio::time::sleep(PAUSE).await;
        }
        for (nth, group) in (0..).zip(groups.iter().filter(|g| g.max_attempts.is_some())) {
            let call = Call::DeadLetters { group: group.name.clone() };
            self.insist(5_000 + nth, None, call).await;
        }
    }

    /// The transactions that nobody asks about any more.
    pub(super) async fn parked(&self) {
        self.insist(6_000, None, Call::Parked {}).await;
    }

    /// Who votes, and whether all replicas have the same state.
    pub(super) async fn compare(&self) -> Result<()> {
        let request = admin::ClusterStatusRequest {};
        for (_, rpc) in self.cluster.points("end") {
            if let Ok(answer) = rpc.admin().cluster_status(request).await
                && let Some(group) = answer.into_inner().groups.first()
            {
                let voters = group.members.iter().filter(|m| m.voter);
                let name = |id| match self.cluster.place(id) {
                    Some(place) => self.cluster.nodes[place].name.clone(),
                    None => format!("a stranger with the id {id}"),
                };
                let voters = voters.map(|m| name(m.node_id)).collect();
                self.recorder.observe(Observation::Members { voters });
                break;
            }
        }
        let mut seen = Vec::new();
        while self.has_time() {
            seen = self.digests().await;
            let applied = seen.first().map(|(_, applied, _)| *applied);
            let same = seen.iter().all(|(_, at, _)| Some(*at) == applied);
            if same && seen.len() == self.cluster.nodes.len() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        for (node, applied, digest) in seen {
            self.recorder.observe(Observation::Digest { node, applied, digest });
        }
        Ok(())
    }

    async fn digests(&self) -> Vec<(String, u64, String)> {
        let mut seen = Vec::new();
        for node in &self.cluster.nodes {
            let mut admin = Rpc::new(node.client).admin();
            if let Ok(answer) = admin.digest(admin::DigestRequest {}).await {
                let answer = answer.into_inner();
                seen.push((node.name.clone(), answer.applied_index, answer.digest));
            }
        }
        seen
    }

    /// What the nodes did of their own, and what their logs tell of panics.
    pub(super) fn counts(&self) {
        // From the logs: a process that ends takes its metrics with it.
        for (line, what) in [
            (": snapshot made ", "snapshots_built"),
            (": snapshot installed ", "snapshots_installed"),
        ] {
            let count = self.cluster.nodes.iter().map(|node| node.says(line)).sum();
            self.recorder.observe(Observation::Count { what: what.into(), count });
        }
        let count = self.cluster.nodes.iter().map(|node| node.segments().saturating_sub(1)).sum();
        self.recorder.observe(Observation::Count { what: "segment_rolls".into(), count });
        for member in self.cluster.members() {
            for line in member.panics() {
                self.recorder.observe(Observation::Panic { node: member.name.clone(), line });
            }
        }
    }
}
