//! The checker must be able to fail: each mutation of a clean history has to be found, and nothing
//! else with it.

use crate::{Action, Anomaly, Event, Fate, History, Message, Place, Queue, check};

const GROUPS: [&str; 2] = ["audit", "billing"];

fn queue(id: u32) -> Queue {
    Queue { topic: "orders".into(), broker: "broker-a".into(), id }
}

fn place(message: Message) -> Place {
    let count = message.count();
    Place { queue: queue(u32::try_from(count % 2).unwrap()), offset: count / 2 }
}

fn at(time: u64, action: Action) -> Event {
    Event { began: time, ended: time + 1, action }
}

fn send(time: u64, message: Message, fate: Fate) -> Event {
    let offset = (fate == Fate::Done).then(|| place(message).offset);
    at(time, Action::Send { message, fate, offset })
}

fn receive(time: u64, group: &str, message: Message) -> Event {
    let place = Some(place(message));
    at(time, Action::Receive { group: group.into(), message, place, attempt: 1 })
}

fn ack(time: u64, group: &str, message: Message) -> Event {
    at(time, Action::Ack { group: group.into(), message, fate: Fate::Done })
}

/// Ten messages over two queues, received and acked by two groups; one more was refused and one,
/// of unknown fate, did happen.
fn clean() -> Vec<Event> {
    let mut events = Vec::new();
    for count in 0..10 {
        let message = Message::new(1, count);
        let time = u64::from(count) * 10;
        events.push(send(time, message, if count == 7 { Fate::Unknown } else { Fate::Done }));
        for group in GROUPS {
            events.push(receive(1000 + time, group, message));
            events.push(ack(2000 + time, group, message));
        }
    }
    events.push(send(500, Message::new(2, 0), Fate::Refused));
    events
}

fn anomalies(events: Vec<Event>) -> Vec<Anomaly> {
    check(&events.into_iter().collect(), &GROUPS).anomalies
}

fn is_receive_of(event: &Event, wanted_group: &str, wanted: Message) -> bool {
    matches!(&event.action, Action::Receive { group, message, .. }
        if group == wanted_group && *message == wanted)
}

#[test]
fn a_clean_history_holds_and_is_counted() {
    let verdict = check(&clean().into_iter().collect(), &GROUPS);
    assert_eq!(verdict.anomalies, []);
    assert!(verdict.holds());
    assert_eq!((verdict.sent, verdict.acknowledged), (11, 9));
    assert_eq!((verdict.unknown, verdict.refused), (1, 1));
    assert_eq!((verdict.received, verdict.duplicates, verdict.lost()), (20, 0, 0));
}

#[test]
fn a_missing_receive_of_an_acknowledged_message_is_a_loss_and_a_gap() {
    let message = Message::new(1, 4);
    let mut events = clean();
    events.retain(|e| !is_receive_of(e, "audit", message));
    let found = anomalies(events);
    assert_eq!(
        found,
        [
            Anomaly::Lost { group: "audit".into(), message },
            Anomaly::Gap { group: "audit".into(), queue: queue(0), offset: 2 },
        ]
    );
}

#[test]
fn a_tail_that_is_missing_is_a_loss_even_though_no_gap_shows() {
    let message = Message::new(1, 9);
    let mut events = clean();
    events.retain(|e| !is_receive_of(e, "billing", message));
    assert_eq!(anomalies(events), [Anomaly::Lost { group: "billing".into(), message }]);
}

#[test]
fn a_group_that_received_nothing_lost_everything() {
    let mut events = clean();
    events.retain(
        |e| !matches!(&e.action, Action::Receive { group, .. } | Action::Ack { group, .. } if group == "audit"),
    );
    let verdict = check(&events.into_iter().collect(), &GROUPS);
    assert_eq!(verdict.lost(), 9);
}

#[test]
fn a_message_of_unknown_fate_may_be_absent_but_may_not_vanish() {
    let message = Message::new(1, 7);
    let mut nowhere = clean();
    nowhere.retain(|e| GROUPS.iter().all(|g| !is_receive_of(e, g, message)));
    let gaps = GROUPS.map(|g| Anomaly::Gap { group: g.into(), queue: queue(1), offset: 3 });
    assert_eq!(anomalies(nowhere), gaps, "the offset was taken, so only its hole is wrong");

    let mut vanished = clean();
    vanished.retain(|e| !is_receive_of(e, "billing", message));
    assert!(anomalies(vanished).contains(&Anomaly::Vanished { group: "billing".into(), message }));
}

#[test]
fn receiving_what_was_refused_or_never_sent_is_a_phantom() {
    for message in [Message::new(2, 0), Message::new(9, 0)] {
        let mut events = clean();
        for group in GROUPS {
            let place = Some(Place { queue: queue(0), offset: 5 });
            let group = group.to_owned();
            events.push(at(3000, Action::Receive { group, message, place, attempt: 1 }));
        }
        let phantoms = GROUPS.map(|g| Anomaly::Phantom { group: g.into(), message });
        assert_eq!(anomalies(events), phantoms);
    }
}

