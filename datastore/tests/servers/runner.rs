//! Runs trials one after the other and prints what the usual test runner prints. Unlike that one, it learns while it
//! runs that something has to be ignored.

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

/// Longer than a trial takes on a busy machine.
const TRIAL_LIMIT: Duration = Duration::from_secs(180);

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A name and what to do.
pub(crate) struct Trial {
    pub(crate) name: &'static str,
    run: Box<dyn FnOnce() -> Work + Send>,
}

impl Trial {
    pub(crate) fn new<F: Future<Output = ()> + Send + 'static>(
        name: &'static str,
        run: impl FnOnce() -> F + Send + 'static,
    ) -> Self {
        Self { name, run: Box::new(move || Box::pin(run())) }
    }
}

pub(crate) struct Runner {
    filters: Vec<String>,
    list: bool,
    passed: usize,
    ignored: usize,
    failed: Vec<String>,
}

impl Runner {
    /// Takes words to look for in names, as the usual runner does; its switches mean nothing here.
    pub(crate) fn from_arguments() -> Self {
        let (switches, filters): (Vec<_>, Vec<_>) =
            std::env::args().skip(1).partition(|argument| argument.starts_with('-'));
        let list = switches.iter().any(|switch| switch == "--list");
        Self { filters, list, passed: 0, ignored: 0, failed: Vec::new() }
    }

    /// Runs the trials of one kind of server, which is started before the first of them that is wanted. What can't be
    /// started is the reason for which they are ignored.
    pub(crate) fn run_group(&mut self, group: &str, trials: Vec<Trial>, start: impl FnOnce() -> Result<(), String>) {
        let (mut start, mut started) = (Some(start), Ok(()));
        for trial in trials {
            let name = format!("{group}::{}", trial.name);
            if !self.wants(&name) {
                continue;
            }
            if let Some(start) = start.take() {
                started = start();
            }
            match &started {
                Ok(()) => self.run(&name, trial),
                Err(reason) => self.ignore(&name, reason),
            }
        }
    }

    /// Whether a trial was asked for.
    fn wants(&self, name: &str) -> bool {
        let wanted = self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter));
        if wanted && self.list {
            println!("{name}: test");
        }
        wanted && !self.list
    }

    /// Runs a trial in an event loop of its own.
    fn run(&mut self, name: &str, trial: Trial) {
        let thread = std::thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let event_loop = builder.worker_threads(2).enable_all().build().expect("an event loop");
            let limited = async { tokio::time::timeout(TRIAL_LIMIT, (trial.run)()).await };
            event_loop.block_on(limited).expect("the trial ends in time");
        });
        self.note(name, thread.join().is_ok());
    }

    fn ignore(&mut self, name: &str, reason: &str) {
        println!("test {name} ... ignored, {reason}");
        self.ignored += 1;
    }

    fn note(&mut self, name: &str, passed: bool) {
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if passed {
            self.passed += 1;
        } else {
            self.failed.push(name.to_owned());
        }
    }

    pub(crate) fn finish(self) -> ExitCode {
        if self.list {
            return ExitCode::SUCCESS;
        }
        for name in &self.failed {
            println!("failed: {name}");
        }
        let word = if self.failed.is_empty() { "ok" } else { "FAILED" };
        let Self { passed, ignored, failed, .. } = self;
        println!("\ntest result: {word}. {passed} passed; {} failed; {ignored} ignored", failed.len());
        if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
