//! The leader's report on how far its replicas have come.

use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver as _;

use super::Lag;
use super::changer::Changer;
use super::progress::{MemberProgress, Replication, Tracked};
use super::rules::survives;
use crate::{Member, Role};

impl Changer {
    /// `None` unless this node leads. Who waits to be added, and what is on its way to whom, is for
    /// the caller to fill in.
    pub(crate) fn replication(&self, role: Role, members: Vec<Member>) -> Option<Replication> {
        self.tracker.look(false);
        let metrics = self.raft.metrics().borrow_watched().clone();
        let heard = metrics.heartbeat?;
        let me = self.local.node;
        let last = self.local.marks().last;
        let progress = |member: Member| {
            let tracked = self.tracker.tracks.of(member.node_id, me);
            if member.node_id == me {
                let (now, lag) = (Some(Duration::ZERO), Some(Lag::default()));
                let tracked = Tracked { matched: last, lag, eta: now, ..tracked };
                return of(member, tracked, now, true, self.local.drain.is_on());
            }
            let node = member.node_id;
            let heard = heard.get(&node.0).copied().flatten().map(|at| at.elapsed());
            let (connected, drained) =
                (self.presence.is_alive(node), self.presence.is_drained(node));
            of(member, tracked, heard, connected, drained)
        };
        Some(Replication {
            term: role.term,
            leader: me,
            last,
            members: members.into_iter().map(progress).collect(),
            waiting: Vec::new(),
            change: self.turn.holder(),
            survives: survives(metrics.membership_config.voter_ids().count()),
        })
    }
}

fn of(
    member: Member,
    tracked: Tracked,
    last_contact: Option<Duration>,
    connected: bool,
    drained: bool,
) -> MemberProgress {
    let Tracked { matched, lag, rate, eta } = tracked;
    MemberProgress {
        member,
        matched,
        lag,
        bytes_per_second: rate,
        eta,
        last_contact,
        connected,
        drained,
        snapshot: None,
    }
}
