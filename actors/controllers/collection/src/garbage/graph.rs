//! Who owns whom: pure. What happens to objects goes in, what has to be looked at comes out.
//!
//! A node is an object that was seen, or one that is only known because somebody names it as owner. The graph decides
//! nothing: whatever it asks to look at is read from the API before anything is done to it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Objects among which a circle of those that wait for each other is looked for.
const CIRCLE_MAX: usize = 1000;

/// The uid of an object; any text, because owners are named by users.
pub type Uid = Arc<str>;

/// Which object, as references name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Group and version.
    pub api_version: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Empty for objects of the cluster.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Box<str>,
}

/// One of the owners that an object names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Its uid.
    pub uid: Uid,
    /// Group and version.
    pub api_version: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Name.
    pub name: Box<str>,
    /// Whether a foreground deletion of the owner waits for the object.
    pub blocks: bool,
}

impl Owner {
    /// Where the owner is, if it is named by an object of this namespace and in it.
    pub fn place(&self, namespace: &Arc<str>) -> Place {
        let (api_version, kind, name) = (self.api_version.clone(), self.kind.clone(), self.name.clone());
        Place { api_version, kind, namespace: namespace.clone(), name }
    }

    fn names(&self, place: &Place) -> bool {
        (&self.api_version, &self.kind, &self.name) == (&place.api_version, &place.kind, &place.name)
    }
}

/// What there is to know about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its uid.
    pub uid: Uid,
    /// Where it is.
    pub place: Place,
    /// Its owners.
    pub owners: Box<[Owner]>,
    /// Its deletion was asked for.
    pub deleting: bool,
    /// And waits for its dependents to be gone.
    pub foreground: bool,
    /// And waits for its dependents to be let go.
    pub orphaning: bool,
}

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// Whether an object has to go, or may.
    Object(Uid),
    /// An object whose dependents have to be let go.
    Orphan(Uid),
}

impl Work {
    /// The object.
    pub fn uid(&self) -> &Uid {
        match self {
            Self::Object(uid) | Self::Orphan(uid) => uid,
        }
    }
}

/// What comes of a change.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In no order; the same may be there twice.
    pub work: Vec<Work>,
    /// Objects that name an owner of another namespace.
    pub misplaced: Vec<(Uid, Place, Owner)>,
}

#[derive(Clone, Debug)]
struct Node {
    place: Place,
    /// Whether it was seen, or is only named by others.
    seen: bool,
    owners: Box<[Owner]>,
    dependents: BTreeSet<Uid>,
    deleting: bool,
    foreground: bool,
    orphaning: bool,
}

/// What a look at an object begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Its uid.
    pub uid: Uid,
    /// Where it is.
    pub place: Place,
    /// Whether it was seen, or is only named by others.
    pub seen: bool,
    /// Its deletion was asked for.
    pub deleting: bool,
    /// And waits for its dependents.
    pub foreground: bool,
    /// Somebody names it as owner.
    pub has_dependents: bool,
    /// Somebody names it as owner whom its deletion waits for.
    pub is_blocked: bool,
    /// One of its dependents waits for its own dependents: they may be the same, in a circle.
    pub is_in_circle: bool,
}

/// See the module's page.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<Uid, Node>,
}

