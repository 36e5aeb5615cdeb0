//! All that happened in a run, line by line, as one number: two runs with one number went the same way.

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k3sd_runtime::{Clock, Moment};

/// FNV-1a.
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

struct Inner {
    hash: u64,
    lines: u64,
    file: Option<BufWriter<File>>,
    clock: Option<(Clock, Moment)>,
}

/// The trace. Clones share it.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({:016x})", self.hash())
    }
}

impl Trace {
    /// An empty one, which is written to a file too if there is one.
    ///
    /// # Errors
    /// The file can't be made.
    pub fn new(file: Option<&Path>) -> std::io::Result<Self> {
        let file = file.map(File::create).transpose()?.map(BufWriter::new);
        Ok(Self(Arc::new(Mutex::new(Inner { hash: BASIS, lines: 0, file, clock: None }))))
    }

    /// Lines carry the time since now from here on.
    pub fn begin(&self, clock: &Clock) {
        self.inner().clock = Some((clock.clone(), clock.now()));
    }

    /// Something happened.
    pub fn line(&self, text: &str) {
        let inner = &mut *self.inner();
        let at = inner.clock.as_ref().map_or(0, |(clock, began)| clock.now().since(*began).as_nanos());
        let line = format!("{at} {text}\n");
        for byte in line.bytes() {
            inner.hash = (inner.hash ^ u64::from(byte)).wrapping_mul(PRIME);
        }
        inner.lines += 1;
        if let Some(file) = &mut inner.file {
            file.write_all(line.as_bytes()).ok();
        }
    }

    /// The number.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.inner().hash
    }

    /// How many lines there were.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.inner().lines
    }

    /// Has the file hold all of it.
    pub fn flush(&self) {
        if let Some(file) = &mut self.inner().file {
            file.flush().ok();
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_depends_on_every_line_and_their_order() {
        let hash = |lines: &[&str]| {
            let trace = Trace::new(None).unwrap();
            lines.iter().for_each(|line| trace.line(line));
            trace.hash()
        };
        assert_eq!(hash(&["a", "b"]), hash(&["a", "b"]));
        assert_ne!(hash(&["a", "b"]), hash(&["b", "a"]));
        assert_ne!(hash(&["a", "b"]), hash(&["ab"]));
    }
}
