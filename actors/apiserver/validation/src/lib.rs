//! What makes an object invalid beyond its schema, and what of it may not change.
//!
//! Everything here is a function of objects that were decoded, checked against their types and defaulted before: no
//! input, no clock. Rules are found by group and kind in one table; a kind that isn't there, as custom resources are
//! not, is only asked for its `metadata`. Paths, kinds, words and order of the errors are upstream's, since people and
//! tests compare them.
//!
//! What is deliberately absent: whatever takes a look at other objects (quotas, free addresses and ports), which is
//! admission's and the allocators' business.

mod aggregation;
mod autoscaling;
mod certificates;
mod claims;
mod cluster;
mod data;
mod devices;
mod discovery;
mod drivers;
mod endpoints;
mod events;
mod flow;
mod hooks;
mod job_policies;
mod job_status;
mod jobs;
mod kinds;
mod limits;
mod meta;
mod networking;
mod nodes;
mod permissions;
mod pod;
mod policies;
mod read;
mod resources;
mod services;
mod slices;
mod statuses;
mod storage;
#[cfg(test)]
mod tests;
mod volumes;
mod workloads;

use k3sd_objects::names;
use k3sd_objects::status::field::Error;
use serde_json::Value;

use self::kinds::{Change, KINDS, Rules};
use self::read::{At, Errors};

/// What can't be known from an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Whether containers may run privileged at all (`--allow-privileged`).
    pub allow_privileged: bool,
}

impl Default for Context {
    fn default() -> Self {
        Self { allow_privileged: true }
    }
}

/// A change that goes through a subresource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// `status`.
    Status,
    /// `ephemeralcontainers` of a pod.
    EphemeralContainers,
    /// `resize` of a pod.
    Resize,
    /// `approval` of a request for a certificate.
    Approval,
}

/// The rules of a kind, given its group (empty for core) and name.
fn rules((group, kind): (&str, &str)) -> Option<&'static Rules> {
    KINDS.iter().find(|rules| rules.group == group && rules.kind == kind)
}

/// Whether the rules of a kind are known; of others only `metadata` is checked.
#[must_use]
pub fn is_known(kind: (&str, &str)) -> bool {
    rules(kind).is_some()
}

/// What is wrong with an object that is about to be created. `kind` is its group, empty for core, and kind.
///
/// An object with `generateName` only must have got its name before.
#[must_use]
pub fn create(kind: (&str, &str), object: &Value, context: &Context) -> Vec<Error> {
    let mut out = Errors::new();
    let object = At::root(object);
    let metadata = object.field("metadata");
    if let Some(rules) = rules(kind) {
        // A binding only borrows the name of its pod.
        if rules.kind != "Binding" {
            meta::check(&metadata, rules.namespaced, rules.name, &mut out);
        }
        (rules.create)(&object, context, &mut out);
    } else {
        let namespaced = !metadata.text("namespace").is_empty();
        meta::check(&metadata, namespaced, names::dns_subdomain, &mut out);
    }
    out
}

/// What is wrong with an object that is about to take the place of another of its kind and name.
#[must_use]
pub fn update(kind: (&str, &str), new: &Value, old: &Value, context: &Context) -> Vec<Error> {
    change(kind, new, old, |rules| Some(rules.update), context)
}

/// The same for a change through a subresource. Of kinds that ask nothing there only `metadata` is checked.
#[must_use]
pub fn subresource(
    kind: (&str, &str),
    through: Subresource,
    new: &Value,
    old: &Value,
    context: &Context,
) -> Vec<Error> {
    let find = |rules: &Rules| {
        rules.subresources.iter().find(|(subresource, _)| *subresource == through).map(|(_, change)| *change)
    };
    change(kind, new, old, find, context)
}

fn change(
    kind: (&str, &str),
    new: &Value,
    old: &Value,
    find: impl Fn(&Rules) -> Option<Change>,
    context: &Context,
) -> Vec<Error> {
    let mut out = Errors::new();
    let (new, old) = (At::root(new), At::root(old));
    meta::check_update(&new.field("metadata"), &old.field("metadata"), &mut out);
    if let Some(change) = rules(kind).and_then(find) {
        change(&new, &old, context, &mut out);
    }
    out
}
