//! Messages for later, and one that is taken back.
//!
//! `cargo run -p raftmq-client --example delayed -- 127.0.0.1:9876`, or with `NAMESRV_ADDR` set. The
//! topic `reminders` must take delayed messages.
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::time::Duration;

use raftmq_client::{ClientConfig, Message, Producer};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = ClientConfig::discover(std::env::args().nth(1).as_deref())?;
    let producer = Producer::builder(config).topic("reminders").build().await?;

    let soon = Message::new("reminders", "tea is ready").deliver_after(Duration::from_secs(3));
    producer.send(soon).await?;

    // `deliver_at` takes a time instead.
    let later = Message::new("reminders", "meeting").deliver_after(Duration::from_secs(3600));
    let meeting = producer.send(later).await?;
    if let Some(handle) = meeting.recall_handle() {
        println!("taken back: {}", producer.recall("reminders", handle).await?);
    }
    producer.close().await;
    println!("done");
    Ok(())
}
