//! Log output: for people on a terminal, as JSON for machines, with priorities for journald, and into a file.
//!
//! Each line carries the path of the actor that wrote it as `actor`, `-` outside any. The path is not passed along by
//! hand: the runtime knows which actor it is polling on this thread. [`init`] is called once, by `main`; below it
//! everything uses the `tracing` macros and knows nothing of formats and files.

mod file;
mod format;
mod rotate;

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use k3sd_runtime::Clock;
use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, error};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

use crate::config::{LogConfig, LogFormat};

use self::file::{Drain, LogFile};
use self::format::{Formatter, Style};
use self::rotate::Limits;

/// The target of lines about panics; they are ours, wherever they come from.
const PANIC_TARGET: &str = "k3sd::panic";

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum LogError {
    /// The file of `--log` cannot be opened for writing, or its thread not be started.
    #[error("open log file {path:?}")]
    File {
        /// The file as it was asked for.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Somebody in this process has set up logging before.
    #[error("logging is set up already")]
    Twice,
}

/// Keeps the log file's thread. Drop it last: it waits, briefly, until what was logged is in the file.
#[derive(Debug)]
#[must_use = "dropping it ends the log file"]
pub struct LogGuard {
    _drain: Option<Drain>,
}

/// Sets up logging for the whole process, panics included. Call it once.
///
/// On an error nothing is set up; the log file and its directory may have been created.
pub fn init(config: &LogConfig, clock: &Clock) -> Result<LogGuard, LogError> {
    let (dispatch, guard) = build(config, clock, k3sd_runtime::current_path, stderr_style(config.format))?;
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| LogError::Twice)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(guard)
}

fn build(
    config: &LogConfig,
    clock: &Clock,
    actor: fn() -> Option<Arc<str>>,
    stderr: Style,
) -> Result<(Dispatch, LogGuard), LogError> {
    let formatter = |style| Formatter { style, clock: clock.clone(), actor };
    let (file, drain) = match &config.file {
        None => (None, None),
        Some(path) => {
            let style = file_style(config.format);
            let (file, drain) = LogFile::open(path, Limits::K3S, formatter(style))
                .map_err(|source| LogError::File { path: path.clone(), source })?;
            let layer = tracing_subscriber::fmt::layer().event_format(formatter(style)).with_writer(file);
            (Some(layer), Some(drain))
        }
    };
    let to_stderr = file.is_none() || config.also_stderr;
    let stderr =
        to_stderr.then(|| tracing_subscriber::fmt::layer().event_format(formatter(stderr)).with_writer(io::stderr));
    let subscriber = tracing_subscriber::registry().with(levels(config)).with(file).with(stderr);
    Ok((Dispatch::new(subscriber), LogGuard { _drain: drain }))
}

/// Our own lines at the level that was asked for. Libraries only have something to say when things go wrong, or to
/// somebody who asks for everything.
fn levels(config: &LogConfig) -> Targets {
    let (ours, libraries) = match (config.debug, config.verbosity) {
        (_, 8..) => (LevelFilter::TRACE, LevelFilter::DEBUG),
        (_, 6..) => (LevelFilter::TRACE, LevelFilter::INFO),
        (true, _) | (_, 4..) => (LevelFilter::DEBUG, LevelFilter::INFO),
        _ => (LevelFilter::INFO, LevelFilter::WARN),
    };
    // One prefix for all our crates: k3sd, k3sd_runtime, k3sd_kine, ...
    Targets::new().with_target("k3sd", ours).with_default(libraries)
}

/// What standard error gets; `auto` looks at what it is connected to.
fn stderr_style(format: LogFormat) -> Style {
    match format {
        LogFormat::Json => Style::Json,
        LogFormat::Journald => Style::Journald,
        LogFormat::Auto if stderr_is_journal() => Style::Journald,
        LogFormat::Auto | LogFormat::Text => Style::Text { colours: stderr_wants_colours() },
    }
}

/// A file has neither colours nor a journald behind it.
fn file_style(format: LogFormat) -> Style {
    match format {
        LogFormat::Json => Style::Json,
        LogFormat::Auto | LogFormat::Text | LogFormat::Journald => Style::Text { colours: false },
    }
}

/// systemd names the device and inode of the stream it made for us. A child with redirected output inherits the
/// variable but not the stream, so the numbers are compared.
fn stderr_is_journal() -> bool {
    let Some(announced) = environment("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(io::stderr().as_fd()).is_ok_and(|stat| announced == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// A terminal, unless the user (`NO_COLOR`, any value) or the terminal itself (`TERM=dumb`) says otherwise.
fn stderr_wants_colours() -> bool {
    let refused = environment("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !refused && environment("TERM").is_none_or(|term| term != "dumb")
}

#[expect(clippy::disallowed_methods, reason = "called by main, about the stream this process was started with")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// One line for a panic, in the format of all others. What follows from it is up to the actor's supervisor.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("a value that is not text");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let backtrace = std::backtrace::Backtrace::capture();
    if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
        error!(target: PANIC_TARGET, location, thread, %backtrace, "panicked: {message}");
    } else {
        error!(target: PANIC_TARGET, location, thread, "panicked: {message}");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tracing::{debug, info, trace};

    use super::*;

    fn written(config: &LogConfig, body: fn()) -> String {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("logs/k3sd.log");
        let config = LogConfig { file: Some(path.clone()), ..config.clone() };
        let actor = || Some(Arc::from("server"));
        let (dispatch, guard) = build(&config, &Clock::system(), actor, Style::Journald).unwrap();
        tracing::dispatcher::with_default(&dispatch, body);
        drop(guard);
        fs::read_to_string(path).unwrap()
    }

    fn levels_of(config: LogConfig) -> Vec<String> {
        let text = written(&config, || {
            info!(target: "k3sd_kine", "ours");
            debug!(target: "k3sd_kine", "ours");
            trace!(target: "k3sd_kine", "ours");
            info!(target: "hyper::proto", "theirs");
            debug!(target: "hyper::proto", "theirs");
        });
        text.lines().map(|line| format!("{} {}", &line[25..30], line.rsplit(' ').next().unwrap())).collect()
    }

    #[test]
    fn the_file_gets_plain_text_with_the_actor() {
        let text = written(&LogConfig::default(), || info!(target: "k3sd", "up"));
        assert!(text.ends_with("Z INFO  actor=server k3sd: up\n"), "{text:?}");
    }

    #[test]
    fn the_file_gets_json_when_asked() {
        let config = LogConfig { format: LogFormat::Json, ..LogConfig::default() };
        let text = written(&config, || info!(target: "k3sd", "up"));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["actor"], "server");
    }

    #[test]
    fn levels_follow_debug_and_verbosity() {
        let at = |debug, verbosity| levels_of(LogConfig { debug, verbosity, ..LogConfig::default() });
        assert_eq!(at(false, 0), ["INFO  ours"]);
        assert_eq!(at(true, 0), ["INFO  ours", "DEBUG ours", "INFO  theirs"]);
        assert_eq!(at(false, 4), at(true, 0));
        assert_eq!(at(false, 6), ["INFO  ours", "DEBUG ours", "TRACE ours", "INFO  theirs"]);
        assert_eq!(at(true, 8).len(), 5);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let config = LogConfig { file: Some(PathBuf::from("/proc/none/k3sd.log")), ..LogConfig::default() };
        let error = build(&config, &Clock::system(), || None, Style::Json).err().unwrap();
        assert_eq!(error.to_string(), "open log file \"/proc/none/k3sd.log\"");
    }
}
