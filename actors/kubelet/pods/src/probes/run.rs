//! The tries of a pod's probes, beside the pod's other work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use k3sd_runtime::{Clock, Rng};
use k8s_openapi::api::core::v1::{Container, Pod, Probe};

use super::check::Check;
use super::machine::{Machine, Pace, Try};
use super::{Kind, Outcome};
use crate::numbers::ProbeName;
use crate::pod::{Entry, Shared, View};
use crate::runtime::{Found, State};
use crate::spec::{self, Role, is_sidecar};

/// A probe of a container: the runtime's id, and what for.
type Key = (String, Kind);

/// Starts and ends tries as containers come and go. Never ends.
pub(crate) async fn run(shared: &Shared, entry: &Entry, clock: &Clock, mut rng: Rng) {
    let mut views = entry.view.subscribe();
    let mut running: FuturesUnordered<BoxFuture<'_, Key>> = FuturesUnordered::new();
    // Those that are being tried, or have decided.
    let mut known: BTreeMap<Key, ()> = BTreeMap::new();
    loop {
        let view = views.borrow_and_update().clone();
        let wanted = wanted(&view);
        known.retain(|key, ()| wanted.iter().any(|one| one.key() == *key));
        entry.results.send_if_modified(|results| {
            let before = results.clone();
            results.retain(|id| view.runtime.containers.iter().any(|found| found.id == id));
            *results != before
        });
        for one in wanted {
            if known.insert(one.key(), ()).is_none() {
                let jitter = rng.fraction();
                running.push(Box::pin(tries(shared, entry, clock, one, jitter)));
            }
        }
        tokio::select! {
            changed = views.changed() => if changed.is_err() { std::future::pending::<()>().await },
            Some(_) = running.next(), if !running.is_empty() => {}
        }
    }
}

/// A probe to be tried.
struct Wanted {
    pod: Arc<Pod>,
    container: Container,
    id: String,
    kind: Kind,
    probe: Probe,
    started_at: Option<jiff::Timestamp>,
}

impl Wanted {
    fn key(&self) -> Key {
        (self.id.clone(), self.kind)
    }
}

/// The probes of running containers. A pod that ends is only asked whether it is ready.
fn wanted(view: &View) -> Vec<Wanted> {
    let Some(pod) = &view.pod else { return Vec::new() };
    let mut list = Vec::new();
    let mut add = |container: &Container, found: &Found| {
        for (kind, probe) in [
            (Kind::Startup, &container.startup_probe),
            (Kind::Liveness, &container.liveness_probe),
            (Kind::Readiness, &container.readiness_probe),
        ] {
            let Some(probe) = probe.clone() else { continue };
            if view.terminating && kind != Kind::Readiness {
                continue;
            }
            let (id, started_at) = (found.id.clone(), found.started_at);
            list.push(Wanted { pod: pod.clone(), container: container.clone(), id, kind, probe, started_at });
        }
    };
    for found in view.runtime.running() {
        match spec::find(pod, &found.name) {
            Some((Role::Main, container)) => add(&container, found),
            Some((Role::Init, container)) if is_sidecar(&container) => add(&container, found),
            _ => {}
        }
    }
    list
}

/// Tries until the probe has decided for good or the container is gone.
async fn tries(shared: &Shared, entry: &Entry, clock: &Clock, one: Wanted, jitter: f64) -> Key {
    let pace = Pace::of(&one.probe);
    let said = entry.results.borrow().get(&one.id, one.kind);
    let mut machine = Machine::resumed(one.kind, pace, said.unwrap_or(one.kind.initial()));
    entry.results.send_if_modified(|results| said.is_none() && results.set(&one.id, one.kind, machine.outcome()));
    if machine.is_over() {
        return one.key();
    }
    let now = crate::pod::now(clock);
    let age = one
        .started_at
        .map_or(Duration::ZERO, |at| now.duration_since(at).max(jiff::SignedDuration::ZERO).unsigned_abs());
    // Those of containers found at our start don't all begin at once.
    let (uid, namespace) = (entry.uid.clone(), spec::namespace(&one.pod).to_owned());
    let (pod, container) = (spec::name(&one.pod).to_owned(), one.container.name.clone());
    let tally = shared.numbers.probe(ProbeName { uid, namespace, pod, container, kind: one.kind });
    let first = if age > pace.period { pace.period.mul_f64(jitter) } else { Duration::ZERO };
    clock.sleep_until(clock.now() + first.max(pace.initial_delay.saturating_sub(age))).await;
    loop {
        let view = entry.view.borrow().clone();
        let alive = view.runtime.containers.iter().any(|found| found.id == one.id && found.state == State::Running);
        if !alive || (view.terminating && one.kind != Kind::Readiness) {
            return one.key();
        }
        let started =
            one.container.startup_probe.is_none() || entry.results.borrow().startup(&one.id) == Some(Outcome::Success);
        if one.kind == Kind::Startup || started {
            let address = crate::pod::address(&view, shared);
            let check =
                Check { cri: &shared.deps.cri, clock, container: &one.container, id: &one.id, address: &address };
            let began = clock.now();
            let tried = check.run(&one.probe).await;
            tally.count(&tried, clock.now().since(began));
            tell(shared, &one, &tried);
            machine.count(&tried);
            entry.results.send_if_modified(|results| results.set(&one.id, one.kind, machine.outcome()));
            if machine.is_over() {
                return one.key();
            }
        } else {
            // Wakes when the container has started, rather than a period later.
            let mut results = entry.results.subscribe();
            let up = results.wait_for(|results| results.startup(&one.id) != Some(Outcome::Unknown));
            tokio::select! {
                _ = up => {}
                () = clock.sleep_until(clock.now() + pace.period) => {}
            }
            if entry.results.borrow().startup(&one.id) == Some(Outcome::Success) {
                continue;
            }
        }
        clock.sleep_until(clock.now() + pace.period).await;
    }
}

fn tell(shared: &Shared, one: &Wanted, tried: &Try) {
    let word = one.kind.word();
    let (reason, text) = match tried {
        Try::Good(None) => return,
        Try::Good(Some(text)) => ("ProbeWarning", format!("{word} probe warning: {text}")),
        Try::Bad(text) => ("Unhealthy", format!("{word} probe failed: {text}")),
        Try::Error(text) => ("Unhealthy", format!("{word} probe errored and resulted in unknown state: {text}")),
    };
    crate::pod::event(shared, &one.pod, Some(&one.container.name), "Warning", reason, &text);
}
