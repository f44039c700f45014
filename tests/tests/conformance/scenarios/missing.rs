//! Clients that are started without something that they need. Most libraries look at it themselves;
//! what passes them must not start either, or be of no use.

use proto::v2::MessageType;
use tests::library::{Options, Outgoing, Part, Refusal, Subscription};

use super::abilities::{Ability, Start, has, started_without};
use super::stage::{Stage, sends};

pub(super) async fn a_producer_needs_a_configuration(stage: &Stage<'_>) {
    let topic = stage.topic("unconfigured", MessageType::Normal).await;
    let options = Options { without: Some(Part::Configuration), ..Options::default() };
    let started = stage.library.producer_with(&[&topic], options).await.map(drop);
    assert_eq!(surprise(stage, "producer", Part::Configuration, &started), None);
    // Those beside it are not harmed.
    sends(&stage.producer(&topic).await, &Outgoing::to(&topic, "configured")).await;
}

pub(super) async fn a_simple_consumer_needs_its_parts(stage: &Stage<'_>) {
    let topic = stage.topic("partial", MessageType::Normal).await;
    let mut surprises = Vec::new();
    for part in [Part::Configuration, Part::Group, Part::Subscription] {
        let wanted = Subscription::of(&stage.own("partial"), &topic).without(part).waiting(1_000);
        let started = stage.library.simple(&wanted).await;
        surprises.extend(surprise(stage, "simple consumer", part, &started.map(drop)));
    }
    assert!(surprises.is_empty(), "{surprises:#?}");
}

pub(super) async fn a_push_consumer_needs_its_parts(stage: &Stage<'_>) {
    if !has(stage.language(), Ability::Push) {
        return;
    }
    let topic = stage.topic("unheard", MessageType::Normal).await;
    let mut surprises = Vec::new();
    for part in [Part::Configuration, Part::Group, Part::Subscription, Part::Listener] {
        let wanted = Subscription::of(&stage.own("unheard"), &topic).without(part);
        let started = stage.library.push(&wanted).await.map(drop);
        surprises.extend(surprise(stage, "push consumer", part, &started));
    }
    assert!(surprises.is_empty(), "{surprises:#?}");
}

/// What was not as the table says.
fn surprise(
    stage: &Stage<'_>,
    client: &str,
    part: Part,
    started: &Result<(), Refusal>,
) -> Option<String> {
    let expected = started_without(stage.language(), client, part);
    let met = match expected {
        Start::Refused => matches!(started, Err(Refusal::Library { .. })),
        Start::Impossible => *started == Err(Refusal::Impossible),
        Start::Succeeds => started.is_ok(),
        Start::Hangs => *started == Err(Refusal::Hangs),
    };
    let text = || format!("a {client} without its {part:?}: {expected:?}? {started:?}");
    (!met).then(text)
}
