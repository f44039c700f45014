//! A producer's ear: the cluster asks about transactions that fell silent.

use std::time::Duration;

use proto::v2::telemetry_command::Command;
use tokio::sync::mpsc;

use super::body;
use super::message::message_of;
use super::rpc::{Rpc, Telemetry};
use super::settings::producer;
use crate::history::Message;

/// Before the next access point is tried.
const PAUSE: Duration = Duration::from_millis(100);

/// What the cluster asks.
#[derive(Debug, Clone)]
pub struct Question {
    pub tx: Message,
    pub message_id: String,
    pub transaction: String,
}

/// Stays introduced as a producer of `topics`, at one access point after the other, and hands on
/// what is asked. Ends when nobody wants questions any more.
pub async fn listen(points: Vec<Rpc>, topics: Vec<String>, questions: mpsc::Sender<Question>) {
    for rpc in points.iter().cycle() {
        if questions.is_closed() {
            return;
        }
        if let Ok((_, telemetry)) = rpc.telemetry(producer(&topics)).await {
            hear(telemetry, &questions).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn hear(mut telemetry: Telemetry, questions: &mpsc::Sender<Question>) {
    while let Ok(Some(command)) = telemetry.down.message().await {
        let Some(Command::RecoverOrphanedTransactionCommand(asked)) = command.command else {
            continue;
        };
        let message = asked.message.unwrap_or_default();
        let message_id = message.system_properties.unwrap_or_default().message_id;
        let tx = body::message(&message.body).or_else(|| message_of(&message_id));
        let Some(tx) = tx else { continue };
        let question = Question { tx, message_id, transaction: asked.transaction_id };
        if questions.send(question).await.is_err() {
            return;
        }
    }
}
