//! What is known of all definitions, and what follows from a change of one of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use k3sd_apiserver_store::Resource;
use k3sd_objects::object::Object;
use serde_json::Value;

use super::conditions::{self, Claims, has_condition};
use super::publish;

/// All definitions. Never does anything itself.
#[derive(Debug, Default)]
pub(super) struct Known {
    definitions: BTreeMap<String, Definition>,
}

#[derive(Debug)]
struct Definition {
    object: Object,
    group: String,
    /// The names it holds, as `{"status": {"acceptedNames": ..}}`.
    claims: Value,
    /// Whether it wants names that others hold.
    conflict: bool,
    /// What the resources depend on.
    fingerprint: Value,
    resources: Vec<Arc<Resource>>,
}

/// A status to write.
#[derive(Debug)]
pub(super) struct Update {
    pub(super) old: Object,
    pub(super) new: Value,
}

impl Known {
    /// Takes a new or changed definition. Answers with the statuses to write: its own, and those of definitions that can
    /// have names now.
    pub(super) fn put(&mut self, object: Object, now: &str) -> Vec<Update> {
        let name = object.name().to_owned();
        let group = object.value()["spec"]["group"].as_str().unwrap_or_default().to_owned();
        let before = self.definitions.get(&name).map(|known| known.claims.clone());
        let mut updates: Vec<Update> = self.take(object, &group, now).into_iter().collect();
        if before.is_some() && self.definitions.get(&name).map(|known| &known.claims) != before.as_ref() {
            updates.extend(self.settle(&group, now));
        }
        updates
    }

    /// Forgets a definition. Answers with the statuses of those that can have its names now.
    pub(super) fn remove(&mut self, name: &str, now: &str) -> Vec<Update> {
        match self.definitions.remove(name) {
            Some(gone) => self.settle(&gone.group, now),
            None => Vec::new(),
        }
    }

    /// What is served, in the order of discovery.
    pub(super) fn resources(&self) -> Vec<Arc<Resource>> {
        let mut resources: Vec<_> = self.definitions.values().flat_map(|known| known.resources.clone()).collect();
        publish::sort(&mut resources);
        resources
    }

    /// The names of all definitions.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.definitions.keys().map(String::as_str)
    }

    /// Looks again at those of a group that lack names.
    fn settle(&mut self, group: &str, now: &str) -> Vec<Update> {
        let waiting = self.definitions.values().filter(|known| known.conflict && known.group == group);
        let waiting: Vec<Object> = waiting.map(|known| known.object.clone()).collect();
        waiting.into_iter().filter_map(|object| self.take(object, group, now)).collect()
    }

    fn take(&mut self, object: Object, group: &str, now: &str) -> Option<Update> {
        let mut claims = Claims::default();
        let name = object.name();
        for (_, other) in self.definitions.iter().filter(|(other, known)| *other != name && known.group == group) {
            claims.add(&other.claims);
        }
        let old = object.value();
        claims.add(&old);
        let mut new = old.clone();
        conditions::update(&mut new, &claims, now);
        let fingerprint = serde_json::json!([
            new["metadata"]["uid"],
            new["metadata"]["generation"],
            new["metadata"].get("deletionTimestamp").is_some(),
            new["status"]["acceptedNames"],
            has_condition(&new, "Established", "True"),
        ]);
        let before = self.definitions.remove(name).filter(|known| known.fingerprint == fingerprint);
        let resources = match before {
            Some(known) => known.resources,
            None => publish::resources(&new, &object).unwrap_or_else(|error| {
                tracing::error!(definition = name, %error, "a definition can't be served");
                Vec::new()
            }),
        };
        let definition = Definition {
            group: group.to_owned(),
            claims: serde_json::json!({ "status": { "acceptedNames": new["status"]["acceptedNames"] } }),
            conflict: has_condition(&new, "NamesAccepted", "False"),
            fingerprint,
            resources,
            object: object.clone(),
        };
        self.definitions.insert(name.to_owned(), definition);
        (new != old).then_some(Update { old: object, new })
    }
}
