//! One timer that keeps other timers cheap.
//!
//! tokio wakes a sleeping worker whenever a timer is registered that is due before everything that worker knows of. Calls
//! set a timer each, and mostly take it back within a microsecond, so on an otherwise quiet runtime every call woke the
//! other worker, which then took the called actor away from its caller's thread: 2.5 times the cost of a bare call. An
//! anchor is a timer that is due before any of theirs, so that registering them wakes nobody.
//!
//! It is set anew by the first call after it was due. When calls end it is due once more, and then all is quiet.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Sleep;

use crate::cell::lock;
use crate::clock::Clock;

/// How long one anchor holds. Timers that are due sooner gain nothing from it.
pub(crate) const PERIOD: Duration = Duration::from_millis(100);

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Anchor {
    /// When the timer is due, in nanoseconds of the clock.
    until: AtomicU64,
    timer: Mutex<Option<Pin<Box<Sleep>>>>,
}

impl Anchor {
    /// Sees to it that the timer is set. Within a tokio runtime only.
    pub(crate) fn hold(&self, clock: &Clock) {
        let now = clock.now();
        if now.as_nanos() < self.until.load(Relaxed) {
            return;
        }
        let until = now + PERIOD;
        self.until.store(until.as_nanos(), Relaxed);
        let mut timer = Box::pin(tokio::time::sleep_until(clock.instant(until)));
        // Polled once to be registered; nobody waits for it.
        if timer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            *lock(&self.timer) = Some(timer);
        }
    }
}
