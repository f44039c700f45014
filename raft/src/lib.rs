//! One broker group's consensus.
