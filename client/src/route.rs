//! Where the queues of a topic are, as the server says.

use std::{fmt, sync::Arc};

use proto::v2;

use crate::{Error, address::Address};

/// One queue of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageQueue {
    topic: Arc<str>,
    broker_name: Arc<str>,
    id: i32,
}

impl MessageQueue {
    pub(crate) fn new(topic: &str, broker_name: &str, id: i32) -> Self {
        Self { topic: topic.into(), broker_name: broker_name.into(), id }
    }

    /// The topic, without a namespace.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The broker group that holds it.
    #[must_use]
    pub fn broker_name(&self) -> &str {
        &self.broker_name
    }

    /// Its number at that broker, from 0.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.id
    }
}

impl fmt::Display for MessageQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.topic, self.broker_name, self.id)
    }
}

/// A queue and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Placed {
    pub(crate) queue: MessageQueue,
    pub(crate) address: Address,
}

/// The queues of one topic. Lists may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) writable: Vec<Placed>,
    pub(crate) readable: Vec<Placed>,
    /// What the topic takes; empty when the server does not say.
    pub(crate) accepts: Vec<v2::MessageType>,
}

impl Route {
    /// Only queues of leaders (broker id 0) count. One without a usable address is left out.
    pub(crate) fn from_wire(topic: &str, queues: &[v2::MessageQueue]) -> Self {
        let mut route = Self::default();
        for wire in queues {
            let Some(placed) = placed(topic, wire) else { continue };
            let permission = wire.permission();
            if matches!(permission, v2::Permission::Write | v2::Permission::ReadWrite) {
                route.writable.push(placed.clone());
            }
            if matches!(permission, v2::Permission::Read | v2::Permission::ReadWrite) {
                route.readable.push(placed);
            }
            if route.accepts.is_empty() {
                route.accepts = wire.accept_message_types().collect();
            }
        }
        route
    }

    /// Every address that it names, once.
    pub(crate) fn addresses(&self) -> Vec<Address> {
        let mut all: Vec<Address> = Vec::new();
        for placed in self.writable.iter().chain(&self.readable) {
            if !all.contains(&placed.address) {
                all.push(placed.address.clone());
            }
        }
        all
    }

    pub(crate) fn writable(&self, topic: &str) -> Result<&[Placed], Error> {
        some(&self.writable, topic, "writable")
    }

    pub(crate) fn readable(&self, topic: &str) -> Result<&[Placed], Error> {
        some(&self.readable, topic, "readable")
    }
}

fn some<'a>(queues: &'a [Placed], topic: &str, what: &'static str) -> Result<&'a [Placed], Error> {
    match queues.is_empty() {
        true => Err(Error::NoQueue { topic: topic.to_owned(), what }),
        false => Ok(queues),
    }
}

/// A queue of a leader with its address.
pub(crate) fn placed(topic: &str, wire: &v2::MessageQueue) -> Option<Placed> {
    let broker = wire.broker.as_ref().filter(|broker| broker.id == 0)?;
    let address = Address::from_wire(broker.endpoints.as_ref())?;
    Some(Placed { queue: MessageQueue::new(topic, &broker.name, wire.id), address })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn wire(
        name: &str,
        id: i32,
        permission: v2::Permission,
        address: &str,
    ) -> v2::MessageQueue {
        let endpoints = address.parse::<Address>().ok().map(|address| address.to_wire());
        v2::MessageQueue {
            topic: None,
            id,
            permission: permission.into(),
            broker: Some(v2::Broker { name: name.into(), id: 0, endpoints }),
            accept_message_types: vec![v2::MessageType::Normal.into()],
        }
    }

    #[test]
    fn permission_decides_who_uses_a_queue() {
        let queues = [
            wire("a", 0, v2::Permission::ReadWrite, "h:1"),
            wire("a", 1, v2::Permission::Read, "h:1"),
            wire("b", 0, v2::Permission::Write, "h:2"),
            wire("b", 1, v2::Permission::None, "h:2"),
        ];
        let route = Route::from_wire("t", &queues);
        let text = |queues: &[Placed]| -> Vec<String> {
            queues.iter().map(|placed| placed.queue.to_string()).collect()
        };
        assert_eq!(text(&route.writable), ["t@a:0", "t@b:0"]);
        assert_eq!(text(&route.readable), ["t@a:0", "t@a:1"]);
        assert_eq!(route.accepts, [v2::MessageType::Normal]);
        assert_eq!(route.addresses().len(), 2);
    }

    #[test]
    fn queues_of_replicas_and_without_address_are_left_out() {
        let mut replica = wire("a", 0, v2::Permission::ReadWrite, "h:1");
        replica.broker.as_mut().unwrap().id = 1;
        let lost = wire("b", 0, v2::Permission::ReadWrite, "nowhere");
        let route = Route::from_wire("t", &[replica, lost]);
        assert!(matches!(route.writable("t"), Err(Error::NoQueue { what: "writable", .. })));
        assert!(route.readable("t").is_err());
    }
}
