//! Sets of paths, as a tree that shares their beginnings.
//!
//! A path may be a member, or lead to members, or both: who applied an item of a list owns the item itself and some of
//! its fields. The tree has no branch without members, so that an empty set is an empty tree.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value};
use thiserror::Error;

use super::element::{ElementError, Path, PathElement, print_path};

/// A set of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    nodes: BTreeMap<PathElement, Node>,
}

/// What the set holds at one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// Whether the path that ends here is in the set.
    pub(super) member: bool,
    /// The paths that go on from here.
    pub(super) children: Set,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// Adds what is left of a path that leads through here.
    fn insert(&mut self, rest: &[PathElement]) {
        if rest.is_empty() {
            self.member = true;
        } else {
            self.children.insert(rest);
        }
    }

    /// The path that ends here, and nothing below.
    pub(super) fn leaf() -> Self {
        Self { member: true, children: Set::default() }
    }
}

/// A `fieldsV1` that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FieldsError {
    /// Not an object of objects.
    #[error("fieldsV1 is no object at {0}")]
    Shape(String),
    /// One of its keys is no path element.
    #[error(transparent)]
    Element(ElementError),
}

impl Set {
    /// The set of these paths.
    #[must_use]
    pub fn of(paths: impl IntoIterator<Item = Path>) -> Self {
        let mut set = Self::default();
        for path in paths {
            set.insert(&path);
        }
        set
    }

    /// Adds a path. The empty one is never a member: nobody owns an object as a whole.
    pub fn insert(&mut self, path: &[PathElement]) {
        let Some((first, rest)) = path.split_first() else { return };
        // Paths share their beginnings, and a step is copied only where it is new.
        if let Some(node) = self.nodes.get_mut(first) {
            return node.insert(rest);
        }
        let mut node = Node::default();
        node.insert(rest);
        self.nodes.insert(first.clone(), node);
    }

    /// Adds what is at the end of a path. Of the empty path only what lies below it.
    pub(super) fn graft(&mut self, path: &[PathElement], node: Node) {
        let Some((first, rest)) = path.split_first() else {
            *self = std::mem::take(self).union(node.children);
            return;
        };
        if !rest.is_empty() {
            return match self.nodes.get_mut(first) {
                Some(found) => found.children.graft(rest, node),
                None => {
                    let mut between = Node::default();
                    between.children.graft(rest, node);
                    self.put(first.clone(), between);
                }
            };
        }
        match self.nodes.get_mut(first) {
            Some(found) => {
                found.member |= node.member;
                found.children = std::mem::take(&mut found.children).union(node.children);
            }
            None => self.put(first.clone(), node),
        }
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Number of paths.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.values().map(|node| usize::from(node.member) + node.children.len()).sum()
    }

    /// Whether the path is in it.
    #[must_use]
    pub fn contains(&self, path: &[PathElement]) -> bool {
        let Some((first, rest)) = path.split_first() else { return false };
        let Some(node) = self.nodes.get(first) else { return false };
        if rest.is_empty() { node.member } else { node.children.contains(rest) }
    }

    /// What the set holds at one step.
    pub(super) fn node(&self, element: &PathElement) -> Option<&Node> {
        self.nodes.get(element)
    }

