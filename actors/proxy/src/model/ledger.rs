//! What every service wants of the kernel, and what has changed since the kernel was told.
//!
//! An element may be wanted by several services: the address of a pod, or one external address by mistake. The first of
//! them by name has it; when that one goes the next has it. So it doesn't matter who came first, and a restart changes
//! nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::rules::{Element, ElementKey, SetId};

/// A service, as `namespace/name`.
pub(crate) type Owner = Arc<str>;

type Value = Box<[u8]>;

#[derive(Debug)]
struct Claims {
    holder: (Owner, Value),
    /// Almost always empty.
    waiting: BTreeMap<Owner, Value>,
}

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    elements: HashMap<ElementKey, Claims>,
    /// What the kernel has under keys where it may have to change.
    changed: HashMap<ElementKey, Option<Value>>,
    /// Who lost a place to another, or got it from another.
    moved: HashSet<Owner>,
}

/// A key whose value is another now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) key: ElementKey,
    /// What the kernel has.
    pub(crate) old: Option<Value>,
    /// What it should have.
    pub(crate) new: Option<Value>,
}

impl Ledger {
    /// A service wants this element.
    pub(crate) fn claim(&mut self, owner: &Owner, element: Element) {
        let Element { key, value } = element;
        let Some(claims) = self.elements.get_mut(&key) else {
            let claims = Claims { holder: (owner.clone(), value), waiting: BTreeMap::new() };
            self.elements.insert(key.clone(), claims);
            self.changed.entry(key).or_insert(None);
            return;
        };
        let (holder, held) = &mut claims.holder;
        if owner > holder {
            claims.waiting.insert(owner.clone(), value);
            return;
        }
        if *held != value {
            self.changed.entry(key.clone()).or_insert_with(|| Some(held.clone()));
        }
        let before = std::mem::replace(&mut claims.holder, (owner.clone(), value));
        if before.0 != *owner {
            if key.set() == SetId::Services {
                self.moved.insert(before.0.clone());
            }
            claims.waiting.insert(before.0, before.1);
        }
    }

    /// A service wants it no more.
    pub(crate) fn release(&mut self, owner: &Owner, key: &ElementKey) {
        let Some(claims) = self.elements.get_mut(key) else { return };
        if claims.holder.0 != *owner {
            claims.waiting.remove(owner);
            return;
        }
        let held = match claims.waiting.pop_first() {
            Some(next) => {
                if key.set() == SetId::Services {
                    self.moved.insert(next.0.clone());
                }
                std::mem::replace(&mut claims.holder, next).1
            }
            None => match self.elements.remove(key) {
                Some(claims) => claims.holder.1,
                None => return,
            },
        };
        self.changed.entry(key.clone()).or_insert(Some(held));
    }

    /// Services that lost a place to another, or got it from another, since this was last asked.
    pub(crate) fn take_moved(&mut self) -> HashSet<Owner> {
        std::mem::take(&mut self.moved)
    }

    /// Whose element it is.
    pub(crate) fn holder(&self, key: &ElementKey) -> Option<&Owner> {
        self.elements.get(key).map(|claims| &claims.holder.0)
    }

    /// What is wanted under a key.
    pub(crate) fn get(&self, key: &ElementKey) -> Option<&[u8]> {
        self.elements.get(key).map(|claims| &*claims.holder.1)
    }

    /// All that is wanted.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ElementKey, &[u8])> {
        self.elements.iter().map(|(key, claims)| (key, &*claims.holder.1))
    }

    /// How many elements are wanted.
    pub(crate) fn len(&self) -> usize {
        self.elements.len()
    }

    /// What the kernel has to be told.
    pub(crate) fn differences(&self) -> Vec<Difference> {
        let differences = self.changed.iter().filter_map(|(key, old)| {
            let new = self.elements.get(key).map(|claims| &claims.holder.1);
            let (old, new) = (old.clone(), new.cloned());
            (old != new).then(|| Difference { key: key.clone(), old, new })
        });
        differences.collect()
    }

    /// The kernel has it all.
    pub(crate) fn told(&mut self) {
        self.changed = HashMap::new();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::rules::service_address;

    fn element(at: u8, value: u8) -> Element {
        Element { value: [value].into(), ..service_address([10, 0, 0, at].into()) }
    }

    #[test]
    fn the_first_by_name_has_it() {
        let mut ledger = Ledger::default();
        let (a, b): (Owner, Owner) = ("a".into(), "b".into());
        let key = element(1, 0).key;
        ledger.claim(&b, element(1, 2));
        ledger.claim(&a, element(1, 1));
        assert_eq!(ledger.get(&key), Some(&[1][..]));
        ledger.claim(&b, element(1, 3));
        ledger.told();
        ledger.release(&a, &key);
        assert_eq!(ledger.get(&key), Some(&[3][..]));
        assert_eq!(
            ledger.differences(),
            [Difference { key: key.clone(), old: Some([1].into()), new: Some([3].into()) }]
        );
        ledger.claim(&a, element(1, 1));
        assert_eq!(ledger.differences(), [], "it is as the kernel has it again");
        ledger.release(&b, &key);
        ledger.release(&a, &key);
        assert_eq!((ledger.get(&key), ledger.len()), (None, 0));
    }

    proptest! {
        /// Whoever applies the differences has what is wanted, whatever happened in between.
        #[test]
        fn differences_lead_to_what_is_wanted(
            steps in proptest::collection::vec((0..3_u8, 0..4_u8, proptest::option::of(0..3_u8), any::<bool>()), 0..60),
        ) {
            let owners: [Owner; 3] = ["a".into(), "b".into(), "c".into()];
            let mut ledger = Ledger::default();
            let mut kernel: BTreeMap<ElementKey, Value> = BTreeMap::new();
            let mut model: BTreeMap<(ElementKey, Owner), u8> = BTreeMap::new();
            for (owner, at, value, tells) in steps {
                let owner = &owners[usize::from(owner)];
                let key = element(at, 0).key;
                match value {
                    Some(value) => {
                        ledger.claim(owner, element(at, value));
                        model.insert((key, owner.clone()), value);
                    }
                    None => {
                        ledger.release(owner, &key);
                        model.remove(&(key, owner.clone()));
                    }
                }
                if tells {
                    for difference in ledger.differences() {
                        prop_assert_eq!(kernel.get(&difference.key), difference.old.as_ref());
                        match difference.new {
                            Some(value) => kernel.insert(difference.key, value),
                            None => kernel.remove(&difference.key),
                        };
                    }
                    ledger.told();
                    let mut wanted: BTreeMap<ElementKey, Value> = BTreeMap::new();
                    for ((key, _), value) in &model {
                        wanted.entry(key.clone()).or_insert([*value].into());
                    }
                    prop_assert_eq!(&kernel, &wanted);
                }
            }
        }
    }
}
