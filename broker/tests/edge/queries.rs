//! Looking messages up: within which stretch of time.

use std::time::Duration;

use proto::admin::{QueryMessagesRequest, QueueChoice, StoredMessage, query_messages_request::By};

use crate::{
    client::{Client, message},
    harness::Node,
};

async fn found(client: &Client, by: By, from_ms: u64, until_ms: u64) -> Vec<StoredMessage> {
    let query = QueryMessagesRequest {
        topic: "t".into(),
        by: Some(by),
        from_ms,
        until_ms,
        ..Default::default()
    };
    let answer = client.admin().query_messages(query).await.unwrap().into_inner();
    assert_eq!((answer.error, answer.truncated), (None, false));
    answer.messages
}

/// However a message is looked for: its first moment belongs to a stretch of time, its end does not.
#[tokio::test]
async fn a_stretch_of_time_ends_before_its_end() {
    let node = Node::start().await;
    let client = node.client("c").await;
    for body in ["1", "2", "3"] {
        let mut one = message("t", &format!("id-{body}"), body);
        one.system_properties.as_mut().unwrap().keys = vec!["key".into()];
        client.sent(&[one]).await;
        // Each is stored in a millisecond of its own.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let by_key = || By::Key("key".into());
    let by_time = || By::Any(QueueChoice::default());
    let all = found(&client, by_time(), 0, 0).await;
    let times: Vec<u64> = all.iter().map(|found| found.stored_ms).collect();
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    for by in [by_key(), by_time()] {
        let counts = [
            found(&client, by.clone(), 0, 0).await.len(),
            found(&client, by.clone(), times[0], times[2]).await.len(),
            found(&client, by.clone(), times[0] + 1, times[2]).await.len(),
            found(&client, by.clone(), times[2], 0).await.len(),
            found(&client, by.clone(), times[2] + 1, 0).await.len(),
        ];
        assert_eq!(counts, [3, 2, 1, 1, 0], "{by:?}");
    }
    let by_id = || By::MessageId("id-2".into());
    assert_eq!(found(&client, by_id(), times[1], times[1] + 1).await.len(), 1);
    assert_eq!(found(&client, by_id(), 0, times[1]).await.len(), 0);
    node.stop().await;
}
