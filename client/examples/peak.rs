//! A story: a peak that the queue shaves.
//!
//! Requests come much faster than the service behind can work. The producer is never slowed down by
//! that; the consumer works at its own pace, a bounded number at a time, until it has caught up.
//!
//! `cargo run -p raftmq-client --example peak -- 127.0.0.1:9876`, or with `NAMESRV_ADDR` set. The
//! topic `orders` must take normal messages.
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::ensure;
use raftmq_client::{ClientConfig, ConsumeResult, Message, Producer, PushConsumer};

const REQUESTS: usize = 500;
/// The service does so many at a time, each in this time.
const WORKERS: usize = 10;
const WORK: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = ClientConfig::discover(std::env::args().nth(1).as_deref())?;
    let producer = Producer::builder(config.clone()).topic("orders").build().await?;
    let run = format!("peak-{}-", std::process::id());

    let start = Instant::now();
    let mut sendings = Vec::new();
    for n in 0..REQUESTS {
        sendings.push(producer.submit(Message::new("orders", format!("{run}{n}"))).await?);
    }
    for sending in sendings {
        sending.await?;
    }
    let accepted = start.elapsed();
    println!("{REQUESTS} requests accepted within {accepted:?}");

    let done: Arc<Mutex<HashSet<Vec<u8>>>> = Arc::default();
    let mine = Arc::clone(&done);
    let consumer = PushConsumer::builder(config, "peak")
        .subscribe("orders", "*")
        .concurrency(WORKERS)
        .listen(move |message| {
            let (mine, own) = (Arc::clone(&mine), message.body().starts_with(run.as_bytes()));
            async move {
                if own {
                    tokio::time::sleep(WORK).await;
                    let mut mine = mine.lock().unwrap_or_else(PoisonError::into_inner);
                    mine.insert(message.body().to_vec());
                }
                ConsumeResult::Success
            }
        })
        .await?;
    let count = || done.lock().unwrap_or_else(PoisonError::into_inner).len();
    while count() < REQUESTS {
        ensure!(start.elapsed() < Duration::from_secs(60), "{} of {REQUESTS} done", count());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("all of them done after {:?}", start.elapsed());
    consumer.close().await;
    producer.close().await;
    println!("done");
    Ok(())
}
