//! Reads a queue from a place of its own choice, and broadcasts.
//!
//! `cargo run -p raftmq-client --example pull -- 127.0.0.1:9876`, or with `NAMESRV_ADDR` set. The
//! topic `orders` must take normal messages.
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::time::Duration;

use raftmq_client::{Begin, ClientConfig, MemoryOffsets, Message, Producer, PullConsumer};

const WAIT: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = ClientConfig::discover(std::env::args().nth(1).as_deref())?;
    let producer = Producer::builder(config.clone()).topic("orders").build().await?;
    let batch = (0..5).map(|n| Message::new("orders", format!("apple {n}"))).collect();
    producer.send_batch(batch).await?;

    let consumer =
        PullConsumer::builder(config.clone(), "report").subscribe("orders", "*").build().await?;
    let messages = consumer.poll(WAIT).await?;
    println!("{} messages", messages.len());
    consumer.commit().await?;

    if let Some(message) = messages.first() {
        // Once more from the second of them.
        consumer.seek(message.queue(), message.offset() + 1)?;
        println!("{} messages again", consumer.poll(WAIT).await?.len());
        println!("the queue ends at {}", consumer.seek_to(message.queue(), Begin::Last).await?);
    }
    consumer.close().await;

    // Every process reads everything, and keeps how far it has come by itself.
    let all = PullConsumer::builder(config, "cache")
        .subscribe("orders", "*")
        .broadcast(MemoryOffsets::default())
        .build()
        .await?;
    println!("broadcast: {} messages", all.poll(WAIT).await?.len());
    all.commit().await?;
    all.close().await;
    producer.close().await;
    println!("done");
    Ok(())
}
