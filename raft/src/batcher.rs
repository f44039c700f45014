//! Groups concurrent proposals so that one entry, one write and one fsync carry many of them.
//!
//! Batching is by back-pressure: a few entries are in flight, and whatever arrives meanwhile is
//! the next one. Nothing lingers.
//!
//! Invariants: commands leave in the order in which they were accepted; the number of entries in
//! flight, the bytes accepted and unanswered, and the bytes committed and unapplied are bounded;
//! every command accepted is handed back exactly once, by [`Batcher::next`], [`Batcher::withdraw`]
//! or [`Batcher::drain`].

use std::collections::VecDeque;

use bytes::Bytes;

use crate::Limits;

/// Names an accepted command until it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// A command that waits for its entry; `A` is how its proposer is answered.
#[derive(Debug)]
pub(crate) struct Waiting<A> {
    ticket: Ticket,
    /// Concatenated they are the command.
    pub(crate) parts: Vec<Bytes>,
    len: usize,
    pub(crate) ack: A,
}

/// Commands that go into one entry.
#[derive(Debug)]
pub(crate) struct Load<A> {
    pub(crate) commands: Vec<Waiting<A>>,
    pub(crate) size: Size,
}

/// What a load counts for; given back to the batcher as the load makes its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    bytes: usize,
    commands: usize,
}

/// Why a command was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Declined {
    TooLarge { bytes: usize },
    Overloaded,
    Closed,
}

#[derive(Debug)]
pub(crate) struct Batcher<A> {
    limits: Limits,
    queue: VecDeque<Waiting<A>>,
    next_ticket: u64,
    /// Accepted and not answered: queued, in flight, or committed and unapplied.
    unacked: Size,
    entries_in_flight: usize,
    unapplied_bytes: usize,
    closed: bool,
}

impl<A> Batcher<A> {
    pub(crate) fn new(limits: Limits) -> Batcher<A> {
        Batcher {
            limits,
            queue: VecDeque::new(),
            next_ticket: 0,
            unacked: Size { bytes: 0, commands: 0 },
            entries_in_flight: 0,
            unapplied_bytes: 0,
            closed: false,
        }
    }

