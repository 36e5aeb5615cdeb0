//! Finds selectors by the labels of a pod, so that a pod meets only those few that can mean it.

use std::collections::HashMap;

use k3sd_objects::selector::LabelSelector;

use crate::labels::Labels;

/// Things with selectors: under a label that their selector asks for, if there is one.
#[derive(Clone, Debug)]
struct ByLabel<T> {
    exact: HashMap<String, HashMap<String, Vec<T>>>,
    others: Vec<T>,
}

impl<T> Default for ByLabel<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), others: Vec::new() }
    }
}

/// A label that everything selected has.
fn exact(selector: &LabelSelector) -> Option<(&str, &str)> {
    let mut keys = selector.requirements().iter().map(|requirement| requirement.key());
    keys.find_map(|key| Some((key, selector.exact(key)?)))
}

impl<T: PartialEq> ByLabel<T> {
    fn insert(&mut self, selector: &LabelSelector, thing: T) {
        match exact(selector) {
            Some((key, value)) => {
                let values = self.exact.entry(key.to_owned()).or_default();
                values.entry(value.to_owned()).or_default().push(thing);
            }
            None => self.others.push(thing),
        }
    }

    fn remove(&mut self, selector: &LabelSelector, thing: &T) {
        let Some((key, value)) = exact(selector) else { return self.others.retain(|known| known != thing) };
        let Some(values) = self.exact.get_mut(key) else { return };
        if let Some(list) = values.get_mut(value) {
            list.retain(|known| known != thing);
            if list.is_empty() {
                values.remove(value);
            }
        }
        if values.is_empty() {
            self.exact.remove(key);
        }
    }

    fn of<'a>(&'a self, labels: Option<&'a Labels>) -> impl Iterator<Item = &'a T> {
        let listed = |(key, value): (&String, &String)| self.exact.get(key)?.get(value);
        labels.into_iter().flatten().filter_map(listed).flatten().chain(&self.others)
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.others.is_empty()
    }
}

/// Things with selectors of pods in some namespaces, or in any.
#[derive(Clone, Debug)]
pub(super) struct SelectorIndex<T> {
    by_namespace: HashMap<String, ByLabel<T>>,
    anywhere: ByLabel<T>,
}

impl<T> Default for SelectorIndex<T> {
    fn default() -> Self {
        Self { by_namespace: HashMap::new(), anywhere: ByLabel::default() }
    }
}

impl<T: PartialEq + Clone> SelectorIndex<T> {
    /// Takes a thing in: under these namespaces, or for any.
    pub(super) fn insert<'n>(
        &mut self,
        namespaces: Option<impl Iterator<Item = &'n String>>,
        selector: &LabelSelector,
        thing: &T,
    ) {
        match namespaces {
            None => self.anywhere.insert(selector, thing.clone()),
            Some(names) => {
                for name in names {
                    self.by_namespace.entry(name.clone()).or_default().insert(selector, thing.clone());
                }
            }
        }
    }

    /// Forgets a thing; with what it was taken in.
    pub(super) fn remove<'n>(
        &mut self,
        namespaces: Option<impl Iterator<Item = &'n String>>,
        selector: &LabelSelector,
        thing: &T,
    ) {
        let Some(names) = namespaces else { return self.anywhere.remove(selector, thing) };
        for name in names {
            if let Some(index) = self.by_namespace.get_mut(name) {
                index.remove(selector, thing);
                if index.is_empty() {
                    self.by_namespace.remove(name);
                }
            }
        }
    }

    /// Those that may mean a pod: some of them don't, but none that does is missing.
    pub(super) fn of<'a>(&'a self, namespace: &str, labels: Option<&'a Labels>) -> impl Iterator<Item = &'a T> {
        let here = self.by_namespace.get(namespace);
        here.into_iter().flat_map(move |index| index.of(labels)).chain(self.anywhere.of(labels))
    }
}
