//! What has to be done once after the start, and whether it is: the `poststarthook` checks of `/readyz`.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// Which hooks there are, and which are done. Clones share it; a hook that is done stays done.
#[derive(Clone, Debug)]
pub struct Hooks(Arc<watch::Sender<BTreeMap<&'static str, bool>>>);

impl Hooks {
    pub(crate) fn new(names: &[&'static str]) -> Self {
        Self(Arc::new(watch::Sender::new(names.iter().map(|name| (*name, false)).collect())))
    }

    /// All of them by name, such as `rbac/bootstrap-roles`, and whether each is done.
    #[must_use]
    pub fn all(&self) -> Vec<(&'static str, bool)> {
        self.0.borrow().iter().map(|(name, done)| (*name, *done)).collect()
    }

    /// Whether all are done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.borrow().values().all(|done| *done)
    }

    /// Waits until all are done.
    pub async fn done(&self) {
        let mut changes = self.0.subscribe();
        // The sender is in `self`, so it can't be gone.
        changes.wait_for(|hooks| hooks.values().all(|done| *done)).await.map(drop).unwrap_or_default();
    }

    pub(crate) fn set_done(&self, name: &'static str) {
        self.0.send_if_modified(|hooks| hooks.insert(name, true) != Some(true));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_hooks_are_waited_for() {
        let hooks = Hooks::new(&["a", "b"]);
        hooks.set_done("a");
        assert_eq!((hooks.all(), hooks.is_done()), (vec![("a", true), ("b", false)], false));
        let other = hooks.clone();
        let waiting = tokio::join!(hooks.done(), async move { other.set_done("b") });
        assert_eq!((waiting, hooks.is_done()), (((), ()), true));
    }
}
