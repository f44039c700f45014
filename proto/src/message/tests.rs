//! Each rule at its limit and one over.

use proptest::prelude::*;
use prost::Message as _;

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn message() -> v2::Message {
    v2::Message {
        topic: Some(v2::Resource { name: "orders".into(), ..Default::default() }),
        system_properties: Some(v2::SystemProperties {
            message_id: "01ABCDEF".into(),
            message_type: v2::MessageType::Normal as i32,
            ..Default::default()
        }),
        body: "hello".into(),
        ..Default::default()
    }
}

fn with(change: impl FnOnce(&mut v2::Message)) -> v2::Message {
    let mut message = message();
    change(&mut message);
    message
}

fn with_system(change: impl FnOnce(&mut v2::SystemProperties)) -> v2::Message {
    with(|m| change(m.system_properties.as_mut().unwrap()))
}

fn with_property(key: &str, value: &str) -> v2::Message {
    with(|m| drop(m.user_properties.insert(key.into(), value.into())))
}

fn verdict(message: &v2::Message) -> Result<(), InvalidMessage> {
    check(message, &Rules::default(), NOW)
}

#[test]
fn a_plain_message_passes() {
    assert_eq!(verdict(&message()), Ok(()));
}

#[test]
fn the_topic_must_be_legal() {
    for name in ["", "a.b", "TBW102", &"t".repeat(128)] {
        let bad = with(|m| m.topic.as_mut().unwrap().name = name.into());
        assert!(matches!(verdict(&bad), Err(InvalidMessage::Topic(_))), "{name:?}");
    }
    assert!(matches!(verdict(&with(|m| m.topic = None)), Err(InvalidMessage::Topic(_))));
}

#[test]
fn system_properties_must_be_there() {
    let bare = with(|m| m.system_properties = None);
    assert_eq!(verdict(&bare), Err(InvalidMessage::NoSystemProperties));
}

#[test]
fn a_body_has_1_byte_to_4_mib() {
    let sized = |bytes: usize| verdict(&with(|m| m.body = vec![0; bytes].into()));
    assert_eq!(sized(0), Err(InvalidMessage::BodyEmpty));
    assert_eq!(sized(1), Ok(()));
    assert_eq!(sized(4_194_304), Ok(()));
    assert_eq!(
        sized(4_194_305),
        Err(InvalidMessage::BodyTooLarge { found: 4_194_305, max: 4_194_304 })
    );
}

#[test]
fn a_message_has_at_most_128_user_properties() {
    let many = |n: usize| {
        verdict(&with(|m| {
            m.user_properties = (0..n).map(|i| (format!("k{i}"), String::new())).collect();
        }))
    };
    assert_eq!(many(128), Ok(()));
    assert_eq!(many(129), Err(InvalidMessage::TooManyProperties { found: 129, max: 128 }));
}

#[test]
fn properties_tag_and_keys_have_at_most_16_kib_together() {
    let over = Err(InvalidMessage::PropertiesTooLarge { found: 16_385, max: 16_384 });
    assert_eq!(verdict(&with_property("k", &"v".repeat(16_383))), Ok(()));
    assert_eq!(verdict(&with_property("k", &"v".repeat(16_384))), over);
    assert_eq!(verdict(&with_system(|s| s.tag = Some("t".repeat(16_384)))), Ok(()));
    assert_eq!(verdict(&with_system(|s| s.tag = Some("t".repeat(16_385)))), over);
    assert_eq!(verdict(&with_system(|s| s.keys = vec!["k".repeat(8192); 2])), Ok(()));
    let all = with(|m| {
        m.user_properties.insert("k".into(), "v".repeat(10_000));
        let system = m.system_properties.as_mut().unwrap();
        system.tag = Some("t".repeat(6_000));
        system.keys = vec!["k".repeat(384)];
    });
    assert_eq!(verdict(&all), over);
}

#[test]
fn the_largest_body_may_have_the_largest_properties() {
    let largest = with(|m| {
        m.body = vec![0; limits::BODY_BYTES].into();
        m.user_properties.insert("k".into(), "v".repeat(limits::PROPERTIES_BYTES - 1));
    });
    assert_eq!(verdict(&largest), Ok(()));
    assert!(largest.encoded_len() <= limits::MESSAGE_BYTES);
    assert!(check_all(&[largest], &Rules::default(), NOW).is_ok());
}

