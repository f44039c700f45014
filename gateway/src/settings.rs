//! What a client is told in answer to its settings. No IO.
//!
//! Each field is what keeps the strictest client going: several refuse to start, or crash, on a
//! missing one.

use std::time::Duration;

use proto::{
    clock, limits,
    session::GroupSettings,
    v2::{
        ClientType, CustomizedBackoff, ExponentialBackoff, Language, Metric, Publishing,
        RetryPolicy, Settings, Subscription, retry_policy::Strategy, settings::PubSub,
    },
};

/// Attempts of a producer that does not say how many it makes.
const PRODUCER_ATTEMPTS: i32 = 3;

/// Deliveries of one message to a consumer group that says nothing else: the first and 16 more.
pub const CONSUMER_ATTEMPTS: i32 = 17;

/// RocketMQ's pauses before each further delivery.
pub const CONSUMER_BACKOFF: [Duration; 18] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(120),
    Duration::from_secs(180),
    Duration::from_secs(240),
    Duration::from_secs(300),
    Duration::from_secs(360),
    Duration::from_secs(420),
    Duration::from_secs(480),
    Duration::from_secs(540),
    Duration::from_secs(600),
    Duration::from_secs(1200),
    Duration::from_secs(1800),
    Duration::from_secs(3600),
    Duration::from_secs(7200),
];

/// Lite topics that one client may subscribe to.
const LITE_QUOTA: i32 = 2000;

/// Answers a client's settings. `group` is what the cluster holds about its consumer group; `None`
/// while nothing is known.
pub(crate) fn merge(
    received: &Settings,
    group: Option<&GroupSettings>,
    language: Language,
) -> Settings {
    let mut merged = received.clone();
    merged.metric = Some(Metric { on: false, endpoints: None });
    let kind = received.client_type();
    let pub_sub = merged.pub_sub.take().unwrap_or_else(|| empty_pub_sub(kind));
    merged.pub_sub = Some(match pub_sub {
        PubSub::Publishing(publishing) => {
            merged.backoff_policy = Some(producer_backoff(received.backoff_policy.as_ref()));
            PubSub::Publishing(merge_publishing(publishing))
        }
        PubSub::Subscription(subscription) => {
            merged.backoff_policy = Some(consumer_backoff(group, language));
            PubSub::Subscription(merge_subscription(subscription, group, kind))
        }
    });
    merged
}

/// A client that says only what kind it is gets an answer of that kind.
fn empty_pub_sub(kind: ClientType) -> PubSub {
    match kind {
        ClientType::Unspecified | ClientType::Producer => PubSub::Publishing(Publishing::default()),
        ClientType::PushConsumer
        | ClientType::SimpleConsumer
        | ClientType::PullConsumer
        | ClientType::LitePushConsumer
        | ClientType::LiteSimpleConsumer => PubSub::Subscription(Subscription::default()),
    }
}

fn merge_publishing(publishing: Publishing) -> Publishing {
    Publishing {
        max_body_size: i32::try_from(limits::BODY_BYTES).expect("related in limits"),
        validate_message_type: true,
        ..publishing
    }
}

fn merge_subscription(
    subscription: Subscription,
    group: Option<&GroupSettings>,
    kind: ClientType,
) -> Subscription {
    let lite = matches!(kind, ClientType::LitePushConsumer | ClientType::LiteSimpleConsumer);
    let lite_topic_bytes = i32::try_from(limits::LITE_TOPIC_BYTES).expect("a small figure");
    Subscription {
        fifo: Some(group.is_some_and(|group| group.fifo)),
        receive_batch_size: Some(i32::try_from(limits::RECEIVE_BATCH).expect("a small figure")),
        long_polling_timeout: Some(clock::to_wire(limits::LONG_POLL_MAX)),
        lite_subscription_quota: lite.then_some(LITE_QUOTA),
        max_lite_topic_size: lite.then_some(lite_topic_bytes),
        ..subscription
    }
}

/// Exponential, whatever the client sent: some stop on anything else. The attempts are its own,
/// since Go takes over what it reads here.
fn producer_backoff(received: Option<&RetryPolicy>) -> RetryPolicy {
    let attempts = received.map_or(0, |policy| policy.max_attempts);
    RetryPolicy {
        max_attempts: if attempts > 0 { attempts } else { PRODUCER_ATTEMPTS },
        strategy: Some(exponential(Duration::from_millis(10), Duration::from_secs(1))),
    }
}

