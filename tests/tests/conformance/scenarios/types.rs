//! A topic takes messages of its own type, whoever finds out.

use proto::v2::{Code, MessageType};
use tests::library::{Ending, Incoming, Outgoing, Refusal, Subscription, Verdict};

use super::abilities::{Ability, Check, checks, has};
use super::stage::{Stage, now_ms, refused, refused_by_library, sends, type_name};

const KINDS: [MessageType; 4] =
    [MessageType::Normal, MessageType::Fifo, MessageType::Delay, MessageType::Transaction];

pub(super) async fn a_topic_takes_messages_of_its_type_only(stage: &Stage<'_>) {
    for accepted in KINDS {
        let topic = stage.topic(&format!("takes-{}", type_name(accepted)), accepted).await;
        let producer = stage.decider(&topic, Verdict::Rollback).await;
        for kind in KINDS {
            let message = Outgoing::to(&topic, &type_name(kind));
            let message = match kind {
                MessageType::Fifo => message.message_group("g"),
                MessageType::Delay => message.deliver_at(now_ms() + 1_000),
                MessageType::Transaction => message.transaction(Ending::Commit),
                _ => message,
            };
            let what = format!("{kind:?} to a topic for {accepted:?}");
            if kind == accepted {
                sends(&producer, &message).await;
            } else if checks(stage.language(), Check::MessageType) {
                refused_by_library(&what, producer.send(&message).await);
            } else {
                let sent = producer.send(&message).await;
                refused(&what, sent, Code::MessagePropertyConflictWithType);
            }
        }
        producer.close().await.expect("it closes");
        let group = stage.own("takes");
        let consumer = Subscription::of(&group, &topic);
        let mut received = stage.drain(&consumer).await;
        if accepted == MessageType::Delay && received.is_empty() {
            received = stage.drain(&consumer).await;
        }
        let bodies: Vec<&str> = received.iter().map(Incoming::text).collect();
        assert_eq!(bodies, [type_name(accepted)]);
    }
}

pub(super) async fn a_priority_needs_a_topic_that_takes_it(stage: &Stage<'_>) {
    let topic = stage.topic("no-priority", MessageType::Normal).await;
    let producer = stage.producer(&topic).await;
    let message = Outgoing { priority: Some(3), ..Outgoing::to(&topic, "urgent") };
    let sent = producer.send(&message).await;
    if has(stage.language(), Ability::Priority) {
        refused_by_library("a priority", sent);
    } else {
        assert_eq!(sent.expect_err("it has none"), Refusal::Impossible);
    }
}
