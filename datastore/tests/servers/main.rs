//! The contract of a store, run against database servers: those of the Debian packages, started here on loopback with
//! directories of their own, and stopped at the end. What can't be started is reported as ignored, with the reason,
//! which is why this brings its own runner.

#[path = "../contract/compaction.rs"]
mod compaction;
mod postgres;
#[path = "../contract/reads.rs"]
mod reads;
mod runner;
mod server;
#[path = "../contract/subject.rs"]
#[expect(dead_code, reason = "shared with the suite that also opens files")]
mod subject;
#[path = "../contract/watches.rs"]
mod watches;
#[path = "../contract/writes.rs"]
mod writes;

use std::process::ExitCode;

/// A trial for each rule.
macro_rules! rules {
    ($($module:ident: $($rule:ident),* $(,)?;)*) => {
        /// The rules of the contract by name, each for a store that is made for it.
        fn contract(open: runner::Open) -> Vec<runner::Trial> {
            vec![$($(runner::Trial::new(
                stringify!($rule),
                move || async move { crate::$module::$rule(open().await).await },
            )),*),*]
        }
    };
}

rules! {
    writes:
        a_created_key_is_there,
        a_live_key_is_not_created_again,
        an_update_needs_the_exact_revision,
        a_delete_needs_the_exact_revision_or_none,
        a_deleted_key_is_created_anew,
        an_unconditional_write_creates_and_replaces,
        only_a_change_takes_a_revision,
        names_of_the_store_are_refused,
        keys_and_values_are_any_bytes,
        of_many_creators_one_wins,
        concurrent_increments_lose_nothing;
    reads:
        a_read_sees_one_revision,
        a_list_is_in_order_and_within_its_range,
        pages_at_a_revision_fit_together,
        a_limit_tells_whether_there_is_more,
        a_list_carries_the_revision_of_the_store,
        keys_only_and_expiring_only,
        a_count_counts_live_keys,
        the_future_is_refused;
    watches:
        from_now_on_only_what_is_new,
        the_past_comes_first_and_complete,
        only_the_range_is_watched,
        past_and_present_join_without_gap_or_duplicate,
        a_start_in_the_future_waits_for_it,
        a_slow_watcher_is_cut_and_can_go_on,
        progress_comes_behind_the_events,
        a_dropped_wait_loses_nothing,
        a_past_event_equals_the_one_that_was_live;
    compaction:
        history_is_gone_and_the_present_is_not,
        the_compacted_revision_itself_can_be_read,
        a_watch_from_compacted_history_is_refused,
        a_compaction_needs_a_revision_between,
        a_deleted_key_leaves_nothing_and_comes_back,
        the_newest_revision_survives_its_compaction,
        a_watcher_of_the_past_learns_of_a_compaction,
        writes_and_reads_go_on_meanwhile;
}

fn main() -> ExitCode {
    let mut runner = runner::Runner::from_arguments();
    runner.check("every_rule_of_the_contract_is_here", every_rule_is_here);
    postgres::run(&mut runner);
    runner.finish()
}

/// The list above is a copy; this is what keeps it complete.
fn every_rule_is_here() {
    let here = include_str!("main.rs");
    let indented = include_str!("../contract/main.rs").lines().filter_map(|line| line.strip_prefix("        "));
    for line in indented.filter(|line| line.starts_with(char::is_lowercase) && line.ends_with([',', ';'])) {
        assert!(here.lines().any(|own| own.trim() == line), "the rule {line} is missing in servers/main.rs");
    }
}
