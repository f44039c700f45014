//! The edge: translation between the wire and the operations, one file an RPC.

mod ack_message;
mod admin;
mod admin_node;
mod admin_queries;
mod administration;
mod backup;
mod change_invisible_duration;
mod end_transaction;
mod forward_to_dead_letter_queue;
mod guard;
mod local;
mod membership;
mod offsets;
mod pull_message;
mod recall_message;
mod receive_message;
mod replicas;
mod send_message;
mod sessions;
pub mod status;

pub use admin::LocalAdmin;
pub use backup::BackupService;
pub use guard::Guard;
pub use local::Edge;
pub use replicas::ReplicaService;
pub use sessions::SessionService;
