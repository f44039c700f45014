//! Administration at an access point: each call goes to the leaders of the broker groups concerned,
//! and their answers become one.

mod calls;
mod fanout;
mod members;
mod merge;
mod queries;
mod settings;
mod switch;
mod topics;

pub use self::{fanout::AdminFanout, switch::AdminSwitch};
