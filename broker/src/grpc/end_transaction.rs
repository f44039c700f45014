//! EndTransaction: a producer says what became of its transaction.

use std::time::Instant;

use gateway::{Caller, Miss};
use proto::{
    Topic,
    v2::{EndTransactionRequest, EndTransactionResponse, TransactionResolution},
};

use super::{local::Edge, status};
use crate::{Error, command::Verdict, metrics::Rpc};

impl Edge {
    pub(super) async fn end(
        &self,
        caller: &Caller,
        request: EndTransactionRequest,
    ) -> Result<EndTransactionResponse, Miss> {
        let start = Instant::now();
        let outcome = async {
            let topic = Topic::from_resource(request.topic.as_ref())?;
            let verdict = verdict_of(request.resolution)?;
            let (id, deadline) = (&request.transaction_id, caller.deadline);
            self.broker.end_transaction(&topic, id, verdict, deadline).await
        };
        let answer = match outcome.await {
            Ok(()) => Ok(status::ok()),
            Err(error) => status::answer(&error),
        };
        self.count(Rpc::EndTransaction, start, &answer, |status| Some(status.code));
        Ok(EndTransactionResponse { status: Some(answer?) })
    }
}

/// A client that does not know yet says so: it is asked again.
fn verdict_of(resolution: i32) -> Result<Option<Verdict>, Error> {
    match TransactionResolution::try_from(resolution) {
        Ok(TransactionResolution::Commit) => Ok(Some(Verdict::Commit)),
        Ok(TransactionResolution::Rollback) => Ok(Some(Verdict::Rollback)),
        Ok(TransactionResolution::Unspecified) => Ok(None),
        Err(_) => Err(Error::BadSetting { field: "resolution", why: "is unknown" }),
    }
}
