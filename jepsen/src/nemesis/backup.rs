//! Copies that somebody asks for while other things go wrong: each makes the node take a snapshot
//! of its state.

use std::sync::Arc;
use std::time::Duration;

use proto::backup_rpc::backup_client::BackupClient;
use proto::backup_rpc::{Begin, TakeRequest, take_request, take_response};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use super::Tools;
use crate::db::Member;

/// How long a node may take to offer its copy.
const OFFER: Duration = Duration::from_secs(5);
/// Larger than any offer.
const MAX_ANSWER: usize = 64 << 20;

/// Asks every node; how many offered a copy. One that is broken otherwise offers none.
pub(super) async fn of_all(tools: &Arc<Tools>) -> usize {
    let mut offered = 0;
    for node in &tools.cluster.nodes {
        offered += usize::from(of(node, tools.cluster.broker_name()).await);
    }
    offered
}

/// Whether a node offers a copy. It is not fetched: what matters is the snapshot that it made.
pub(super) async fn of(node: &Member, broker_name: &str) -> bool {
    let offer = tokio::time::timeout(OFFER, offer(node, broker_name)).await;
    matches!(offer, Ok(Some(())))
}

async fn offer(node: &Member, broker_name: &str) -> Option<()> {
    let endpoint = Endpoint::from_shared(format!("http://{}", node.client)).ok()?;
    let channel = endpoint.connect_timeout(OFFER).connect().await.ok()?;
    let mut client = BackupClient::new(channel).max_decoding_message_size(MAX_ANSWER);
    let (requests, outbound) = tokio::sync::mpsc::channel(1);
    let begin = Begin { broker_name: broker_name.to_owned(), ..Default::default() };
    let request = TakeRequest { step: Some(take_request::Step::Begin(begin)) };
    requests.send(request).await.ok()?;
    let mut answers = client.take(ReceiverStream::new(outbound)).await.ok()?.into_inner();
    loop {
        match answers.message().await.ok()??.step? {
            take_response::Step::Offer(_) => return Some(()),
            take_response::Step::Busy(_) => {}
            _ => return None,
        }
    }
}
