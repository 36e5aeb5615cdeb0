//! The objects of a resource in the order of their keys: a persistent tree, of which every version is cheap to keep.
//!
//! A B+ tree behind `Arc`s. Changing it copies the path from the root to one leaf, and only as far as somebody else holds
//! those nodes; a copy of the whole is one counter. Each inner node knows how many objects lie below each child, so that
//! a page of a list can say how many are left. Keys are not stored: an object knows its namespace and name.

use std::cmp::Ordering;
use std::sync::Arc;

use k3sd_objects::object::Object;

/// Most entries of a node. Small, because a change copies one node of each level, and touches what they point to.
const WIDTH_MAX: usize = 32;

/// A node with fewer entries joins a neighbour if both fit into one.
const WIDTH_MIN: usize = WIDTH_MAX / 4;

/// The key of an object below its resource: `namespace/name`, or the name alone for objects of the cluster.
pub(crate) fn relative_key(namespace: &str, name: &str) -> Vec<u8> {
    if namespace.is_empty() { name.as_bytes().to_vec() } else { [namespace, name].join("/").into_bytes() }
}

/// How the key of an object compares with another key, byte by byte.
fn order(object: &Object, key: &[u8]) -> Ordering {
    let (namespace, name) = object.key_bytes();
    if namespace.is_empty() {
        return name.cmp(key);
    }
    let (head, tail) = key.split_at(namespace.len().min(key.len()));
    namespace.cmp(head).then_with(|| match tail.split_first() {
        None => Ordering::Greater,
        Some((slash, tail)) => b'/'.cmp(slash).then_with(|| name.cmp(tail)),
    })
}

#[derive(Clone, Debug)]
struct Child {
    /// The smallest object below.
    first: Object,
    /// How many objects are below.
    count: usize,
    node: Arc<Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Leaf(Vec<Object>),
    Inner(Vec<Child>),
}

impl Child {
    /// `None` for an empty node.
    fn of(node: Arc<Node>) -> Option<Self> {
        let first = node.first()?.clone();
        Some(Self { first, count: node.count(), node })
    }

    /// After the node below has changed; it is not empty.
    fn refresh(&mut self) {
        self.count = self.node.count();
        if let Some(first) = self.node.first() {
            self.first = first.clone();
        }
    }
}

impl Node {
    fn first(&self) -> Option<&Object> {
        match self {
            Self::Leaf(objects) => objects.first(),
            Self::Inner(children) => children.first().map(|child| &child.first),
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Leaf(objects) => objects.len(),
            Self::Inner(children) => children.iter().map(|child| child.count).sum(),
        }
    }

    fn width(&self) -> usize {
        match self {
            Self::Leaf(objects) => objects.len(),
            Self::Inner(children) => children.len(),
        }
    }

    /// Takes away the right part when the node is too wide. Objects that come in order leave full nodes behind.
    fn split(&mut self, at_end: bool) -> Option<Child> {
        if self.width() <= WIDTH_MAX {
            return None;
        }
        let at = if at_end { WIDTH_MAX } else { self.width() / 2 };
        let right = match self {
            Self::Leaf(objects) => Self::Leaf(objects.split_off(at)),
            Self::Inner(children) => Self::Inner(children.split_off(at)),
        };
        Child::of(Arc::new(right))
    }

    /// Whether the other node, which is the next, went into this one.
    fn absorb(&mut self, next: &Self) -> bool {
        if self.width() + next.width() > WIDTH_MAX {
            return false;
        }
        match (self, next) {
            (Self::Leaf(objects), Self::Leaf(next)) => objects.extend_from_slice(next),
            (Self::Inner(children), Self::Inner(next)) => children.extend_from_slice(next),
            _ => return false,
        }
        true
    }
}

/// The child in whose range a key lies.
fn child_of(children: &[Child], key: &[u8]) -> usize {
    children.partition_point(|child| order(&child.first, key).is_le()).saturating_sub(1)
}

/// What was there before, and the right part of a node that became too wide.
fn insert(node: &mut Arc<Node>, key: &[u8], object: Object) -> (Option<Object>, Option<Child>) {
    let node = Arc::make_mut(node);
    let (previous, at_end) = match node {
        Node::Leaf(objects) => {
            let at = objects.partition_point(|other| order(other, key).is_lt());
            match objects.get_mut(at) {
                Some(found) if order(found, key).is_eq() => return (Some(std::mem::replace(found, object)), None),
                _ => objects.insert(at, object),
            }
            (None, at + 1 == objects.len())
        }
        Node::Inner(children) => {
            let at = child_of(children, key);
            let at_end = at + 1 == children.len();
            let child = &mut children[at];
            let (previous, right) = insert(&mut child.node, key, object);
            child.refresh();
            if let Some(right) = right {
                children.insert(at + 1, right);
            }
            (previous, at_end)
        }
    };
    (previous, node.split(at_end))
}