impl Graph {
    /// An object is there, or is another.
    pub fn apply(&mut self, seen: Seen, found: &mut Found) {
        let Seen { uid, place, owners, deleting, foreground, orphaning } = seen;
        let old = self.nodes.get(&uid);
        let (was_foreground, was_orphaning) = old.map_or((false, false), |old| (old.foreground, old.orphaning));
        let old_owners = old.map(|old| old.owners.clone()).unwrap_or_default();
        let moved = old.is_some_and(|old| !old.seen && old.place != place);
        let dependents = old.map(|old| old.dependents.clone()).filter(|_| moved || foreground && !was_foreground);
        let node = self.nodes.entry(uid.clone()).or_insert_with(|| Node::named(place.clone()));
        (node.place, node.seen, node.owners) = (place.clone(), true, owners.clone());
        (node.deleting, node.foreground, node.orphaning) = (deleting, foreground, orphaning);
        if moved {
            // Those who named another object by this uid have an owner that isn't there.
            for stray in dependents.iter().flatten().filter(|dependent| !self.is_named_rightly(dependent, &uid)) {
                found.work.push(Work::Object(stray.clone()));
                found.misplaced.extend(self.misplaced(stray, &uid));
            }
        }
        for owner in &old_owners {
            let now = owners.iter().find(|now| now.uid == owner.uid);
            if now.is_none() {
                self.unlink(&uid, &owner.uid);
            }
            if now.is_none_or(|now| owner.blocks && !now.blocks) {
                self.unblocked(&owner.uid, found);
            }
        }
        for owner in owners.iter().filter(|owner| !old_owners.contains(owner)) {
            self.link(&uid, &place, owner, found);
        }
        if orphaning && !was_orphaning {
            found.work.push(Work::Orphan(uid.clone()));
        }
        if foreground && !was_foreground {
            found.work.extend(dependents.into_iter().flatten().map(Work::Object));
            found.work.push(Work::Object(uid));
        }
    }

    /// An object is gone. Answers whether somebody named it as owner.
    pub fn gone(&mut self, uid: &Uid, found: &mut Found) -> Option<Place> {
        let node = self.nodes.remove(uid)?;
        for owner in &node.owners {
            self.unlink(uid, &owner.uid);
            self.unblocked(&owner.uid, found);
        }
        let is_owner = !node.dependents.is_empty();
        found.work.extend(node.dependents.into_iter().map(Work::Object));
        is_owner.then_some(node.place)
    }

    /// There is no object of this uid in this place. Whoever names it elsewhere may still be right.
    pub fn absent(&mut self, uid: &Uid, place: &Place, found: &mut Found) {
        let Some(node) = self.nodes.get(uid) else { return };
        if node.seen {
            if node.place == *place {
                self.gone(uid, found);
            }
            return;
        }
        let named = |dependent: &Uid| -> Option<Place> {
            let dependent = self.nodes.get(dependent)?;
            let owner = dependent.owners.iter().find(|owner| owner.uid == *uid)?;
            Some(owner.place(&dependent.place.namespace))
        };
        let (here, elsewhere): (Vec<Uid>, Vec<Uid>) =
            node.dependents.iter().cloned().partition(|dependent| named(dependent).is_none_or(|other| other == *place));
        let next = elsewhere.iter().find_map(named);
        found.work.extend(here.into_iter().map(Work::Object));
        match next {
            Some(next) => {
                found.work.push(Work::Object(uid.clone()));
                if let Some(node) = self.nodes.get_mut(uid) {
                    node.place = next;
                    node.dependents = elsewhere.into_iter().collect();
                }
            }
            None => drop(self.nodes.remove(uid)),
        }
    }

    /// These are all objects of a kind. The others of it are gone.
    pub fn listed(&mut self, api_version: &str, kind: &str, all: &HashSet<Uid>, found: &mut Found) {
        let is_gone = |(uid, node): &(&Uid, &Node)| {
            node.seen && *node.place.kind == *kind && *node.place.api_version == *api_version && !all.contains(*uid)
        };
        let gone: Vec<Uid> = self.nodes.iter().filter(is_gone).map(|(uid, _)| uid.clone()).collect();
        for uid in gone {
            self.gone(&uid, found);
        }
    }

    /// What a look at an object begins with; `None` if nobody knows it any more.
    pub fn look(&self, uid: &Uid) -> Option<Look> {
        let node = self.nodes.get(uid)?;
        let of = |dependent: &Uid| self.nodes.get(dependent);
        let is_blocked = node.foreground
            && node.dependents.iter().any(|dependent| {
                self.blocks(dependent, uid)
                    && !(of(dependent).is_some_and(|node| node.foreground) && self.waits(dependent, uid))
            });
        Some(Look {
            uid: uid.clone(),
            place: node.place.clone(),
            seen: node.seen,
            deleting: node.deleting,
            foreground: node.foreground,
            has_dependents: !node.dependents.is_empty(),
            is_blocked,
            is_in_circle: !node.deleting && node.dependents.iter().filter_map(of).any(|node| node.foreground),
        })
    }

