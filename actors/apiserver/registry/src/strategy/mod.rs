//! What a kind needs on its way to the store, beyond what its schema says.
//!
//! One engine prepares every object: who may write which half of it, whether its generation grows, what the server fills
//! in once. [`table`] has a row for each kind that differs from the rule, and the row holds only the difference. Objects
//! are in the stored version here.

mod batch;
mod certificates;
mod core;
mod gates;
mod pods;
mod qos;
mod storage;
mod table;
#[cfg(test)]
mod tests;
mod warnings;

use std::collections::BTreeSet;

use k3sd_apiserver_access::User;
use k3sd_apiserver_store::Resource;
use k3sd_objects::apply::{PathElement, Set, equal};
use serde_json::{Map, Value};

use crate::meta;

pub(crate) use self::qos::qos_class;
pub(crate) use self::table::of;
pub(crate) use self::warnings::warn;

/// What an endpoint writes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but `status`.
    Main,
    /// `status`.
    Status,
    /// The finalizers in the `spec` of a namespace.
    Finalize,
    /// The conditions of a request for a certificate that approve or deny it.
    Approval,
    /// The ephemeral containers of a pod.
    EphemeralContainers,
    /// The resources of a pod's containers.
    Resize,
}

impl Part {
    /// The part that a subresource of the resource's own kind writes; empty is the object itself.
    pub(crate) fn of(subresource: &str) -> Option<Self> {
        Some(match subresource {
            "" => Self::Main,
            "status" => Self::Status,
            "finalize" => Self::Finalize,
            "approval" => Self::Approval,
            "ephemeralcontainers" => Self::EphemeralContainers,
            "resize" => Self::Resize,
            _ => return None,
        })
    }
}

/// What a preparation may know beside the objects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    /// Who writes.
    pub(crate) user: &'a User,
    /// Now, as objects write it.
    pub(crate) now: &'a str,
}

/// Which metadata a write to `status` leaves alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusMetadata {
    /// None: what a client may change at all, it may change here too.
    Kept(&'static [&'static str]),
    /// All of it but `managedFields`.
    Nothing,
}

/// What the server does with dependents when a deletion doesn't say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dependents {
    /// They go after it.
    Background,
    /// They stay.
    Orphan,
    /// Nothing looks for them: objects of this kind own none.
    Ignored,
}

