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

/// What a write did, in one version.
#[derive(Default)]
struct Changes {
    /// Has a new value, or a first one.
    changed: Set,
    /// Is gone.
    removed: Set,
}

impl Changes {
    fn of(comparison: Comparison) -> Self {
        Self { changed: comparison.modified.union(comparison.added), removed: comparison.removed }
    }
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
    pub(super) fn reconciled(&self, mut managers: Managers) -> Managers {
        managers.0.retain(|_, entry| match self.type_in(&entry.api_version) {
            Some(of) => {
                entry.set = reconcile(std::mem::take(&mut entry.set), of);
                true
            }
            None => false,
        });
        managers
    }

    /// What a write changed, in the version of each manager.
    fn comparisons(
        &self,
        old: &Value,
        new: &Value,
        managers: &Managers,
    ) -> Result<BTreeMap<String, Changes>, ApplyError> {
        let mut comparisons = BTreeMap::new();
        let own = compare(old, new, self.own_type()).without(self.ignored);
        comparisons.insert(self.api_version.to_owned(), Changes::of(own));
        for entry in managers.0.values() {
            if comparisons.contains_key(&entry.api_version) {
                continue;
            }
            let Some(of) = self.type_in(&entry.api_version) else { continue };
            let old = self.convert(old, self.api_version, &entry.api_version)?;
            let new = self.convert(new, self.api_version, &entry.api_version)?;
            let comparison = compare(&old, &new, of).without(self.ignored);
            comparisons.insert(entry.api_version.clone(), Changes::of(comparison));
        }
        Ok(comparisons)
    }

    /// Takes what a write changed from everybody but `writer`, and gives it. Without `force`, changing what others own is
    /// an error.
    fn take(
        &self,
        old: &Value,
        new: &Value,
        managers: &mut Managers,
        writer: Option<&Manager>,
        force: bool,
    ) -> Result<Set, ApplyError> {
        let mut comparisons = self.comparisons(old, new, managers)?;
        if !force {
            let others = managers.0.iter().filter(|(manager, _)| Some(*manager) != writer);
            let lost: Vec<(&Manager, Set)> = others
                .filter_map(|(manager, entry)| {
                    let changes = comparisons.get(&entry.api_version)?;
                    Some((manager, entry.set.intersection(&changes.changed)))
                })
                .collect();
            if let Some(error) = ApplyError::conflicts(lost.iter().map(|(manager, set)| (*manager, set))) {
                return Err(error);
            }
        }
        managers.0.retain(|manager, entry| {
            if Some(manager) != writer
                && let Some(changes) = comparisons.get(&entry.api_version)
            {
                entry.set = std::mem::take(&mut entry.set).difference(&changes.changed).difference(&changes.removed);
            }
            !entry.set.is_empty()
        });
        Ok(comparisons.remove(self.api_version).map(|changes| changes.changed).unwrap_or_default())
    }

    /// After a write that isn't an apply: others lose what it changed. Gives what the writer owns by it.
    ///
    /// # Errors
    ///
    /// Fails if a version of the object can't be had.
    pub(super) fn updated(&self, old: &Value, new: &Value, managers: &mut Managers) -> Result<Set, ApplyError> {
        self.take(old, new, managers, None, true)
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
        let last = managers.0.remove(applier);
        let time = last.as_ref().and_then(|last| last.time);
        // Who says again all that it said, and in the same version, takes nothing back.
        let drops = last.filter(|last| last.api_version != self.api_version || !last.set.is_subset(&set));
        let entry = Entry { set, api_version: self.api_version.to_owned(), time };
        managers.0.insert(applier.clone(), entry);
        let new = match &drops {
            Some(last) => self.pruned(merged, managers, last)?,
            None => merged,
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
            *owned = std::mem::take(owned).union(entry.set.clone());
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
            let kept = remove_from_object(whole, &all.difference(&left.union(owned)), of);
            rest = self.convert(&kept, version, at)?;
        }
        Ok(rest)
    }
}
