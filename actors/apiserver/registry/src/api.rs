//! The one entry: from a call to its answer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k3sd_apiserver_access::{Attributes, Decision};
use k3sd_apiserver_admission::Admission;
use k3sd_apiserver_store::{Catalog, Resource, Stores};
use k3sd_objects::status::{Qualified, Status};
use k3sd_runtime::{Clock, Rng};

use crate::call::{Answer, Call, Reply, no_such_path};
use crate::strategy::Part;
use crate::verbs::{self, Scope};
use crate::{deprecated, special};

/// Whether somebody may do something. Asked for what a request does beside its own line, such as a PUT that creates.
pub type Authorize = Arc<dyn Fn(&Attributes<'_>) -> Decision + Send + Sync>;

/// Settings of the verbs.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Whether containers may run privileged at all. Default yes.
    pub allow_privileged: bool,
    /// How long events live, in whole seconds. Default one hour.
    pub event_ttl: Duration,
    /// Shortest time that a watch is served which names none; the longest is twice that. Default half an hour.
    pub watch_timeout_min: Duration,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            allow_privileged: true,
            event_ttl: Duration::from_secs(3600),
            watch_timeout_min: Duration::from_secs(1800),
        }
    }
}

/// What the API is made of.
pub struct ApiArgs {
    /// The objects, and what is served.
    pub stores: Stores,
    /// What writes pass through.
    pub admission: Arc<Admission>,
    /// Who may do what.
    pub authorize: Authorize,
    /// Where clusters' addresses and ports come from, tokens, reviews.
    pub special: special::Special,
    /// Time and randomness.
    pub clock: Clock,
    /// Settings.
    pub config: ApiConfig,
}

/// Everything that is served, as one function of calls. Shared by all connections.
pub struct Api {
    args: ApiArgs,
    /// Streams of random numbers handed out so far.
    streams: AtomicU64,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("config", &self.args.config).finish_non_exhaustive()
    }
}

impl Api {
    /// Reads nothing yet; stores may still be filling.
    pub fn new(args: ApiArgs) -> Self {
        Self { args, streams: AtomicU64::new(0) }
    }

    /// The objects, and what is served.
    pub fn stores(&self) -> &Stores {
        &self.args.stores
    }

    /// What writes pass through.
    pub fn admission(&self) -> &Arc<Admission> {
        &self.args.admission
    }

    /// Who may do what.
    pub fn authorize(&self) -> &Authorize {
        &self.args.authorize
    }

    /// What isn't plain.
    pub fn special(&self) -> &special::Special {
        &self.args.special
    }

    /// Time and randomness.
    pub fn clock(&self) -> &Clock {
        &self.args.clock
    }

    /// Settings.
    pub fn config(&self) -> &ApiConfig {
        &self.args.config
    }

    /// A stream of random numbers of its own.
    pub(crate) fn rng(&self) -> Rng {
        // Under a simulated clock the same name gives the same stream, so each gets a number.
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        self.args.clock.rng(&format!("api/{number}"))
    }

    /// Answers a call. Nothing of it is left behind when the future is dropped, except that a write may have happened.
    pub async fn handle(&self, call: Call) -> Answer {
        let mut warnings = Vec::new();
        let catalog = self.args.stores.catalog().current();
        let info = &call.info;
        let Some(resource) = catalog.resource(&info.group, &info.version, &info.resource).cloned() else {
            return Answer { result: Ok(no_such_path()), warnings };
        };
        warnings.extend(deprecated::warning(&resource));
        let result = self.answer(&call, &catalog, &resource, &mut warnings).await;
        Answer { result, warnings }
    }

    async fn answer(
        &self,
        call: &Call,
        catalog: &Arc<Catalog>,
        resource: &Arc<Resource>,
        warnings: &mut Vec<String>,
    ) -> Result<Reply, Status> {
        let info = &call.info;
        let in_namespace = !info.namespace.is_empty() && &*resource.plural != "namespaces";
        if in_namespace && !resource.namespaced || info.parts.len() > 3 && info.subresource != "proxy" {
            return Ok(no_such_path());
        }
        let subresource = match info.subresource.as_str() {
            "" => None,
            name => match resource.subresource(name) {
                Some(found) => Some(found),
                None => return Ok(no_such_path()),
            },
        };
        let verbs = subresource.map_or(&resource.verbs, |subresource| &subresource.verbs);
        let needs_namespace = resource.namespaced && info.namespace.is_empty();
        let is_cluster_wide = matches!(info.verb.as_str(), "list" | "watch");
        // Objects are made in their collection, and changed one at a time.
        let misplaced = match info.verb.as_str() {
            "create" => subresource.is_none() && !info.name.is_empty(),
            "update" | "patch" => info.name.is_empty(),
            _ => false,
        };
        if !verbs.iter().any(|verb| *verb == info.verb) || misplaced || needs_namespace && !is_cluster_wide {
            return Err(Status::method_not_allowed(resource.qualified(), &info.verb));
        }
        if let Some(answer) = special::answer(self, call, resource, warnings).await {
            return answer;
        }
        let Some(store) = resource.stored.as_ref().and_then(|stored| self.args.stores.of(stored)) else {
            // A definition was established a moment ago.
            let text = format!("{} are not served yet", resource.qualified());
            return Err(Status::service_unavailable(text).with_retry_after(1));
        };
        let namespace = if resource.namespaced { info.namespace.as_str() } else { "" };
        let mut scope = Scope { api: self, call, catalog, resource, store, part: Part::Main, namespace };
        match (info.subresource.as_str(), info.verb.as_str()) {
            ("scale", verb) => verbs::scale(&scope, verb, warnings).await,
            ("", "get") => verbs::get(&scope).await,
            ("", "list") => verbs::list(&scope).await,
            ("", "watch") => verbs::watch(&scope).await,
            ("", "create") => verbs::create(&scope, warnings).await,
            ("", "delete") => verbs::delete(&scope, warnings).await,
            ("", "deletecollection") => verbs::delete_collection(&scope, warnings).await,
            (name, verb) => {
                let Some(part) = Part::of(name) else { return Err(unconnected(resource, name)) };
                scope.part = part;
                match verb {
                    "get" => verbs::get(&scope).await,
                    "update" => verbs::update(&scope, warnings).await,
                    "patch" => verbs::patch(&scope, warnings).await,
                    _ => Err(Status::method_not_allowed(resource.qualified(), verb)),
                }
            }
        }
    }
}

/// What goes on to a node, while there is no way to nodes.
fn unconnected(resource: &Resource, subresource: &str) -> Status {
    let what = Qualified::new("", &resource.plural);
    Status::service_unavailable(format!("{what}/{subresource} needs a connection to a node, and there is none yet"))
}

/// A moment as objects write it: to the second.
pub(crate) fn time_text(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}
