//! The contract of a store, run against database servers: those of the Debian packages, started here on loopback with
//! directories of their own, and stopped at the end. What can't be started is reported as ignored, with the reason,
//! which is why this brings its own runner.

#[path = "../contract/compaction.rs"]
mod compaction;
mod etcd;
mod mariadb;
mod postgres;
mod process;
#[path = "../contract/reads.rs"]
mod reads;
#[path = "../contract/rules.rs"]
mod rules;
mod runner;
mod shared;
#[path = "../contract/subject.rs"]
#[expect(dead_code, reason = "shared with the suite that also opens files")]
mod subject;
#[path = "../contract/watches.rs"]
mod watches;
#[path = "../contract/writes.rs"]
mod writes;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;

/// Makes a store for a trial, in the event loop of the trial.
type Open = fn() -> Pin<Box<dyn Future<Output = subject::Subject> + Send>>;

/// A trial for each rule.
macro_rules! contract {
    ($($module:ident: $($rule:ident),* $(,)?;)*) => {
        /// The rules of the contract by name, each for a store that is made for it.
        fn contract(open: Open) -> Vec<runner::Trial> {
            vec![$($(runner::Trial::new(
                stringify!($rule),
                move || async move { crate::$module::$rule(open().await).await },
            )),*),*]
        }
    };
}

rules::for_each_rule!(contract);

fn main() -> ExitCode {
    let mut runner = runner::Runner::from_arguments();
    postgres::run(&mut runner);
    mariadb::run(&mut runner);
    etcd::run(&mut runner);
    runner.finish()
}
