//! What goes wrong, where and how often. Code under test names the place with [`Context::fault`](crate::Context::fault).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::cell::lock;
use crate::exit::ActorError;

/// One thing that goes wrong once.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The place returns an error with this text.
    Fail(String),
    /// The place panics.
    Panic,
    /// The place takes so long.
    Delay(Duration),
    /// The place is never left; a kill ends it.
    Hang,
    /// The place is passed unharmed.
    Pass,
}

/// A place where code waits until the test lets it go on.
#[derive(Clone, Debug)]
pub struct Barrier {
    arrived: Arc<Semaphore>,
    released: Arc<Semaphore>,
}

impl Barrier {
    /// Waits until somebody has arrived at the place.
    pub async fn arrival(&self) {
        if let Ok(permit) = self.arrived.acquire().await {
            permit.forget();
        }
    }

    /// Lets one that has arrived, or will, go on.
    pub fn release(&self) {
        self.released.add_permits(1);
    }
}

#[derive(Default)]
struct Place {
    planned: VecDeque<Fault>,
    barrier: Option<Barrier>,
    reached: u64,
}

/// The plans of one universe.
#[derive(Default)]
pub struct Faults {
    places: Mutex<HashMap<&'static str, Place>>,
    actors: Mutex<BTreeMap<Arc<str>, Doomed>>,
}

/// What is planned for one actor, whatever its code.
#[derive(Clone, Copy, Debug, Default)]
struct Doomed {
    starts: u32,
    messages: u32,
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faults")
    }
}

impl Faults {
    /// Plans a fault for the next time `place` is reached for which nothing is planned yet.
    pub fn plan(&self, place: &'static str, fault: Fault) {
        lock(&self.places).entry(place).or_default().planned.push_back(fault);
    }

    /// Makes everybody who reaches `place` wait to be released.
    pub fn barrier(&self, place: &'static str) -> Barrier {
        let barrier = Barrier { arrived: Arc::new(Semaphore::new(0)), released: Arc::new(Semaphore::new(0)) };
        lock(&self.places).entry(place).or_default().barrier = Some(barrier.clone());
        barrier
    }

    /// Removes what is planned for `place`.
    pub fn clear(&self, place: &'static str) {
        lock(&self.places).remove(place);
    }

    /// How often `place` was reached since something was first planned for it.
    pub fn reached(&self, place: &'static str) -> u64 {
        lock(&self.places).get(place).map_or(0, |place| place.reached)
    }

    /// The next so many starts of the actor at `path` fail, before its own code runs. Tasks have no start to fail.
    pub fn fail_starts(&self, path: &str, times: u32) {
        lock(&self.actors).entry(path.into()).or_default().starts += times;
    }

    /// The actor at `path` fails over its next message, and the message is lost with it.
    pub fn fail_message(&self, path: &str) {
        lock(&self.actors).entry(path.into()).or_default().messages += 1;
    }

    /// Removes what is planned for actors.
    pub fn clear_actors(&self) {
        lock(&self.actors).clear();
    }

    pub(crate) fn start(&self, path: &str) -> Option<String> {
        self.spend(path, |doomed| &mut doomed.starts, "planned to fail its start")
    }

    pub(crate) fn message(&self, path: &str) -> Option<String> {
        self.spend(path, |doomed| &mut doomed.messages, "planned to fail over a message")
    }

    fn spend(&self, path: &str, count: impl Fn(&mut Doomed) -> &mut u32, text: &str) -> Option<String> {
        let actors = &mut *lock(&self.actors);
        let count = count(actors.get_mut(path)?);
        *count = count.checked_sub(1)?;
        Some(text.to_owned())
    }

    pub(crate) async fn reach(&self, name: &'static str) -> Result<(), ActorError> {
        let (fault, barrier) = match lock(&self.places).get_mut(name) {
            None => return Ok(()),
            Some(place) => {
                place.reached += 1;
                (place.planned.pop_front(), place.barrier.clone())
            }
        };
        if let Some(barrier) = barrier {
            barrier.arrived.add_permits(1);
            if let Ok(permit) = barrier.released.acquire().await {
                permit.forget();
            }
        }
        match fault {
            None | Some(Fault::Pass) => {}
            Some(Fault::Fail(text)) => return Err(ActorError::new(text)),
            Some(Fault::Panic) => panic!("planned at {name}"),
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            Some(Fault::Hang) => std::future::pending().await,
        }
        Ok(())
    }
}
