//! The calls about offsets. All can be repeated: reads change nothing, commits never go back.

use proto::{Timestamp, v2};

use super::rpc::queue_to_wire;
use crate::{Error, client::Client, error::check, route::Placed};

/// The group's committed offset; code OFFSET_NOT_FOUND when it has none.
pub(super) async fn get(client: &Client, group: &str, placed: &Placed) -> Result<i64, Error> {
    let wait = client.config.request_timeout;
    client
        .anywhere(client.ways_to(placed), |address| async move {
            let request = v2::GetOffsetRequest {
                group: Some(client.config.resource(group)),
                message_queue: Some(queue_to_wire(client, placed)),
            };
            let answer = client
                .unary(&address, request, wait, |mut rpc, request| async move {
                    rpc.get_offset(request).await
                })
                .await?;
            check(address.as_str(), answer.status.as_ref())?;
            Ok(answer.offset)
        })
        .await
}

/// Commits an offset: everything below it is consumed.
pub(super) async fn update(
    client: &Client,
    group: &str,
    placed: &Placed,
    offset: i64,
) -> Result<(), Error> {
    let wait = client.config.request_timeout;
    client
        .anywhere(client.ways_to(placed), |address| async move {
            let request = v2::UpdateOffsetRequest {
                group: Some(client.config.resource(group)),
                message_queue: Some(queue_to_wire(client, placed)),
                offset,
            };
            let answer = client
                .unary(&address, request, wait, |mut rpc, request| async move {
                    rpc.update_offset(request).await
                })
                .await?;
            check(address.as_str(), answer.status.as_ref())
        })
        .await
}

/// The first or last offset of a queue, or that of a time.
pub(super) async fn query(
    client: &Client,
    placed: &Placed,
    policy: v2::QueryOffsetPolicy,
    time: Option<Timestamp>,
) -> Result<i64, Error> {
    let wait = client.config.request_timeout;
    client
        .anywhere(client.ways_to(placed), |address| async move {
            let request = v2::QueryOffsetRequest {
                message_queue: Some(queue_to_wire(client, placed)),
                query_offset_policy: policy.into(),
                timestamp: time.map(Into::into),
            };
            let answer = client
                .unary(&address, request, wait, |mut rpc, request| async move {
                    rpc.query_offset(request).await
                })
                .await?;
            check(address.as_str(), answer.status.as_ref())?;
            Ok(answer.offset)
        })
        .await
}
