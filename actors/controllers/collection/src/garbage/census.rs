//! Who is there to be watched: finds resources, and has one monitor for each.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::api::Connect;
use k3sd_client::election::Leading;
use k3sd_client::informer::Informer;
use k3sd_runtime::{ActorError, Backoff, TaskHandle};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use tokio::sync::watch;

use super::monitor::{Mouth, Told, ear, monitor};
use super::{COLLECTED, is_collected};
use crate::resources::{Resource, Resources};

/// Waits while the API doesn't serve yet what definitions promise, or can't be asked.
const RETRY: Backoff = Backoff {
    free_attempts: 0,
    delay_min: Duration::from_millis(100),
    delay_max: Duration::from_secs(30),
    ..Backoff::REQUEUE
};
/// How long after a change the API is asked once more: what a definition took away may be served for a moment longer.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// Changes that may wait; beyond them they count as one.
const CHANGES_MAX: usize = 16;
/// How long starting and stopping a monitor may take.
const TREE_DEADLINE: Duration = Duration::from_secs(30);

/// Publishes which resources there are.
///
/// Owns:    the published resources.
/// Needs:   the API, and the informers of definitions and API services.
/// Restart: permanent; it asks again.
/// Fails:   when an informer is gone.
#[derive(Clone)]
pub(super) struct Follow {
    pub(super) connect: Connect,
    pub(super) leading: Leading,
    pub(super) definitions: Informer<CustomResourceDefinition>,
    pub(super) services: Informer<APIService>,
    pub(super) found: Arc<watch::Sender<Option<Arc<Resources>>>>,
}

impl Follow {
    pub(super) async fn run(mut self, handle: TaskHandle) -> Result<(), ActorError> {
        self.leading.lead().await;
        let (client, clock, mut rng) = (self.connect.client(), handle.system().clock().clone(), handle.rng());
        let mut definitions = self.definitions.subscribe(CHANGES_MAX).await?;
        let mut services = self.services.subscribe(CHANGES_MAX).await?;
        let mut failures = 0;
        let mut afterwards = false;
        loop {
            let complete = match Resources::discover(&client).await {
                Ok(found) => {
                    let complete = self.is_complete(&found);
                    self.found.send_if_modified(|known| {
                        let differs = known.as_deref() != Some(&found);
                        if differs {
                            tracing::debug!(%found, "resources changed");
                            *known = Some(Arc::new(found));
                        }
                        differs
                    });
                    complete
                }
                Err(error) => {
                    tracing::debug!(%error, "the API doesn't say which resources it has; asking again");
                    false
                }
            };
            let due = match (complete, afterwards) {
                (false, _) => {
                    failures += 1;
                    Some(clock.now() + RETRY.delay(failures, &mut rng))
                }
                (true, true) => Some(clock.now() + AFTERWARDS),
                (true, false) => None,
            };
            if complete {
                failures = 0;
            }
            let wait = async {
                match due {
                    Some(due) => clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let changed = tokio::select! {
                change = definitions.next() => change.map(drop).ok_or(true),
                change = services.next() => change.map(drop).ok_or(true),
                () = wait => Err(false),
            };
            match changed {
                Ok(()) => (afterwards, failures) = (true, 0),
                Err(false) => afterwards = afterwards && !complete,
                Err(true) => return Err(ActorError::new("an informer is gone")),
            }
        }
    }

    fn is_complete(&self, found: &Resources) -> bool {
        let (definitions, services) = (self.definitions.snapshot(), self.services.snapshot());
        let definitions = definitions.iter().flat_map(|all| all.iter()).map(|definition| &**definition);
        let services = services.iter().flat_map(|all| all.iter()).map(|service| &**service);
        found.missing.is_empty() && found.agrees(definitions, services)
    }
}

/// Has a monitor for each resource.
///
/// Owns:    the children of `monitors`.
/// Needs:   the collector, who is told when a resource is no more.
/// Restart: permanent; all monitors begin anew.
/// Fails:   when the supervisor of the monitors doesn't answer.
#[derive(Clone)]
pub(super) struct Count {
    pub(super) connect: Connect,
    pub(super) resources: watch::Receiver<Option<Arc<Resources>>>,
    pub(super) mouth: Mouth,
}

impl Count {
    pub(super) async fn run(mut self, handle: TaskHandle) -> Result<(), ActorError> {
        let parent = handle.path().rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
        let monitors = handle.system().supervisor(&format!("{parent}/monitors"))?;
        let ear = ear(&mut self.mouth).await?;
        let there = monitors.list(TREE_DEADLINE).await?;
        for monitor in there {
            // Whom it told is gone perhaps: all of them begin anew.
            monitors.remove(TREE_DEADLINE, &monitor.name).await?;
        }
        let mut started: BTreeMap<String, Arc<Resource>> = BTreeMap::new();
        loop {
            let resources = self.resources.borrow_and_update().clone().unwrap_or_default();
            let wanted = resources.all.iter().filter(|resource| is_collected(resource));
            let wanted: BTreeMap<String, &Arc<Resource>> = wanted
                .map(|resource| (format!("{COLLECTED}{}.{}", resource.name(), resource.api.version), resource))
                .collect();
            let gone: Vec<String> = started.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
            for name in gone {
                monitors.remove(TREE_DEADLINE, &name).await?;
                if let Some(resource) = started.remove(&name) {
                    ear.send(Told::Dropped(resource)).await.map_err(|_| ActorError::new("the collector is away"))?;
                }
            }
            for (name, resource) in wanted {
                if let Entry::Vacant(place) = started.entry(name) {
                    let child = monitor(place.key(), resource.clone(), self.connect.clone(), self.mouth.clone());
                    monitors.add(TREE_DEADLINE, child).await?;
                    place.insert(resource.clone());
                }
            }
            self.resources.changed().await?;
        }
    }
}