fn remove(node: &mut Arc<Node>, key: &[u8]) -> Option<Object> {
    match Arc::make_mut(node) {
        Node::Leaf(objects) => {
            let at = objects.partition_point(|other| order(other, key).is_lt());
            let found = objects.get(at).is_some_and(|found| order(found, key).is_eq());
            found.then(|| objects.remove(at))
        }
        Node::Inner(children) => {
            let at = child_of(children, key);
            let removed = remove(&mut children[at].node, key)?;
            if children[at].node.width() == 0 {
                children.remove(at);
                return Some(removed);
            }
            children[at].refresh();
            if children[at].node.width() < WIDTH_MIN && children.len() > 1 {
                let left = at.saturating_sub(usize::from(at + 1 == children.len()));
                let next = children[left + 1].node.clone();
                if Arc::make_mut(&mut children[left].node).absorb(&next) {
                    children[left].refresh();
                    children.remove(left + 1);
                }
            }
            Some(removed)
        }
    }
}

/// See the module's page. A clone shares everything.
#[derive(Clone, Debug)]
pub(crate) struct Map {
    root: Arc<Node>,
    len: usize,
}

impl Default for Map {
    fn default() -> Self {
        Self { root: Arc::new(Node::Leaf(Vec::new())), len: 0 }
    }
}

impl Map {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Object> {
        let mut node = &self.root;
        loop {
            match &**node {
                Node::Leaf(objects) => {
                    let at = objects.binary_search_by(|other| order(other, key)).ok()?;
                    return objects.get(at);
                }
                Node::Inner(children) => node = &children[child_of(children, key)].node,
            }
        }
    }

    /// Puts an object under its own key and gives back what was there.
    pub(crate) fn insert(&mut self, object: Object) -> Option<Object> {
        let key = relative_key(object.namespace(), object.name());
        let (previous, right) = insert(&mut self.root, &key, object);
        if let Some(right) = right
            && let Some(left) = Child::of(self.root.clone())
        {
            self.root = Arc::new(Node::Inner(vec![left, right]));
        }
        self.len += usize::from(previous.is_none());
        previous
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Object> {
        self.get(key)?; // Copies no path for nothing.
        let removed = remove(&mut self.root, key)?;
        self.len -= 1;
        while let Node::Inner(children) = &*self.root
            && let [only] = children.as_slice()
        {
            self.root = only.node.clone();
        }
        if self.len == 0 {
            *self = Self::default();
        }
        Some(removed)
    }

    /// How many objects have a smaller key.
    pub(crate) fn rank(&self, key: &[u8]) -> usize {
        let (mut node, mut before) = (&self.root, 0);
        loop {
            match &**node {
                Node::Leaf(objects) => return before + objects.partition_point(|other| order(other, key).is_lt()),
                Node::Inner(children) => {
                    let at = child_of(children, key);
                    before += children[..at].iter().map(|child| child.count).sum::<usize>();
                    node = &children[at].node;
                }
            }
        }
    }

    /// The objects from a key on, in order; all of them from the empty key on.
    pub(crate) fn range(&self, from: &[u8]) -> Range<'_> {
        let mut range = Range { path: Vec::new(), leaf: [].iter() };
        let mut node = &self.root;
        loop {
            match &**node {
                Node::Leaf(objects) => {
                    let at = objects.partition_point(|other| order(other, from).is_lt());
                    range.leaf = objects[at..].iter();
                    return range;
                }
                Node::Inner(children) => {
                    let at = child_of(children, from);
                    range.path.push(children[at + 1..].iter());
                    node = &children[at].node;
                }
            }
        }
    }
}

/// Objects in order.
pub(crate) struct Range<'a> {
    /// What comes after the leaf, level by level.
    path: Vec<std::slice::Iter<'a, Child>>,
    leaf: std::slice::Iter<'a, Object>,
}

impl<'a> Iterator for Range<'a> {
    type Item = &'a Object;