#[test]
fn reserved_property_keys_are_refused() {
    for key in reserved::KEYS {
        let refused = Err(InvalidMessage::ReservedKey { key: key.into() });
        assert_eq!(verdict(&with_property(key, "v")), refused);
    }
    assert_eq!(verdict(&with_property("uniq_key", "v")), Ok(()));
}

#[test]
fn property_keys_and_values_have_no_control_characters() {
    let at = |c: char, at: usize| Flaw::Character { character: c, at };
    for c in ['\0', '\n', '\u{1f}', '\u{7f}', '\u{9f}'] {
        let key = format!("a{c}");
        let bad_key = InvalidMessage::PropertyKey { key: key.clone(), flaw: at(c, 1) };
        assert_eq!(verdict(&with_property(&key, "v")), Err(bad_key));
        let bad_value = InvalidMessage::PropertyValue { key: "k".into(), flaw: at(c, 1) };
        assert_eq!(verdict(&with_property("k", &format!("a{c}"))), Err(bad_value));
    }
    for fine in ["中文", "🙂", "!@#$%^&*()", " ", "\u{a0}"] {
        assert_eq!(verdict(&with_property(fine, fine)), Ok(()), "{fine:?}");
    }
}

#[test]
fn a_tag_is_not_blank_and_has_no_bar_or_control_character() {
    let tagged = |tag: &str| verdict(&with_system(|s| s.tag = Some(tag.into())));
    for fine in ["", "*", "标签", "🙂", "a b", "@@@"] {
        assert_eq!(tagged(fine), Ok(()), "{fine:?}");
    }
    assert_eq!(tagged("  "), Err(InvalidMessage::Tag(Flaw::Blank)));
    let at = |character, at| Err(InvalidMessage::Tag(Flaw::Character { character, at }));
    assert_eq!(tagged("@||@"), at('|', 1));
    assert_eq!(tagged("a|"), at('|', 1));
    assert_eq!(tagged("\0"), at('\0', 0));
}

#[test]
fn a_key_is_not_blank_and_has_no_control_character() {
    let keyed = |key: &str| verdict(&with_system(|s| s.keys = vec!["fine".into(), key.into()]));
    for fine in ["键", "🙂", "a b", "a|b"] {
        assert_eq!(keyed(fine), Ok(()), "{fine:?}");
    }
    assert_eq!(keyed(""), Err(InvalidMessage::Key(Flaw::Empty)));
    assert_eq!(keyed("\t "), Err(InvalidMessage::Key(Flaw::Blank)));
    assert!(matches!(keyed("a\0"), Err(InvalidMessage::Key(Flaw::Character { .. }))));
}

#[test]
fn a_message_group_is_under_64_bytes() {
    let grouped = |group: &str| verdict(&with_system(|s| s.message_group = Some(group.into())));
    assert_eq!(grouped(""), Ok(()));
    assert_eq!(grouped(&"g".repeat(63)), Ok(()));
    for bad in [" ", "a\n", &"g".repeat(64)] {
        assert!(matches!(grouped(bad), Err(InvalidMessage::MessageGroup(_))), "{bad:?}");
    }
}

#[test]
fn a_message_id_is_not_blank() {
    let id = |id: &str| verdict(&with_system(|s| s.message_id = id.into()));
    assert_eq!(id(&"i".repeat(255)), Ok(()));
    for bad in ["", " ", &"i".repeat(256)] {
        assert!(matches!(id(bad), Err(InvalidMessage::MessageId(_))), "{bad:?}");
    }
}

#[test]
fn a_lite_topic_has_at_most_64_bytes() {
    let lite = |name: &str| verdict(&with_system(|s| s.lite_topic = Some(name.into())));
    assert_eq!(lite(&"l".repeat(64)), Ok(()));
    assert_eq!(
        lite(&"l".repeat(65)),
        Err(InvalidMessage::LiteTopic(Flaw::TooLong { found: 65, max: 64 }))
    );
    assert_eq!(lite(" "), Err(InvalidMessage::LiteTopic(Flaw::Blank)));
}

