//! What clients say of themselves over Telemetry.

use proto::v2;

use super::rpc::resource;

/// A consumer that pulls `topics` for `group`.
pub(super) fn puller(group: &str, topics: &[String]) -> v2::Settings {
    let entry = |topic: &String| v2::SubscriptionEntry {
        topic: Some(resource(topic)),
        expression: Some(v2::FilterExpression {
            r#type: v2::FilterType::Tag.into(),
            expression: "*".into(),
        }),
    };
    v2::Settings {
        client_type: Some(v2::ClientType::PullConsumer.into()),
        pub_sub: Some(v2::settings::PubSub::Subscription(v2::Subscription {
            group: Some(resource(group)),
            subscriptions: topics.iter().map(entry).collect(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

/// A producer for these topics.
pub(super) fn producer(topics: &[String]) -> v2::Settings {
    let topics = topics.iter().map(|topic| resource(topic)).collect();
    v2::Settings {
        client_type: Some(v2::ClientType::Producer.into()),
        pub_sub: Some(v2::settings::PubSub::Publishing(v2::Publishing {
            topics,
            ..Default::default()
        })),
        ..Default::default()
    }
}
