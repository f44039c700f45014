//! Where a consumer group begins that has consumed nothing yet.

use std::time::SystemTime;

use proto::{Timestamp, clock, v2};

use super::offsets;
use crate::{Code, Error, client::Client};

/// Where a new consumer group begins. A group that has consumed anything goes on where it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartFrom {
    /// Where the server lets new groups begin: RaftMQ with the first message that is kept.
    #[default]
    Server,
    /// With the first message that is kept.
    First,
    /// With messages that arrive from now on.
    Last,
    /// With the first message that arrived at this time or later.
    Time(SystemTime),
}

/// Puts the group where it is to begin, in every queue of the topic where it has no place. Members
/// that start at the same time may all do so: a commit never takes a group back.
///
/// Fails where the server has no offset calls, as RocketMQ's proxy does.
pub(super) async fn apply(
    client: &Client,
    group: &str,
    topic: &str,
    start_from: StartFrom,
) -> Result<(), Error> {
    let (policy, time) = match start_from {
        StartFrom::Server => return Ok(()),
        StartFrom::First => (v2::QueryOffsetPolicy::Beginning, None),
        StartFrom::Last => (v2::QueryOffsetPolicy::End, None),
        StartFrom::Time(time) => {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            (v2::QueryOffsetPolicy::Timestamp, Some(Timestamp(clock::millis(since))))
        }
    };
    let route = client.route(topic).await?;
    for placed in route.readable(topic)? {
        match offsets::get(client, group, placed).await {
            Ok(_) => continue,
            Err(error) if error.code() == Some(Code::OffsetNotFound) => {}
            Err(error) => return Err(error),
        }
        let offset = offsets::query(client, placed, policy, time).await?;
        offsets::update(client, group, placed, offset).await?;
    }
    Ok(())
}
