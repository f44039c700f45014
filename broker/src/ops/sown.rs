//! What operations do wrong when a bug is sown; see [`commitlog::Bug`].

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use proto::{QueueId, QueueOffset, Topic};

use super::{Broker, unexpected};
use crate::{
    Error,
    command::{Append, Command, NewMessage, Outcome, Placed},
};

/// How long an ack is in nobody's memory but the leader's.
const LATER: Duration = Duration::from_millis(200);

/// How long a committed offset is believed to stay what it was.
const BELIEVED_FOR: Duration = Duration::from_secs(1);
static BELIEVED: Mutex<BTreeMap<(Topic, QueueId), (QueueOffset, Instant)>> =
    Mutex::new(BTreeMap::new());

/// B08: what was committed when somebody asked last, if that is not long ago.
pub(super) fn known(topic: &Topic, queue: QueueId, committed: QueueOffset) -> QueueOffset {
    let mut believed = BELIEVED.lock().expect("no holder panics");
    let known = believed.entry((topic.clone(), queue)).or_insert((committed, Instant::now()));
    if known.1.elapsed() > BELIEVED_FOR {
        *known = (committed, Instant::now());
    }
    known.0
}

/// B15: the answer is out, and the command is not.
pub(super) fn propose_later(broker: &Broker, command: &Command, deadline: Instant) {
    let (group, fault) = (broker.group.clone(), broker.settings.fault.clone());
    let parts = command.encode();
    tokio::spawn(async move {
        tokio::time::sleep(LATER).await;
        // Whoever asked has been told that it was done.
        let _ = super::propose(&group, &fault, parts, deadline + LATER).await;
    });
}

/// B27: the first message of a batch by itself, and taken out of it.
pub(super) async fn append_first(
    broker: &Broker,
    (topic, queue): (&Topic, QueueId),
    messages: &mut Vec<NewMessage>,
    deadline: Instant,
) -> Result<Vec<Placed>, Error> {
    let first = vec![messages.remove(0)];
    let command = Command::Append(Append { topic: topic.clone(), queue, messages: first });
    match broker.propose(&command, deadline).await? {
        Outcome::Appended { messages, .. } => Ok(messages),
        other => unexpected(&other),
    }
}
