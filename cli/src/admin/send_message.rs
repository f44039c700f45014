//! sendMessage.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use proto::{MessageGroup, Topic};
use raftmq_client::{ClientConfig, Error, Fate, Message, Producer};
use serde_json::json;

use crate::{
    failure::Failure,
    output::{Report, Rows},
};

#[derive(Debug, Args)]
pub struct Send {
    #[arg(short = 't', long = "topic")]
    topic: Topic,
    /// The body, as text.
    #[arg(short = 'p', long = "body")]
    body: String,
    /// Keys to look it up by, with blanks between them.
    #[arg(short = 'k', long = "key")]
    keys: Option<String>,
    /// Its tag.
    #[arg(short = 'c', long = "tag")]
    tag: Option<String>,
    /// NAME=VALUE; may be given several times.
    #[arg(long = "property", value_parser = property)]
    properties: Vec<(String, String)>,
    /// Makes it an ordered message.
    #[arg(long = "messageGroup", conflicts_with_all = ["delay_ms", "delay_level"])]
    message_group: Option<MessageGroup>,
    /// Delivers it so many milliseconds later.
    #[arg(long = "delayMs", conflicts_with = "delay_level")]
    delay_ms: Option<u64>,
    /// Delivers it later, by one of the 18 levels: 1 is 1 s, 18 is 2 h.
    #[arg(long = "delayLevel", value_parser = clap::value_parser!(u8).range(1..=18))]
    delay_level: Option<u8>,
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Send {
    /// As any producer would, with its retries.
    pub(super) async fn run(self, namesrv: &str) -> Result<Report> {
        if self.body.is_empty() {
            bail!("a message has a body; give one by -p");
        }
        let producer = Producer::builder(ClientConfig::new(namesrv)?).topic(self.topic.as_str());
        let producer = producer.build().await.map_err(|error| failure(&error))?;
        let topic = self.topic.clone();
        let receipt = producer.send(self.message()).await.map_err(|error| failure(&error));
        producer.close().await;
        let receipt = receipt?;
        let mut rows = Rows::new(["topic", "message id", "offset", "recall handle"]);
        let handle = receipt.recall_handle().unwrap_or_default();
        rows.push([
            topic.to_string(),
            receipt.message_id().to_owned(),
            receipt.offset().to_string(),
            handle.to_owned(),
        ]);
        let json = json!({
            "topic": topic.as_str(),
            "message_id": receipt.message_id(),
            "offset": receipt.offset(),
            "recall_handle": receipt.recall_handle(),
        });
        Ok(Report::new(json).rows(rows))
    }

    fn message(self) -> Message {
        let mut message = Message::new(self.topic.as_str(), self.body);
        for key in self.keys.iter().flat_map(|keys| keys.split_whitespace()) {
            message = message.key(key);
        }
        if let Some(tag) = self.tag {
            message = message.tag(tag);
        }
        for (name, value) in self.properties {
            message = message.property(name, value);
        }
        if let Some(group) = self.message_group {
            message = message.message_group(group.as_str());
        }
        if let Some(ms) = self.delay_ms {
            message = message.deliver_after(Duration::from_millis(ms));
        }
        if let Some(level) = self.delay_level {
            message = message.delay_level(level.into());
        }
        message
    }
}

/// The client's word for what became of a call, as this tool's.
pub(super) fn failure(error: &Error) -> Failure {
    match error.fate() {
        Fate::Rejected => Failure::Rejected(error.to_string()),
        Fate::NotDone => Failure::NotDone(error.to_string()),
        Fate::Unknown => Failure::Unknown(error.to_string()),
    }
}
