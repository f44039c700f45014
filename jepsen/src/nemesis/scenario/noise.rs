//! Messages that nobody judges, which make the log let go of its oldest files.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use proto::{admin, v2};

use crate::client::message::normal_message;
use crate::client::rpc::DEADLINE;
use crate::client::{Rpc, body};
use crate::history::Message;
use crate::nemesis::Tools;

/// What brokers are told to keep of their log: as little as they can be told to, see `tight`.
pub const RETENTION: (&str, &str) = ("log.retention_bytes", "27MiB");
const TOPIC: &str = "noise";
const SENDER: u32 = u32::MAX - 1;
const BODY: usize = 128 << 10;
/// Messages of one request.
const BATCH: u32 = 8;
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// Sends until the leader's log begins behind this entry.
pub(super) async fn until_purged(tools: &Tools, index: u64) -> Result<()> {
    let since = Instant::now();
    let config = admin::TopicConfig {
        topic: TOPIC.to_owned(),
        queues: 1,
        permission: v2::Permission::ReadWrite.into(),
        accepts: vec![v2::MessageType::Normal.into()],
    };
    let topic = admin::PutTopicRequest { config: Some(config), ..Default::default() };
    for turn in 0.. {
        if PATIENCE < since.elapsed() {
            bail!("the log was not cut within {PATIENCE:?}");
        }
        let place = tools.watch.leader().map(|(place, _)| place).context("somebody leads")?;
        let node = &tools.cluster.nodes[place];
        if node.status().is_ok_and(|status| index < status.purged) {
            return Ok(());
        }
        let rpc = Rpc::new(node.client);
        let first = turn * BATCH;
        let batch = (first..first + BATCH).map(|count| Message::new(SENDER, count));
        let batch: Vec<v2::Message> =
            batch.map(|id| normal_message(TOPIC, id, body::of(id, BODY))).collect();
        // Whether it arrives matters to nobody, and without a topic it cannot.
        if rpc.send(&batch, DEADLINE).await.is_err() {
            let _ = rpc.admin().put_topic(topic.clone()).await;
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}
