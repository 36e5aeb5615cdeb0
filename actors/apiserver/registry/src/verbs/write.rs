//! What writes have in common: from an object that somebody wants to what may be stored.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use k3sd_apiserver_store::WriteError;
use k3sd_apiserver_validation as validation;
use k3sd_objects::apply::{Set, Tracker, keep_times};
use k3sd_objects::object::Object;
use k3sd_objects::status::Status;
use k3sd_objects::status::field::Error;
use k3sd_objects::{decode, default, names};
use serde_json::Value;

use super::Scope;
use crate::api::Api;
use crate::strategy::{Context, Part};
use crate::version::{self, ResourceVersions};
use crate::{meta, special, strategy};

impl Scope<'_> {
    /// Notes who wrote what, after any write but an apply.
    pub(super) fn track(&self, live: Option<&Value>, new: Value, field_manager: &str) -> Value {
        static NOTHING: LazyLock<Value> = LazyLock::new(|| Value::Object(serde_json::Map::new()));
        let ignored = self.ignored(&new);
        let manager = self.manager(field_manager);
        self.tracker(&ignored, |tracker| tracker.update(live.unwrap_or(&NOTHING), new, &manager, self.call.now))
    }

    /// Fields that this endpoint doesn't write.
    pub(super) fn ignored(&self, object: &Value) -> Set {
        self.strategy().ignored(self.part, self.resource, object)
    }

    /// Lends a tracker for this endpoint.
    pub(super) fn tracker<T>(&self, ignored: &Set, work: impl FnOnce(Tracker<'_>) -> T) -> T {
        let versions = ResourceVersions { catalog: self.catalog, resource: self.resource };
        work(Tracker {
            versions: &versions,
            api_version: &self.resource.api_version,
            subresource: self.subresource(),
            ignored,
        })
    }

    /// Puts the object into the form of its version again, after somebody changed it.
    pub(super) fn renew_defaults(&self, object: &mut Value) {
        default::apply(object, self.resource.schema.get());
    }

    /// What is stored of a new object.
    pub(super) fn prepare_create(&self, object: Value) -> Result<Value, Status> {
        let mut object = version::to_stored(object, self.store.stored(), self.catalog)?;
        let now = self.now_text();
        let context = Context { user: &self.call.user, now: &now };
        self.strategy().prepare_create(&mut object, self.resource, &context);
        if self.is_definition() {
            k3sd_apiserver_custom::definition::prepare_create(&mut object);
        }
        decode::normalize(&mut object, self.store.stored().schema.get());
        Ok(object)
    }

    /// What is stored of an object that takes the place of another. `old` is in the stored version.
    pub(super) fn prepare_update(&self, new: Value, old: &Value) -> Result<Value, Status> {
        let mut new = version::to_stored(new, self.store.stored(), self.catalog)?;
        let now = self.now_text();
        let context = Context { user: &self.call.user, now: &now };
        self.strategy().prepare_update(self.part, &mut new, old, self.resource, &context);
        if self.is_definition() {
            match self.part {
                Part::Status => k3sd_apiserver_custom::definition::update_status(&mut new, old),
                _ => k3sd_apiserver_custom::definition::prepare_update(&mut new, old),
            }
        }
        decode::normalize(&mut new, self.store.stored().schema.get());
        Ok(new)
    }

    /// Whether the objects are CustomResourceDefinitions, for which another crate knows the rules.
    pub(super) fn is_definition(&self) -> bool {
        (&*self.resource.group, &*self.resource.plural) == ("apiextensions.k8s.io", "customresourcedefinitions")
    }

    /// Refuses an object that breaks a rule. Both are in the stored version.
    pub(super) fn validate(&self, new: &Value, old: Option<&Value>) -> Result<(), Status> {
        let errors = self.errors(new, old)?;
        if errors.is_empty() {
            return Ok(());
        }
        Err(Status::invalid(self.resource.qualified_kind(), meta::text(new, "name"), &errors))
    }

    fn errors(&self, new: &Value, old: Option<&Value>) -> Result<Vec<Error>, Status> {
        let context = validation::Context { allow_privileged: self.api.config().allow_privileged };
        let stored = self.store.stored();
        if self.resource.group != stored.group {
            // Events are asked for other things in their own group than in core.
            let convert = |value: &Value| version::to_resource(value.clone(), self.resource);
            let (new, old) = (convert(new)?, old.map(convert).transpose()?);
            return Ok(self.errors_in(&self.resource.group, &new, old.as_ref(), &context));
        }
        Ok(self.errors_in(&stored.group, new, old, &context))
    }

    fn errors_in(&self, group: &str, new: &Value, old: Option<&Value>, context: &validation::Context) -> Vec<Error> {
        let kind = (group, &*self.resource.kind);
        let through = match self.part {
            Part::Main | Part::Finalize => None,
            Part::Status => Some(validation::Subresource::Status),
            Part::Approval => Some(validation::Subresource::Approval),
            Part::EphemeralContainers => Some(validation::Subresource::EphemeralContainers),
            Part::Resize => Some(validation::Subresource::Resize),
        };
        let mut errors = match (old, through) {
            (None, _) => validation::create(kind, new, context),
            (Some(old), Some(through)) => validation::subresource(kind, through, new, old, context),
            (Some(old), None) => validation::update(kind, new, old, context),
        };
        if self.is_definition() {
            use k3sd_apiserver_custom::definition;
            errors.extend(match old {
                None => definition::validate_create(new),
                Some(old) if self.part == Part::Status => definition::validate_status(new, old),
                Some(old) => definition::validate_update(new, old),
            });
        }
        if self.resource.custom.is_some() {
            errors.extend(self.type_errors(new));
            errors.extend(k3sd_apiserver_custom::validate(new, old, self.resource));
        }
        errors
    }

    /// A custom resource of another kind than the path's was let through by the decoder.
    fn type_errors(&self, new: &Value) -> Option<Error> {
        let kind = meta::field(new, "kind");
        (kind != &*self.resource.kind).then(|| {
            let place = k3sd_objects::status::field::Path::new("kind");
            Error::invalid(&place, kind, format!("must be {}", self.resource.kind))
        })
    }

    /// Tells the client what it should not rely on. `new` is in the stored version.
    pub(super) fn warn(&self, new: &Value, old: Option<&Value>, warnings: &mut Vec<String>) {
        strategy::warn(self.resource, new, old, warnings);
    }

    /// How long objects of this kind live.
    pub(super) fn ttl(&self) -> Option<Duration> {
        special::time_to_live(self.resource, self.api.config().event_ttl)
    }

    /// The answer to a write that came to nothing. `Conflict` is for those who can't try again.
    pub(super) fn refused(&self, name: &str, error: WriteError) -> Status {
        match error {
            WriteError::Exists => Status::already_exists(self.resource.qualified(), name),
            WriteError::Conflict { current: Some(_) } => Status::stale(self.resource.qualified(), name),
            WriteError::Conflict { current: None } => self.not_found(name),
            WriteError::Failed(status) => status,
        }
    }
}

