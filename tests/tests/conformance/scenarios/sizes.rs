//! Bodies of 4 MiB, which some libraries can send and not receive: what is stored is looked at with
//! raw calls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use proto::v2::{self, Code, MessageType};
use tests::eventually;
use tests::library::{Ending, Outgoing, Producer, Verdict};

use super::abilities::{Check, checks};
use super::stage::{
    ARRIVAL, INVISIBLE, Stage, now_ms, refused, refused_by_library, sends, type_name,
};

const LIMIT: usize = 4 << 20;
const PROPERTIES: usize = 16 << 10;

fn shaped(kind: MessageType, message: Outgoing) -> Outgoing {
    match kind {
        MessageType::Delay => message.deliver_at(now_ms() + 2_000),
        MessageType::Fifo => message.message_group("large"),
        MessageType::Transaction => message.transaction(Ending::Commit),
        _ => message,
    }
}

pub(super) async fn the_largest_bodies_of_every_type_are_taken(stage: &Stage<'_>) {
    let kinds =
        [MessageType::Normal, MessageType::Fifo, MessageType::Delay, MessageType::Transaction];
    for kind in kinds {
        let topic = stage.topic(&format!("large-{}", type_name(kind)), kind).await;
        let producer: Producer<'_> = stage.decider(&topic, Verdict::Unknown).await;
        let exact = Outgoing::of_size(&topic, LIMIT);
        sends(&producer, &shaped(kind, exact.clone())).await;
        let properties = BTreeMap::from([("k".to_owned(), "v".repeat(PROPERTIES - 1))]);
        sends(&producer, &shaped(kind, Outgoing { properties, ..exact })).await;

        let larger = producer.send(&shaped(kind, Outgoing::of_size(&topic, LIMIT + 1))).await;
        let what = format!("{kind:?} of {} bytes", LIMIT + 1);
        if checks(stage.language(), Check::BodySize) {
            refused_by_library(&what, larger);
        } else {
            refused(&what, larger, Code::MessageBodyTooLarge);
        }
        producer.close().await.expect("it closes");
        arrive(stage, &topic, 2).await;
    }
}

/// This many bodies of the limit's size arrive, whole.
async fn arrive(stage: &Stage<'_>, topic: &str, count: usize) {
    let whole = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&whole);
    let identify = Arc::new(move |message: &v2::Message| {
        assert!(message.body.len() == LIMIT && message.body.iter().all(|byte| *byte == b'x'));
        *counted.lock().expect("no holder panics") += 1;
        None
    });
    let group = stage.own("large");
    let mut consumer = stage.cluster.consumer(&group, topic).identifying_by(identify);
    eventually("large messages arrive", ARRIVAL, async || {
        let poll = std::time::Duration::from_secs(5);
        let found = consumer.receive(1, INVISIBLE, poll).await.map_err(|e| e.to_string())?;
        consumer.ack(&found).await.map_err(|e| e.to_string())?;
        let whole = *whole.lock().expect("no holder panics");
        if whole == count { Ok(()) } else { Err(format!("{whole} of {count}")) }
    })
    .await;
}
