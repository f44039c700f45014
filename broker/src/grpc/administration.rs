//! Changes by administrators, as they come over the wire.

use std::time::Instant;

use proto::admin::{self, ChangeRequest, LimitedKind, change_request::Change};

use crate::{
    Error,
    command::{Limited, PutLiveSetting, Quota, Rejection, Retention},
    ops::Broker,
};

/// Performs one change; false if there is nothing to delete. Then the outcome is the one that was
/// asked for: whoever repeats a deletion of which the answer was lost must not be told otherwise.
pub(super) async fn change(
    broker: &Broker,
    request: ChangeRequest,
    deadline: Instant,
) -> Result<bool, Error> {
    let deletes = matches!(request.change, Some(Change::DeleteTopic(_) | Change::DeleteGroup(_)));
    match perform(broker, request, deadline).await {
        Ok(()) => Ok(true),
        Err(Error::Rejected(Rejection::TopicNotFound | Rejection::GroupNotFound)) if deletes => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

async fn perform(broker: &Broker, request: ChangeRequest, deadline: Instant) -> Result<(), Error> {
    let missing = Error::BadSetting { field: "change", why: "is missing" };
    match request.change.ok_or(missing)? {
        Change::DeleteTopic(topic) => broker.delete_topic(topic.parse()?, deadline).await,
        Change::DeleteGroup(group) => broker.delete_group(group.parse()?, deadline).await,
        Change::SwitchGroup(switch) => {
            let admin::SwitchGroup { group, enabled, version } = switch;
            broker.switch_group(group.parse()?, enabled, version, deadline).await
        }
        Change::PutQuota(wire) => {
            let quota = Quota {
                messages_per_second: wire.messages_per_second,
                bytes_per_second: wire.bytes_per_second,
            };
            broker.put_quota(limited(&wire)?, quota, wire.version, deadline).await
        }
        Change::PutRetention(wire) => {
            let retention = Retention { ms: wire.ms, bytes: wire.bytes };
            broker.put_retention(wire.topic.parse()?, retention, wire.version, deadline).await
        }
        Change::RetireTopic(retire) => broker.retire_topic(retire.topic.parse()?, deadline).await,
        Change::PutLiveSetting(wire) => {
            let admin::LiveSetting { key, value, broker_name: _, version } = wire;
            let long = |text: &str| text.len() > PutLiveSetting::MAX_BYTES;
            if long(&key) || value.as_deref().is_some_and(long) {
                let why = "is longer than 1024 bytes";
                return Err(Error::BadSetting { field: "the setting", why });
            }
            broker.put_live_setting(key, value, version, deadline).await
        }
    }
}

fn limited(wire: &admin::Quota) -> Result<Limited, Error> {
    Ok(match wire.kind() {
        LimitedKind::Topic => Limited::Topic(wire.name.parse()?),
        LimitedKind::Group => Limited::Group(wire.name.parse()?),
        LimitedKind::Client => Limited::Client(wire.name.parse()?),
        LimitedKind::Unspecified => {
            let why = "must be a topic, a consumer group or a client";
            return Err(Error::BadSetting { field: "kind", why });
        }
    })
}

/// A quota as it is listed, with its version.
pub(super) fn quota((of, quota): (Limited, Quota), version: u64) -> admin::Quota {
    let (kind, name) = match of {
        Limited::Topic(topic) => (LimitedKind::Topic, topic.to_string()),
        Limited::Group(group) => (LimitedKind::Group, group.to_string()),
        Limited::Client(client) => (LimitedKind::Client, client.to_string()),
    };
    admin::Quota {
        kind: kind.into(),
        name,
        messages_per_second: quota.messages_per_second,
        bytes_per_second: quota.bytes_per_second,
        version,
    }
}
