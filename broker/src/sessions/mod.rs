//! The clients of the whole cluster, as far as this leader was told of them.

mod clients;
mod couriers;
mod handed_out;

pub use couriers::{Couriers, DownSender, SessionId};
pub use handed_out::{End, HandedOut, Outgoing, Parcel};

pub use clients::{Client, Clients, Conflict, Departed, SILENCE};
