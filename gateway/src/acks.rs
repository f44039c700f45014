//! Splits an AckMessage by the broker groups that its handles name, and joins the answers.
//!
//! Entries of the answer correspond to those of the request, one to one and in order, and with one
//! entry the status on top is that entry's: clients repeat an acknowledgement for ever otherwise.

use std::collections::BTreeMap;

use proto::{
    BrokerName, ReceiptHandle,
    v2::{
        self, AckMessageEntry, AckMessageRequest, AckMessageResponse, AckMessageResultEntry, Code,
    },
};

use crate::status::Refusal;

/// The entries for one broker group.
pub(crate) struct Part {
    pub(crate) request: AckMessageRequest,
    /// Where the entries stand in the client's request.
    places: Vec<usize>,
}

/// A request taken apart.
pub(crate) struct Split {
    entries: Vec<AckMessageEntry>,
    pub(crate) parts: BTreeMap<BrokerName, Part>,
}

pub(crate) fn split(mut request: AckMessageRequest) -> Split {
    let entries = std::mem::take(&mut request.entries);
    let mut parts: BTreeMap<BrokerName, Part> = BTreeMap::new();
    for (place, entry) in entries.iter().enumerate() {
        let Ok(handle) = entry.receipt_handle.parse::<ReceiptHandle>() else { continue };
        let part = parts
            .entry(handle.broker)
            .or_insert_with(|| Part { request: request.clone(), places: Vec::new() });
        part.request.entries.push(entry.clone());
        part.places.push(place);
    }
    Split { entries, parts }
}

impl Split {
    /// The whole request, when it is all for one group.
    pub(crate) fn whole(&self) -> Option<(BrokerName, AckMessageRequest)> {
        let (group, part) = self.parts.first_key_value()?;
        let whole = part.places.len() == self.entries.len();
        whole.then(|| (group.clone(), part.request.clone()))
    }

    /// The answer to the client, from those to the parts in their order. A part that got no answer
    /// is that refusal for each of its entries; a handle that is none of ours is invalid.
    pub(crate) fn join(
        self,
        answers: Vec<Result<AckMessageResponse, Refusal>>,
    ) -> Result<AckMessageResponse, Refusal> {
        if self.entries.is_empty() {
            return Err(Refusal::NoReceiptHandle);
        }
        let mut statuses = vec![Refusal::ReceiptHandle.to_payload(); self.entries.len()];
        for (part, answer) in self.parts.into_values().zip(answers) {
            let part_statuses = part_statuses(&part, answer);
            for (place, status) in part.places.into_iter().zip(part_statuses) {
                statuses[place] = status;
            }
        }
        let top = common(&statuses);
        let entries =
            self.entries.into_iter().zip(statuses).map(|(entry, status)| AckMessageResultEntry {
                message_id: entry.message_id,
                receipt_handle: entry.receipt_handle,
                status: Some(status),
            });
        Ok(AckMessageResponse { status: Some(top), entries: entries.collect() })
    }
}

/// One status for each entry of the part.
fn part_statuses(part: &Part, answer: Result<AckMessageResponse, Refusal>) -> Vec<v2::Status> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(refusal) => return vec![refusal.to_payload(); part.places.len()],
    };
    let top = answer.status.unwrap_or_default();
    if answer.entries.len() != part.places.len() {
        // Refused as a whole.
        return vec![top; part.places.len()];
    }
    let entries = answer.entries.into_iter();
    entries.map(|entry| entry.status.unwrap_or_else(|| top.clone())).collect()
}

/// What all have in common, or that they differ.
fn common(statuses: &[v2::Status]) -> v2::Status {
    match statuses {
        [first, rest @ ..] if rest.iter().all(|status| status.code == first.code) => first.clone(),
        _ => v2::Status {
            code: Code::MultipleResults.into(),
            message: "the entries have different results".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use proto::{ConsumerGroup, QueueId, QueueOffset, receipt_handle::group_hash};

    use super::*;

    fn handle(broker: &str, offset: u64) -> String {
        let group: ConsumerGroup = "g".parse().expect("valid");
        ReceiptHandle {
            broker: broker.parse().expect("valid"),
            topic: "orders".parse().expect("valid"),
            queue: QueueId(0),
            offset: QueueOffset(offset),
            delivery: 1,
            group_hash: group_hash(&group),
        }
        .to_string()
    }

    fn request(handles: &[String]) -> AckMessageRequest {
        let entries = handles.iter().map(|handle| AckMessageEntry {
            message_id: handle.clone(),
            receipt_handle: handle.clone(),
            ..Default::default()
        });
        AckMessageRequest { entries: entries.collect(), ..Default::default() }
    }

    fn all_ok(request: &AckMessageRequest) -> AckMessageResponse {
        let entries = request.entries.iter().map(|entry| AckMessageResultEntry {
            message_id: entry.message_id.clone(),
            receipt_handle: entry.receipt_handle.clone(),
            status: Some(crate::status::ok()),
        });
        AckMessageResponse { status: Some(crate::status::ok()), entries: entries.collect() }
    }

    fn codes(response: &AckMessageResponse) -> Vec<i32> {
        response.entries.iter().map(|entry| entry.status.as_ref().expect("set").code).collect()
    }

    #[test]
    fn handles_of_one_group_stay_together() {
        let split = split(request(&[handle("broker-a", 1), handle("broker-a", 2)]));
        let (group, whole) = split.whole().expect("one group");
        assert_eq!((group.as_str(), whole.entries.len()), ("broker-a", 2));
    }

    #[test]
    fn answers_come_back_in_the_order_of_the_request() {
        let handles = [handle("broker-b", 1), "garbage".into(), handle("broker-a", 2)];
        let split = split(request(&handles));
        assert!(split.whole().is_none());
        let lost = Refusal::Lost { group: "broker-b".parse().expect("valid") };
        let answers = split
            .parts
            .iter()
            .map(|(name, part)| match name.as_str() {
                "broker-a" => Ok(all_ok(&part.request)),
                _ => Err(lost.clone()),
            })
            .collect();
        let response = split.join(answers).expect("has entries");
        assert_eq!(codes(&response), [50001, 40013, 20000]);
        assert_eq!(response.status.as_ref().expect("set").code, 30000);
        let back: Vec<_> = response.entries.iter().map(|e| e.receipt_handle.clone()).collect();
        assert_eq!(back, handles);
    }

    #[test]
    fn the_status_of_a_single_entry_is_that_on_top() {
        let split = split(request(&["garbage".into()]));
        let response = split.join(Vec::new()).expect("has entries");
        assert_eq!(codes(&response), [40013]);
        assert_eq!(response.status.as_ref().expect("set").code, 40013);
    }

    #[test]
    fn a_part_that_is_refused_as_a_whole_refuses_each_entry() {
        let split = split(request(&[handle("broker-a", 1), "garbage".into()]));
        let refused = Ok(AckMessageResponse {
            status: Some(Refusal::NoReadableQueue.to_payload()),
            entries: Vec::new(),
        });
        let response = split.join(vec![refused]).expect("has entries");
        assert_eq!(codes(&response), [40300, 40013]);
    }

    #[test]
    fn an_empty_request_is_refused() {
        assert_eq!(split(request(&[])).join(Vec::new()), Err(Refusal::NoReceiptHandle));
    }
}
