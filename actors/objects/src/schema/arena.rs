//! The cells of one set of schemas, and the way in.

use std::borrow::Cow;

use crate::schema::node::{Field, Message, MessageField, Node, Text};
use crate::schema::reference::SchemaRef;
use crate::schema::rules::Rules;

/// Schemas that refer to each other. The built-in one is [`builtin`](crate::schema::builtin); a custom resource has
/// one per version, made by [`structural`](crate::schema::structural).
#[derive(Debug)]
pub struct Arena {
    pub(super) text: Cow<'static, str>,
    pub(super) nodes: Cow<'static, [Node]>,
    pub(super) fields: Cow<'static, [Field]>,
    pub(super) keys: Cow<'static, [Text]>,
    /// Which fields are always written, by their place among those of their object.
    pub(super) always: &'static [u16],
    pub(super) messages: &'static [Message],
    pub(super) message_fields: &'static [MessageField],
    /// Names of types, sorted, with their nodes.
    pub(super) types: &'static [(Text, u32)],
    /// What [`Node::extra`] counts.
    pub(super) rules: Vec<Rules>,
    /// The schema that the arena was made for; the built-in one has many, and none of them first.
    pub(super) root: u32,
}

impl Arena {
    /// The schema of a custom resource. The built-in arena has no first schema; ask it by [`type_named`](Self::type_named).
    pub fn root(&self) -> SchemaRef<'_> {
        SchemaRef::new(self, self.root)
    }

    /// A built-in type by package, version and name: `core.v1.Pod`, `meta.v1.ObjectMeta`, `apps.v1.DeploymentList`.
    pub fn type_named(&self, name: &str) -> Option<SchemaRef<'_>> {
        let found = self.types.binary_search_by(|(text, _)| self.str(*text).cmp(name)).ok()?;
        Some(SchemaRef::new(self, self.types[found].1))
    }

    /// All named types, sorted by name.
    pub fn types(&self) -> impl Iterator<Item = (&str, SchemaRef<'_>)> {
        self.types.iter().map(|(name, node)| (self.str(*name), SchemaRef::new(self, *node)))
    }

    /// Whether any place has a value for when nothing is given.
    pub fn has_defaults(&self) -> bool {
        self.rules.iter().any(|rules| rules.default.is_some())
    }

    /// Bytes that the arena takes beyond what is part of the program.
    pub fn heap_bytes(&self) -> usize {
        let owned = |bytes: usize, owned: bool| if owned { bytes } else { 0 };
        owned(self.text.len(), matches!(self.text, Cow::Owned(_)))
            + owned(size_of_val(&*self.nodes), matches!(self.nodes, Cow::Owned(_)))
            + owned(size_of_val(&*self.fields), matches!(self.fields, Cow::Owned(_)))
            + owned(size_of_val(&*self.keys), matches!(self.keys, Cow::Owned(_)))
            + self.rules.capacity() * size_of::<Rules>()
    }

    pub(crate) fn str(&self, text: Text) -> &str {
        &self.text[text.start as usize..(text.start + text.len) as usize]
    }

    /// Number of cells, so that tables beside the arena can be as long.
    pub(crate) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The place with a number below [`node_count`](Self::node_count).
    pub(crate) fn at(&self, index: usize) -> SchemaRef<'_> {
        SchemaRef::new(self, u32::try_from(index).expect("arenas are small"))
    }

    pub(crate) fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    pub(crate) fn fields_of(&self, node: &Node) -> &[Field] {
        if node.count == 0 {
            return &[];
        }
        &self.fields[node.first as usize..(node.first + node.count) as usize]
    }

    /// The fields of a protobuf message, sorted by number.
    pub(crate) fn message(&self, index: u32) -> &'static [MessageField] {
        let message = self.messages[index as usize];
        &self.message_fields[message.first as usize..message.first as usize + usize::from(message.count)]
    }
}