/// The group's policy in the form that the client's language understands: Node.js only knows
/// exponential, Python only customized, and nobody copes with none or an empty list.
fn consumer_backoff(group: Option<&GroupSettings>, language: Language) -> RetryPolicy {
    let policy = group.and_then(|group| group.backoff.clone()).unwrap_or_default();
    let strategy = match policy.strategy {
        Some(Strategy::CustomizedBackoff(custom)) if !custom.next.is_empty() => {
            Strategy::CustomizedBackoff(custom)
        }
        Some(Strategy::ExponentialBackoff(exponential)) => {
            Strategy::ExponentialBackoff(exponential)
        }
        Some(Strategy::CustomizedBackoff(_)) | None => customized(CONSUMER_BACKOFF),
    };
    let strategy = match (language, strategy) {
        (Language::NodeJs, Strategy::CustomizedBackoff(custom)) => as_exponential(&custom),
        (Language::Python, Strategy::ExponentialBackoff(exponential)) => {
            as_customized(&exponential)
        }
        (_, strategy) => strategy,
    };
    let attempts = policy.max_attempts;
    RetryPolicy {
        max_attempts: if attempts > 0 { attempts } else { CONSUMER_ATTEMPTS },
        strategy: Some(strategy),
    }
}

fn exponential(initial: Duration, max: Duration) -> Strategy {
    Strategy::ExponentialBackoff(ExponentialBackoff {
        initial: Some(clock::to_wire(initial)),
        max: Some(clock::to_wire(max)),
        multiplier: 2.0,
    })
}

fn customized(pauses: impl IntoIterator<Item = Duration>) -> Strategy {
    let next = pauses.into_iter().map(clock::to_wire).collect();
    Strategy::CustomizedBackoff(CustomizedBackoff { next })
}

/// From the first pause to the last, doubling.
fn as_exponential(custom: &CustomizedBackoff) -> Strategy {
    let pause = |wire: Option<&prost_types::Duration>| wire.and_then(clock::duration);
    let initial = pause(custom.next.first()).unwrap_or(CONSUMER_BACKOFF[0]);
    let max = pause(custom.next.last()).unwrap_or(initial).max(initial);
    exponential(initial, max)
}

/// The same pauses written out, as many as RocketMQ's own list has.
fn as_customized(exponential: &ExponentialBackoff) -> Strategy {
    let wire = |wire: Option<&prost_types::Duration>| wire.and_then(clock::duration);
    let mut pause = wire(exponential.initial.as_ref()).unwrap_or(CONSUMER_BACKOFF[0]);
    let max = wire(exponential.max.as_ref()).unwrap_or(limits::INVISIBLE_MAX);
    let multiplier = if exponential.multiplier >= 1.0 { exponential.multiplier } else { 1.0 };
    let mut pauses = Vec::with_capacity(CONSUMER_BACKOFF.len());
    for _ in 0..CONSUMER_BACKOFF.len() {
        pauses.push(pause.min(max));
        let grown = pause.as_secs_f64() * f64::from(multiplier);
        pause = Duration::try_from_secs_f64(grown).unwrap_or(max).min(max);
    }
    customized(pauses)
}

#[cfg(test)]
mod tests {
    use proto::v2::{Resource, SubscriptionEntry};

    use super::*;