/// Why an attempt to write came to nothing.
pub(super) enum Refusal {
    /// Somebody was quicker; this is the newest state.
    Lost(Option<Object>),
    /// The client is told.
    Answer(Status),
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Answer(status)
    }
}

/// The new state, or the old one if the writes differ in times of managers only.
pub(super) fn settle_times(old: &Value, new: Value) -> Value {
    keep_times(old, new)
}

/// The namespace of an object is that of the request; either may leave it to the other.
pub(super) fn settle_namespace(object: &mut Value, namespace: &str) -> Result<(), Status> {
    let found = meta::text(object, "namespace");
    if found == namespace {
        return Ok(());
    }
    if !found.is_empty() && !namespace.is_empty() {
        let text = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(text));
    }
    if namespace.is_empty() {
        meta::remove(object, "namespace");
    } else {
        meta::set(object, "namespace", namespace);
    }
    Ok(())
}

/// Names an owner once, and says so.
pub(super) fn settle_owners(object: &mut Value, warnings: &mut Vec<String>) {
    let owners = object.get_mut("metadata").and_then(|metadata| metadata.get_mut("ownerReferences"));
    let Some(owners) = owners.and_then(Value::as_array_mut) else { return };
    if owners.len() < 2 {
        return;
    }
    let mut seen = HashSet::new();
    let mut repeated = Vec::new();
    owners.retain(|owner| {
        let is_new = seen.insert(owner.to_string());
        if !is_new {
            repeated.push(meta::field(owner, "uid").to_owned());
        }
        is_new
    });
    repeated.sort();
    repeated.dedup();
    if !repeated.is_empty() {
        warnings.push(format!(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may \
             reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: [{}]",
            repeated.join(" ")
        ));
    }
}

/// A new id for an object: random, in the form of RFC 9562's version 4.
pub(crate) fn new_uid(api: &Api) -> String {
    let mut rng = api.rng();
    let (high, low) = (rng.next_u64(), rng.next_u64());
    names::uuid(high, low)
}
