//! The rules of the contract by name: the one list that every suite is made from.

/// Calls a macro with each module of rules and the rules in it.
macro_rules! for_each_rule {
    ($callback:ident) => {
        $callback! {
            writes:
                a_created_key_is_there,
                a_live_key_is_not_created_again,
                an_update_needs_the_exact_revision,
                a_delete_needs_the_exact_revision_or_none,
                a_deleted_key_is_created_anew,
                an_unconditional_write_creates_and_replaces,
                only_a_change_takes_a_revision,
                the_latest_revision_is_never_behind,
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
    };
}
pub(crate) use for_each_rule;
