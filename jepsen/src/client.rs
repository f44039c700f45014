//! Clients without a mind of their own: one request, one outcome, no retry, no cache of routes.

mod administration;
pub mod body;
mod listener;
mod membership;
pub mod message;
pub mod outcome;
pub mod rpc;
mod settings;
mod wire;

pub use listener::{Question, listen};
pub use outcome::Failure;
pub use rpc::Rpc;
pub use wire::{Known, Wire, wire_resolution};
