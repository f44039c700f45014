//! The wire: message types, and the validated words that they parse into.
//!
//! Generated modules hold what travels; everything else turns it into types that were checked once
//! and are trusted from then on.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod backup;
pub mod clock;
pub mod filter;
pub mod framed;
pub mod header;
pub mod hop;
pub mod limits;
pub mod message;
pub mod name;
pub mod operator;
pub mod position;
pub mod recall_handle;
pub mod receipt_handle;
mod send_message;
pub mod text;
pub mod transaction_id;
pub mod wire;

pub use clock::Timestamp;
pub use filter::{Filter, InvalidFilter, TagFilter, tag_hash};
pub use message::InvalidMessage;
pub use name::{
    BrokerName, ClientId, ConsumerGroup, InvalidName, MessageGroup, MessageId, Topic, Word,
};
pub use position::{Queue, QueueId, QueueOffset};
pub use recall_handle::{InvalidRecallHandle, RecallHandle};
pub use receipt_handle::{InvalidReceiptHandle, ReceiptHandle};
pub use send_message::SendMessageRequest;
pub use transaction_id::{InvalidTransactionId, TransactionId};

/// `apache.rocketmq.v2`: what the official clients speak.
pub mod v2 {
    #![allow(
        missing_debug_implementations,
        unreachable_pub,
        unused_qualifications,
        clippy::all,
        clippy::allow_attributes_without_reason,
        clippy::doc_markdown,
        reason = "generated"
    )]
    pub use crate::SendMessageRequest;
    tonic::include_proto!("apache.rocketmq.v2");
}

/// A module of what is generated for one of our own packages.
macro_rules! ours {
    ($(#[$doc:meta])* $name:ident, $package:literal) => {
        $(#[$doc])*
        pub mod $name {
            #![allow(
                missing_debug_implementations,
                unreachable_pub,
                unused_qualifications,
                clippy::all,
                clippy::allow_attributes_without_reason,
                reason = "generated"
            )]
            tonic::include_proto!($package);
        }
    };
}

ours! {
    /// `raftmq.raft.v1`: the replicas of one broker group among themselves.
    raft_rpc, "raftmq.raft.v1"
}
ours! {
    /// `raftmq.registry.v1`: brokers and access points to NameServers.
    registry, "raftmq.registry.v1"
}
ours! {
    /// `raftmq.session.v1`: access points to the leaders of broker groups.
    session, "raftmq.session.v1"
}
ours! {
    /// `raftmq.admin.v1`: administration.
    admin, "raftmq.admin.v1"
}
ours! {
    /// `raftmq.replicas.v1`: comparing the replicas of a broker group.
    replicas, "raftmq.replicas.v1"
}
ours! {
    /// `raftmq.produce.v1`: sends in a stream.
    produce, "raftmq.produce.v1"
}

ours! {
    /// `raftmq.backup.v1`: copies of a broker group for safe-keeping.
    backup_rpc, "raftmq.backup.v1"
}

/// Every message and service above as a serialized `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
