//! The clients of the whole cluster, as far as this leader was told of them.

mod clients;
mod couriers;

pub use couriers::{Couriers, DownSender, SessionId};

pub use clients::{Client, Clients, Conflict, Departed, SILENCE};