#[test]
fn two_messages_at_one_offset_are_found() {
    let (kept, moved) = (Message::new(1, 4), Message::new(1, 6));
    let mut events = clean();
    for event in &mut events {
        if let Action::Receive { message, place: Some(p), .. } = &mut event.action
            && *message == moved
        {
            p.offset = place(kept).offset;
        }
    }
    let found = anomalies(events);
    let reused = Anomaly::OffsetReused { place: place(kept), first: kept, second: moved };
    assert!(found.contains(&reused), "{found:?}");
    let place = place(kept);
    assert!(found.contains(&Anomaly::Misplaced { message: moved, acknowledged: 3, place }));
}

#[test]
fn one_send_at_two_places_is_found() {
    let message = Message::new(1, 2);
    let again = Place { queue: queue(0), offset: 5 };
    let mut events = clean();
    for group in GROUPS {
        let place = Some(again.clone());
        events.push(at(1500, Action::Receive { group: group.into(), message, place, attempt: 1 }));
    }
    let (first, second) = (place(message), again);
    let twice = Anomaly::StoredTwice { message, first, second };
    assert_eq!(anomalies(events), [twice.clone(), twice]);
}

#[test]
fn an_offset_other_than_the_acknowledged_one_is_found() {
    let message = Message::new(1, 9);
    let mut events = clean();
    for event in &mut events {
        if let Action::Send { message: m, offset, .. } = &mut event.action
            && *m == message
        {
            *offset = Some(40);
        }
    }
    let place = place(message);
    assert_eq!(anomalies(events), [Anomaly::Misplaced { message, acknowledged: 40, place }]);
}

#[test]
fn a_redelivery_before_the_ack_is_a_legal_duplicate_and_after_it_is_not() {
    let message = Message::new(1, 3);
    let mut legal = clean();
    legal.push(receive(1900, "audit", message));
    let verdict = check(&legal.into_iter().collect(), &GROUPS);
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(verdict.duplicates, 1);

    let mut overlapping = clean();
    overlapping.push(Event { began: 2029, ..receive(2040, "audit", message) });
    assert_eq!(anomalies(overlapping), [], "the receive began before the ack was confirmed");

    let mut illegal = clean();
    illegal.push(receive(9000, "audit", message));
    assert_eq!(anomalies(illegal), [Anomaly::Resurrected { group: "audit".into(), message }]);
}

#[test]
fn a_redelivery_after_an_ack_of_unknown_fate_is_legal() {
    let message = Message::new(1, 3);
    let mut events = clean();
    for event in &mut events {
        if let Action::Ack { group, message: m, fate } = &mut event.action
            && (group.as_str(), *m) == ("audit", message)
        {
            *fate = Fate::Unknown;
        }
    }
    events.push(receive(9000, "audit", message));
    assert_eq!(anomalies(events), []);
}

#[test]
fn garbage_and_attempt_zero_are_found() {
    let mut events = clean();
    events.push(at(1, Action::Garbage { group: "audit".into(), what: "???".into() }));
    for event in &mut events {
        if is_receive_of(event, "billing", Message::new(1, 1))
            && let Action::Receive { attempt, .. } = &mut event.action
        {
            *attempt = 0;
        }
    }
    let message = Message::new(1, 1);
    let no_attempt = Anomaly::NoAttempt { group: "billing".into(), message };
    let garbage = Anomaly::Garbage { group: "audit".into(), what: "???".into() };
    assert_eq!(anomalies(events), [no_attempt, garbage]);
}

#[test]
fn a_retry_is_judged_by_the_best_news_of_its_attempts() {
    let message = Message::new(1, 9);
    let mut events = clean();
    events.insert(0, send(0, message, Fate::Unknown));
    events.push(send(99, message, Fate::Refused));
    assert_eq!(anomalies(events), []);

    let mut refused_last = clean();
    refused_last.retain(|e| !matches!(&e.action, Action::Send { message: m, .. } if *m == message));
    refused_last.push(send(1, message, Fate::Unknown));
    refused_last.push(send(2, message, Fate::Refused));
    assert_eq!(anomalies(refused_last), [], "the first attempt may have happened");
}

#[test]
fn a_history_survives_its_file_and_a_torn_line_is_refused() {
    let history: History = clean().into_iter().collect();
    let mut file = Vec::new();
    history.write(&mut file).unwrap();
    assert_eq!(History::read(file.as_slice()).unwrap(), history);
    file.truncate(file.len() - 5);
    assert!(History::read(file.as_slice()).is_err());
}

#[test]
fn the_text_of_a_verdict_names_the_messages() {
    let mut events = clean();
    events.retain(|e| !is_receive_of(e, "audit", Message::new(1, 4)));
    let text = check(&events.into_iter().collect(), &GROUPS).to_string();
    assert!(text.contains("lost 1"), "{text}");
    assert!(text.contains("1/4 was acknowledged, audit never received it"), "{text}");
}
