//! `--log FILE`: a bounded queue in front of a thread that owns the file.
//!
//! ```text
//! actors ── try_send, never waits ──▶ queue ──▶ thread "log-file" ──▶ RotatingFile
//!              │ full                              │ rotated
//!              └─▶ lost += 1                       └─▶ thread "log-sweep": compress, delete
//! ```
//!
//! Invariant: logging never waits for the disk. What does not fit, or could not be written, is counted, and the count is
//! itself written as a line as soon as the file takes lines again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

use super::format::{Formatter, wall};
use super::rotate::{Limits, RotatingFile, sweep};

/// Lines that may wait: about a second of a very talkative node while the disk stalls.
const QUEUE_LINES_MAX: usize = 4096;

/// Bytes that may wait. Memory counts on small nodes, and a single line may be long.
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// How long the end of the process waits for the queue to drain: a hung disk must not keep it alive.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// The target of lines that the log writes about itself.
const TARGET: &str = "k3sd::logging";

/// What travels through the queue.
#[derive(Debug)]
enum Item {
    /// A whole line with its end.
    Line(Vec<u8>),
    /// Wakes an idle thread so that it sees `draining`.
    Wake,
}

/// What both ends of the queue know.
#[derive(Debug, Default)]
struct Shared {
    lost: AtomicU64,
    queued_bytes: AtomicUsize,
    draining: AtomicBool,
}

/// The writing end: what the subscriber holds.
#[derive(Clone, Debug)]
pub(crate) struct LogFile {
    queue: SyncSender<Item>,
    shared: Arc<Shared>,
}

impl LogFile {
    /// Opens the file and starts its thread. Fails when the file cannot be opened or the thread not be started.
    pub(crate) fn open(path: &Path, limits: Limits, formatter: Formatter) -> io::Result<(Self, Drain)> {
        // The server changes its directory later; the name must go on meaning the same file.
        let path = std::path::absolute(path)?;
        let file = RotatingFile::open(&path, limits)?;
        let (log, items) = Self::queue();
        let (running, done) = sync_channel::<()>(0);
        let worker = Worker {
            file,
            path,
            limits,
            formatter,
            log: log.clone(),
            sweeping: None,
            failure: None,
            _running: running,
        };
        drop(spawn("log-file", move || worker.run(&items))?);
        Ok((log.clone(), Drain { done, log }))
    }

    fn queue() -> (Self, Receiver<Item>) {
        let (queue, items) = sync_channel(QUEUE_LINES_MAX);
        (Self { queue, shared: Arc::default() }, items)
    }

