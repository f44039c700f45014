//! What libraries cannot do, or do themselves before the server is asked. A scenario asserts each of
//! these claims where it meets it: a library that changes is noticed. docs/compatibility.md says the
//! same to readers.

use tests::library::Part;
use tests::official::Language::{self, Go, Java, Node, Python, Rust};

/// A call or a guarantee that a library may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ability {
    /// A push consumer.
    Push,
    /// RecallMessage, and the handle that it takes.
    Recall,
    /// Priorities of messages.
    Priority,
    /// ChangeInvisibleDuration by a simple consumer.
    ChangeInvisible,
    /// It tells the application when an acknowledgement is refused.
    TellsRefusedAcks,
    /// Invisible durations and times finer than a second.
    Milliseconds,
    /// It tells the application the server's code for a missing topic.
    TellsMissingTopics,
    /// Starting a client with a missing topic fails.
    FailsWithoutTopic,
    /// Starting a client with a missing topic among others comes back.
    FailsWithSomeTopics,
    /// Retries of its own, in order, raise the attempt that the application sees.
    CountsOwnRetries,
    /// A poll that is told not to wait leaves the server any time at all.
    PollsWithoutWaiting,
    /// Starting a consumer with a filter that the server refuses comes back.
    SurvivesWrongFilters,
    /// Starting a consumer of a group that the server refuses comes back.
    SurvivesWrongGroups,
}

pub(super) fn has(language: Language, ability: Ability) -> bool {
    let lacking: &[Language] = match ability {
        Ability::Push => &[Rust, Go],
        Ability::Recall => &[Rust, Go],
        Ability::Priority => &[Rust, Java, Go],
        Ability::ChangeInvisible => &[Rust],
        Ability::TellsRefusedAcks => &[Go],
        // Python takes whole seconds everywhere, Rust for delivery times.
        Ability::Milliseconds => &[Python],
        Ability::TellsMissingTopics => &[Python],
        Ability::FailsWithoutTopic => &[Python],
        Ability::FailsWithSomeTopics => &[Node],
        Ability::CountsOwnRetries => &[Python],
        Ability::PollsWithoutWaiting => &[Rust],
        Ability::SurvivesWrongFilters | Ability::SurvivesWrongGroups => &[Node],
    };
    !lacking.contains(&language)
}

/// What a library checks before it asks the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    EmptyBody,
    BodySize,
    BlankTag,
    BarInTag,
    BlankKey,
    BlankMessageGroup,
    MessageType,
    ReceiveOfNothing,
    /// A producer is to try a send fewer times than once.
    Attempts,
    TopicName,
    GroupName,
    Never,
}

pub(super) fn checks(language: Language, check: Check) -> bool {
    let checking: &[Language] = match check {
        // Rust panics, because it does not know the server's code.
        Check::EmptyBody => &[Python, Java, Rust],
        Check::BodySize => &[Python, Node, Java, Go],
        Check::BlankTag | Check::BarInTag | Check::BlankKey => &[Python, Java],
        Check::BlankMessageGroup => &[Python, Java],
        Check::MessageType => &[Python, Node, Java, Go],
        Check::ReceiveOfNothing => &[Python, Node, Java, Go],
        Check::Attempts => &[Java],
        Check::TopicName => &[Python, Java],
        Check::GroupName => &[Python, Java],
        Check::Never => &[],
    };
    checking.contains(&language)
}

/// What comes of starting a client without something that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// The library says that it is missing.
    Refused,
    /// The library has no way to leave it out.
    Impossible,
    /// It starts.
    Succeeds,
    /// The library does not come back.
    Hangs,
}

pub(super) fn started_without(language: Language, client: &str, part: Part) -> Start {
    match (language, client, part) {
        // The types of this library ask for it.
        (Rust, _, Part::Configuration) => Start::Impossible,
        // They take subscriptions later, and with each receive.
        (Python | Rust | Go, "simple consumer", Part::Subscription) => Start::Succeeds,
        // Its deliveries fail.
        (Node, "push consumer", Part::Listener) => Start::Succeeds,
        // As with a group that the server refuses: it waits for settings that do not come.
        (Node, _, Part::Group) => Start::Hangs,
        _ => Start::Refused,
    }
}
