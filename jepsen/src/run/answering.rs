//! Producers that are asked about their transactions, and answer from the ledger.

use std::sync::{Arc, Mutex};

use tokio::sync::mpsc::Receiver;

use super::recorder::Recorder;
use crate::client::{Failure, Question, Rpc, wire_resolution};
use crate::generator::Ledger;
use crate::history::{Answer, Body, Call, Failure as Told, Process};

/// Answers questions one by one, until nobody asks any more. An answer that is lost leads to
/// another question.
pub(super) async fn answer(
    mut questions: Receiver<Question>,
    points: Vec<(String, Rpc)>,
    topic: String,
    ledger: Arc<Mutex<Ledger>>,
    (mut process, processes): (u64, u64),
    recorder: Arc<Recorder>,
) {
    let mut at = 0;
    while let Some(question) = questions.recv().await {
        let tx = question.tx;
        let resolution = ledger.lock().expect("no holder panics").resolve(tx);
        let (node, rpc) = &points[at % points.len()];
        let who = Process::Client(process);
        let call = Call::Check { tx };
        recorder.record(who, Body::Invoke { call, node: Some(node.clone()) });
        let end = wire_resolution(resolution);
        let (id, transaction) = (&question.message_id, &question.transaction);
        let result = rpc.answer_check(&topic, id, transaction, end).await;
        let name = String::from("check");
        let told =
            |failure: &Failure| Told { code: failure.code(), text: failure.message().into() };
        let body = match &result {
            Ok(()) => Body::Ok(Answer::Check { resolution }),
            // The question was asked, whatever became of the answer.
            Err(failure @ Failure::Unknown { .. }) => {
                process += processes;
                Body::Info { name, failure: told(failure) }
            }
            Err(failure) => Body::Fail { name, failure: told(failure) },
        };
        recorder.record(who, body);
        if result.is_err() {
            at += 1;
        }
    }
}
