//! timerList.

use anyhow::Result;
use clap::Args;
use proto::{
    BrokerName, Topic,
    admin::{ListTimersRequest, ListTimersResponse, Timer},
};
use serde_json::{Value, json};

use super::{
    Session,
    messages::LIST,
    when::{When, show},
};
use crate::{
    failure::Failure,
    output::{Report, Rows},
};

#[derive(Debug, Args)]
pub struct List {
    #[arg(short = 't', long = "topic")]
    topic: Topic,
    /// Due at this time or later: now, milliseconds since 1970 or yyyy-MM-dd#HH:mm:ss:SSS (UTC).
    #[arg(short = 'b', long = "beginTimestamp")]
    begin: Option<When>,
    /// Due before this time.
    #[arg(short = 'e', long = "endTimestamp")]
    end: Option<When>,
    /// So many messages at most.
    #[arg(short = 'm', long = "maxNum", default_value_t = LIST, value_parser = clap::value_parser!(u32).range(1..))]
    max: u32,
}

impl List {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let all = ListTimersRequest {
            topic: self.topic.to_string(),
            from_ms: self.begin.map_or(0, |when| when.timestamp().0),
            until_ms: self.end.map_or(0, |when| when.timestamp().0),
            max: self.max,
            ..Default::default()
        };
        let first = page(session, all.clone()).await?;
        let waiting = first.stretches.iter().map(|stretch| stretch.waiting).sum::<u64>();
        let (mut found, mut more) = (Vec::new(), false);
        for stretch in first.stretches {
            let broker: BrokerName = stretch.broker_name.parse()?;
            let mut timers = stretch.timers;
            let mut next = stretch.next;
            // What is beyond the number asked for of one broker cannot be among the first of all.
            while let Some(place) = next.filter(|_| timers.len() < self.max as usize) {
                let rest = ListTimersRequest {
                    broker_name: broker.to_string(),
                    from_ms: place.due_ms,
                    from_number: place.number,
                    ..all.clone()
                };
                next = None;
                let page = page(session, rest).await?;
                for stretch in page.stretches {
                    timers.extend(stretch.timers);
                    next = stretch.next;
                }
            }
            more |= next.is_some();
            found.extend(timers.into_iter().map(|timer| (broker.clone(), timer)));
        }
        found.sort_by_key(|(_, timer)| (timer.due_ms, timer.sent_ms));
        more |= found.len() > self.max as usize;
        found.truncate(self.max as usize);
        Ok(report(waiting, &found, more))
    }
}

async fn page(session: &Session, request: ListTimersRequest) -> Result<ListTimersResponse> {
    let answer = session.call(request, |mut c, r| async move { c.list_timers(r).await }).await?;
    Failure::of(answer.error.clone())?;
    Ok(answer)
}

fn report(waiting: u64, found: &[(BrokerName, Timer)], more: bool) -> Report {
    let header = ["due", "sent", "broker", "queue", "message id", "bytes", "recall handle"];
    let mut rows = Rows::new(header);
    for (broker, timer) in found {
        rows.push([
            show(timer.due_ms),
            show(timer.sent_ms),
            broker.to_string(),
            timer.queue_id.to_string(),
            timer.message_id.clone(),
            timer.message_bytes.to_string(),
            timer.recall_handle.clone(),
        ]);
    }
    let list: Vec<_> = found.iter().map(as_json).collect();
    let json = json!({ "waiting": waiting, "messages": list, "truncated": more });
    let report = Report::new(json).line(format!("{waiting} delayed messages wait")).rows(rows);
    if more { report.line("there are more; see -m") } else { report }
}

fn as_json((broker, timer): &(BrokerName, Timer)) -> Value {
    json!({
        "due_ms": timer.due_ms,
        "sent_ms": timer.sent_ms,
        "broker": broker.as_str(),
        "queue": timer.queue_id,
        "message_id": timer.message_id,
        "message_bytes": timer.message_bytes,
        "recall_handle": timer.recall_handle,
    })
}
