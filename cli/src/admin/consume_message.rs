//! consumeMessage.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use proto::{ConsumerGroup, Topic};
use raftmq_client::{
    Begin, ClientConfig, FilterExpression, MessageQueue, MessageView, PullConsumer,
};
use serde_json::{Value, json};

use super::send_message::failure;
use crate::output::{Report, Rows};

/// Asks in vain for so long mean that there is nothing more.
const PATIENCE: Duration = Duration::from_secs(1);
/// More would be no test any more.
const MOST: u32 = 10_000;
/// Bytes of a body that a table shows.
const SHOWN: usize = 60;

#[derive(Debug, Args)]
pub struct Consume {
    #[arg(short = 't', long = "topic")]
    topic: Topic,
    /// Reads as this group; it is not made, and stays where it is.
    #[arg(short = 'g', long = "consumerGroup", default_value = "TOOLS_CONSUMER")]
    group: ConsumerGroup,
    /// Only queues of this broker.
    #[arg(short = 'b', long = "brokerName")]
    broker: Option<String>,
    /// Only this queue of it.
    #[arg(short = 'i', long = "queueId", requires = "broker")]
    queue: Option<i32>,
    /// From this offset of the queue on; else from its beginning.
    #[arg(short = 'o', long = "offset", requires = "queue")]
    offset: Option<i64>,
    /// Tags, as in `a || b`.
    #[arg(short = 'e', long = "subExpression", default_value = "*")]
    expression: String,
    /// How many messages at most.
    #[arg(short = 'c', long = "messageNumber", default_value_t = 128,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST)))]
    most: u32,
}

impl Consume {
    /// Reads without consuming: nothing is committed or held.
    pub(super) async fn run(self, namesrv: &str) -> Result<Report> {
        let config = ClientConfig::new(namesrv)?;
        let consumer = PullConsumer::builder(config, self.group.as_str()).begin(Begin::First);
        let consumer = consumer.build().await.map_err(|error| failure(&error))?;
        let read = self.read(&consumer).await;
        consumer.close().await;
        let messages = read?;
        let mut rows = Rows::new(["broker", "queue", "offset", "message id", "tag", "body"]);
        for message in &messages {
            let queue = message.queue();
            rows.push([
                queue.broker_name().to_owned(),
                queue.id().to_string(),
                message.offset().to_string(),
                message.message_id().to_owned(),
                message.tag().unwrap_or_default().to_owned(),
                short(&text(message)),
            ]);
        }
        let json = messages.iter().map(as_json).collect::<Vec<_>>();
        let line = format!("{} messages", messages.len());
        Ok(Report::new(json!({ "messages": json })).rows(rows).line(line))
    }

    async fn read(&self, consumer: &PullConsumer) -> Result<Vec<MessageView>> {
        let topic = self.topic.as_str();
        let mut queues = consumer.message_queues(topic).await.map_err(|error| failure(&error))?;
        let wanted = |queue: &MessageQueue| {
            self.broker.as_ref().is_none_or(|name| queue.broker_name() == name)
                && self.queue.is_none_or(|id| queue.id() == id)
        };
        queues.retain(wanted);
        if queues.is_empty() {
            bail!("topic {topic} has no such queue; `mqadmin topicRoute -t {topic}` lists them");
        }
        let filter = FilterExpression::tag(&self.expression);
        consumer.assign(topic, &queues, filter).await.map_err(|error| failure(&error))?;
        if let Some(offset) = self.offset {
            for queue in &queues {
                consumer.seek(queue, offset).map_err(|error| failure(&error))?;
            }
        }
        let most = self.most as usize;
        let mut messages = Vec::new();
        while messages.len() < most {
            let more = consumer.poll(PATIENCE).await.map_err(|error| failure(&error))?;
            if more.is_empty() {
                break;
            }
            messages.extend(more);
        }
        messages.truncate(most);
        messages.sort_by(|a, b| (a.queue(), a.offset()).cmp(&(b.queue(), b.offset())));
        Ok(messages)
    }
}

fn text(message: &MessageView) -> String {
    String::from_utf8_lossy(message.body()).into_owned()
}

fn short(text: &str) -> String {
    let end = text.char_indices().nth(SHOWN).map(|(at, _)| at);
    end.map_or_else(|| text.to_owned(), |end| format!("{}...", &text[..end]))
}

fn as_json(message: &MessageView) -> Value {
    json!({
        "broker": message.queue().broker_name(),
        "queue": message.queue().id(),
        "offset": message.offset(),
        "message_id": message.message_id(),
        "tag": message.tag(),
        "keys": message.keys(),
        "properties": message.properties(),
        "body": text(message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_body_is_cut_between_characters() {
        assert_eq!(short("short"), "short");
        let long = "ä".repeat(SHOWN + 1);
        assert_eq!(short(&long), format!("{}...", "ä".repeat(SHOWN)));
    }
}
