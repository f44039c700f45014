//! The codec: what is encoded is decoded, what is damaged is refused, and bytes never change.

use bytes::{Bytes, BytesMut};
use commitlog::position::LogOffset;
use proptest::prelude::*;
use proto::{BrokerName, ClientId, ConsumerGroup, QueueId, QueueOffset, Topic, v2};

use super::*;

fn joined(command: &Command) -> Bytes {
    let mut bytes = BytesMut::new();
    command.encode().iter().for_each(|part| bytes.extend_from_slice(part));
    bytes.freeze()
}

fn topic() -> impl Strategy<Value = Topic> {
    "[a-z][a-zA-Z0-9_-]{0,30}".prop_map(|name| name.parse().unwrap())
}

fn group() -> impl Strategy<Value = ConsumerGroup> {
    "[a-z][a-zA-Z0-9_-]{0,30}".prop_map(|name| name.parse().unwrap())
}

fn client() -> impl Strategy<Value = ClientId> {
    "[a-z0-9@.-]{1,60}".prop_map(|name| name.parse().unwrap())
}

fn broker() -> impl Strategy<Value = BrokerName> {
    "[a-z][a-z0-9-]{0,20}".prop_map(|name| name.parse().unwrap())
}

fn queue() -> impl Strategy<Value = QueueId> {
    any::<u32>().prop_map(QueueId)
}

fn offset() -> impl Strategy<Value = QueueOffset> {
    any::<u64>().prop_map(QueueOffset)
}

fn few<S: Strategy>(item: S) -> impl Strategy<Value = Vec<S::Value>> {
    prop::collection::vec(item, 0..5)
}

fn permission() -> impl Strategy<Value = v2::Permission> {
    use v2::Permission::{None, Read, ReadWrite, Unspecified, Write};
    prop::sample::select(vec![Unspecified, None, Read, Write, ReadWrite])
}

fn message_type() -> impl Strategy<Value = v2::MessageType> {
    use v2::MessageType::{Delay, Fifo, Normal, Transaction};
    prop::sample::select(vec![Normal, Fifo, Delay, Transaction])
}

prop_compose! {
    fn topic_config()(
        queues: u32, version: u64, permission in permission(), accepts in few(message_type()),
        placement in few((broker(), any::<u32>())),
    ) -> TopicConfig {
        TopicConfig { queues, permission, accepts, placement, version }
    }
}

prop_compose! {
    fn new_message()(
        tag_hash: u64, key_hashes in few(any::<u64>()), dedupe: Option<u128>, bytes: Vec<u8>,
    ) -> NewMessage {
        NewMessage { tag_hash, key_hashes, dedupe, bytes: bytes.into() }
    }
}

prop_compose! {
    fn pick()(
        queue in queue(), from in offset(), to in offset(), fresh in few(offset()),
        again in few((offset(), any::<u64>())),
    ) -> Pick {
        let again = again.into_iter().map(|(offset, delivery)| Again { offset, delivery });
        Pick { queue, from, to, fresh, again: again.collect() }
    }
}

prop_compose! {
    fn handle()(queue in queue(), offset in offset(), delivery: u64) -> Handle {
        Handle { queue, offset, delivery }
    }
}

fn limited() -> impl Strategy<Value = Limited> {
    prop_oneof![
        topic().prop_map(Limited::Topic),
        group().prop_map(Limited::Group),
        client().prop_map(Limited::Client),
    ]
}

fn administration() -> impl Strategy<Value = Command> {
    prop_oneof![
        topic().prop_map(|topic| Command::DeleteTopic(DeleteTopic { topic })),
        group().prop_map(|group| Command::DeleteGroup(DeleteGroup { group })),
        (group(), any::<bool>())
            .prop_map(|(group, enabled)| Command::SwitchGroup(SwitchGroup { group, enabled })),
        (limited(), any::<u64>(), any::<u64>()).prop_map(
            |(of, messages_per_second, bytes_per_second)| {
                let quota = Quota { messages_per_second, bytes_per_second };
                Command::PutQuota(PutQuota { of, quota })
            }
        ),
        (topic(), any::<u64>(), any::<u64>()).prop_map(|(topic, ms, bytes)| {
            Command::PutRetention(PutRetention { topic, retention: Retention { ms, bytes } })
        }),
        (topic(), queue(), offset()).prop_map(|(topic, queue, to)| Command::Expire(Expire {
            topic,
            queue,
            to
        })),
        topic().prop_map(|topic| Command::CloseQueues(CloseQueues { topic })),
        topic().prop_map(|topic| Command::RetireTopic(RetireTopic { topic })),
        Just(Command::Mark(Mark)),
        (any::<u64>(), "\\PC{0,20}", proptest::option::of("\\PC{0,20}")).prop_map(
            |(version, key, value)| {
                Command::PutLiveSetting(PutLiveSetting { version, key, value })
            }
        ),
    ]
}

