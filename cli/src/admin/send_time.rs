//! checkMsgSendRT.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use proto::Topic;
use raftmq_client::{ClientConfig, Message, Producer};
use serde_json::json;

use super::{progress, send_message::failure};
use crate::output::{Report, Rows};

#[derive(Debug, Args)]
pub struct Check {
    /// Gets the messages, which stay there.
    #[arg(short = 't', long = "topic")]
    topic: Topic,
    /// So many, one after the other.
    #[arg(short = 'a', long = "amount", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=100_000))]
    amount: u64,
    /// Bytes of each body.
    #[arg(short = 's', long = "size", default_value_t = 128)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=4_194_304))]
    size: u64,
}

impl Check {
    /// The first send, which finds the route, is timed by itself.
    pub(super) async fn run(self, namesrv: &str) -> Result<Report> {
        let producer = Producer::builder(ClientConfig::new(namesrv)?).topic(self.topic.as_str());
        let producer = producer.build().await.map_err(|error| failure(&error))?;
        let body = "x".repeat(usize::try_from(self.size)?);
        let bar = progress::bar("sends", self.amount);
        let (mut times, mut refused) = (Vec::new(), Vec::new());
        for _ in 0..self.amount {
            let started = Instant::now();
            match producer.send(Message::new(self.topic.as_str(), body.clone())).await {
                Ok(_) => times.push(started.elapsed()),
                Err(error) => refused.push(failure(&error)),
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        producer.close().await;
        let Some((first, rest)) = times.split_first() else {
            return Err(refused.swap_remove(0).into());
        };
        let mut sorted = if rest.is_empty() { vec![*first] } else { rest.to_vec() };
        sorted.sort_unstable();
        let figures = [
            ("first", *first),
            ("average", sorted.iter().sum::<Duration>() / u32::try_from(sorted.len())?),
            ("p50", quantile(&sorted, 50)),
            ("p99", quantile(&sorted, 99)),
            ("max", quantile(&sorted, 100)),
        ];
        let mut rows = Rows::new(["sends", "milliseconds"]);
        let mut json = serde_json::Map::new();
        for (name, time) in figures {
            let ms = time.as_secs_f64() * 1000.0;
            rows.push([name.to_owned(), format!("{ms:.3}")]);
            json.insert(format!("{name}_ms"), json!(ms));
        }
        json.insert("topic".into(), json!(self.topic.as_str()));
        json.insert("sent".into(), json!(times.len()));
        json.insert("failed".into(), json!(refused.len()));
        let report = Report::new(json.into()).rows(rows);
        Ok(match refused.first() {
            None => report,
            Some(why) => {
                report.failing(format!("{} sends failed, the first: {why}", refused.len()))
            }
        })
    }
}

/// Of times in order; the highest for 100.
fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_were_seen() {
        let times: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        let of = |percent| quantile(&times, percent).as_millis();
        assert_eq!((of(50), of(99), of(100)), (100, 198, 200));
        assert_eq!(quantile(&times[..1], 50), Duration::from_millis(1));
    }
}