    /// What the set holds at each first step.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&PathElement, &Node)> {
        self.nodes.iter()
    }

    /// Puts in what is to be at one step.
    pub(super) fn put(&mut self, element: PathElement, node: Node) {
        if !node.is_empty() {
            self.nodes.insert(element, node);
        }
    }

    /// All paths: at each place first those that end there, then those that go on.
    #[must_use]
    pub fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut Path, paths: &mut Vec<Path>) {
        for (element, _) in self.nodes.iter().filter(|(_, node)| node.member) {
            paths.push(prefix.iter().chain([element]).cloned().collect());
        }
        for (element, node) in &self.nodes {
            prefix.push(element.clone());
            node.children.collect(prefix, paths);
            prefix.pop();
        }
    }

    /// What is in one of the two.
    #[must_use]
    pub fn union(mut self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        for (element, theirs) in other.nodes {
            match self.nodes.entry(element) {
                Entry::Vacant(entry) => {
                    entry.insert(theirs);
                }
                Entry::Occupied(mut entry) => {
                    let ours = entry.get_mut();
                    ours.member |= theirs.member;
                    ours.children = std::mem::take(&mut ours.children).union(theirs.children);
                }
            }
        }
        self
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for (element, ours) in &self.nodes {
            let Some(theirs) = other.nodes.get(element) else { continue };
            let member = ours.member && theirs.member;
            both.put(element.clone(), Node { member, children: ours.children.intersection(&theirs.children) });
        }
        both
    }

    /// What is in this one only.
    #[must_use]
    pub fn difference(mut self, other: &Self) -> Self {
        self.nodes.retain(|element, ours| {
            if let Some(theirs) = other.nodes.get(element) {
                ours.member &= !theirs.member;
                ours.children = std::mem::take(&mut ours.children).difference(&theirs.children);
            }
            !ours.is_empty()
        });
        self
    }

    /// What is in this one, without the other's paths and all that lies below them.
    #[must_use]
    pub fn difference_below(mut self, other: &Self) -> Self {
        self.nodes.retain(|element, ours| {
            if let Some(theirs) = other.nodes.get(element) {
                if theirs.member {
                    return false;
                }
                ours.children = std::mem::take(&mut ours.children).difference_below(&theirs.children);
            }
            !ours.is_empty()
        });
        self
    }

    /// Whether all of it is in the other one.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.nodes.iter().all(|(element, ours)| {
            other
                .nodes
                .get(element)
                .is_some_and(|theirs| (theirs.member || !ours.member) && ours.children.is_subset(&theirs.children))
        })
    }

    /// Whether a path has more than so many steps.
    fn exceeds(&self, steps_max: usize) -> bool {
        match steps_max.checked_sub(1) {
            None => !self.is_empty(),
            Some(rest) => self.nodes.values().any(|node| node.children.exceeds(rest)),
        }
    }

    /// The set without paths of more than so many steps: what lies deeper is owned with what it is in.
    #[must_use]
    pub fn cut(&self, steps_max: usize) -> Cow<'_, Self> {
        if self.exceeds(steps_max) { Cow::Owned(self.clone().shorten(steps_max)) } else { Cow::Borrowed(self) }
    }

    fn shorten(mut self, steps_max: usize) -> Self {
        for node in self.nodes.values_mut() {
            if steps_max <= 1 && !node.children.is_empty() {
                *node = Node::leaf();
            }
            node.children = std::mem::take(&mut node.children).shorten(steps_max.saturating_sub(1));
        }
        self
    }

    /// As `fieldsV1`: each step is a key, `{}` a path that ends, and `.` a path that ends where others go on.
    #[must_use]
    pub fn to_fields(&self) -> Value {
        let mut fields = Map::new();
        for (element, node) in &self.nodes {
            let mut below = node.children.to_fields();
            if let Value::Object(below) = &mut below
                && node.member
                && !below.is_empty()
            {
                below.insert(".".to_owned(), Value::Object(Map::new()));
            }
            fields.insert(element.to_text(), below);
        }
        Value::Object(fields)
    }

    /// Reads `fieldsV1`. Steps of an unknown kind are skipped with all that lies below.
    ///
    /// # Errors
    ///
    /// Fails if it isn't an object of objects, or a key is malformed.
    pub fn from_fields(fields: &Value) -> Result<Self, FieldsError> {
        Ok(Self::read(fields, &mut Vec::new())?.children)
    }

    fn read(fields: &Value, path: &mut Path) -> Result<Node, FieldsError> {
        let Some(fields) = fields.as_object() else { return Err(FieldsError::Shape(print_path(path))) };
        let mut node = Node::default();
        for (text, below) in fields {
            if text == "." {
                node.member = true;
                continue;
            }
            let element = match PathElement::from_text(text) {
                Ok(element) => element,
                Err(ElementError::Unknown) => continue,
                Err(error) => return Err(FieldsError::Element(error)),
            };
            path.push(element.clone());
            let child = Self::read(below, path)?;
            path.pop();
            node.children.put(element, child);
        }
        node.member |= node.children.is_empty();
        Ok(node)
    }
}
