//! The clients of the whole cluster, as far as this leader was told of them.

mod clients;

pub use clients::{Client, Clients, Conflict, Departed, SILENCE};