    /// Queues one line, or counts it as lost. Never waits.
    fn send(&self, line: &[u8]) {
        let waiting = self.shared.queued_bytes.fetch_add(line.len(), Ordering::Relaxed) + line.len();
        if waiting > QUEUE_BYTES_MAX || self.queue.try_send(Item::Line(line.to_vec())).is_err() {
            self.shared.queued_bytes.fetch_sub(line.len(), Ordering::Relaxed);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl io::Write for LogFile {
    /// The formatting layer hands over a whole line in one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.send(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Dropped last: sees to it that what was logged before is in the file, unless the disk hangs.
#[derive(Debug)]
pub(crate) struct Drain {
    log: LogFile,
    done: Receiver<()>,
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.log.shared.draining.store(true, Ordering::Release);
        // A full queue needs no waking. The receiver is the worker's: gone means done.
        self.log.queue.try_send(Item::Wake).ok();
        self.done.recv_timeout(DRAIN_LIMIT).ok();
    }
}

/// The thread that owns the file.
struct Worker {
    file: RotatingFile,
    path: PathBuf,
    limits: Limits,
    formatter: Formatter,
    log: LogFile,
    sweeping: Option<JoinHandle<()>>,
    failure: Option<io::Error>,
    /// Disconnects when the thread ends, which is what [`Drain`] waits for.
    _running: SyncSender<()>,
}

impl Worker {
    fn run(mut self, items: &Receiver<Item>) {
        self.start_sweep();
        while let Ok(item) = items.recv() {
            self.take(item);
            if self.log.shared.draining.load(Ordering::Acquire) {
                while let Ok(item) = items.try_recv() {
                    self.take(item);
                }
                break;
            }
        }
    }

    fn take(&mut self, item: Item) {
        if let Item::Line(line) = item {
            self.log.shared.queued_bytes.fetch_sub(line.len(), Ordering::Relaxed);
            self.write(&line);
        }
        self.report_loss();
    }

    /// Writes one line; a failure costs that line and is remembered for the report.
    fn write(&mut self, line: &[u8]) {
        match self.file.write(line, wall(&self.formatter.clock)) {
            Ok(false) => {}
            Ok(true) => self.start_sweep(),
            Err(error) => {
                self.log.shared.lost.fetch_add(1, Ordering::Relaxed);
                self.failure = Some(error);
            }
        }
    }

    /// Says in the file how many lines are missing in it. While that fails too, the count is kept.
    fn report_loss(&mut self) {
        let lost = self.log.shared.lost.swap(0, Ordering::Relaxed);
        if lost == 0 {
            return;
        }
        let cause = self.failure.as_ref().map_or_else(|| "the disk could not keep up".to_owned(), io::Error::to_string);
        let message = format!("{lost} log lines are missing here: {cause}");
        let notice = self.formatter.notice(Level::WARN, TARGET, &message);
        match self.file.write(notice.as_bytes(), wall(&self.formatter.clock)) {
            Ok(rotated) => {
                self.failure = None;
                if rotated {
                    self.start_sweep();
                }
            }
            Err(error) => {
                self.log.shared.lost.fetch_add(lost, Ordering::Relaxed);
                self.failure = Some(error);
            }
        }
    }

    /// Compressing 50 MB takes a second, for which lines would wait; so a thread of its own, one at a time. What a
    /// running sweep misses is found by the next.
    fn start_sweep(&mut self) {
        if self.sweeping.as_ref().is_some_and(|sweep| !sweep.is_finished()) {
            return;
        }
        let (path, limits, formatter, log) = (self.path.clone(), self.limits, self.formatter.clone(), self.log.clone());
        let started = spawn("log-sweep", move || {
            if let Err(error) = sweep(&path, limits, wall(&formatter.clock)) {
                let message = format!("old log files could not be tidied up: {error}");
                log.send(formatter.notice(Level::WARN, TARGET, &message).as_bytes());
            }
        });
        // Without a thread the backups stay as they are until the next rotation tries again.
        self.sweeping = started.ok();
    }
}

#[expect(clippy::disallowed_methods, reason = "logging starts before the tree and outlives it; `Drain` waits for it")]
fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(body)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use k3sd_runtime::Clock;

    use super::super::format::Style;
    use super::*;

    fn formatter() -> Formatter {
        Formatter { style: Style::Text { colours: false }, clock: Clock::system(), actor: || None }
    }

    #[test]
    fn what_was_logged_is_in_the_file_after_the_drain() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("k3sd.log");
        let (mut log, drain) = LogFile::open(&path, Limits::K3S, formatter()).unwrap();
        let mut expected = String::new();
        for n in 0..1000 {
            let line = format!("line {n}\n");
            log.write_all(line.as_bytes()).unwrap();
            expected.push_str(&line);
        }
        drop(drain);
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn a_full_queue_counts_what_it_loses_and_never_waits() {
        // Nobody reads this queue: it is the disk that stands still.
        let (log, items) = LogFile::queue();
        for _ in 0..QUEUE_LINES_MAX + 7 {
            log.send(b"x\n");
        }
        assert_eq!(log.shared.lost.load(Ordering::Relaxed), 7);
        assert_eq!(log.shared.queued_bytes.load(Ordering::Relaxed), 2 * QUEUE_LINES_MAX);
        drop(items);
    }

    #[test]
    fn long_lines_are_bounded_by_bytes() {
        let (log, items) = LogFile::queue();
        let line = vec![b'x'; 1 << 20];
        for _ in 0..6 {
            log.send(&line);
        }
        assert_eq!(log.shared.lost.load(Ordering::Relaxed), 2);
        assert_eq!(items.try_iter().count(), 4);
    }

    #[test]
    fn the_loss_is_reported_in_the_file_once() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("k3sd.log");
        let (log, drain) = LogFile::open(&path, Limits::K3S, formatter()).unwrap();
        log.shared.lost.fetch_add(41, Ordering::Relaxed);
        log.send(b"after\n");
        drop(drain);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches("41 log lines are missing here: the disk could not keep up").count(), 1, "{text}");
        assert!(text.contains("WARN  actor=- k3sd::logging: "), "{text}");
    }

    #[test]
    fn a_full_disk_loses_lines_and_says_why() {
        let (log, items) = LogFile::queue();
        let (running, _done) = sync_channel(0);
        let limits = Limits { file_bytes_max: u64::MAX, ..Limits::K3S };
        let mut worker = Worker {
            // Every write to this device fails with ENOSPC.
            file: RotatingFile::open(Path::new("/dev/full"), limits).unwrap(),
            path: PathBuf::from("/dev/full"),
            limits,
            formatter: formatter(),
            log: log.clone(),
            sweeping: None,
            failure: None,
            _running: running,
        };
        worker.take(Item::Line(b"one\n".to_vec()));
        worker.take(Item::Line(b"two\n".to_vec()));
        assert_eq!(log.shared.lost.load(Ordering::Relaxed), 2);
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("k3sd.log");
        worker.file = RotatingFile::open(&path, limits).unwrap();
        worker.take(Item::Wake);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("2 log lines are missing here: No space left on device"), "{text}");
        drop(items);
    }
}
