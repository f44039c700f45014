//! Receives that found nothing: proof that nothing was ready for delivery.

use crate::history::{Answer, Call, Op, Outcome};
use crate::judge::grants::Deliveries;
use crate::judge::{Case, MS};

/// The empty answers to one group on one queue that count as proof: the cluster was calm, and no
/// receive of unknown outcome can have taken what was there.
#[derive(Debug, Default)]
pub(crate) struct Idle<'a> {
    /// By beginning.
    empties: Vec<&'a Op>,
    /// The place of the one that ends first among those from a place on.
    ends_first: Vec<usize>,
    /// Receives of unknown outcome: when each began, and until when they and those before may hide
    /// what they took.
    hidden: Vec<(u64, u64)>,
}

impl<'a> Idle<'a> {
    pub(crate) fn of(case: &Case<'a>, deliveries: &Deliveries<'a>, key: u32) -> Self {
        let settle = case.plan.limits.redelivery_ms * MS;
        let mut empties: Vec<&Op> = Vec::new();
        let receives = deliveries.receives.get(&key).map_or(&[][..], Vec::as_slice);
        for op in receives {
            let Outcome::Ok(Answer::Receive { deliveries, corrupt }) = &op.outcome else {
                continue;
            };
            let calm = case.timeline.calm(op.began, op.ended);
            let settled = calm.is_some_and(|(from, _)| from == 0 || from + settle <= op.began);
            if deliveries.is_empty() && corrupt.is_empty() && settled {
                empties.push(op);
            }
        }
        let unknown = receives.iter().filter(|op| matches!(op.outcome, Outcome::Unknown(_)));
        let mut hidden: Vec<(u64, u64)> =
            unknown.map(|op| (op.began, hidden_until(op, settle))).collect();
        for place in 1..hidden.len() {
            hidden[place].1 = hidden[place].1.max(hidden[place - 1].1);
        }
        let mut idle = Self { empties: Vec::new(), ends_first: Vec::new(), hidden };
        empties.retain(|op| !idle.hides(op.began, op.ended));
        let mut ends_first: Vec<usize> = (0..empties.len()).collect();
        for place in (0..empties.len().saturating_sub(1)).rev() {
            if empties[ends_first[place + 1]].ended < empties[place].ended {
                ends_first[place] = ends_first[place + 1];
            }
        }
        (idle.empties, idle.ends_first) = (empties, ends_first);
        idle
    }

    /// Whether a receive of unknown outcome may have kept a message from others in `from..to`,
    /// also from receives that had begun before it.
    pub(crate) fn hides(&self, from: u64, to: u64) -> bool {
        let before = self.hidden.partition_point(|(began, _)| *began < to);
        before.checked_sub(1).is_some_and(|last| from < self.hidden[last].1)
    }

    /// A receive that lies within `from..to` and found nothing.
    pub(crate) fn within(&self, from: u64, to: u64) -> Option<&'a Op> {
        let first = self.empties.partition_point(|op| op.began < from);
        let op = self.empties[*self.ends_first.get(first)?];
        (op.ended <= to).then_some(op)
    }

    pub(crate) fn len(&self) -> usize {
        self.empties.len()
    }
}

/// Until when a receive of unknown outcome may hide messages.
fn hidden_until(op: &Op, settle: u64) -> u64 {
    let Call::Receive { invisible_ms, wait_ms, .. } = &op.call else { return 0 };
    op.ended.saturating_add((invisible_ms + wait_ms) * MS + settle)
}