    /// Accepts a command, or says why not. A command larger than the bound on unanswered bytes
    /// leaves room for is accepted when nothing else is waiting, so that it cannot starve.
    pub(crate) fn offer(&mut self, parts: Vec<Bytes>, ack: A) -> Result<Ticket, Declined> {
        let len: usize = parts.iter().map(Bytes::len).sum();
        if self.closed {
            return Err(Declined::Closed);
        }
        if len > self.limits.command_bytes {
            return Err(Declined::TooLarge { bytes: len });
        }
        let full = self.unacked.commands >= self.limits.unacked_commands
            || self.unacked.bytes + len > self.limits.unacked_bytes;
        if full && self.unacked.commands > 0 {
            return Err(Declined::Overloaded);
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.unacked.bytes += len;
        self.unacked.commands += 1;
        self.queue.push_back(Waiting { ticket, parts, len, ack });
        Ok(ticket)
    }

    /// Takes a command back that has not left yet.
    pub(crate) fn withdraw(&mut self, ticket: Ticket) -> Option<Waiting<A>> {
        let at = self.queue.binary_search_by_key(&ticket, |waiting| waiting.ticket).ok()?;
        let waiting = self.queue.remove(at)?;
        self.release(Size { bytes: waiting.len, commands: 1 });
        Some(waiting)
    }

    /// The next entry's commands, if there are any and there is room for an entry.
    pub(crate) fn next(&mut self) -> Option<Load<A>> {
        let room = self.entries_in_flight < self.limits.entries_in_flight
            && self.unapplied_bytes < self.limits.apply_lag_bytes;
        if !room || self.queue.is_empty() {
            return None;
        }
        let count = self.first_entry();
        let commands: Vec<Waiting<A>> = self.queue.drain(..count).collect();
        let bytes = commands.iter().map(|waiting| waiting.len).sum();
        self.entries_in_flight += 1;
        Some(Load { size: Size { bytes, commands: commands.len() }, commands })
    }

    /// How many commands from the head of the queue fit into one entry: at least one.
    fn first_entry(&self) -> usize {
        let mut bytes = 0;
        let fits = |waiting: &&Waiting<A>| {
            bytes += waiting.len;
            bytes <= self.limits.entry_bytes
        };
        self.queue.iter().take_while(fits).count().max(1)
    }

    /// A load's entry was committed: the next entry may leave.
    pub(crate) fn committed(&mut self, size: Size) {
        self.entries_in_flight -= 1;
        self.unapplied_bytes += size.bytes;
    }

    /// A committed load was applied and answered.
    pub(crate) fn applied(&mut self, size: Size) {
        self.unapplied_bytes -= size.bytes;
        self.release(size);
    }

    /// A load was given up before it was known to be committed.
    pub(crate) fn lost(&mut self, size: Size) {
        self.entries_in_flight -= 1;
        self.release(size);
    }

    fn release(&mut self, size: Size) {
        self.unacked.bytes -= size.bytes;
        self.unacked.commands -= size.commands;
    }

    /// Hands back everything that has not left.
    pub(crate) fn drain(&mut self) -> Vec<Waiting<A>> {
        let drained: Vec<_> = self.queue.drain(..).collect();
        for waiting in &drained {
            self.release(Size { bytes: waiting.len, commands: 1 });
        }
        drained
    }

    /// Accepts nothing any more. What was accepted goes on.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Nothing is waiting for an answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.unacked.commands == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            entry_bytes: 10,
            command_bytes: 50,
            entries_in_flight: 2,
            unacked_bytes: 60,
            unacked_commands: 8,
            apply_lag_bytes: 20,
        }
    }

    fn command(len: usize) -> Vec<Bytes> {
        vec![Bytes::from(vec![b'x'; len])]
    }

    /// A batcher that holds commands of the given lengths, acknowledged by their number.
    fn holding(lens: &[usize]) -> Batcher<usize> {
        let mut batcher = Batcher::new(limits());
        for (number, len) in lens.iter().enumerate() {
            batcher.offer(command(*len), number).unwrap();
        }
        batcher
    }

    fn acks(load: &Load<usize>) -> Vec<usize> {
        load.commands.iter().map(|waiting| waiting.ack).collect()
    }

    #[test]
    fn commands_share_an_entry_up_to_its_size() {
        let mut batcher = holding(&[4, 6, 1]);
        assert_eq!(acks(&batcher.next().unwrap()), [0, 1]);
        assert_eq!(acks(&batcher.next().unwrap()), [2]);
    }

    #[test]
    fn a_command_larger_than_an_entry_gets_one_of_its_own() {
        let mut batcher = holding(&[1, 40, 1]);
        assert_eq!(acks(&batcher.next().unwrap()), [0]);
        assert_eq!(acks(&batcher.next().unwrap()), [1]);
    }

    #[test]
    fn what_arrives_while_entries_are_in_flight_makes_up_the_next() {
        let mut batcher = holding(&[1]);
        let first = batcher.next().unwrap();
        batcher.offer(command(1), 1).unwrap();
        let second = batcher.next().unwrap();
        batcher.offer(command(1), 2).unwrap();
        batcher.offer(command(1), 3).unwrap();
        assert!(batcher.next().is_none(), "two entries are in flight");
        batcher.committed(first.size);
        assert_eq!(acks(&batcher.next().unwrap()), [2, 3]);
        batcher.committed(second.size);
    }

    #[test]
    fn entries_wait_while_too_much_is_committed_and_not_applied() {
        let mut batcher = holding(&[20, 1]);
        let large = batcher.next().unwrap();
        batcher.committed(large.size);
        assert!(batcher.next().is_none());
        batcher.applied(large.size);
        assert_eq!(acks(&batcher.next().unwrap()), [1]);
    }

    #[test]
    fn too_many_bytes_or_commands_are_overload_until_some_are_answered() {
        let mut batcher = holding(&[30, 30]);
        assert_eq!(batcher.offer(command(1), 2), Err(Declined::Overloaded));
        let load = batcher.next().unwrap();
        batcher.lost(load.size);
        assert!(batcher.offer(command(1), 2).is_ok());

        let mut batcher = holding(&[0; 8]);
        assert_eq!(batcher.offer(command(0), 9), Err(Declined::Overloaded));
    }

    #[test]
    fn a_command_beyond_the_byte_bound_is_accepted_when_it_is_alone() {
        let mut batcher = Batcher::new(Limits { unacked_bytes: 10, ..limits() });
        assert!(batcher.offer(command(40), 0).is_ok());
        assert_eq!(batcher.offer(command(1), 1), Err(Declined::Overloaded));
    }

    #[test]
    fn a_command_that_can_never_fit_is_rejected() {
        let mut batcher = holding(&[]);
        assert_eq!(batcher.offer(command(51), 0), Err(Declined::TooLarge { bytes: 51 }));
    }

    #[test]
    fn a_command_can_be_withdrawn_until_it_left() {
        let mut batcher = holding(&[5, 5, 5]);
        let first = batcher.next().unwrap();
        assert!(batcher.withdraw(first.commands[0].ticket).is_none());
        let third = Ticket(2);
        assert_eq!(batcher.withdraw(third).unwrap().ack, 2);
        assert!(batcher.withdraw(third).is_none());
        batcher.lost(first.size);
        assert!(batcher.is_idle());
    }

    #[test]
    fn draining_hands_back_what_has_not_left() {
        let mut batcher = holding(&[10, 1, 1]);
        let load = batcher.next().unwrap();
        let drained: Vec<usize> = batcher.drain().iter().map(|waiting| waiting.ack).collect();
        assert_eq!(drained, [1, 2]);
        assert!(!batcher.is_idle());
        batcher.committed(load.size);
        batcher.applied(load.size);
        assert!(batcher.is_idle());
    }

    #[test]
    fn a_closed_batcher_finishes_what_it_accepted() {
        let mut batcher = holding(&[1]);
        batcher.close();
        assert_eq!(batcher.offer(command(1), 1), Err(Declined::Closed));
        assert_eq!(acks(&batcher.next().unwrap()), [0]);
    }
}
