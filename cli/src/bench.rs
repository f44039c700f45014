//! `mqbench`.