#[test]
fn a_delivery_time_is_at_most_24_hours_ahead_and_may_have_passed() {
    let due = |at: Timestamp| verdict(&with_system(|s| s.delivery_timestamp = Some(at.into())));
    assert_eq!(due(NOW.minus(Duration::from_secs(20))), Ok(()));
    assert_eq!(due(NOW.plus(limits::DELAY)), Ok(()));
    let ahead = limits::DELAY + Duration::from_millis(1);
    assert_eq!(
        due(NOW.plus(ahead)),
        Err(InvalidMessage::DeliveryTime { ahead, max: limits::DELAY })
    );
    let longer = Rules { max_delay: Duration::from_hours(40 * 24), ..Rules::default() };
    let far = with_system(|s| s.delivery_timestamp = Some(NOW.plus(ahead).into()));
    assert_eq!(check(&far, &longer, NOW), Ok(()));
}

#[test]
fn a_transaction_recovers_within_an_hour() {
    let recovers = |seconds, nanos| {
        let wait = prost_types::Duration { seconds, nanos };
        verdict(&with_system(|s| s.orphaned_transaction_recovery_duration = Some(wait)))
    };
    let refused = Err(InvalidMessage::TransactionRecovery { max: limits::TRANSACTION_RECOVERY });
    assert_eq!(recovers(3600, 0), Ok(()));
    assert_eq!(recovers(3600, 1), refused);
    assert_eq!(recovers(-1, 0), refused);
}

#[test]
fn the_content_decides_the_type() {
    use v2::MessageType::{Delay, Fifo, Lite, Normal, Priority, Transaction};
    let group = |s: &mut v2::SystemProperties| s.message_group = Some("g".into());
    let delay = |s: &mut v2::SystemProperties| s.delivery_timestamp = Some(NOW.into());
    assert_eq!(message_type(&message()), Normal);
    assert_eq!(message_type(&with_system(group)), Fifo);
    assert_eq!(message_type(&with_system(delay)), Delay);
    assert_eq!(message_type(&with_system(|s| s.lite_topic = Some("l".into()))), Lite);
    assert_eq!(message_type(&with_system(|s| s.priority = Some(0))), Priority);
    assert_eq!(message_type(&with_system(|s| s.message_group = Some(String::new()))), Normal);
    let named_fifo = with_system(|s| s.message_type = Fifo as i32);
    assert_eq!(message_type(&named_fifo), Normal);
    let both = with_system(|s| {
        group(s);
        delay(s);
        s.message_type = Transaction as i32;
    });
    assert_eq!(message_type(&both), Transaction);
    assert_eq!(check_type(&message(), &[Fifo, Normal]), Ok(()));
    assert_eq!(check_type(&message(), &[Fifo]), Err(InvalidMessage::Type { found: Normal }));
}

#[test]
fn the_messages_of_a_request_share_a_topic() {
    let rules = Rules::default();
    assert_eq!(check_all(&[], &rules, NOW), Err(InvalidMessage::NoMessage));
    let topic = check_all(&[message(), message()], &rules, NOW).unwrap();
    assert_eq!(topic.as_str(), "orders");
    let other = with(|m| m.topic.as_mut().unwrap().name = "audit".into());
    assert_eq!(
        check_all(&[message(), other], &rules, NOW),
        Err(InvalidMessage::MixedTopics {
            one: "orders".parse().unwrap(),
            other: "audit".parse().unwrap()
        })
    );
}

#[test]
fn a_transactional_message_is_alone() {
    let half = with_system(|s| s.message_type = v2::MessageType::Transaction as i32);
    let rules = Rules::default();
    assert!(check_all(std::slice::from_ref(&half), &rules, NOW).is_ok());
    assert_eq!(
        check_all(&[message(), half], &rules, NOW),
        Err(InvalidMessage::TransactionNotAlone)
    );
}