fn put_setting() -> impl Strategy<Value = Command> {
    let setting = prop_oneof![
        (group(), any::<u32>()).prop_map(|(group, max_attempts)| {
            let config = GroupConfig { max_attempts, ..GroupConfig::default() };
            Setting::Group(PutGroup { group, config })
        }),
        (group(), any::<bool>())
            .prop_map(|(group, enabled)| Setting::Switch(SwitchGroup { group, enabled })),
        (limited(), any::<u64>()).prop_map(|(of, messages_per_second)| {
            let quota = Quota { messages_per_second, bytes_per_second: 0 };
            Setting::Quota(PutQuota { of, quota })
        }),
        (topic(), any::<u64>()).prop_map(|(topic, ms)| {
            Setting::Retention(PutRetention { topic, retention: Retention { ms, bytes: 0 } })
        }),
    ];
    (any::<u64>(), setting)
        .prop_map(|(version, setting)| Command::PutSetting(PutSetting { version, setting }))
}

fn reset_to() -> impl Strategy<Value = ResetTo> {
    prop_oneof![Just(ResetTo::Begin), Just(ResetTo::End), offset().prop_map(ResetTo::Offset)]
}

prop_compose! {
    fn orphan()(transaction: u64, checks: u32) -> Orphan {
        Orphan { transaction, checks }
    }
}

fn reference() -> impl Strategy<Value = Reference> {
    prop_oneof![
        (topic(), queue(), offset()).prop_map(|(topic, queue, offset)| Reference::Entry {
            topic,
            queue,
            offset
        }),
        (any::<u64>(), any::<u64>())
            .prop_map(|(due, number)| Reference::Timer(TimerId { due: Timestamp(due), number })),
        any::<u64>().prop_map(Reference::Half),
    ]
}

prop_compose! {
    fn carried()(from: u64, references in few(reference()), bytes: Vec<u8>) -> CarriedMessage {
        CarriedMessage { from: LogOffset(from), references, bytes: bytes.into() }
    }
}

