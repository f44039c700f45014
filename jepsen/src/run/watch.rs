//! Looks at the cluster all the time: who leads, whether it is ready, who ended by himself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::db::Cluster;
use crate::db::status::{Role, Status};
use crate::history::Observation;

use super::recorder::Recorder;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// A broker that is started on a full disk ends within this time, and says why.
const STARTS: Duration = Duration::from_secs(2);

/// What is known of the cluster now.
#[derive(Debug)]
pub struct Watch {
    cluster: Arc<Cluster>,
    recorder: Arc<Recorder>,
    /// Faults that are not healed.
    broken: AtomicU64,
    /// Counts every beginning and end of a fault.
    turn: AtomicU64,
    /// A fault ended, and the cluster was not seen ready since.
    unready: AtomicBool,
    leader: Mutex<Option<(usize, u64)>>,
    /// Nodes whose disk is full, or was until then.
    full: Mutex<BTreeMap<String, Option<Instant>>>,
    over: AtomicBool,
}

impl Watch {
    #[must_use]
    pub fn new(cluster: Arc<Cluster>, recorder: Arc<Recorder>) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            recorder,
            broken: AtomicU64::new(0),
            turn: AtomicU64::new(0),
            unready: AtomicBool::new(true),
            leader: Mutex::new(None),
            full: Mutex::default(),
            over: AtomicBool::new(false),
        })
    }

    /// A fault begins.
    pub fn breaks(&self) {
        self.broken.fetch_add(1, Ordering::SeqCst);
        self.turn.fetch_add(1, Ordering::SeqCst);
    }

    /// A fault was taken away.
    pub fn heals(&self) {
        self.unready.store(true, Ordering::SeqCst);
        self.turn.fetch_add(1, Ordering::SeqCst);
        self.broken.fetch_sub(1, Ordering::SeqCst);
    }

    /// The disk of a node is full, or is not any more.
    pub fn disk_is_full(&self, node: &str, full: bool) {
        let until = (!full).then(Instant::now);
        self.full.lock().expect("no holder panics").insert(node.to_owned(), until);
    }

    /// Whether the end of a node is what its documentation says: nothing starts on a full disk.
    fn is_documented(&self, node: &str, ran: Duration) -> bool {
        let full = self.full.lock().expect("no holder panics");
        let on_full_disk = match full.get(node) {
            None => false,
            Some(None) => true,
            Some(Some(until)) => until.elapsed() < STARTS,
        };
        on_full_disk && ran < STARTS
    }

    /// Nothing is broken, and the cluster was seen ready since the last fault.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.broken.load(Ordering::SeqCst) == 0 && !self.unready.load(Ordering::SeqCst)
    }

    /// Place and term of the leader, when one was seen last.
    #[must_use]
    pub fn leader(&self) -> Option<(usize, u64)> {
        *self.held()
    }

    fn held(&self) -> MutexGuard<'_, Option<(usize, u64)>> {
        self.leader.lock().expect("no holder panics")
    }

    /// Waits until it is ready, for so long.
    pub async fn ready(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, async {
            while !self.is_ready() {
                tokio::time::sleep(PAUSE).await;
            }
        })
        .await
        .is_ok()
    }

    /// Ends [`Watch::look`].
    pub fn finish(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Looks until the run is over.
    pub async fn look(self: Arc<Self>) {
        let mut seen: BTreeSet<(u64, usize)> = BTreeSet::new();
        while !self.over.load(Ordering::SeqCst) {
            let turn = self.turn.load(Ordering::SeqCst);
            let whole = self.broken.load(Ordering::SeqCst) == 0;
            let statuses = self.statuses().await;
            self.leaders(&statuses, &mut seen);
            self.ends();
            if whole && self.unready.load(Ordering::SeqCst) {
                self.look_whether_ready(turn, &statuses).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What each node says, where it says anything.
    async fn statuses(&self) -> Vec<Option<Status>> {
        let asked = (0..self.cluster.nodes.len()).map(|node| {
            let cluster = Arc::clone(&self.cluster);
            tokio::task::spawn_blocking(move || cluster.nodes[node].status())
        });
        let mut statuses = Vec::new();
        for (node, answer) in asked.collect::<Vec<_>>().into_iter().enumerate() {
            match answer.await {
                Ok(status) => statuses.push(status.ok()),
                Err(panic) => {
                    // A status that cannot be true.
                    let name = self.cluster.nodes[node].name.clone();
                    let line = format!("its status is impossible: {panic}");
                    self.recorder.observe(Observation::Panic { node: name, line });
                    statuses.push(None);
                }
            }
        }
        statuses
    }

    fn leaders(&self, statuses: &[Option<Status>], seen: &mut BTreeSet<(u64, usize)>) {
        for (node, status) in statuses.iter().enumerate() {
            let Some(status) = status.as_ref().filter(|s| s.role == Role::Leader) else { continue };
            let mut leader = self.held();
            if leader.is_none_or(|(_, term)| term <= status.term) {
                *leader = Some((node, status.term));
            }
            if seen.insert((status.term, node)) {
                let name = self.cluster.nodes[node].name.clone();
                self.recorder.observe(Observation::Leader { node: name, term: status.term });
            }
        }
    }

    /// Who ended by himself is written down and started again, so that the run goes on.
    fn ends(&self) {
        for member in self.cluster.members() {
            if let Some((status, ran)) = member.ended() {
                let node = member.name.clone();
                let expected = member.may_end() || self.is_documented(&node, ran);
                self.recorder.observe(Observation::Exit { node, expected, status });
                member.start();
            }
        }
    }

    /// Ready: everybody is there, agrees on the leader, and the leader serves.
    async fn look_whether_ready(&self, turn: u64, statuses: &[Option<Status>]) {
        let all: Option<Vec<&Status>> = statuses.iter().map(Option::as_ref).collect();
        let Some(all) = all else { return };
        let first = all[0];
        let agreed = all.iter().all(|s| s.term == first.term && s.leader_id == first.leader_id);
        let Some(leader) = first.leader_id.and_then(|id| self.cluster.place(id)) else { return };
        if !agreed || all[leader].role != Role::Leader {
            return;
        }
        let asked = (0..self.cluster.nodes.len()).map(|node| {
            let cluster = Arc::clone(&self.cluster);
            tokio::task::spawn_blocking(move || cluster.nodes[node].is_ready())
        });
        for answer in asked.collect::<Vec<_>>() {
            if !matches!(answer.await, Ok(true)) {
                return;
            }
        }
        // What was seen counts only if nothing broke or healed meanwhile.
        if self.turn.load(Ordering::SeqCst) == turn && self.broken.load(Ordering::SeqCst) == 0 {
            self.unready.store(false, Ordering::SeqCst);
            self.recorder.observe(Observation::Ready {});
        }
    }
}
