//! Services and controllers, for what they say about which pods belong together.

use std::collections::{BTreeMap, HashMap};

use k3sd_objects::selector::LabelSelector;
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{ReplicationController, Service};

use crate::labels::{Labels, narrowed, selector, with_labels};
use crate::pod::{Key, PodInfo};

/// A kind that owns pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OwnerKind {
    /// `ReplicationController`.
    ReplicationController,
    /// `ReplicaSet`.
    ReplicaSet,
    /// `StatefulSet`.
    StatefulSet,
}

/// The selectors of all services and controllers.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    services: HashMap<String, BTreeMap<String, Labels>>,
    controllers: HashMap<(OwnerKind, Key), LabelSelector>,
}

impl Owners {
    /// Takes a service in.
    pub fn apply_service(&mut self, service: &Service) {
        let namespace = service.metadata.namespace.clone().unwrap_or_default();
        let name = service.metadata.name.clone().unwrap_or_default();
        match service.spec.as_ref().and_then(|spec| spec.selector.clone()).filter(|labels| !labels.is_empty()) {
            Some(labels) => {
                self.services.entry(namespace).or_default().insert(name, labels);
            }
            None => self.delete_service(&Key { namespace, name }),
        }
    }

    /// Forgets a service.
    pub fn delete_service(&mut self, key: &Key) {
        if let Some(services) = self.services.get_mut(&key.namespace) {
            services.remove(&key.name);
            if services.is_empty() {
                self.services.remove(&key.namespace);
            }
        }
    }

    /// The keys of all services that select pods.
    pub fn service_keys(&self) -> impl Iterator<Item = Key> {
        let of = |(namespace, services): (&String, &BTreeMap<String, Labels>)| {
            let keys = services.keys().map(|name| Key::new(namespace, name));
            keys.collect::<Vec<_>>()
        };
        self.services.iter().flat_map(of)
    }

    /// The keys of all controllers of a kind.
    pub fn controller_keys(&self, kind: OwnerKind) -> impl Iterator<Item = Key> {
        self.controllers.keys().filter(move |(known, _)| *known == kind).map(|(_, key)| key.clone())
    }

    /// Takes a controller's selector in.
    pub fn apply_controller(&mut self, kind: OwnerKind, key: Key, selector: LabelSelector) {
        self.controllers.insert((kind, key), selector);
    }

    /// Forgets a controller.
    pub fn delete_controller(&mut self, kind: OwnerKind, key: Key) {
        self.controllers.remove(&(kind, key));
    }

    /// The pods that belong together with this one: those of its services and of its controller. `None` if it has
    /// neither.
    pub fn selector(&self, pod: &PodInfo) -> Option<LabelSelector> {
        let mut merged = Labels::new();
        for labels in self.services.get(&pod.key.namespace).into_iter().flat_map(BTreeMap::values) {
            if labels.iter().all(|(key, value)| pod.labels().and_then(|labels| labels.get(key)) == Some(value)) {
                merged.extend(labels.clone());
            }
        }
        let of_services = with_labels(&merged);
        let found = match self.controller(pod) {
            Some(controller) if !controller.is_nothing() => {
                narrowed(&of_services, controller.requirements().iter().cloned())
            }
            _ => of_services,
        };
        (!found.is_everything()).then_some(found)
    }

    fn controller(&self, pod: &PodInfo) -> Option<&LabelSelector> {
        let owners = pod.pod.metadata.owner_references.iter().flatten();
        let owner = owners.into_iter().find(|owner| owner.controller == Some(true))?;
        let kind = match (owner.api_version.as_str(), owner.kind.as_str()) {
            ("v1", "ReplicationController") => OwnerKind::ReplicationController,
            ("apps/v1", "ReplicaSet") => OwnerKind::ReplicaSet,
            ("apps/v1", "StatefulSet") => OwnerKind::StatefulSet,
            _ => return None,
        };
        self.controllers.get(&(kind, Key::new(&pod.key.namespace, &owner.name)))
    }
}

/// A controller that selects pods.
pub trait Owner {
    /// Its kind.
    const KIND: OwnerKind;

    /// The pods that it selects.
    fn selector(&self) -> LabelSelector;
}

impl Owner for ReplicationController {
    const KIND: OwnerKind = OwnerKind::ReplicationController;

    fn selector(&self) -> LabelSelector {
        let labels = self.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        labels.map_or_else(LabelSelector::nothing, with_labels)
    }
}

impl Owner for ReplicaSet {
    const KIND: OwnerKind = OwnerKind::ReplicaSet;

    fn selector(&self) -> LabelSelector {
        selector(self.spec.as_ref().map(|spec| &spec.selector))
    }
}

impl Owner for StatefulSet {
    const KIND: OwnerKind = OwnerKind::StatefulSet;

    fn selector(&self) -> LabelSelector {
        selector(self.spec.as_ref().map(|spec| &spec.selector))
    }
}
