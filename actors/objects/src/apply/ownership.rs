//! Who owns what after a write: the rules, without metadata, times and names of endpoints.
//!
//! An object's managers may have written in several versions of its kind. Each one's fields are compared in its own
//! version; a version that is no longer served takes its managers with it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::compare::{Comparison, compare};
use super::conflict::ApplyError;
use super::managers::{Entry, Manager, Managers};
use super::merge::merge;
use super::set::Set;
use super::tracker::Versions;
use super::types::Type;
use super::walk::{field_set, presence, reconcile, remove_from_object, with_named_fields};

/// A write, and where it happens.
pub(super) struct Write<'a> {
    /// The versions of the kind.
    pub(super) versions: &'a dyn Versions,
    /// The version of the objects at hand.
    pub(super) api_version: &'a str,
    /// Fields that the endpoint does not write.
    pub(super) ignored: &'a Set,
}

impl<'a> Write<'a> {
    /// The type of the kind in a version; `None` if it is served no longer.
    fn type_in(&self, api_version: &str) -> Option<Type<'a>> {
        self.versions.schema(api_version).map(Type::of)
    }

    fn own_type(&self) -> Type<'a> {
        self.type_in(self.api_version).unwrap_or(Type::Deduced)
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Result<Value, ApplyError> {
        if from == to {
            return Ok(object.clone());
        }
        self.versions.convert(object, from, to).map_err(ApplyError::Conversion)
    }

    /// Forgets managers of versions that are gone, and lets the others own what today's schema lets them own.
    pub(super) fn reconciled(&self, managers: &Managers) -> Managers {
        let mut reconciled = Managers::default();
        for (manager, entry) in &managers.0 {
            if let Some(of) = self.type_in(&entry.api_version) {
                let entry = Entry { set: reconcile(&entry.set, of), ..entry.clone() };
                reconciled.0.insert(manager.clone(), entry);
            }
        }
        reconciled
    }

    /// What a write changed, in the version of each manager.
    fn comparisons(
        &self,
        old: &Value,
        new: &Value,
        managers: &Managers,
    ) -> Result<BTreeMap<String, Comparison>, ApplyError> {
        let mut comparisons = BTreeMap::new();
        let own = compare(old, new, self.own_type()).without(self.ignored);
        comparisons.insert(self.api_version.to_owned(), own);
        for entry in managers.0.values() {
            if comparisons.contains_key(&entry.api_version) {
                continue;
            }
            let Some(of) = self.type_in(&entry.api_version) else { continue };
            let old = self.convert(old, self.api_version, &entry.api_version)?;
            let new = self.convert(new, self.api_version, &entry.api_version)?;
            comparisons.insert(entry.api_version.clone(), compare(&old, &new, of).without(self.ignored));
        }
        Ok(comparisons)
    }

    /// Takes what a write changed from everybody but `writer`. Without `force`, changing what others own is an error.
    fn take(
        &self,
        old: &Value,
        new: &Value,
        managers: &mut Managers,
        writer: Option<&Manager>,
        force: bool,
    ) -> Result<Comparison, ApplyError> {
        let mut comparisons = self.comparisons(old, new, managers)?;
        if !force {
            let others = managers.0.iter().filter(|(manager, _)| Some(*manager) != writer);
            let lost: Vec<(&Manager, Set)> = others
                .filter_map(|(manager, entry)| {
                    let changed = comparisons.get(&entry.api_version)?.changed();
                    Some((manager, entry.set.intersection(&changed)))
                })
                .collect();
            if let Some(error) = ApplyError::conflicts(lost.iter().map(|(manager, set)| (*manager, set))) {
                return Err(error);
            }
        }
        managers.0.retain(|manager, entry| {
            if Some(manager) != writer
                && let Some(comparison) = comparisons.get(&entry.api_version)
            {
                let set = std::mem::take(&mut entry.set);
                entry.set = set.difference(&comparison.changed()).difference(&comparison.removed);
            }
            !entry.set.is_empty()
        });
        Ok(comparisons.remove(self.api_version).unwrap_or_default())
    }

    /// After a write that isn't an apply: others lose what it changed. Gives what the writer owns by it.
    ///
    /// # Errors
    ///
    /// Fails if a version of the object can't be had.
    pub(super) fn updated(&self, old: &Value, new: &Value, managers: &mut Managers) -> Result<Set, ApplyError> {
        Ok(self.take(old, new, managers, None, true)?.changed())
    }

    /// Applies a configuration. Gives the new object.
    ///
    /// # Errors
    ///
    /// Fails on a conflict unless it is forced, and if a version of the object can't be had.
    pub(super) fn applied(
        &self,
        live: &Value,
        config: &Value,
        managers: &mut Managers,
        applier: &Manager,
        force: bool,
    ) -> Result<Value, ApplyError> {
        let of = self.own_type();
        let merged = merge(live, config, of);
        let set = field_set(config, of).difference_below(self.ignored);
        let last = managers.0.get(applier).cloned();
        let time = last.as_ref().and_then(|last| last.time);
        let entry = Entry { set, api_version: self.api_version.to_owned(), time };
        managers.0.insert(applier.clone(), entry);
        let new = match &last {
            Some(last) if !last.set.is_empty() => self.pruned(merged, managers, last)?,
            _ => merged,
        };
        self.take(live, &new, managers, Some(applier), force)?;
        Ok(new)
    }

    /// The merged object without what the applier said last time, unless anybody owns it now.
    fn pruned(&self, merged: Value, managers: &Managers, last: &Entry) -> Result<Value, ApplyError> {
        let Some(of) = self.type_in(&last.api_version) else { return Ok(merged) };
        let merged = self.convert(&merged, self.api_version, &last.api_version)?;
        let last_set = with_named_fields(&last.set, of);
        let rest = remove_from_object(merged.clone(), &last_set, of);
        let rest = self.with_owned(&merged, rest, &last.api_version, managers)?;
        // Only what the applier itself said last time goes, not what has no owner, or one that didn't apply it.
        let all = presence(&merged, of);
        let left = presence(&rest, of);
        let gone = all.difference(&left).intersection(&last_set);
        let pruned = remove_from_object(merged, &gone, of);
        self.convert(&pruned, &last.api_version, self.api_version)
    }

    /// Puts back what was removed, where a manager owns it, version by version. All objects are in version `at`.
    fn with_owned(&self, merged: &Value, rest: Value, at: &str, managers: &Managers) -> Result<Value, ApplyError> {
        let mut owned_in: BTreeMap<&str, Set> = BTreeMap::new();
        for entry in managers.0.values() {
            let owned = owned_in.entry(&entry.api_version).or_default();
            *owned = std::mem::take(owned).union(&entry.set);
        }
        // The version at hand comes first: what a conversion needs may be among what is put back.
        let own = owned_in.remove_entry(at);
        let mut rest = rest;
        for (version, owned) in own.into_iter().chain(owned_in) {
            let Some(of) = self.type_in(version) else { continue };
            let whole = self.convert(merged, at, version)?;
            let partial = self.convert(&rest, at, version)?;
            let all = presence(&whole, of);
            let left = presence(&partial, of);
            let owned = with_named_fields(&owned, of);
            let kept = remove_from_object(whole, &all.difference(&left.union(&owned)), of);
            rest = self.convert(&kept, version, at)?;
        }
        Ok(rest)
    }
}
