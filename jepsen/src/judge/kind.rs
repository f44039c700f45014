//! The names of everything that must never happen.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $name:literal,)*) => {
        /// What kind of anomaly. The names are those of the results file.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Kind {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $kind,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// As in the results file.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),* }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$kind => concat!($($doc),+)),* }
            }
        }
    };
}

kinds! {
    // Messages.
    /// Received or read, although nobody sent it.
    Phantom = "phantom",
    /// Received or read, although its sender was told that it did not happen and never will.
    AbortedRead = "g1a",
    /// Acknowledged, and absent for whoever read to the end.
    LostWrite = "lost-write",
    /// Seen by one reader, and absent for another that read to the end.
    Vanished = "vanished",
    /// A body of which a byte was changed.
    CorruptPayload = "corrupt-payload",
    /// One send lies at two offsets.
    Duplicate = "duplicate",
    /// One offset held two messages.
    InconsistentOffset = "inconsistent-offset",
    /// An offset below the highest one holds nothing.
    Gap = "gap",
    /// It lies elsewhere than where the acknowledgement said.
    OffsetMismatch = "offset-mismatch",
    /// A batch of which a part is missing, or that does not lie in one piece.
    BatchTorn = "batch-torn",
    // Deliveries.
    /// Delivered by a receive that began after its ack was confirmed.
    RedeliveryAfterAck = "redelivery-after-ack",
    /// Two deliveries of one message within its invisible time.
    DoubleLease = "double-lease",
    /// Ready for delivery for too long, while receives found nothing.
    Stuck = "stuck",
    /// In the dead-letter queue before its deliveries were used up.
    DeadLetterEarly = "dead-letter-early",
    /// Delivered more often than the group allows.
    DeadLetterLate = "dead-letter-late",
    /// Delivered to the group after it was seen in its dead-letter queue.
    RedeliveryAfterDeadLetter = "redelivery-after-dead-letter",
    /// A delivery that is counted as attempt zero.
    NoAttempt = "no-attempt",
    // Reads of a log.
    /// Offsets go down inside one poll.
    IntNonmonotonicPoll = "int-nonmonotonic-poll",
    /// One poll leaves out an offset that exists.
    IntPollSkip = "int-poll-skip",
    /// A reader that went on left out an offset that exists.
    PollSkip = "poll-skip",
    /// A reader that went on came to an offset that it had before.
    NonmonotonicPoll = "nonmonotonic-poll",
    /// A read from an offset came back empty although a message there had been acknowledged.
    StalePoll = "stale-poll",
    /// One sender's later message lies before its earlier one.
    NonmonotonicSend = "nonmonotonic-send",
    /// A message that was acknowledged before another was sent lies after it.
    RealtimeOrder = "realtime-order",
    /// The end of a queue was reported below what had been acknowledged.
    StaleMaxOffset = "stale-max-offset",
    /// The end of a queue was reported above what had been sent.
    PhantomMaxOffset = "phantom-max-offset",
    /// The beginning of a queue moved back, or beyond its end.
    MinOffset = "min-offset",
    /// An acknowledged message was not found by its id or key.
    IndexLost = "index-lost",
    /// Replicas that applied the same entries have different states.
    Divergence = "divergence",
    // Registers.
    /// No order of the operations explains the answers.
    NonLinearizable = "non-linearizable",
    /// A register gave a value that nobody wrote.
    PhantomValue = "phantom-value",
    /// A consumer went on below an offset that was committed before.
    Regress = "regress",
    // Order.
    /// First deliveries of a message group out of their order.
    FifoOrder = "fifo-order",
    /// Delivered while an earlier message of its group was neither acked nor given up.
    HolViolation = "hol-violation",
    /// A redelivery that leaves out an earlier message that is not acked.
    SkipRedelivery = "skip-redelivery",
    /// Two consumers hold messages of one message group.
    FifoDoubleOwner = "fifo-double-owner",
    /// The repetition of a receive got other messages.
    AttemptMismatch = "attempt-mismatch",
    // Transactions.
    /// A half message was delivered before anybody asked for its commit.
    EarlyHalf = "early-half",
    /// A transaction that its producer rolled back was delivered.
    PhantomCommit = "phantom-commit",
    /// A committed transaction was never delivered.
    LostCommit = "lost-commit",
    /// A commit and a rollback of one transaction were both confirmed.
    Conflict = "conflict",
    /// A committed transaction lies at two offsets.
    DoubleCommit = "double-commit",
    /// The sum of all accounts changed.
    Unbalanced = "unbalanced",
    /// A producer was asked about a transaction long after its end was confirmed.
    CheckAfterResolve = "check-after-resolve",
    /// Nobody asked about a half message whose producer had fallen silent.
    CheckMissing = "check-missing",
    // Delays.
    /// Delivered before its time.
    Early = "early",
    /// Delivered too long after its time.
    Late = "late",
    /// Delivered although its recall was confirmed.
    RecalledButDelivered = "recalled-but-delivered",
    // Groups.
    /// A queue had no reader for too long.
    Unowned = "unowned",
    /// A queue had two readers in a group that gives each to one.
    DualOwner = "dual-owner",
    // Metadata.
    /// A listing leaves out what had been added.
    SetStale = "set-stale",
    /// A listing shows what nobody added.
    SetPhantom = "set-phantom",
    /// A listing shows what had been removed.
    SetResurrected = "set-resurrected",
    /// A route named a node that had not led for too long.
    StaleRoute = "stale-route",
    // The cluster as a whole.
    /// No send succeeded for longer than this fault allows.
    SlowRecovery = "slow-recovery",
    /// The cluster did not serve in time after the last fault.
    NotReady = "not-ready",
    /// A process ended by itself.
    UnexpectedExit = "unexpected-exit",
    /// A log tells of a panic.
    Panic = "panic",
    /// The group does not have its members back.
    MembersMissing = "members-missing",
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
