//! Lets the writer empty the log. SQLite can start its log over only while nobody reads from it, and with readers that
//! take turns that moment never comes by itself. So the writer closes this gate: who reads goes on, who comes waits.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Default)]
struct State {
    inside: usize,
    closed: bool,
}

/// Between the readers' threads and the writer's.
#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

/// A reader inside. Dropping it is leaving, also when the reader panics.
pub(super) struct Inside<'g>(&'g Gate);

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing can panic between the two assignments that a state consists of.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the gate is open.
    pub(super) fn enter(&self) -> Inside<'_> {
        let state = self.lock();
        let mut state = self.changed.wait_while(state, |state| state.closed).unwrap_or_else(PoisonError::into_inner);
        state.inside += 1;
        Inside(self)
    }

    /// Lets nobody in any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    /// Waits until nobody is inside, at most so long. Whether nobody is.
    pub(super) fn wait_empty(&self, limit: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), limit, |state| state.inside > 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.inside == 0
    }

    /// Lets those in who wait.
    pub(super) fn open(&self) {
        self.lock().closed = false;
        self.changed.notify_all();
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.lock().inside -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_gate_lets_readers_out_and_none_in() {
        let gate = Gate::default();
        let first = gate.enter();
        gate.close();
        assert!(!gate.wait_empty(Duration::ZERO));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| drop(gate.enter()));
            drop(first);
            assert!(gate.wait_empty(Duration::from_secs(10)));
            assert!(!second.is_finished(), "it waits for the gate");
            gate.open();
        });
        assert!(gate.wait_empty(Duration::ZERO));
    }
}