fn command() -> impl Strategy<Value = Command> {
    let group_config = (any::<bool>(), any::<u32>(), few(any::<u64>())).prop_map(
        |(fifo, max_attempts, steps_ms)| GroupConfig {
            fifo,
            max_attempts,
            backoff: Backoff::Customized { steps_ms },
        },
    );
    prop_oneof![
        (topic(), topic_config(), any::<bool>()).prop_map(|(topic, config, create_only)| {
            Command::PutTopic(PutTopic { topic, config, create_only })
        }),
        (group(), group_config)
            .prop_map(|(group, config)| Command::PutGroup(PutGroup { group, config })),
        (topic(), queue(), prop::collection::vec(new_message(), 1..5)).prop_map(
            |(topic, queue, messages)| Command::Append(Append { topic, queue, messages })
        ),
        (topic(), queue(), prop::collection::vec((any::<u64>(), new_message()), 1..5)).prop_map(
            |(topic, queue, messages)| {
                let delayed = |(due, message)| DelayedMessage { due: Timestamp(due), message };
                let messages = messages.into_iter().map(delayed).collect();
                Command::AppendDelayed(AppendDelayed { topic, queue, messages })
            }
        ),
        any::<u32>().prop_map(|most| Command::Fire(Fire { most })),
        (topic(), any::<u64>(), any::<u64>()).prop_map(|(topic, due, number)| {
            let timer = TimerId { due: Timestamp(due), number };
            Command::Recall(Recall { topic, timer })
        }),
        (group(), topic(), client(), any::<bool>(), any::<u64>(), few(pick())).prop_map(
            |(group, topic, client, auto_renew, invisible_ms, picks)| {
                Command::Pop(Pop { group, topic, client, auto_renew, invisible_ms, picks })
            }
        ),
        (group(), topic(), few(handle())).prop_map(|(group, topic, handles)| Command::Ack(Ack {
            group,
            topic,
            handles
        })),
        (group(), topic(), handle(), any::<u64>()).prop_map(
            |(group, topic, handle, invisible_ms)| {
                Command::ChangeInvisible(ChangeInvisible { group, topic, handle, invisible_ms })
            }
        ),
        (group(), topic(), queue(), client(), any::<u64>(), any::<u64>()).prop_map(
            |(group, topic, queue, client, since, invisible_ms)| {
                let trusted_since = Timestamp(since);
                Command::Renew(Renew { group, topic, queue, client, trusted_since, invisible_ms })
            }
        ),
        administration(),
        put_setting(),
        (client(), group(), any::<u64>()).prop_map(|(client, group, after_ms)| {
            Command::Release(Release { client, group, after_ms })
        }),
        (group(), topic(), few((handle(), any::<u64>(), any::<u32>()))).prop_map(
            |(group, topic, back)| {
                let returned = |(handle, since, attempt)| {
                    let since = Timestamp(since);
                    Returned { handle, since, attempt }
                };
                let deliveries = back.into_iter().map(returned).collect();
                Command::GiveBack(GiveBack { group, topic, deliveries })
            }
        ),
        (group(), topic(), queue(), offset()).prop_map(|(group, topic, queue, offset)| {
            Command::CommitOffset(CommitOffset { group, topic, queue, offset })
        }),
        (group(), topic(), few((queue(), reset_to()))).prop_map(|(group, topic, queues)| {
            Command::ResetOffsets(ResetOffsets { group, topic, queues })
        }),
        (group(), topic(), queue(), any::<u64>()).prop_map(|(group, topic, queue, reset)| {
            Command::FollowReset(FollowReset { group, topic, queue, reset })
        }),
        (topic(), queue(), client(), any::<u64>(), new_message()).prop_map(
            |(topic, queue, client, first_check_ms, message)| {
                Command::AppendHalf(AppendHalf { topic, queue, client, first_check_ms, message })
            }
        ),
        (any::<u64>(), any::<bool>(), any::<bool>()).prop_map(|(transaction, commit, admin)| {
            let verdict = if commit { Verdict::Commit } else { Verdict::Rollback };
            let by = if admin { Resolver::Administrator } else { Resolver::Producer };
            Command::EndTransaction(EndTransaction { transaction, verdict, by })
        }),
        (any::<u64>(), few(orphan())).prop_map(|(next_ms, orphans)| {
            Command::CheckTransactions(CheckTransactions { next_ms, orphans })
        }),
        few(orphan()).prop_map(|orphans| Command::ParkTransactions(ParkTransactions { orphans })),
        few(carried()).prop_map(|messages| Command::Carry(Carry { messages })),
        few(any::<u64>()).prop_map(|transactions| {
            Command::ExpireTransactions(ExpireTransactions { transactions })
        }),
    ]
}

