//! Calls of the administrative service: settings as registers, topics as a set.

use proto::{admin, v2};

use super::message::message_of;
use super::outcome::Failure;
use super::rpc::{DEADLINE, Rpc};
use crate::history::Answer;

/// Elements of listed sets are topics with this in front of their number.
const LISTED: &str = "listed-";
/// A quota of 0 is none at all, and a small one would hold somebody back.
const ZERO: u64 = 1_000_000;

/// An administrative call within the deadline of all calls.
pub(super) async fn bounded<T>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(error)) => Err(Failure::of_error(&error)),
        Err(_) => Err(Failure::Unknown { code: 0, message: "no answer in time".into() }),
    }
}

/// The error inside an administrative answer, if there is one.
pub(super) fn refused(error: Option<admin::Error>) -> Result<(), Failure> {
    use admin::error::Fate;
    let Some(error) = error else { return Ok(()) };
    let (code, message) = (0, error.message.clone());
    Err(match error.fate() {
        Fate::Rejected => Failure::Rejected { code, message },
        Fate::NotDone => Failure::NotDone { code, message },
        Fate::Unknown | Fate::Unspecified => Failure::Unknown { code, message },
    })
}

pub(super) async fn parked(rpc: &Rpc) -> Result<Answer, Failure> {
    let (mut txs, mut after) = (Vec::new(), String::new());
    loop {
        let request =
            admin::ListTransactionsRequest { parked_only: true, after, ..Default::default() };
        let answer = bounded(rpc.admin().list_transactions(request)).await?;
        refused(answer.error)?;
        let Some(last) = answer.transactions.last() else { break };
        after = last.transaction_id.clone();
        txs.extend(answer.transactions.iter().filter_map(|t| message_of(&t.message_id)));
    }
    Ok(Answer::Parked { txs })
}

/// A register is the quota of a topic of its name, in messages per second.
pub(super) async fn write(rpc: &Rpc, register: &str, value: u64) -> Result<Answer, Failure> {
    use admin::change_request::Change;
    let quota = admin::Quota {
        kind: admin::LimitedKind::Topic.into(),
        name: register.to_owned(),
        messages_per_second: value + ZERO,
        bytes_per_second: 0,
        version: 0,
    };
    let request = admin::ChangeRequest { change: Some(Change::PutQuota(quota)) };
    refused(bounded(rpc.admin().change(request)).await?.error)?;
    Ok(Answer::Write {})
}

pub(super) async fn read(rpc: &Rpc, register: &str) -> Result<Answer, Failure> {
    let answer = bounded(rpc.admin().list_quotas(admin::ListQuotasRequest {})).await?;
    refused(answer.error)?;
    let quota = answer.quotas.iter().find(|quota| quota.name == register);
    Ok(Answer::Read { value: quota.map(|q| q.messages_per_second.saturating_sub(ZERO)) })
}

pub(super) async fn add(rpc: &Rpc, element: u64) -> Result<Answer, Failure> {
    let config = admin::TopicConfig {
        topic: format!("{LISTED}{element}"),
        queues: 1,
        permission: v2::Permission::ReadWrite.into(),
        accepts: vec![v2::MessageType::Normal.into()],
    };
    let request =
        admin::PutTopicRequest { config: Some(config), create_only: true, ..Default::default() };
    refused(bounded(rpc.admin().put_topic(request)).await?.error)?;
    Ok(Answer::Add {})
}

pub(super) async fn remove(rpc: &Rpc, element: u64) -> Result<Answer, Failure> {
    use admin::change_request::Change;
    let change = Some(Change::DeleteTopic(format!("{LISTED}{element}")));
    refused(bounded(rpc.admin().change(admin::ChangeRequest { change })).await?.error)?;
    Ok(Answer::Remove {})
}

pub(super) async fn list(rpc: &Rpc) -> Result<Answer, Failure> {
    let answer = bounded(rpc.admin().list_topics(admin::ListTopicsRequest {})).await?;
    refused(answer.error)?;
    let names = answer.topics.iter().filter_map(|t| t.config.as_ref()).map(|c| c.topic.as_str());
    let elements = names.filter_map(|name| name.strip_prefix(LISTED)?.parse().ok()).collect();
    Ok(Answer::List { elements })
}