    fn blocks(&self, dependent: &Uid, owner: &Uid) -> bool {
        let owners = self.nodes.get(dependent).into_iter().flat_map(|node| &node.owners);
        owners.into_iter().any(|named| named.blocks && named.uid == *owner)
    }

    /// Whether the deletion of `from` waits for `to`, which waits for `from`: nothing would ever come of that.
    fn waits(&self, from: &Uid, to: &Uid) -> bool {
        let (mut seen, mut next) = (HashSet::from([from]), vec![from]);
        while let Some(uid) = next.pop() {
            if uid == to {
                return true;
            }
            let Some(node) = self.nodes.get(uid).filter(|node| node.foreground) else { continue };
            for dependent in node.dependents.iter().filter(|dependent| self.blocks(dependent, uid)) {
                if seen.len() < CIRCLE_MAX && seen.insert(dependent) {
                    next.push(dependent);
                }
            }
        }
        false
    }

    /// The owners that an object names.
    pub fn owners(&self, uid: &Uid) -> &[Owner] {
        self.nodes.get(uid).map_or(&[], |node| &node.owners)
    }

    /// Those that name an object as owner, and where they are.
    pub fn dependents(&self, uid: &Uid) -> Vec<(Uid, Place)> {
        let dependents = self.nodes.get(uid).into_iter().flat_map(|node| &node.dependents);
        dependents.filter_map(|uid| Some((uid.clone(), self.nodes.get(uid)?.place.clone()))).collect()
    }

    /// How many objects are known.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn link(&mut self, uid: &Uid, place: &Place, owner: &Owner, found: &mut Found) {
        let node = self.nodes.entry(owner.uid.clone()).or_insert_with(|| {
            // Nobody has seen it yet: maybe it isn't there.
            found.work.push(Work::Object(owner.uid.clone()));
            Node::named(owner.place(&place.namespace))
        });
        node.dependents.insert(uid.clone());
        let elsewhere = !node.place.namespace.is_empty() && node.place.namespace != place.namespace;
        if elsewhere && node.seen {
            found.misplaced.push((uid.clone(), place.clone(), owner.clone()));
        }
        if elsewhere || !owner.names(&node.place) || node.foreground {
            found.work.push(Work::Object(uid.clone()));
        }
    }

    fn unlink(&mut self, uid: &Uid, owner: &Uid) {
        let Some(node) = self.nodes.get_mut(owner) else { return };
        node.dependents.remove(uid);
        if !node.seen && node.dependents.is_empty() {
            self.nodes.remove(owner);
        }
    }

    fn unblocked(&self, owner: &Uid, found: &mut Found) {
        if self.nodes.get(owner).is_some_and(|node| node.foreground) {
            found.work.push(Work::Object(owner.clone()));
        }
    }

    /// The dependent and its reference, if that names an owner of another namespace.
    fn misplaced(&self, dependent: &Uid, owner: &Uid) -> Option<(Uid, Place, Owner)> {
        let (node, owning) = (self.nodes.get(dependent)?, self.nodes.get(owner)?);
        let named = node.owners.iter().find(|named| named.uid == *owner)?;
        let elsewhere = !owning.place.namespace.is_empty() && owning.place.namespace != node.place.namespace;
        elsewhere.then(|| (dependent.clone(), node.place.clone(), named.clone()))
    }

    fn is_named_rightly(&self, dependent: &Uid, owner: &Uid) -> bool {
        let (Some(dependent), Some(node)) = (self.nodes.get(dependent), self.nodes.get(owner)) else { return false };
        let is_near = node.place.namespace.is_empty() || node.place.namespace == dependent.place.namespace;
        is_near && dependent.owners.iter().any(|named| named.uid == *owner && named.names(&node.place))
    }
}

impl Node {
    fn named(place: Place) -> Self {
        let (owners, dependents) = (Box::default(), BTreeSet::new());
        Self { place, seen: false, owners, dependents, deleting: false, foreground: false, orphaning: false }
    }
}