proptest! {
    #[test]
    fn a_command_is_decoded_as_it_was_encoded(command in command()) {
        prop_assert_eq!(Command::decode(joined(&command)), Ok(command));
    }

    #[test]
    fn a_command_that_ends_early_is_refused(command in command(), cut: prop::sample::Index) {
        let bytes = joined(&command);
        let cut = cut.index(bytes.len());
        prop_assert!(Command::decode(bytes.slice(..cut)).is_err());
    }

    #[test]
    fn bytes_after_a_command_are_refused(command in command(), more in 1..9_usize) {
        let mut bytes = BytesMut::from(joined(&command));
        bytes.extend(std::iter::repeat_n(0, more));
        let refused = Command::decode(bytes.freeze());
        prop_assert_eq!(refused, Err(DecodeError::Trailing { bytes: more }));
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(tag in prop_oneof![0..10_u8, 40..44_u8, 75..77_u8], bytes: Vec<u8>) {
        let _either_way = Command::decode([&[tag], &bytes[..]].concat().into());
    }

    /// Whatever still decodes means what it says: it encodes to the same bytes.
    #[test]
    fn a_flipped_byte_does_no_harm(command in command(), place: prop::sample::Index, flip in 1..=255_u8) {
        let mut bytes = joined(&command).to_vec();
        let place = place.index(bytes.len());
        bytes[place] ^= flip;
        if let Ok(other) = Command::decode(bytes.clone().into()) {
            prop_assert_eq!(joined(&other), bytes);
        }
    }
}

#[test]
fn messages_are_not_copied() {
    let body = Bytes::from(vec![7; 1000]);
    let message = NewMessage { tag_hash: 0, key_hashes: vec![], dedupe: None, bytes: body.clone() };
    let append = Append { topic: "t".parse().unwrap(), queue: QueueId(0), messages: vec![message] };
    let parts = Command::Append(append.clone()).encode();
    assert_eq!(parts[1].as_ptr(), body.as_ptr());

    let entry = joined(&Command::Append(append));
    let Ok(Command::Append(decoded)) = Command::decode(entry.clone()) else {
        panic!("it is an append");
    };
    assert_eq!(decoded.messages[0].bytes.as_ptr(), entry.slice(entry.len() - 1000..).as_ptr());
}

#[test]
fn an_append_without_messages_is_refused() {
    let append = Append { topic: "t".parse().unwrap(), queue: QueueId(0), messages: vec![] };
    let refused = Command::decode(joined(&Command::Append(append)));
    assert_eq!(refused, Err(DecodeError::NoMessages));
}

#[test]
fn an_unknown_tag_is_named() {
    let refused = Command::decode(Bytes::from_static(&[99, 1, 2]));
    assert_eq!(refused, Err(DecodeError::UnknownTag { tag: 99 }));
}

#[test]
fn a_name_that_the_edge_refuses_is_refused_in_the_log_too() {
    let bytes = Bytes::from_static(b"\x08\0\x01c\0\x02a b\0\0\0\0\0\0\0\x01");
    assert!(matches!(Command::decode(bytes), Err(DecodeError::Name(_))));
}

/// A changed byte would make logs unreadable that were written before: it needs a new tag.
#[test]
fn golden() {
    let (topic, group): (Topic, ConsumerGroup) = ("t".parse().unwrap(), "g".parse().unwrap());
    let (client, queue): (ClientId, _) = ("c".parse().unwrap(), QueueId(2));
    let handle = Handle { queue, offset: QueueOffset(3), delivery: 4 };

    let config = TopicConfig {
        queues: 8,
        permission: v2::Permission::ReadWrite,
        accepts: vec![v2::MessageType::Normal, v2::MessageType::Delay],
        placement: vec![("b".parse().unwrap(), 8)],
        version: 9,
    };
    check(
        &Command::PutTopic(PutTopic { topic: topic.clone(), config, create_only: true }),
        "01 0001 74 01 00000008 04 02 01 03 0001 0001 62 00000008 0000000000000009",
    );
    let config = GroupConfig {
        fifo: true,
        max_attempts: 3,
        backoff: Backoff::Customized { steps_ms: vec![16] },
    };
    check(
        &Command::PutGroup(PutGroup { group: group.clone(), config }),
        "02 0001 67 01 00000003 00 01 0000000000000010",
    );
    let first = NewMessage {
        tag_hash: 5,
        key_hashes: vec![6],
        dedupe: Some(7),
        bytes: Bytes::from_static(b"one"),
    };
    let second = NewMessage {
        tag_hash: 0,
        key_hashes: vec![],
        dedupe: None,
        bytes: Bytes::from_static(b"two!"),
    };
    check(
        &Command::Append(Append { topic: topic.clone(), queue, messages: vec![first, second] }),
        "03 0001 74 00000002 0002 \
         00000003 0000000000000005 01 00000000000000000000000000000007 01 0000000000000006 \
         00000004 0000000000000000 00 00 6f6e65 74776f21",
    );
    let pick = Pick {
        queue,
        from: QueueOffset(3),
        to: QueueOffset(5),
        fresh: vec![QueueOffset(4)],
        again: vec![Again { offset: QueueOffset(1), delivery: 6 }],
    };
    check(
        &Command::Pop(Pop {
            group: group.clone(),
            topic: topic.clone(),
            client: client.clone(),
            auto_renew: true,
            invisible_ms: 7,
            picks: vec![pick],
        }),
        "04 0001 67 0001 74 0001 63 01 0000000000000007 0001 \
         00000002 0000000000000003 0000000000000005 0001 0000000000000004 \
         0001 0000000000000001 0000000000000006",
    );
    check(
        &Command::Ack(Ack { group: group.clone(), topic: topic.clone(), handles: vec![handle] }),
        "05 0001 67 0001 74 0001 00000002 0000000000000003 0000000000000004",
    );
    check(
        &Command::ChangeInvisible(ChangeInvisible {
            group: group.clone(),
            topic: topic.clone(),
            handle,
            invisible_ms: 5,
        }),
        "06 0001 67 0001 74 00000002 0000000000000003 0000000000000004 0000000000000005",
    );
    check(
        &Command::Renew(Renew {
            group: group.clone(),
            topic,
            queue,
            client: client.clone(),
            trusted_since: Timestamp(6),
            invisible_ms: 5,
        }),
        "07 0001 67 0001 74 00000002 0001 63 0000000000000006 0000000000000005",
    );
    let returned = Returned { handle, since: Timestamp(6), attempt: 1 };
    check(
        &Command::GiveBack(GiveBack {
            group: group.clone(),
            topic: "t".parse().unwrap(),
            deliveries: vec![returned],
        }),
        "50 0001 67 0001 74 0001 00000002 0000000000000003 0000000000000004 \
         0000000000000006 00000001",
    );
    check(&Command::RaiseLevel(RaiseLevel { level: 1 }), "5f 00000001");
    check(
        &Command::Release(Release { client, group, after_ms: 5 }),
        "08 0001 63 0001 67 0000000000000005",
    );
}

#[test]
fn golden_retention() {
    let entry =
        Reference::Entry { topic: "t".parse().unwrap(), queue: QueueId(2), offset: QueueOffset(3) };
    let timer = Reference::Timer(TimerId { due: Timestamp(4), number: 5 });
    let message = |from, references, bytes| CarriedMessage {
        from: LogOffset(from),
        references,
        bytes: Bytes::from_static(bytes),
    };
    let messages =
        vec![message(1, vec![entry, timer], b"ab"), message(6, vec![Reference::Half(7)], b"c")];
    check(
        &Command::Carry(Carry { messages }),
        "4b 0002 \
         0000000000000001 00000002 0002 00 0001 74 00000002 0000000000000003 \
         01 0000000000000004 0000000000000005 \
         0000000000000006 00000001 0001 02 0000000000000007 6162 63",
    );
    let expire = ExpireTransactions { transactions: vec![8] };
    check(&Command::ExpireTransactions(expire), "4c 0001 0000000000000008");
}

#[test]
fn golden_timers() {
    let topic: Topic = "t".parse().unwrap();
    let message = NewMessage {
        tag_hash: 3,
        key_hashes: vec![4],
        dedupe: Some(5),
        bytes: Bytes::from_static(b"ab"),
    };
    let plain = NewMessage {
        tag_hash: 0,
        key_hashes: vec![],
        dedupe: None,
        bytes: Bytes::from_static(b"c"),
    };
    let messages = vec![
        DelayedMessage { due: Timestamp(9), message },
        DelayedMessage { due: Timestamp(0), message: plain },
    ];
    check(
        &Command::AppendDelayed(AppendDelayed {
            topic: topic.clone(),
            queue: QueueId(2),
            messages,
        }),
        "1e 0001 74 00000002 0002 \
         0000000000000009 00000002 0000000000000003 01 00000000000000000000000000000005 01 \
         0000000000000004 \
         0000000000000000 00000001 0000000000000000 00 00 6162 63",
    );
    check(&Command::Fire(Fire { most: 7 }), "1f 00000007");
    let timer = TimerId { due: Timestamp(1), number: 2 };
    check(
        &Command::Recall(Recall { topic, timer }),
        "20 0001 74 0000000000000001 0000000000000002",
    );
}

#[test]
fn golden_offsets() {
    let (topic, group): (Topic, ConsumerGroup) = ("t".parse().unwrap(), "g".parse().unwrap());
    let (queue, offset) = (QueueId(2), QueueOffset(3));
    check(
        &Command::CommitOffset(CommitOffset {
            group: group.clone(),
            topic: topic.clone(),
            queue,
            offset,
        }),
        "32 0001 67 0001 74 00000002 0000000000000003",
    );
    let queues = vec![
        (QueueId(0), ResetTo::Begin),
        (QueueId(1), ResetTo::End),
        (queue, ResetTo::Offset(offset)),
    ];
    check(
        &Command::ResetOffsets(ResetOffsets { group: group.clone(), topic: topic.clone(), queues }),
        "33 0001 67 0001 74 0003 00000000 00 00000001 01 00000002 02 0000000000000003",
    );
    check(
        &Command::FollowReset(FollowReset { group, topic, queue, reset: 4 }),
        "34 0001 67 0001 74 00000002 0000000000000004",
    );
}

#[test]
fn golden_transactions() {
    let message = NewMessage {
        tag_hash: 5,
        key_hashes: vec![6],
        dedupe: Some(7),
        bytes: Bytes::from_static(b"one"),
    };
    check(
        &Command::AppendHalf(AppendHalf {
            topic: "t".parse().unwrap(),
            queue: QueueId(2),
            client: "c".parse().unwrap(),
            first_check_ms: 6,
            message,
        }),
        "28 0001 74 00000002 0001 63 0000000000000006 \
         00000003 0000000000000005 01 00000000000000000000000000000007 01 0000000000000006 6f6e65",
    );
    let end = |verdict, by| Command::EndTransaction(EndTransaction { transaction: 7, verdict, by });
    check(&end(Verdict::Commit, Resolver::Producer), "29 0000000000000007 01 00");
    check(&end(Verdict::Rollback, Resolver::Administrator), "29 0000000000000007 02 01");
    let orphans = vec![Orphan { transaction: 7, checks: 2 }];
    check(
        &Command::CheckTransactions(CheckTransactions { next_ms: 3, orphans: orphans.clone() }),
        "2a 0000000000000003 0001 0000000000000007 00000002",
    );
    check(
        &Command::ParkTransactions(ParkTransactions { orphans }),
        "2b 0001 0000000000000007 00000002",
    );
}

#[test]
fn golden_administration() {
    let (topic, group): (Topic, ConsumerGroup) = ("t".parse().unwrap(), "g".parse().unwrap());
    let quota = Quota { messages_per_second: 1, bytes_per_second: 2 };
    let client = Limited::Client("c".parse().unwrap());
    let (queue, to) = (QueueId(2), QueueOffset(3));
    let retention = Retention { ms: 4, bytes: 5 };
    let cases = [
        (Command::DeleteTopic(DeleteTopic { topic: topic.clone() }), "3c 0001 74"),
        (Command::DeleteGroup(DeleteGroup { group: group.clone() }), "3d 0001 67"),
        (
            Command::SwitchGroup(SwitchGroup { group: group.clone(), enabled: true }),
            "3e 0001 67 01",
        ),
        (
            Command::PutQuota(PutQuota { of: Limited::Topic(topic.clone()), quota }),
            "3f 00 0001 74 0000000000000001 0000000000000002",
        ),
        (
            Command::PutQuota(PutQuota { of: Limited::Group(group), quota }),
            "3f 01 0001 67 0000000000000001 0000000000000002",
        ),
        (
            Command::PutQuota(PutQuota { of: client, quota }),
            "3f 02 0001 63 0000000000000001 0000000000000002",
        ),
        (
            Command::PutRetention(PutRetention { topic: topic.clone(), retention }),
            "40 0001 74 0000000000000004 0000000000000005",
        ),
        (
            Command::Expire(Expire { topic: topic.clone(), queue, to }),
            "41 0001 74 00000002 0000000000000003",
        ),
        (Command::CloseQueues(CloseQueues { topic: topic.clone() }), "42 0001 74"),
        (
            Command::PutSetting(PutSetting {
                version: 9,
                setting: Setting::Retention(PutRetention { topic: topic.clone(), retention }),
            }),
            "55 0000000000000009 40 0001 74 0000000000000004 0000000000000005",
        ),
        (Command::RetireTopic(RetireTopic { topic }), "56 0001 74"),
        (
            Command::PutLiveSetting(PutLiveSetting {
                version: 9,
                key: "k".into(),
                value: Some("v".into()),
            }),
            "69 0000000000000009 0001 6b 01 0001 76",
        ),
        (
            Command::PutLiveSetting(PutLiveSetting { version: 9, key: "k".into(), value: None }),
            "69 0000000000000009 0001 6b 00",
        ),
        (Command::Mark(Mark), "5a"),
    ];
    cases.iter().for_each(|(command, expected)| check(command, expected));
}

fn check(command: &Command, expected: &str) {
    let hex: String = joined(command).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, expected.replace(' ', ""), "{command:?}");
    assert_eq!(Command::decode(joined(command)).as_ref(), Ok(command));
}
