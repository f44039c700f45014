//! Every consumer group gets everything, whatever others get.

use proto::v2::MessageType;
use tests::library::Subscription;

use super::abilities::{Ability, has};
use super::stage::{Stage, each_once, sends_many};

pub(super) async fn every_group_gets_everything(stage: &Stage<'_>) {
    let topic = stage.topic("groups", MessageType::Normal).await;
    let producer = stage.producer(&topic).await;
    let sent = sends_many(&producer, &topic, 100).await;
    let received = (0..3).map(|n| {
        let subscription = Subscription::of(&stage.own(&format!("groups-{n}")), &topic);
        async move {
            if !has(stage.language(), Ability::Push) {
                return stage.drain(&subscription).await;
            }
            let push = stage.push(&subscription).await;
            stage.consumed(&push, 100, &subscription.group, &subscription.topic).await;
            push.received()
        }
    });
    for messages in futures::future::join_all(received).await {
        assert_eq!(each_once(&messages), sent);
    }
}
