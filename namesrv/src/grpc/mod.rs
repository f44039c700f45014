//! What the NameServer serves besides clients.

mod registry;

pub(crate) use registry::RegistryService;
