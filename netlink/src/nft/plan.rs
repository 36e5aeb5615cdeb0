//! What is missing in a table. Pure.

use super::model::{Chain, Change, Contents, Set, Table};

/// The changes from the table that is there, if any, to the one that is wanted; empty when nothing is missing.
///
/// What a set or a base chain *is* can't be changed. If that differs, the table is made anew in the same batch; the
/// elements of sets that are left alone are carried over where they fit.
#[must_use]
pub fn plan(found: Option<&Table>, wanted: Table) -> Vec<Change> {
    match found {
        None => create(wanted),
        Some(found) if !fits(found, &wanted) => {
            let mut changes = vec![Change::DeleteTable];
            changes.extend(create(carry_over(found, wanted)));
            changes
        }
        Some(found) => update(found, wanted),
    }
}

/// A set without its elements, of which there may be very many.
fn shape(set: &Set) -> Set {
    let Set { name, key_type, key_bytes, data, from_packets, elements: _ } = set;
    let (key_type, key_bytes, data, from_packets) = (*key_type, *key_bytes, *data, *from_packets);
    Set { name: name.clone(), key_type, key_bytes, data, from_packets, elements: None }
}

fn fits(found: &Table, wanted: &Table) -> bool {
    let same_set = |set: &Set| found.set(&set.name).is_none_or(|there| shape(there) == shape(set));
    let same_chain = |chain: &Chain| found.chain(&chain.name).is_none_or(|there| there.base == chain.base);
    wanted.sets.iter().all(same_set) && wanted.chains.iter().all(same_chain)
}

fn carry_over(found: &Table, mut wanted: Table) -> Table {
    for set in wanted.sets.iter_mut().filter(|set| set.elements.is_none()) {
        let there = found.set(&set.name).filter(|there| shape(there) == shape(set));
        set.elements = there.and_then(|there| there.elements.clone());
    }
    wanted
}

fn create(mut wanted: Table) -> Vec<Change> {
    let mut changes = vec![Change::AddTable];
    changes.extend(wanted.sets.iter().map(|set| Change::AddSet(shape(set))));
    let chains = wanted.chains.iter();
    changes.extend(chains.map(|chain| Change::AddChain { name: chain.name.clone(), base: chain.base }));
    for set in &mut wanted.sets {
        let elements = set.elements.take().filter(|elements| !elements.is_empty());
        changes.extend(elements.map(|elements| Change::AddElements { set: set.name.clone(), elements }));
    }
    changes.extend(wanted.chains.iter().flat_map(add_rules));
    changes
}

fn add_rules(chain: &Chain) -> impl Iterator<Item = Change> {
    chain.rules.iter().map(|rule| Change::AddRule { chain: chain.name.clone(), rule: rule.clone() })
}

/// First what others will lead to, then those others, then what nobody leads to any more.
fn update(found: &Table, mut wanted: Table) -> Vec<Change> {
    let mut changes = Vec::new();
    let new_sets = wanted.sets.iter().filter(|set| found.set(&set.name).is_none());
    changes.extend(new_sets.map(|set| Change::AddSet(shape(set))));
    let new_chains = wanted.chains.iter().filter(|chain| found.chain(&chain.name).is_none());
    changes.extend(new_chains.map(|chain| Change::AddChain { name: chain.name.clone(), base: chain.base }));
    for set in &mut wanted.sets {
        let elements = set.elements.take();
        update_elements(found.set(&set.name), &set.name, elements, &mut changes);
    }
    for chain in &wanted.chains {
        let there = found.chain(&chain.name).map(|there| there.rules.as_slice()).unwrap_or_default();
        if there != chain.rules {
            if !there.is_empty() {
                changes.push(Change::FlushChain(chain.name.clone()));
            }
            changes.extend(add_rules(chain));
        }
    }
    let surplus: Vec<_> = found.chains.iter().filter(|chain| wanted.chain(&chain.name).is_none()).collect();
    let with_rules = surplus.iter().filter(|chain| !chain.rules.is_empty());
    changes.extend(with_rules.map(|chain| Change::FlushChain(chain.name.clone())));
    // Maps may lead to chains, so they go first.
    let surplus_sets = found.sets.iter().filter(|set| wanted.set(&set.name).is_none());
    changes.extend(surplus_sets.map(|set| Change::DeleteSet(set.name.clone())));
    changes.extend(surplus.iter().map(|chain| Change::DeleteChain(chain.name.clone())));
    changes
}

fn update_elements(found: Option<&Set>, set: &str, elements: Option<Contents>, changes: &mut Vec<Change>) {
    let Some(elements) = elements else { return };
    let empty = Contents::new();
    let there = found.and_then(|found| found.elements.as_ref()).unwrap_or(&empty);
    let gone: Contents = there
        .iter()
        .filter(|(key, element)| elements.get(*key) != Some(*element))
        .map(|(key, element)| (key.clone(), element.clone()))
        .collect();
    let new: Contents = elements.into_iter().filter(|(key, element)| there.get(key) != Some(element)).collect();
    if !gone.is_empty() {
        changes.push(Change::DeleteElements { set: set.to_owned(), elements: gone });
    }
    if !new.is_empty() {
        changes.push(Change::AddElements { set: set.to_owned(), elements: new });
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
