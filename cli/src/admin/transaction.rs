//! txList, txResolve.

use anyhow::{Result, bail};
use clap::Args;
use proto::{
    Topic, TransactionId,
    admin::{ListTransactionsRequest, ResolveTransactionRequest, Transaction},
};
use serde_json::{Value, json};

use super::{Session, members::Consent};
use crate::{
    failure::Failure,
    output::{Report, Rows},
};

#[derive(Debug, Args)]
pub struct List {
    /// Only transactions of this topic.
    #[arg(short = 't', long = "topic")]
    topic: Option<Topic>,
    /// Only those that were given up and wait for txResolve.
    #[arg(long)]
    parked: bool,
    /// Only those after this transaction of the same broker.
    #[arg(long, value_name = "TRANSACTION_ID")]
    after: Option<String>,
}

impl List {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let request = ListTransactionsRequest {
            topic: self.topic.map(|topic| topic.to_string()).unwrap_or_default(),
            parked_only: self.parked,
            after: self.after.unwrap_or_default(),
        };
        let answer =
            session.call(request, |mut c, r| async move { c.list_transactions(r).await }).await?;
        Failure::of(answer.error)?;
        let header = ["transaction id", "broker", "topic", "message id", "born", "checks", "state"];
        let mut rows = Rows::new(header);
        for one in &answer.transactions {
            rows.push([
                one.transaction_id.clone(),
                broker(one),
                one.topic.clone(),
                one.message_id.clone(),
                one.born_ms.to_string(),
                one.checks.to_string(),
                state(one).to_owned(),
            ]);
        }
        let list: Vec<_> = answer.transactions.iter().map(as_json).collect();
        Ok(Report::new(json!({ "transactions": list })).rows(rows))
    }
}

fn broker(one: &Transaction) -> String {
    let id = one.transaction_id.parse::<TransactionId>();
    id.map(|id| id.broker.to_string()).unwrap_or_default()
}

fn state(one: &Transaction) -> &'static str {
    if one.parked { "parked" } else { "pending" }
}

fn as_json(one: &Transaction) -> Value {
    json!({
        "transaction_id": one.transaction_id,
        "broker": broker(one),
        "topic": one.topic,
        "message_id": one.message_id,
        "client_id": one.client_id,
        "born_ms": one.born_ms,
        "checks": one.checks,
        "next_check_ms": one.next_check_ms,
        "state": state(one),
        "message_bytes": one.message_bytes,
    })
}

#[derive(Debug, Args)]
pub struct Resolve {
    /// The transaction, as txList names it.
    #[arg(short = 'i', long = "transactionId")]
    id: String,
    /// Deliver the message.
    #[arg(long, conflicts_with = "rollback")]
    commit: bool,
    /// Never deliver the message.
    #[arg(long)]
    rollback: bool,
    #[command(flatten)]
    consent: Consent,
}

impl Resolve {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        if self.commit == self.rollback {
            bail!("say --commit or --rollback");
        }
        if self.rollback {
            self.consent.get(&format!("drop the message of transaction {} for good", self.id))?;
        }
        let (transaction_id, commit) = (self.id.clone(), self.commit);
        let request = ResolveTransactionRequest { transaction_id, commit };
        let answer =
            session.call(request, |mut c, r| async move { c.resolve_transaction(r).await }).await?;
        Failure::of(answer.error)?;
        let ended = if commit { "committed" } else { "rolled back" };
        let json = json!({ "transaction_id": self.id, "ended": ended });
        Ok(Report::new(json).line(format!("{ended}: transaction {}", self.id)))
    }
}
