//! A message as it goes over the wire: checked, named, encoded once.

use bytes::Bytes;
use prost::Message as _;
use proto::{Timestamp, clock, limits, message as rules, v2};

use crate::{
    ClientConfig, Error, Message, compression::compress, ids, message::Deliver, route::Route,
    settings::ServerSettings,
};

/// Ready to be sent, as often as it takes, with the same id each time.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) topic: String,
    pub(crate) message_group: Option<String>,
    pub(crate) message_id: String,
    pub(crate) encoded: Bytes,
}

/// What the producer adds to each message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packing<'a> {
    pub(crate) config: &'a ClientConfig,
    pub(crate) settings: &'a ServerSettings,
    pub(crate) route: &'a Route,
    /// Bodies from this size on are compressed.
    pub(crate) compress_from: Option<usize>,
    pub(crate) transactional: bool,
    pub(crate) queue_id: i32,
}

impl Outgoing {
    /// Checks a message by the server's rules, so that what is refused costs no round trip.
    pub(crate) fn pack(
        message: Message,
        packing: Packing<'_>,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let kind = match packing.transactional {
            true => v2::MessageType::Transaction,
            false => message.kind(),
        };
        let (body, encoding) = pack_body(message.body, packing.compress_from);
        let message_id = ids::message_id();
        let deliver = message.deliver.map(|deliver| match deliver {
            Deliver::At(time) => time,
            Deliver::After(delay) => now.plus(delay),
        });
        let system = v2::SystemProperties {
            tag: message.tag,
            keys: message.keys,
            message_id: message_id.clone(),
            body_encoding: encoding.into(),
            message_type: kind.into(),
            born_timestamp: Some(now.into()),
            born_host: ids::host_once().to_owned(),
            delivery_timestamp: deliver.map(Into::into),
            queue_id: packing.queue_id,
            message_group: message.message_group.clone(),
            trace_context: message.trace_context,
            orphaned_transaction_recovery_duration: message.recovery.map(clock::to_wire),
            ..Default::default()
        };
        let wire = v2::Message {
            topic: Some(packing.config.resource(&message.topic)),
            user_properties: message.properties.into_iter().collect(),
            system_properties: Some(system),
            body,
        };
        // How far ahead is too far only the server knows.
        let max_delay = std::time::Duration::MAX;
        let max_body = packing.settings.max_body.min(limits::GRPC_BYTES);
        rules::check(&wire, &rules::Rules { max_body, max_delay }, now)?;
        if packing.settings.validate_type && !packing.route.accepts.is_empty() {
            rules::check_type(&wire, &packing.route.accepts)?;
        }
        Ok(Self {
            topic: message.topic,
            message_group: message.message_group,
            message_id,
            encoded: wire.encode_to_vec().into(),
        })
    }
}

/// Compressed, if that was asked for and makes it smaller.
fn pack_body(body: Bytes, compress_from: Option<usize>) -> (Bytes, v2::Encoding) {
    if compress_from.is_some_and(|from| body.len() >= from) {
        let packed = compress(&body);
        if packed.len() < body.len() {
            return (packed, v2::Encoding::Gzip);
        }
    }
    (body, v2::Encoding::Identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fate;

    fn pack_with(
        message: Message,
        change: impl Fn(&mut Packing<'_>),
    ) -> Result<v2::Message, Error> {
        let config = ClientConfig::new("h:1").unwrap().namespace("shop");
        let (settings, route) = (ServerSettings::default(), Route::default());
        let mut packing = Packing {
            config: &config,
            settings: &settings,
            route: &route,
            compress_from: None,
            transactional: false,
            queue_id: 3,
        };
        change(&mut packing);
        let outgoing = Outgoing::pack(message, packing, Timestamp(1_000_000))?;
        Ok(v2::Message::decode(outgoing.encoded).unwrap())
    }

    #[test]
    fn a_message_carries_everything_that_it_was_given() {
        let message = Message::new("orders", "body")
            .tag("t")
            .key("k")
            .property("p", "v")
            .deliver_after(std::time::Duration::from_secs(5));
        let wire = pack_with(message, |_| {}).unwrap();
        assert_eq!(wire.topic.unwrap().resource_namespace, "shop");
        assert_eq!(wire.user_properties["p"], "v");
        let system = wire.system_properties.unwrap();
        assert_eq!((system.tag(), system.keys.as_slice()), ("t", &["k".to_owned()][..]));
        assert_eq!(system.message_type(), v2::MessageType::Delay);
        let due = Timestamp::from(&system.delivery_timestamp.unwrap());
        assert_eq!((due, system.queue_id), (Timestamp(1_005_000), 3));
    }

    #[test]
    fn what_the_server_would_refuse_is_refused_here() {
        let wrong = [
            Message::new("orders", ""),
            Message::new("no topic", "x"),
            Message::new("orders", "x").tag("a|b"),
            Message::new("orders", "x").message_group(" "),
            Message::new("orders", "x").property("KEYS", "v"),
        ];
        for message in wrong {
            let end = pack_with(message.clone(), |_| {}).unwrap_err();
            assert_eq!(end.fate(), Fate::Rejected, "{message:?}");
        }
    }

    #[test]
    fn a_type_that_the_topic_does_not_take_is_refused_unless_the_server_checks_nothing() {
        let fifo = || Message::new("orders", "x").message_group("g");
        let route = Route { accepts: vec![v2::MessageType::Normal], ..Default::default() };
        let (strict, lax) = (
            ServerSettings::default(),
            ServerSettings { validate_type: false, ..Default::default() },
        );
        let send = |settings: &ServerSettings| {
            let config = ClientConfig::new("h:1").unwrap();
            let (route, compress_from) = (&route, None);
            let packing = Packing {
                config: &config,
                settings,
                route,
                compress_from,
                transactional: false,
                queue_id: 0,
            };
            Outgoing::pack(fifo(), packing, Timestamp(0))
        };
        assert!(send(&strict).is_err());
        assert!(send(&lax).is_ok());
    }

    #[test]
    fn only_bodies_that_get_smaller_are_compressed() {
        let long = Message::new("orders", "ab".repeat(5000));
        let wire = pack_with(long, |packing| packing.compress_from = Some(4096)).unwrap();
        assert_eq!(wire.system_properties.unwrap().body_encoding(), v2::Encoding::Gzip);
        let noise: Vec<u8> = (0..5000).map(|_| rand::random()).collect();
        let wire = pack_with(Message::new("orders", noise), |packing| {
            packing.compress_from = Some(4096);
        })
        .unwrap();
        assert_eq!(wire.system_properties.unwrap().body_encoding(), v2::Encoding::Identity);
    }
}
