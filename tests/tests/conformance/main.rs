//! What every official client may expect of a server, with the defaults: the same scenarios through
//! each library, all against one cluster. Java and Go run them in `large_clients.rs`.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]
#![allow(clippy::print_stderr, reason = "the times of scenarios are printed for the reader")]

mod scenarios;

use tests::official::LANGUAGES;

/// `MQTEST_SCENARIO` and `MQTEST_LANGUAGE` choose some of them.
#[tokio::test(flavor = "multi_thread")]
async fn every_library_finds_what_it_expects() {
    scenarios::run(&LANGUAGES).await;
}