/// Where a kind differs from the rule.
#[derive(Clone, Copy)]
pub(crate) struct Strategy {
    /// Group, empty for core.
    group: &'static str,
    /// Plural name.
    plural: &'static str,
    /// Whether a PUT of an object that isn't there creates it.
    pub(crate) create_on_update: bool,
    /// Whether a PUT must say which version it replaces.
    pub(crate) needs_version: bool,
    /// Whether a deletion answers with the object that is gone.
    pub(crate) returns_deleted: bool,
    /// What becomes of dependents.
    pub(crate) dependents: Dependents,
    /// Whether `generation` counts, where the table of resources doesn't say so.
    counts: bool,
    /// Whether a new object keeps the `status` that it comes with.
    keeps_status: bool,
    /// Fields beside `spec` and its like whose change counts for the generation.
    counts_annotations: bool,
    /// Metadata in writes to `status`.
    status_metadata: StatusMetadata,
    /// Fills in a new object.
    create: fn(&mut Value, &Context<'_>),
    /// Settles what a new state takes over from the old one.
    update: fn(&mut Value, &Value, &Context<'_>),
    /// The same for writes to `status`.
    update_status: fn(&mut Value, &Value, &Context<'_>),
}

/// The metadata that a write to `status` leaves alone where the kind says that only `status` is meant.
const OBJECT_METADATA: &[&str] = &["deletionTimestamp", "labels", "annotations", "finalizers", "ownerReferences"];

impl Strategy {
    /// The rule, which custom resources follow too.
    const RULE: Self = Self {
        group: "",
        plural: "",
        create_on_update: false,
        needs_version: false,
        returns_deleted: false,
        dependents: Dependents::Background,
        counts: false,
        keeps_status: false,
        counts_annotations: false,
        status_metadata: StatusMetadata::Kept(&[]),
        create: |_, _| {},
        update: |_, _, _| {},
        update_status: |_, _, _| {},
    };

    const CUSTOM: Self = Self { needs_version: true, status_metadata: StatusMetadata::Nothing, ..Self::RULE };

    /// Whether `generation` counts.
    fn counts(&self, resource: &Resource) -> bool {
        self.counts || resource.generation || resource.custom.is_some()
    }

    /// Prepares a new object.
    pub(crate) fn prepare_create(&self, object: &mut Value, resource: &Resource, context: &Context<'_>) {
        if has_status(resource) && !self.keeps_status {
            remove_field(object, "status");
        }
        meta::remove(object, "generation");
        if self.counts(resource) {
            meta::set(object, "generation", 1);
        }
        gates::drop_disabled(object, None, resource);
        (self.create)(object, context);
    }

    /// Prepares the new state of an object: what the endpoint doesn't write, stays.
    pub(crate) fn prepare_update(
        &self,
        part: Part,
        new: &mut Value,
        old: &Value,
        resource: &Resource,
        context: &Context<'_>,
    ) {
        keep_system_fields(new, old);
        meta::copy(new, old, "generation");
        match part {
            Part::Main => {
                if has_status(resource) {
                    meta::copy_field(new, old, "status");
                }
                gates::drop_disabled(new, Some(old), resource);
                (self.update)(new, old, context);
            }
            Part::Status => {
                self.keep_all_but_status(new, old);
                (self.update_status)(new, old, context);
            }
            Part::Finalize => core::update_namespace_finalizers(new, old),
            Part::Approval => certificates::update_approval(new, old, context),
            Part::EphemeralContainers => pods::update_ephemeral(new, old),
            Part::Resize => pods::update_resize(new, old),
        }
        if part != Part::Status && self.counts(resource) && self.has_news(new, old, resource) {
            // An object from before its kind counted begins with one, as a new one does.
            let generation = meta::number(old, "generation").unwrap_or_default();
            meta::set(new, "generation", generation.saturating_add(1));
        }
    }

    fn keep_all_but_status(&self, new: &mut Value, old: &Value) {
        if let StatusMetadata::Kept(names) = self.status_metadata {
            names.iter().for_each(|name| meta::copy(new, old, name));
        } else {
            let managed = meta::get(new, "managedFields").cloned();
            let version = meta::get(new, "resourceVersion").cloned();
            meta::copy_field(new, old, "metadata");
            for (name, value) in [("managedFields", managed), ("resourceVersion", version)] {
                match value {
                    Some(value) => meta::set(new, name, value),
                    None => meta::remove(new, name),
                }
            }
        }
        for name in field_names(new, old) {
            if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status") {
                meta::copy_field(new, old, &name);
            }
        }
    }

    /// Whether what counts for the generation differs.
    fn has_news(&self, new: &Value, old: &Value, resource: &Resource) -> bool {
        let with_status = resource.custom.as_ref().is_some_and(|custom| !custom.status);
        let counted = |name: &str| match name {
            "apiVersion" | "kind" | "metadata" => false,
            "status" => with_status,
            _ => true,
        };
        let differs = |left: Option<&Value>, right: Option<&Value>| match (left, right) {
            (Some(left), Some(right)) => !equal(left, right),
            (left, right) => left.is_some() != right.is_some(),
        };
        let fields = field_names(new, old).into_iter().filter(|name| counted(name));
        let news = fields.into_iter().any(|name| differs(new.get(&name), old.get(&name)));
        news || self.counts_annotations && differs(meta::get(new, "annotations"), meta::get(old, "annotations"))
    }

    /// Fields that writes through an endpoint don't reach, so that nobody comes to own them there.
    pub(crate) fn ignored(&self, part: Part, resource: &Resource, object: &Value) -> Set {
        let mut paths = Vec::new();
        let mut ignore = |path: &[&str]| paths.push(path.iter().map(|step| PathElement::field(step)).collect());
        match part {
            Part::Main => {
                if has_status(resource) {
                    ignore(&["status"]);
                }
            }
            Part::Status => {
                let fields = object.as_object().into_iter().flat_map(Map::keys);
                for name in fields.map(String::as_str).chain(["spec"]) {
                    if !matches!(name, "apiVersion" | "kind" | "metadata" | "status") {
                        ignore(&[name]);
                    }
                }
                match self.status_metadata {
                    StatusMetadata::Kept(names) => names.iter().for_each(|name| ignore(&["metadata", name])),
                    StatusMetadata::Nothing => ignore(&["metadata"]),
                }
            }
            Part::Approval => ["spec", "metadata"].iter().for_each(|name| ignore(&[name])),
            Part::Finalize => ignore(&["status"]),
            Part::EphemeralContainers | Part::Resize => ["status", "metadata"].iter().for_each(|name| ignore(&[name])),
        }
        Set::of(paths)
    }
}

/// Whether `status` is written through an endpoint of its own only.
fn has_status(resource: &Resource) -> bool {
    resource.subresource("status").is_some()
}

fn field_names(new: &Value, old: &Value) -> BTreeSet<String> {
    [new, old].into_iter().filter_map(Value::as_object).flat_map(Map::keys).cloned().collect()
}

fn remove_field(object: &mut Value, name: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(name);
    }
}

/// What no writer can change, and most leave out.
fn keep_system_fields(new: &mut Value, old: &Value) {
    for name in ["uid", "creationTimestamp"] {
        if meta::text(new, name).is_empty() {
            meta::copy(new, old, name);
        }
    }
    if meta::get(old, "deletionTimestamp").is_some() {
        meta::copy(new, old, "deletionTimestamp");
    }
    if meta::get(new, "deletionGracePeriodSeconds").is_none() {
        meta::copy(new, old, "deletionGracePeriodSeconds");
    }
    meta::remove(new, "selfLink");
}
