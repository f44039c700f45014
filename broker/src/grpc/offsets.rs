//! UpdateOffset, GetOffset and QueryOffset.

use gateway::{Caller, Miss};
use proto::{
    ConsumerGroup, QueueId, QueueOffset, Timestamp, Topic,
    v2::{
        GetOffsetRequest, GetOffsetResponse, MessageQueue, QueryOffsetPolicy, QueryOffsetRequest,
        QueryOffsetResponse, UpdateOffsetRequest, UpdateOffsetResponse,
    },
};

use super::{local::Edge, status};
use crate::{Error, command::CommitOffset, ops::Spot};

impl Edge {
    pub(super) async fn update(
        &self,
        caller: &Caller,
        request: UpdateOffsetRequest,
    ) -> Result<UpdateOffsetResponse, Miss> {
        let outcome = async {
            let group = ConsumerGroup::from_resource(request.group.as_ref())?;
            let (topic, queue) = queue(request.message_queue.as_ref())?;
            let commit = CommitOffset { group, topic, queue, offset: offset(request.offset)? };
            self.broker.commit_offset(commit, caller.deadline).await
        };
        let status = match outcome.await {
            Ok(_committed) => status::ok(),
            Err(error) => status::answer(&error)?,
        };
        Ok(UpdateOffsetResponse { status: Some(status) })
    }

    pub(super) async fn committed(
        &self,
        caller: &Caller,
        request: GetOffsetRequest,
    ) -> Result<GetOffsetResponse, Miss> {
        let outcome = async {
            let group = ConsumerGroup::from_resource(request.group.as_ref())?;
            let (topic, queue) = queue(request.message_queue.as_ref())?;
            self.broker.committed_offset(&group, &topic, queue, caller.deadline).await
        };
        let (status, offset) = answered(outcome.await)?;
        Ok(GetOffsetResponse { status: Some(status), offset })
    }

    pub(super) async fn find_offset(
        &self,
        caller: &Caller,
        request: QueryOffsetRequest,
    ) -> Result<QueryOffsetResponse, Miss> {
        let outcome = async {
            let (topic, queue) = queue(request.message_queue.as_ref())?;
            let spot = spot(&request)?;
            self.broker.find_offset(&topic, queue, spot, caller.deadline).await
        };
        let (status, offset) = answered(outcome.await)?;
        Ok(QueryOffsetResponse { status: Some(status), offset })
    }
}

fn answered(outcome: Result<QueueOffset, Error>) -> Result<(proto::v2::Status, i64), Miss> {
    Ok(match outcome {
        Ok(offset) => (status::ok(), i64::try_from(offset.0).unwrap_or(i64::MAX)),
        Err(error) => (status::answer(&error)?, 0),
    })
}

/// The topic, and one of its queues by number.
pub(super) fn queue(wire: Option<&MessageQueue>) -> Result<(Topic, QueueId), Error> {
    let topic = Topic::from_resource(wire.and_then(|queue| queue.topic.as_ref()))?;
    let id = wire.map_or(0, |queue| queue.id);
    let why = "must name one queue";
    let queue = QueueId::try_from(id);
    Ok((topic, queue.map_err(|_| Error::BadSetting { field: "message_queue", why })?))
}

pub(super) fn offset(wire: i64) -> Result<QueueOffset, Error> {
    QueueOffset::try_from(wire).map_err(|_| Error::IllegalOffset(wire))
}

fn spot(request: &QueryOffsetRequest) -> Result<Spot, Error> {
    let bad = |field, why| Error::BadSetting { field, why };
    match QueryOffsetPolicy::try_from(request.query_offset_policy) {
        Ok(QueryOffsetPolicy::Beginning) => Ok(Spot::Begin),
        Ok(QueryOffsetPolicy::End) => Ok(Spot::End),
        Ok(QueryOffsetPolicy::Timestamp) => {
            let time = request.timestamp.as_ref();
            let time = time.ok_or(bad("timestamp", "must be set for this policy"))?;
            // Whatever is before 1970 is before the first message.
            let seconds = u64::try_from(time.seconds).unwrap_or(0);
            let millis = u64::try_from(time.nanos).unwrap_or(0) / 1_000_000;
            Ok(Spot::Time(Timestamp(seconds.saturating_mul(1000).saturating_add(millis))))
        }
        Err(_) => Err(bad("query_offset_policy", "is unknown")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(policy: i32, timestamp: Option<prost_types::Timestamp>) -> Result<Spot, Error> {
        let request =
            QueryOffsetRequest { query_offset_policy: policy, timestamp, ..Default::default() };
        spot(&request)
    }

    #[test]
    fn a_time_needs_a_timestamp_and_may_be_any() {
        let time = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
        let policy = QueryOffsetPolicy::Timestamp.into();
        assert_eq!(asked(policy, time(2, 7_999_999)), Ok(Spot::Time(Timestamp(2007))));
        assert_eq!(asked(policy, time(-5, 1)), Ok(Spot::Time(Timestamp(0))));
        assert!(asked(policy, time(i64::MAX, 0)).is_ok());
        assert!(matches!(asked(policy, None), Err(Error::BadSetting { .. })));
        assert!(matches!(asked(77, None), Err(Error::BadSetting { .. })));
    }

    #[test]
    fn a_queue_is_named_by_its_number() {
        let topic = Some(proto::v2::Resource { name: "t".into(), ..Default::default() });
        let at = |id| MessageQueue { topic: topic.clone(), id, ..Default::default() };
        assert_eq!(queue(Some(&at(3))).map(|(_, id)| id), Ok(QueueId(3)));
        assert!(queue(Some(&at(-1))).is_err());
        assert!(queue(None).is_err());
    }
}
