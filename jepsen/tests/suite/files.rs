//! The files of a run: golden lines, and what is read is what was written.

use jepsen::history::{
    Answer, Body, Call, Event, Failure, Fault, Message, Observation, Op, Outcome, Phase, Plan,
    Process, Record, Resolution, Writer, read,
};

use serde_json::Value;

use crate::mutations::recorded;
use crate::world::runs::ALL;

fn event(index: u64, process: Process, body: Body) -> Event {
    Event { index, time: 1_000 + index, process, body }
}

/// Events with the lines that they have in a file. A change here is a change of the format.
fn golden() -> Vec<(Event, &'static str)> {
    let send = Call::Send {
        key: 3,
        ids: vec![Message::new(2, 7)],
        message_group: None,
        deliver_at: Some(9),
    };
    let fault = Fault {
        fault: 4,
        class: "power".into(),
        targets: vec!["n1".into()],
        phase: Phase::Installed,
        leader: true,
        majority: false,
        lost_bytes: Some(4096),
        skew_ms: None,
    };
    let failure = Failure { code: 50_001, text: "timeout".into() };
    vec![
        (
            event(0, Process::Client(3), Body::Invoke { call: send, node: Some("n2".into()) }),
            r#"{"index":0,"time":1000,"process":3,"type":"invoke","f":"send","value":{"deliver_at":9,"ids":[8589934599],"key":3},"ext":{"node":"n2"}}"#,
        ),
        (
            event(1, Process::Client(3), Body::Ok(Answer::Send { offsets: vec![887] })),
            r#"{"index":1,"time":1001,"process":3,"type":"ok","f":"send","value":{"offsets":[887]}}"#,
        ),
        (
            event(2, Process::Client(3), Body::Info { name: "ack".into(), failure }),
            r#"{"index":2,"time":1002,"process":3,"type":"info","f":"ack","error":{"code":50001,"text":"timeout"}}"#,
        ),
        (
            event(3, Process::Nemesis, Body::Fault(fault)),
            r#"{"index":3,"time":1003,"process":"nemesis","type":"info","f":"power","value":{"fault":4,"leader":true,"lost_bytes":4096,"majority":false,"phase":"installed","targets":["n1"]}}"#,
        ),
        (
            event(4, Process::Observer, Body::Observed(Observation::Ready {})),
            r#"{"index":4,"time":1004,"process":"observer","type":"info","f":"ready","value":{}}"#,
        ),
        (
            event(
                5,
                Process::Client(8),
                Body::Ok(Answer::Check { resolution: Resolution::Undecided }),
            ),
            r#"{"index":5,"time":1005,"process":8,"type":"ok","f":"check","value":{"resolution":"undecided"}}"#,
        ),
    ]
}

#[test]
fn lines_are_as_they_always_were() {
    for (event, line) in golden() {
        let (written, golden): (Value, Value) =
            (serde_json::from_str(&event.to_line()).unwrap(), serde_json::from_str(line).unwrap());
        assert_eq!(written, golden);
        assert_eq!(Event::from_line(line).unwrap(), event);
    }
}

#[test]
fn a_history_survives_its_file() {
    for workload in ALL {
        let history = recorded(workload);
        let mut writer = Writer::new(Vec::new());
        for event in &history.events {
            let index = writer.write(event.time, event.process, event.body.clone()).unwrap();
            assert_eq!(index, event.index);
        }
        let file = writer.into_inner();
        assert_eq!(read(file.as_slice()).unwrap(), history.events, "{workload:?}");
        let torn = &file[..file.len() - 9];
        assert!(read(torn).is_err(), "a torn line is an error");
        let plan = serde_json::to_string(&history.plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&plan).unwrap(), history.plan);
    }
}

#[test]
fn what_is_no_event_is_refused() {
    let line = golden()[0].1;
    for wrong in [
        line.replace("\"invoke\"", "\"maybe\""),
        line.replace("\"send\"", "\"sned\""),
        line.replace("\"process\":3", "\"process\":\"gremlin\""),
        line.replace("\"key\":3", "\"kye\":3"),
        line.replace("\"ext\"", "\"etx\""),
        line.replace("\"time\":1000,", ""),
    ] {
        assert!(Event::from_line(&wrong).is_err(), "{wrong}");
    }
    let missing = format!("{}\n{}\n", golden()[0].1, golden()[3].1);
    assert!(read(missing.as_bytes()).is_err(), "an index is missing");
}

#[test]
fn a_history_that_does_not_pair_is_refused() {
    let invoke = |process| Body::Invoke { call: Call::MaxOffset { key: process }, node: None };
    let ok = || Body::Ok(Answer::MaxOffset { offset: 1 });
    let client = Process::Client(1);
    let wrong = [
        vec![ok()],
        vec![invoke(1), invoke(1)],
        vec![invoke(1), Body::Ok(Answer::MinOffset { offset: 0 })],
        vec![invoke(1), ok(), ok()],
        vec![
            invoke(1),
            Body::Info { name: "max_offset".into(), failure: Failure::default() },
            invoke(1),
        ],
    ];
    for bodies in wrong {
        let events = (0..).zip(bodies).map(|(index, body)| event(index, client, body));
        assert!(Record::of(events.collect::<Vec<_>>()).is_err());
    }
    let open = Record::of([event(0, client, invoke(1))]).unwrap();
    let expected = Outcome::Unknown(Failure::default());
    assert!(matches!(&open.ops[..], [Op { outcome, ended: u64::MAX, .. }] if *outcome == expected));
}
