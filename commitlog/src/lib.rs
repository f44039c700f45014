//! The replicated log as files.
