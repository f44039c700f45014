//! A story: the steps of each order in their order, whatever happens in between.
//!
//! Orders are created, paid and shipped. The steps of one order share a message group, so they are
//! handled one after the other, while orders do not wait for each other.
//!
//! `cargo run -p raftmq-client --example order_flow -- 127.0.0.1:9876`, or with `NAMESRV_ADDR` set.
//! The topic `order-steps` must take FIFO messages, and the group `warehouse` keep order
//! (`mqadmin updateSubGroup -g warehouse -o true`).
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::ensure;
use raftmq_client::{ClientConfig, ConsumeResult, Message, Producer, PushConsumer};
use tokio::sync::mpsc;

const STEPS: [&str; 3] = ["created", "paid", "shipped"];
const ORDERS: usize = 5;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = ClientConfig::discover(std::env::args().nth(1).as_deref())?;
    let (tell, mut told) = mpsc::channel(64);
    let book: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let warehouse = PushConsumer::builder(config.clone(), "warehouse")
        .subscribe("order-steps", "*")
        .listen(move |message| {
            let order = message.message_group().unwrap_or_default().to_owned();
            let step = STEPS.iter().position(|step| message.body()[..] == *step.as_bytes());
            let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
            let next = book.entry(order.clone()).or_default();
            let in_order = step == Some(*next);
            // A step that was done before is delivered again when its acknowledgement got lost.
            if in_order {
                *next += 1;
                println!("{order} {}", STEPS[*next - 1]);
            }
            let known = step.is_some_and(|step| step < *next);
            drop(book);
            let tell = tell.clone();
            async move {
                if in_order && tell.send(()).await.is_err() || !known {
                    return ConsumeResult::Failure;
                }
                ConsumeResult::Success
            }
        })
        .await?;

    // A name of its own for each run, so that the book begins empty for it.
    let run = std::process::id();
    let shop = Producer::builder(config).topic("order-steps").build().await?;
    let mut sendings = Vec::new();
    for step in STEPS {
        for order in 0..ORDERS {
            let message =
                Message::new("order-steps", step).message_group(format!("order-{run}-{order}"));
            sendings.push(shop.submit(message).await?);
        }
    }
    for sending in sendings {
        sending.await?;
    }
    for _ in 0..STEPS.len() * ORDERS {
        told.recv().await;
    }
    ensure!(warehouse.close().await, "something was left undone");
    shop.close().await;
    println!("done");
    Ok(())
}
