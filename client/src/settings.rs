//! What a client tells of itself over Telemetry, and what it is told. No IO.

use std::time::Duration;

use proto::{clock, limits, v2};

use crate::{ClientConfig, FilterExpression, ids, retry::Backoff};

/// Topics that a producer announces. One that sends to more is not asked about the others'
/// transactions.
const ANNOUNCED: usize = 1024;

/// What kind of client it is. Topics and subscriptions may grow while it lives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Role {
    Producer { topics: Vec<String>, attempts: u32 },
    Consumer { kind: v2::ClientType, group: String, subscriptions: Vec<(String, FilterExpression)> },
}

impl Role {
    pub(crate) fn kind(&self) -> v2::ClientType {
        match self {
            Self::Producer { .. } => v2::ClientType::Producer,
            Self::Consumer { kind, .. } => *kind,
        }
    }

    pub(crate) fn group(&self) -> Option<&str> {
        match self {
            Self::Producer { .. } => None,
            Self::Consumer { group, .. } => Some(group),
        }
    }

    pub(crate) fn topics(&self) -> Vec<String> {
        match self {
            Self::Producer { topics, .. } => topics.clone(),
            Self::Consumer { subscriptions, .. } => {
                subscriptions.iter().map(|(topic, _)| topic.clone()).collect()
            }
        }
    }

    pub(crate) fn has_topic(&self, topic: &str) -> bool {
        match self {
            Self::Producer { topics, .. } => topics.iter().any(|known| known == topic),
            Self::Consumer { subscriptions, .. } => {
                subscriptions.iter().any(|(known, _)| known == topic)
            }
        }
    }

    /// A topic that a producer sends to; whether that is news. Producers announce
    /// [`ANNOUNCED`] topics at most.
    pub(crate) fn add_topic(&mut self, topic: &str) -> bool {
        match self {
            Self::Producer { topics, .. }
                if topics.len() < ANNOUNCED && !topics.iter().any(|known| known == topic) =>
            {
                topics.push(topic.to_owned());
                true
            }
            Self::Producer { .. } | Self::Consumer { .. } => false,
        }
    }

    /// Subscribes, or changes the filter; whether that is news.
    pub(crate) fn subscribe(&mut self, topic: &str, filter: &FilterExpression) -> bool {
        let Self::Consumer { subscriptions, .. } = self else { return false };
        match subscriptions.iter_mut().find(|(known, _)| known == topic) {
            Some((_, known)) if known == filter => false,
            Some((_, known)) => {
                known.clone_from(filter);
                true
            }
            None => {
                subscriptions.push((topic.to_owned(), filter.clone()));
                true
            }
        }
    }

    /// Whether there was a subscription to end.
    pub(crate) fn unsubscribe(&mut self, topic: &str) -> bool {
        let Self::Consumer { subscriptions, .. } = self else { return false };
        let before = subscriptions.len();
        subscriptions.retain(|(known, _)| known != topic);
        subscriptions.len() < before
    }

    pub(crate) fn to_wire(&self, config: &ClientConfig) -> v2::Settings {
        let mut settings = v2::Settings {
            client_type: Some(self.kind().into()),
            request_timeout: Some(clock::to_wire(config.request_timeout)),
            user_agent: Some(user_agent()),
            ..Default::default()
        };
        settings.pub_sub = Some(match self {
            Self::Producer { topics, attempts } => {
                let attempts = i32::try_from(*attempts).unwrap_or(i32::MAX);
                settings.backoff_policy =
                    Some(v2::RetryPolicy { max_attempts: attempts, strategy: None });
                let topics = topics.iter().map(|topic| config.resource(topic)).collect();
                v2::settings::PubSub::Publishing(v2::Publishing { topics, ..Default::default() })
            }
            Self::Consumer { group, subscriptions, .. } => {
                let entry = |(topic, filter): &(String, FilterExpression)| v2::SubscriptionEntry {
                    topic: Some(config.resource(topic)),
                    expression: Some(filter.to_wire()),
                };
                v2::settings::PubSub::Subscription(v2::Subscription {
                    group: Some(config.resource(group)),
                    subscriptions: subscriptions.iter().map(entry).collect(),
                    ..Default::default()
                })
            }
        });
        settings
    }
}

fn user_agent() -> v2::Ua {
    v2::Ua {
        language: v2::Language::Rust.into(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        platform: std::env::consts::OS.to_owned(),
        hostname: ids::host(),
    }
}

/// What the server decided. The defaults hold until it has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServerSettings {
    /// Bytes of a body.
    pub(crate) max_body: usize,
    /// Whether to check a message's type against what the topic accepts.
    pub(crate) validate_type: bool,
    pub(crate) backoff: Backoff,
    /// Deliveries of one message; consumers only.
    pub(crate) attempts: u32,
    /// Whether the consumer group keeps order.
    pub(crate) fifo: bool,
    pub(crate) receive_batch: usize,
    pub(crate) long_poll: Duration,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            max_body: limits::BODY_BYTES,
            validate_type: true,
            backoff: Backoff::default(),
            attempts: 17,
            fifo: false,
            receive_batch: limits::RECEIVE_BATCH,
            long_poll: limits::LONG_POLL_MAX,
        }
    }
}

impl ServerSettings {
    /// What of it makes sense; the defaults for the rest.
    pub(crate) fn from_wire(wire: &v2::Settings) -> Self {
        let mut settings = Self::default();
        if let Some(backoff) = Backoff::from_wire(wire.backoff_policy.as_ref()) {
            settings.backoff = backoff;
        }
        let attempts = wire.backoff_policy.as_ref().map_or(0, |policy| policy.max_attempts);
        if let Some(attempts) = u32::try_from(attempts).ok().filter(|attempts| *attempts > 0) {
            settings.attempts = attempts;
        }
        let positive = |number: i32| usize::try_from(number).ok().filter(|number| *number > 0);
        match &wire.pub_sub {
            Some(v2::settings::PubSub::Publishing(publishing)) => {
                settings.validate_type = publishing.validate_message_type;
                if let Some(bytes) = positive(publishing.max_body_size) {
                    settings.max_body = bytes;
                }
            }
            Some(v2::settings::PubSub::Subscription(subscription)) => {
                settings.fifo = subscription.fifo();
                if let Some(batch) = positive(subscription.receive_batch_size()) {
                    settings.receive_batch = batch;
                }
                let wait = subscription.long_polling_timeout.as_ref().and_then(clock::duration);
                if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
                    settings.long_poll = wait;
                }
            }
            None => {}
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senseless_settings_leave_the_defaults() {
        let subscription = v2::Subscription {
            receive_batch_size: Some(0),
            long_polling_timeout: Some(clock::to_wire(Duration::ZERO)),
            ..Default::default()
        };
        let wire = v2::Settings {
            pub_sub: Some(v2::settings::PubSub::Subscription(subscription)),
            ..Default::default()
        };
        assert_eq!(ServerSettings::from_wire(&wire), ServerSettings::default());
    }

    #[test]
    fn what_the_server_says_counts() {
        let publishing = v2::Publishing { max_body_size: 7, ..Default::default() };
        let wire = v2::Settings {
            pub_sub: Some(v2::settings::PubSub::Publishing(publishing)),
            ..Default::default()
        };
        let settings = ServerSettings::from_wire(&wire);
        assert_eq!((settings.max_body, settings.validate_type), (7, false));
    }
}
