//! The checkers must be able to fail, and must not fail without a reason.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]
#![allow(clippy::unwrap_used, reason = "a test may stop")]
#![allow(unreachable_pub, reason = "the modules of one test program")]

mod benign;
mod edit;
mod files;
mod mutations;
mod program;
mod registers;
mod sound;
mod world;
