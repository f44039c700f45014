//! The fault suite.
