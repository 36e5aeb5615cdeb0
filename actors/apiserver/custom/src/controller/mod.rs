//! Definitions, level by level: names and conditions, what is published, and the end of instances.
//!
//! ```text
//! definitions   a task: each change of a definition ─▶ Known (pure) ─▶ catalog, then the definition's status
//! cleanup       a task: each definition that goes ─▶ its instances are deleted ─▶ it goes
//! ```

mod cleanup;
mod conditions;
mod definitions;
mod known;
mod publish;
#[cfg(test)]
mod tests;

pub(crate) use self::cleanup::run as clean_up;
pub(crate) use self::conditions::has_condition;
pub(crate) use self::definitions::run as follow;

use std::sync::Arc;
use std::time::Duration;

use k3sd_apiserver_store::{ObjectStore, Stores};
use k3sd_runtime::Clock;

/// The pause before something that failed is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// Where definitions lie.
fn definitions_of(stores: &Stores) -> Option<Arc<ObjectStore>> {
    stores.get("apiextensions.k8s.io", "customresourcedefinitions")
}

/// The time in RFC 3339, to the second.
fn now(clock: &Clock) -> String {
    let seconds = i64::try_from(clock.wall().as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

async fn pause(clock: &Clock) {
    clock.sleep_until(clock.now() + RETRY_DELAY).await;
}
