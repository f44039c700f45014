//! Commands about half messages: stored, resolved, asked about, given up.

use proto::{ClientId, QueueId, Topic};

use super::NewMessage;

/// Stores a transactional message that nobody is handed before its transaction is committed.
/// Answered by [`super::Outcome::HalfAppended`], which numbers the transaction.
///
/// Like an [`super::Append`], the entry that carries the command is where the message is stored;
/// the commit will point there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendHalf {
    pub topic: Topic,
    /// The queue that it enters when it is committed.
    pub queue: QueueId,
    /// The producer, to be asked first about an orphan.
    pub client: ClientId,
    /// How long after log time the producer is left alone.
    pub first_check_ms: u64,
    pub message: NewMessage,
}

/// What a transaction ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The message enters its queue.
    Commit,
    /// The message is never handed to anybody.
    Rollback,
}

/// On whose word a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolver {
    /// A producer, asked or not.
    Producer,
    /// Only his word ends a parked transaction.
    Administrator,
}

/// Ends a transaction. Answered by [`super::Outcome::TransactionEnded`].
///
/// The first verdict holds. The same one again changes nothing and is answered alike; another one
/// is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTransaction {
    pub transaction: u64,
    pub verdict: Verdict,
    pub by: Resolver,
}

/// A pending transaction as the leader saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orphan {
    pub transaction: u64,
    /// Checks made before. Another number means that somebody was faster.
    pub checks: u32,
}

/// Records that producers were asked about these transactions, and that they will be asked again
/// `next_ms` after log time at the earliest. Answered by
/// [`super::Outcome::TransactionsChecked`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckTransactions {
    pub next_ms: u64,
    /// At most [`CheckTransactions::MAX_ORPHANS`].
    pub orphans: Vec<Orphan>,
}

impl CheckTransactions {
    /// Transactions in one command.
    pub const MAX_ORPHANS: usize = u16::MAX as usize;
}

/// Gives transactions up: nobody is asked about them any more, and only an administrator ends
/// them. Answered by [`super::Outcome::TransactionsParked`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkTransactions {
    /// At most [`CheckTransactions::MAX_ORPHANS`].
    pub orphans: Vec<Orphan>,
}
