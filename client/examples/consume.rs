//! A push consumer and a simple consumer of two groups: each group gets everything.
//!
//! `cargo run -p raftmq-client --example consume -- 127.0.0.1:9876`, or with `NAMESRV_ADDR` set. The
//! topic `orders` must take normal messages.
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::time::Duration;

use raftmq_client::{
    ClientConfig, ConsumeResult, FilterExpression, Message, Producer, PushConsumer, SimpleConsumer,
};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = ClientConfig::discover(std::env::args().nth(1).as_deref())?;
    let (tell, mut told) = mpsc::channel(16);
    let push = PushConsumer::builder(config.clone(), "billing")
        .subscribe("orders", "fruit || nuts")
        .concurrency(8)
        .listen(move |message| {
            let tell = tell.clone();
            async move {
                println!("push: {:?}, attempt {}", message.body(), message.delivery_attempt());
                // A failure comes again later, and goes to the dead-letter queue in the end.
                match tell.send(()).await {
                    Ok(()) => ConsumeResult::Success,
                    Err(_) => ConsumeResult::Failure,
                }
            }
        })
        .await?;

    let producer = Producer::builder(config.clone()).topic("orders").build().await?;
    for n in 0..3 {
        let message = Message::new("orders", format!("apple {n}")).tag("fruit");
        producer.send(message.property("price", n.to_string())).await?;
    }
    for _ in 0..3 {
        told.recv().await;
    }
    // Waits for listeners and acknowledgements.
    println!("push: closed in peace: {}", push.close().await);

    let simple = SimpleConsumer::builder(config, "audit")
        .subscribe("orders", FilterExpression::sql("price >= 0"))
        .await_duration(Duration::from_secs(1))
        .build()
        .await?;
    let messages = simple.receive(16, Duration::from_secs(30)).await?;
    for message in &messages {
        println!("simple: {:?}", message.body());
        simple.ack(message).await?;
    }
    simple.close().await;
    producer.close().await;
    println!("done");
    Ok(())
}
