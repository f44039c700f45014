//! Consumers of one group share its messages; what one fails comes again.

use std::collections::BTreeMap;

use proto::v2::MessageType;
use tests::eventually;
use tests::library::{Incoming, Push, Subscription};

use super::abilities::{Ability, has};
use super::stage::{ARRIVAL, Stage, each_once, sends_many};

pub(super) async fn consumers_of_a_group_share_its_messages(stage: &Stage<'_>) {
    let topic = stage.topic("shared", MessageType::Normal).await;
    let producer = stage.producer(&topic).await;
    let group = stage.own("shared");
    let wanted = &Subscription::of(&group, &topic);
    let (sent, messages) = if has(stage.language(), Ability::Push) {
        let members: Vec<Push<'_>> =
            futures::future::join_all((0..3).map(|_| stage.push(wanted))).await;
        let sent = sends_many(&producer, &topic, 100).await;
        eventually("everything is consumed", ARRIVAL, async || {
            match stage.lag(&group, &topic).await {
                0 => Ok(()),
                left => Err(format!("{left} are left")),
            }
        })
        .await;
        let messages: Vec<Incoming> = members.iter().flat_map(Push::received).collect();
        (sent, messages)
    } else {
        let sent = sends_many(&producer, &topic, 100).await;
        let members = futures::future::join_all((0..3).map(|_| stage.drain(wanted))).await;
        (sent, members.into_iter().flatten().collect())
    };
    assert_eq!(each_once(&messages), sent, "each message once, at one of them");
}

/// The attempts that a listener saw of each message, in order.
fn attempts(push: &Push<'_>) -> BTreeMap<String, Vec<u32>> {
    let mut attempts: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for message in push.received() {
        attempts.entry(message.text().to_owned()).or_default().push(message.attempt);
    }
    attempts
}

pub(super) async fn what_a_listener_fails_comes_again(stage: &Stage<'_>) {
    if !has(stage.language(), Ability::Push) {
        return;
    }
    let topic = stage.topic("failed", MessageType::Normal).await;
    let group = stage.own("failed");
    let push = stage.push(&Subscription::of(&group, &topic).failing(1)).await;
    let producer = stage.producer(&topic).await;
    let sent = sends_many(&producer, &topic, 20).await;
    stage.consumed(&push, 2 * sent.len(), &group, &topic).await;
    let attempts = attempts(&push);
    assert_eq!(attempts.keys().cloned().collect::<Vec<_>>(), sent.into_iter().collect::<Vec<_>>());
    assert!(attempts.values().all(|attempts| *attempts == [1, 2]), "{attempts:?}");
}

/// What one group fails is no matter of the others.
pub(super) async fn groups_retry_on_their_own(stage: &Stage<'_>) {
    if !has(stage.language(), Ability::Push) {
        return;
    }
    let topic = stage.topic("alone", MessageType::Normal).await;
    let groups: Vec<(String, u32)> =
        (0..3).map(|n| (stage.own(&format!("alone-{n}")), n)).collect();
    let members = groups.iter().map(|(group, fails)| async {
        stage.push(&Subscription::of(group, &topic).failing(*fails)).await
    });
    let members = futures::future::join_all(members).await;
    let producer = stage.producer(&topic).await;
    let sent = sends_many(&producer, &topic, 10).await.len();
    for ((group, fails), push) in groups.iter().zip(&members) {
        let expected: Vec<u32> = (1..=fails + 1).collect();
        stage.consumed(push, sent * expected.len(), group, &topic).await;
        let attempts = attempts(push);
        assert_eq!(attempts.len(), sent);
        assert!(attempts.values().all(|a| *a == expected), "{group}: {attempts:?}");
    }
}