    fn seconds(seconds: i64) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos: 0 }
    }

    fn consumer() -> Settings {
        Settings {
            client_type: Some(ClientType::PushConsumer.into()),
            request_timeout: Some(seconds(3)),
            pub_sub: Some(PubSub::Subscription(Subscription {
                group: Some(Resource { resource_namespace: "ns".into(), name: "g".into() }),
                subscriptions: vec![SubscriptionEntry::default()],
                ..Default::default()
            })),
            ..Default::default()
        }
    }

    fn producer(attempts: i32) -> Settings {
        Settings {
            client_type: Some(ClientType::Producer.into()),
            backoff_policy: Some(RetryPolicy { max_attempts: attempts, strategy: None }),
            pub_sub: Some(PubSub::Publishing(Publishing {
                topics: vec![Resource { resource_namespace: "ns".into(), name: "orders".into() }],
                ..Default::default()
            })),
            ..Default::default()
        }
    }

    fn group(strategy: Option<Strategy>) -> GroupSettings {
        GroupSettings {
            group: "ns%g".into(),
            fifo: true,
            backoff: Some(RetryPolicy { max_attempts: 5, strategy }),
            exists: true,
        }
    }

    fn subscription(settings: &Settings) -> &Subscription {
        match settings.pub_sub.as_ref().expect("set") {
            PubSub::Subscription(subscription) => subscription,
            PubSub::Publishing(_) => panic!("a producer's settings"),
        }
    }

    fn strategy(settings: &Settings) -> &Strategy {
        let policy = settings.backoff_policy.as_ref().expect("set");
        policy.strategy.as_ref().expect("set")
    }

    #[test]
    fn a_producer_gets_exponential_backoff_and_the_body_limit_and_its_topics_back() {
        let merged = merge(&producer(7), None, Language::Golang);
        assert_eq!(merged.backoff_policy.as_ref().expect("set").max_attempts, 7);
        assert!(matches!(strategy(&merged), Strategy::ExponentialBackoff(_)));
        let Some(PubSub::Publishing(publishing)) = &merged.pub_sub else { panic!("wrong kind") };
        assert_eq!(publishing.max_body_size, 4 * 1024 * 1024);
        assert!(publishing.validate_message_type);
        assert_eq!(publishing.topics[0].resource_namespace, "ns");
        let silent = merge(&producer(0), None, Language::Golang);
        assert_eq!(silent.backoff_policy.expect("set").max_attempts, PRODUCER_ATTEMPTS);
    }

    #[test]
    fn a_consumer_gets_what_its_group_says_and_its_subscription_back() {
        let group = group(Some(customized([Duration::from_secs(3)])));
        let merged = merge(&consumer(), Some(&group), Language::Java);
        let subscription = subscription(&merged);
        assert_eq!(subscription.fifo, Some(true));
        assert_eq!(subscription.receive_batch_size, Some(32));
        assert_eq!(subscription.long_polling_timeout, Some(seconds(20)));
        assert_eq!(subscription.group.as_ref().expect("set").resource_namespace, "ns");
        assert_eq!(subscription.subscriptions.len(), 1);
        assert_eq!(merged.request_timeout, Some(seconds(3)));
        assert_eq!(merged.backoff_policy.as_ref().expect("set").max_attempts, 5);
        assert_eq!(strategy(&merged), &customized([Duration::from_secs(3)]));
    }

    #[test]
    fn a_group_that_is_not_known_has_rocketmqs_policy() {
        let merged = merge(&consumer(), None, Language::Java);
        assert_eq!(subscription(&merged).fifo, Some(false));
        assert_eq!(merged.backoff_policy.as_ref().expect("set").max_attempts, 17);
        let Strategy::CustomizedBackoff(custom) = strategy(&merged) else { panic!("wrong kind") };
        assert_eq!(custom.next.len(), 18);
    }

    #[test]
    fn an_empty_list_is_never_passed_on() {
        let merged = merge(&consumer(), Some(&group(Some(customized([])))), Language::Rust);
        let Strategy::CustomizedBackoff(custom) = strategy(&merged) else { panic!("wrong kind") };
        assert!(!custom.next.is_empty());
    }

    #[test]
    fn node_js_gets_exponential() {
        let merged = merge(&consumer(), None, Language::NodeJs);
        let Strategy::ExponentialBackoff(exponential) = strategy(&merged) else {
            panic!("wrong kind")
        };
        assert_eq!(exponential.initial, Some(seconds(1)));
        assert_eq!(exponential.max, Some(seconds(7200)));
    }

    #[test]
    fn python_gets_an_exponential_policy_written_out() {
        let policy = exponential(Duration::from_secs(5), Duration::from_secs(30));
        let merged = merge(&consumer(), Some(&group(Some(policy))), Language::Python);
        let Strategy::CustomizedBackoff(custom) = strategy(&merged) else { panic!("wrong kind") };
        let pauses: Vec<_> = custom.next.iter().map(|pause| pause.seconds).collect();
        assert_eq!(pauses[..5], [5, 10, 20, 30, 30]);
    }

    #[test]
    fn lite_consumers_get_their_quota() {
        let mut settings = consumer();
        settings.client_type = Some(ClientType::LitePushConsumer.into());
        let merged = merge(&settings, None, Language::Java);
        assert_eq!(subscription(&merged).lite_subscription_quota, Some(LITE_QUOTA));
        assert_eq!(subscription(&merged).max_lite_topic_size, Some(64));
    }

    #[test]
    fn settings_of_a_bare_kind_are_answered_in_kind() {
        let bare =
            Settings { client_type: Some(ClientType::SimpleConsumer.into()), ..Default::default() };
        assert!(matches!(
            merge(&bare, None, Language::Java).pub_sub,
            Some(PubSub::Subscription(_))
        ));
        let nothing = Settings::default();
        let merged = merge(&nothing, None, Language::Java);
        assert!(matches!(merged.pub_sub, Some(PubSub::Publishing(_))));
    }
}
