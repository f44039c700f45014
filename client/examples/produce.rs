//! The ways to send: awaited, in a batch, submitted, with a callback, one way.
//!
//! `cargo run -p raftmq-client --example produce -- 127.0.0.1:9876`, or with `NAMESRV_ADDR` set. The
//! topic `orders` must take normal messages.
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use raftmq_client::{ClientConfig, Fate, Message, Producer, QueueSelector};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = ClientConfig::discover(std::env::args().nth(1).as_deref())?;
    let producer = Producer::builder(config).topic("orders").retries(2).build().await?;

    let apples = Message::new("orders", "two apples").tag("fruit").key("order-1");
    match producer.send(apples).await {
        Ok(receipt) => println!("stored at {}", receipt.offset()),
        Err(error) => match error.fate() {
            Fate::Rejected => println!("will never be stored: {error}"),
            Fate::NotDone => println!("not stored, try again later: {error}"),
            Fate::Unknown => println!("may be stored: {error}"),
        },
    }

    // The same queue for everything about one customer.
    let selector = QueueSelector::hash("customer-7");
    producer.send_to(Message::new("orders", "one pear"), &selector).await?;

    let batch = (0..10).map(|n| Message::new("orders", format!("plum {n}"))).collect();
    println!("{} stored in one request", producer.send_batch(batch).await?.len());

    // Submitted messages share requests by themselves; this is the fast way.
    let mut sendings = Vec::new();
    for n in 0..1000 {
        sendings.push(producer.submit(Message::new("orders", format!("grape {n}"))).await?);
    }
    for sending in sendings {
        sending.await?;
    }
    println!("1000 submitted and stored");

    let told = |result: Result<_, _>| println!("the callback says {}", result.is_ok());
    producer.submit_with(Message::new("orders", "a melon"), told).await?;
    producer.send_one_way(Message::new("orders", "what may be lost")).await?;
    producer.close().await;
    println!("done");
    Ok(())
}