#[test]
fn a_request_has_at_most_4096_messages_and_6_mib() {
    let request = |n: usize| SendMessageRequest::of(&vec![message(); n]);
    assert_eq!(decode(&request(4096)).unwrap().len(), 4096);
    assert_eq!(
        decode(&request(4097)),
        Err(InvalidMessage::TooManyMessages { found: 4097, max: 4096 })
    );
    let filled = |total: usize| {
        let mut messages = vec![message(), message()];
        messages[0].body = vec![0; limits::BODY_BYTES].into();
        let sum = |m: &[v2::Message]| m.iter().map(v2::Message::encoded_len).sum::<usize>();
        // The second body takes the rest: first with room for its length prefix, then exactly.
        let rest = total - sum(&messages) - 8;
        messages[1].body = vec![0; rest].into();
        let rest = rest + total - sum(&messages);
        messages[1].body = vec![0; rest].into();
        assert_eq!(sum(&messages), total);
        check_all(&messages, &Rules::default(), NOW)
    };
    assert!(filled(limits::SEND_BYTES).is_ok());
    let found = limits::SEND_BYTES + 1;
    assert_eq!(
        filled(found),
        Err(InvalidMessage::RequestTooLarge { found, max: limits::SEND_BYTES })
    );
}

#[test]
fn an_empty_or_corrupt_request_is_refused() {
    assert_eq!(decode(&SendMessageRequest::default()), Err(InvalidMessage::NoMessage));
    let mut request = SendMessageRequest::of(&[message(), message()]);
    request.messages[1] = request.messages[1].slice(..5);
    assert_eq!(decode(&request), Err(InvalidMessage::Undecodable { at: 1 }));
    // A tag that is not UTF-8: field 3 (system properties) with field 1 (tag) in it.
    request.messages[0] = bytes::Bytes::from_static(&[0x1a, 3, 0x0a, 1, 0xff]);
    assert_eq!(decode(&request), Err(InvalidMessage::Undecodable { at: 0 }));
}

#[test]
fn a_decoded_body_is_a_slice_of_the_request() {
    let request = SendMessageRequest::of(&[message()]);
    let wire = &request.messages[0];
    let body = decode(&request).unwrap().remove(0).body;
    assert!(wire.as_ptr_range().contains(&body.as_ptr()));
    // And the request itself keeps slices of what came from the network.
    let network = bytes::Bytes::from(request.encode_to_vec());
    let request = SendMessageRequest::decode(network.clone()).unwrap();
    assert!(network.as_ptr_range().contains(&request.messages[0].as_ptr()));
}

proptest! {
    /// Our hand-written request and the official one are the same bytes.
    #[test]
    fn a_request_is_the_same_on_the_wire(bodies in prop::collection::vec(".{1,20}", 0..5)) {
        #[derive(Clone, PartialEq, prost::Message)]
        struct Official {
            #[prost(message, repeated, tag = "1")]
            messages: Vec<v2::Message>,
        }
        let messages: Vec<_> =
            bodies.into_iter().map(|body| with(|m| m.body = body.into_bytes().into())).collect();
        let ours = SendMessageRequest::of(&messages).encode_to_vec();
        prop_assert_eq!(&ours, &Official { messages: messages.clone() }.encode_to_vec());
        let decoded = SendMessageRequest::decode(ours.as_slice()).unwrap();
        let back: Vec<_> =
            decoded.messages.iter().map(|m| v2::Message::decode(m.clone()).unwrap()).collect();
        prop_assert_eq!(back, messages);
    }

    #[test]
    fn no_bytes_make_the_checks_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let request = SendMessageRequest { messages: vec![bytes.into()] };
        if let Ok(messages) = decode(&request) {
            let _ = check_all(&messages, &Rules::default(), NOW);
        }
    }
}

#[test]
fn a_delivery_time_is_never_early() {
    let delayed = |seconds, nanos| v2::Message {
        system_properties: Some(v2::SystemProperties {
            delivery_timestamp: Some(prost_types::Timestamp { seconds, nanos }),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(delivery_time(&delayed(1, 5_000_000)), Some(Timestamp(1005)));
    assert_eq!(delivery_time(&delayed(1, 5_000_001)), Some(Timestamp(1006)));
    assert_eq!(delivery_time(&delayed(-1, 0)), Some(Timestamp(0)));
    assert_eq!(delivery_time(&v2::Message::default()), None);
}
