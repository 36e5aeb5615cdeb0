//! The contract of a store as tests, one per rule, run against every store: a fake that has not passed them is not
//! used. Below them, what is SQLite's alone: its file, its crashes and its disk.

mod compaction;
mod crash;
mod damage;
mod full_disk;
mod growth;
mod kine_layout;
mod lifecycle;
mod long_lists;
mod model;
mod reads;
mod rules;
mod subject;
mod watches;
mod writes;

/// A test of each rule for each store.
macro_rules! contract {
    ($($module:ident: $($rule:ident),* $(,)?;)*) => {
        mod memory {
            $($(#[tokio::test] async fn $rule() { crate::$module::$rule(crate::subject::memory()).await; })*)*
        }
        mod sqlite {
            $($(
                // Writes and watches at once are what several threads are for.
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() { crate::$module::$rule(crate::subject::sqlite()).await; }
            )*)*
        }
        mod sqlite_without_cache {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() { crate::$module::$rule(crate::subject::sqlite_without_cache()).await; }
            )*)*
        }
    };
}

rules::for_each_rule!(contract);
