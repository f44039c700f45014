//! Scenarios by what they check, and the one cluster on which all of them run at once.

use std::fmt::Write;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use tests::Cluster;
use tests::official::Language;

mod abilities;
mod acknowledging;
mod delayed;
mod filters;
mod groups;
mod messages;
mod missing;
mod ordered;
mod sharing;
mod sizes;
mod stage;
mod starting;
mod transactions;
mod types;

use stage::Stage;

/// Scenarios of one library at a time. Most of them wait most of the time.
const AT_ONCE: usize = 12;
/// The longest that one may take, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(150);

struct Scenario<'a> {
    name: &'static str,
    run: Pin<Box<dyn Future<Output = ()> + 'a>>,
}

/// The functions of a module as scenarios.
macro_rules! scenarios {
    ($stage:ident: $($name:path),+ $(,)?) => {
        vec![$(Scenario { name: stringify!($name), run: Box::pin($name($stage)) }),+]
    };
}

/// The slow ones first: they set the time that everything takes.
fn all<'a>(stage: &'a Stage<'a>) -> Vec<Scenario<'a>> {
    scenarios![stage:
        acknowledging::a_changed_duration_counts_from_its_change,
        transactions::a_producer_that_is_asked_commits,
        transactions::a_producer_that_is_asked_rolls_back,
        ordered::an_unacknowledged_head_blocks_its_message_group,
        ordered::a_batch_begins_again_at_its_first_unacknowledged_message,
        acknowledging::a_late_acknowledgement_is_told_so,
        starting::an_empty_poll_waits_as_long_as_it_should,
        starting::what_is_missing_is_told,
        delayed::messages_arrive_at_their_time,
        delayed::a_time_that_has_passed_means_now,
        delayed::a_time_too_far_ahead_is_refused,
        delayed::a_message_can_be_recalled,
        ordered::two_message_groups_arrive_in_order,
        ordered::a_retry_keeps_the_order,
        ordered::a_filtered_message_group_keeps_its_order,
        groups::every_group_gets_everything,
        sharing::consumers_of_a_group_share_its_messages,
        sharing::what_a_listener_fails_comes_again,
        sharing::groups_retry_on_their_own,
        filters::tags_choose_messages,
        filters::properties_choose_messages,
        filters::a_wrong_expression_is_refused,
        messages::limits_hold_to_the_byte,
        messages::what_is_wrong_is_refused_with_its_code,
        messages::reserved_property_names_are_refused,
        messages::any_script_comes_back_as_it_was,
        sizes::the_largest_bodies_of_every_type_are_taken,
        missing::a_producer_needs_a_configuration,
        missing::a_simple_consumer_needs_its_parts,
        missing::a_push_consumer_needs_its_parts,
        starting::producers_start,
        starting::calls_that_do_not_wait_end_alike,
        starting::names_that_cannot_be_are_refused,
        starting::invisible_durations_have_bounds,
        starting::answers_have_a_bound,
        acknowledging::what_is_acknowledged_does_not_come_again,
        transactions::a_producer_commits_and_rolls_back,
        types::a_topic_takes_messages_of_its_type_only,
        types::a_priority_needs_a_topic_that_takes_it,
    ]
}

/// Runs every scenario with every one of these libraries.
///
/// # Panics
/// When one of them fails, at the end of all.
pub(crate) async fn run(languages: &[Language]) {
    let chosen = |variable: &str, name: &str| match std::env::var(variable) {
        Ok(part) => name.contains(&part),
        Err(_) => true,
    };
    let cluster = Cluster::of(3).start().await;
    let languages = languages.iter().filter(|l| chosen("MQTEST_LANGUAGE", l.name()));
    let stages = futures::future::join_all(languages.map(|l| Stage::new(&cluster, *l))).await;
    let runs = stages.iter().map(|stage| async {
        let scenarios = all(stage).into_iter().filter(|s| chosen("MQTEST_SCENARIO", s.name));
        let failed = futures::stream::iter(scenarios)
            .map(|scenario| perform(stage, scenario))
            .buffer_unordered(AT_ONCE);
        failed.filter_map(std::future::ready).collect::<Vec<String>>().await
    });
    let failed: Vec<String> = futures::future::join_all(runs).await.into_iter().flatten().collect();
    drop(stages);
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    cluster.finish().await;
}

/// Runs one scenario, and returns what went wrong.
async fn perform(stage: &Stage<'_>, scenario: Scenario<'_>) -> Option<String> {
    let (start, mut what) = (Instant::now(), format!("{} {}", stage.name(), scenario.name));
    let result =
        tokio::time::timeout(PATIENCE, AssertUnwindSafe(scenario.run).catch_unwind()).await;
    let problem = match result {
        Ok(Ok(())) => None,
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
            Some(text.unwrap_or_else(|| "a panic without a text".to_owned()))
        }
        Err(_) => Some(format!("not done in {PATIENCE:?}")),
    };
    let _ = write!(what, " ({:.1} s)", start.elapsed().as_secs_f32());
    eprintln!("{what}: {}", if problem.is_some() { "FAILED" } else { "ok" });
    problem.map(|problem| format!("{what}: {problem}"))
}
