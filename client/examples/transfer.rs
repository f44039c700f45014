//! A story: money moves between two services, and is neither lost nor doubled.
//!
//! The bank books the withdrawal and sends the message about it as one transaction: the message is
//! seen if and only if the booking was made. The savings service books the deposit once for each
//! transfer, however often it hears of it.
//!
//! `cargo run -p raftmq-client --example transfer -- 127.0.0.1:9876`, or with `NAMESRV_ADDR` set. The
//! topic `transfers` must take transactional messages.
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use raftmq_client::{
    ClientConfig, ConsumeResult, Idempotent, MemoryDone, Message, Producer, PushConsumer,
    Resolution,
};
use tokio::sync::mpsc;

/// The bank's database.
#[derive(Clone, Default)]
struct Bank {
    balance: Arc<AtomicI64>,
    booked: Arc<Mutex<HashSet<String>>>,
}

impl Bank {
    /// One local transaction: both, or neither when there is too little.
    fn withdraw(&self, transfer: &str, amount: i64) -> bool {
        let mut booked = self.booked.lock().unwrap_or_else(PoisonError::into_inner);
        if self.balance.load(Ordering::SeqCst) < amount {
            return false;
        }
        self.balance.fetch_sub(amount, Ordering::SeqCst);
        booked.insert(transfer.to_owned());
        true
    }

    fn has_booked(&self, transfer: &str) -> bool {
        self.booked.lock().unwrap_or_else(PoisonError::into_inner).contains(transfer)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = ClientConfig::discover(std::env::args().nth(1).as_deref())?;
    let bank = Bank::default();
    bank.balance.store(100, Ordering::SeqCst);

    // Asked when the bank died between the booking and the commit.
    let books = bank.clone();
    let producer = Producer::builder(config.clone())
        .topic("transfers")
        .checker(move |message| {
            let booked = message.property("transfer").is_some_and(|id| books.has_booked(id));
            async move { if booked { Resolution::Commit } else { Resolution::Rollback } }
        })
        .build()
        .await?;

    let run = std::process::id();
    let savings = Arc::new(AtomicI64::new(0));
    let deposits = Arc::clone(&savings);
    let once = Arc::new(
        Idempotent::new(MemoryDone::new(10_000, Duration::from_secs(60)))
            .by(|message| message.property("transfer").map(str::to_owned)),
    );
    let (tell, mut told) = mpsc::channel(16);
    let consumer = PushConsumer::builder(config, "savings")
        .subscribe("transfers", "*")
        .listen(move |message| {
            let (once, deposits, tell) = (Arc::clone(&once), Arc::clone(&deposits), tell.clone());
            async move {
                let mine = format!("{run}-");
                if !message.property("transfer").is_some_and(|id| id.starts_with(&mine)) {
                    return ConsumeResult::Success;
                }
                let deposit = |message: raftmq_client::MessageView| async move {
                    let amount = std::str::from_utf8(message.body()).ok();
                    let Some(amount) = amount.and_then(|amount| amount.parse().ok()) else {
                        return ConsumeResult::Failure;
                    };
                    deposits.fetch_add(amount, Ordering::SeqCst);
                    match tell.send(()).await {
                        Ok(()) => ConsumeResult::Success,
                        Err(_) => ConsumeResult::Failure,
                    }
                };
                once.consume(message, deposit).await
            }
        })
        .await?;

    let mut committed = 0;
    for (number, amount) in [60, 30, 50, 10].into_iter().enumerate() {
        let id = format!("{run}-{number}");
        let message = Message::new("transfers", amount.to_string()).property("transfer", &id);
        let book = |_receipt| async {
            match bank.withdraw(&id, amount) {
                true => Resolution::Commit,
                false => Resolution::Rollback,
            }
        };
        let (_, resolution) = producer.send_in_transaction(message, book).await?;
        println!("transfer {number} of {amount}: {resolution:?}");
        committed += usize::from(resolution == Resolution::Commit);
    }
    for _ in 0..committed {
        told.recv().await;
    }
    consumer.close().await;
    producer.close().await;
    let (left, saved) = (bank.balance.load(Ordering::SeqCst), savings.load(Ordering::SeqCst));
    println!("bank {left}, savings {saved}");
    ensure!(left + saved == 100, "money was lost or made");
    println!("done");
    Ok(())
}