    fn next(&mut self) -> Option<&'a Object> {
        loop {
            if let Some(object) = self.leaf.next() {
                return Some(object);
            }
            let child = loop {
                match self.path.last_mut()?.next() {
                    Some(child) => break child,
                    None => self.path.pop(),
                };
            };
            let mut node = &child.node;
            while let Node::Inner(children) = &**node {
                let mut rest = children.iter();
                let first = rest.next()?;
                self.path.push(rest);
                node = &first.node;
            }
            if let Node::Leaf(objects) = &**node {
                self.leaf = objects.iter();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use k3sd_objects::object::Selectable;
    use proptest::prelude::*;

    use super::*;

    fn object(namespace: &str, name: &str, mark: u32) -> Object {
        let namespace = if namespace.is_empty() { String::new() } else { format!(r#","namespace":"{namespace}""#) };
        let json = format!(r#"{{"metadata":{{"name":"{name}"{namespace},"resourceVersion":"{mark}"}}}}"#);
        Object::parse(Bytes::from(json), &Selectable::default()).unwrap()
    }

    /// Names and namespaces that tell the order of whole keys from the order of their parts.
    const PARTS: &[&str] = &["a", "a-b", "a.b", "a0", "b", "ab", "z"];

    #[derive(Clone, Debug)]
    enum Step {
        Put(usize, u32, u32),
        Remove(usize, u32),
        Keep,
    }

    fn step() -> impl Strategy<Value = Step> {
        let place = (0..PARTS.len(), 0_u32..60);
        prop_oneof![
            5 => (place.clone(), any::<u32>()).prop_map(|((namespace, name), mark)| Step::Put(namespace, name, mark)),
            3 => place.prop_map(|(namespace, name)| Step::Remove(namespace, name)),
            1 => Just(Step::Keep),
        ]
    }

    /// The map says the same as a plain one in every respect.
    fn check(map: &Map, model: &BTreeMap<Vec<u8>, u64>) {
        assert_eq!(map.len(), model.len());
        let found: Vec<(Vec<u8>, u64)> = map
            .range(b"")
            .map(|object| (relative_key(object.namespace(), object.name()), object.resource_version()))
            .collect();
        let wanted: Vec<(Vec<u8>, u64)> = model.iter().map(|(key, mark)| (key.clone(), *mark)).collect();
        assert_eq!(found, wanted);
        for part in PARTS {
            let bound = format!("{part}/");
            assert_eq!(map.rank(bound.as_bytes()), model.range(..bound.as_bytes().to_vec()).count());
            let from = map.range(bound.as_bytes()).next().map(Object::resource_version);
            assert_eq!(from, model.range(bound.as_bytes().to_vec()..).next().map(|(_, mark)| *mark));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_is_a_sorted_map_and_old_versions_stay(steps in proptest::collection::vec(step(), 1..600), plain: bool) {
            let (mut map, mut model) = (Map::default(), BTreeMap::new());
            let mut kept = Vec::new();
            for step in steps {
                match step {
                    Step::Put(namespace, name, mark) => {
                        let (namespace, name) = (if plain { "" } else { PARTS[namespace] }, format!("n-{name}"));
                        let previous = map.insert(object(namespace, &name, mark)).map(|old| old.resource_version());
                        prop_assert_eq!(previous, model.insert(relative_key(namespace, &name), u64::from(mark)));
                    }
                    Step::Remove(namespace, name) => {
                        let key = relative_key(if plain { "" } else { PARTS[namespace] }, &format!("n-{name}"));
                        prop_assert_eq!(map.get(&key).map(Object::resource_version), model.get(&key).copied());
                        prop_assert_eq!(map.remove(&key).map(|old| old.resource_version()), model.remove(&key));
                    }
                    Step::Keep => kept.push((map.clone(), model.clone())),
                }
            }
            kept.push((map, model));
            for (map, model) in &kept {
                check(map, model);
            }
        }
    }

    #[test]
    fn objects_that_come_in_order_fill_their_nodes() {
        let mut map = Map::default();
        for number in 0..10_000 {
            map.insert(object("n", &format!("{number:05}"), number));
        }
        fn leaves(node: &Node) -> usize {
            match node {
                Node::Leaf(_) => 1,
                Node::Inner(children) => children.iter().map(|child| leaves(&child.node)).sum(),
            }
        }
        assert_eq!(leaves(&map.root), 10_000_usize.div_ceil(WIDTH_MAX));
    }
}
