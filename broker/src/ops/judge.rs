//! Applying an SQL expression to messages that are next in their queues: it asks for properties,
//! which are in the log alone.
//!
//! Messages are read while nothing is locked. What is said about them is used when the call looks
//! at the queues; a message that nobody has looked at by then is looked at in the next round.

use std::sync::Arc;

use commitlog::position::LogOffset;
use proto::{QueueId, filter::Expression};

use super::{Broker, Poll, View, pick::Queues};
use crate::{
    Error,
    delivery::{Marks, Place},
    filter::Verdicts,
};

/// Messages read in one round.
const MESSAGES_JUDGED: usize = 512;
/// Bytes after which a round reads no further message.
const BYTES_JUDGED: u64 = 8 << 20;
/// More bytes than this are read away from the threads that serve requests.
const INLINE_BYTES: u64 = 1 << 20;

/// Where a message lies.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    position: LogOffset,
    len: u32,
}

impl Broker {
    /// What the expression says about the messages that are next for the group, `first` and the
    /// queues after it before others; of enough messages for one answer, or of as many as a round
    /// reads.
    pub(super) async fn judge(
        &self,
        poll: &Poll,
        place: &Place,
        first: QueueId,
        expression: &Arc<Expression>,
    ) -> Result<Verdicts, Error> {
        let (candidates, bytes) = {
            let lane = self.lanes.at(place);
            let marks = lane.lock();
            let found =
                self.view.plan(&poll.group, &poll.topic, |q| candidates(q, &marks, first))?;
            found.unwrap_or_default()
        };
        if bytes <= INLINE_BYTES {
            return read(&self.view, &candidates, expression, poll.batch);
        }
        let (view, expression, enough) = (self.view.clone(), Arc::clone(expression), poll.batch);
        let task = move || read(&view, &candidates, &expression, enough);
        tokio::task::spawn_blocking(task).await.expect("reading does not panic")
    }
}

/// Messages that nobody has proposed to hand out, and their bytes.
fn candidates(
    queues: &impl Queues,
    marks: &Marks,
    first: QueueId,
) -> Result<(Vec<Candidate>, u64), Error> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for queue in queues.backlogged(first) {
        let room = MESSAGES_JUDGED - found.len();
        if room == 0 {
            break;
        }
        let from = marks.fresh_from(queue, queues.next(queue));
        for entry in queues.entries(queue, from, room)? {
            found.push(Candidate { position: entry.position, len: entry.len });
            bytes += u64::from(entry.len);
            if bytes >= BYTES_JUDGED {
                return Ok((found, bytes));
            }
        }
    }
    Ok((found, bytes))
}

fn read(
    view: &View,
    candidates: &[Candidate],
    expression: &Expression,
    enough: usize,
) -> Result<Verdicts, Error> {
    let mut verdicts = Verdicts::default();
    let mut wanted = 0;
    for Candidate { position, len } in candidates {
        let message = match view.message(*position, *len) {
            // It expired, or was carried: the next round sees where it is now.
            Err(_) if view.is_gone(*position) => continue,
            read => read?,
        };
        let matches = expression.matches(&message);
        verdicts.add(*position, matches);
        wanted += usize::from(matches);
        if wanted == enough {
            break;
        }
    }
    Ok(verdicts)
}
