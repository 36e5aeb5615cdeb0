//! A place in the schemas, and the questions it answers.

use std::sync::LazyLock;

use serde_json::Value;

use crate::schema::arena::Arena;
use crate::schema::builtin::builtin;
use crate::schema::node::{Kind, MessageField, NONE, Node, Presence, flag};
use crate::schema::rules::Rules;

/// How server-side apply sees a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListType {
    /// One value with one owner.
    Atomic,
    /// Scalars without order; each has its owners.
    Set,
    /// Structures that are told apart by [`SchemaRef::list_keys`]; each has its owners.
    Map,
}

/// How server-side apply sees a structure or map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MapType {
    /// Each field has its owners.
    Granular,
    /// One value with one owner.
    Atomic,
}

/// What a strategic merge patch does here. Without `merge`, a list is replaced, and a structure merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PatchStrategy {
    /// The items of a list are merged by [`SchemaRef::merge_key`], or as a set when they are scalars.
    pub merge: bool,
    /// The value is replaced, although it would be merged by its kind.
    pub replace: bool,
    /// The patch names the fields to keep; others go.
    pub retain_keys: bool,
}

/// A place in an [`Arena`]: what is known about a value there.
#[derive(Clone, Copy)]
pub struct SchemaRef<'a> {
    arena: &'a Arena,
    index: u32,
}

/// A named field of a structure.
#[derive(Debug, Clone, Copy)]
pub struct Property<'a> {
    /// Its name in JSON.
    pub name: &'a str,
    /// Its value.
    pub schema: SchemaRef<'a>,
    /// Whether the schema demands it.
    pub required: bool,
    /// When it is written. Says something about built-in structures only.
    pub presence: Presence,
}

impl<'a> SchemaRef<'a> {
    pub(crate) fn new(arena: &'a Arena, index: u32) -> Self {
        Self { arena, index }
    }

    fn node(self) -> &'a Node {
        self.arena.node(self.index)
    }

    fn has(self, bit: u16) -> bool {
        self.node().flags & bit != 0
    }

    pub(crate) fn arena(self) -> &'a Arena {
        self.arena
    }

    /// What a value is here.
    pub fn kind(self) -> Kind {
        self.node().kind
    }

    /// The value under a name: a field of a structure, or any value of a map.
    pub fn field(self, name: &str) -> Option<SchemaRef<'a>> {
        self.property(name).map(|property| property.schema).or_else(|| self.values())
    }

    /// A named field of a structure.
    pub fn property(self, name: &str) -> Option<Property<'a>> {
        self.field_index(name).map(|index| self.property_at(index))
    }

    /// The place of a field among all fields of the arena.
    pub(crate) fn field_index(self, name: &str) -> Option<usize> {
        let node = self.node();
        let fields = self.arena.fields_of(node);
        let name = name.as_bytes();
        // Asked for each field of each object. Names begin differently for the most part, which needs no call to tell.
        let order = |known: &[u8]| known.first().cmp(&name.first()).then_with(|| known.cmp(name));
        let found = fields.binary_search_by(|field| order(self.arena.str(field.name).as_bytes())).ok()?;
        Some(node.first as usize + found)
    }

    fn property_at(self, index: usize) -> Property<'a> {
        let field = &self.arena.fields[index];
        let name = self.arena.str(field.name);
        // Asked of every field of every object: what is quick to know comes first.
        let whole = (name == "metadata" && self.is_embedded()).then(object_meta).flatten();
        let schema = whole.unwrap_or_else(|| Self::new(self.arena, field.node));
        Property { name, schema, required: field.required, presence: field.presence }
    }

    /// The value under a name as the schema itself has it: of a whole object's metadata only what the schema narrows.
    pub(crate) fn own_field(self, name: &str) -> Option<SchemaRef<'a>> {
        let own = self.field_index(name).map(|index| Self::new(self.arena, self.arena.fields[index].node));
        own.or_else(|| self.values())
    }

    /// Other places of the same arena, by the numbers in some [`Rules`].
    pub(crate) fn among<'n>(self, nodes: &'n [u32]) -> impl Iterator<Item = SchemaRef<'a>> + use<'n, 'a> {
        nodes.iter().map(move |node| Self::new(self.arena, *node))
    }

    /// The field that a protobuf message points at.
    pub(crate) fn property_number(self, offset: u32) -> Property<'a> {
        self.property_at((self.node().first + offset) as usize)
    }

    /// The named fields of a structure, sorted by name.
    pub fn properties(self) -> impl ExactSizeIterator<Item = Property<'a>> {
        let node = self.node();
        (0..node.count as usize).map(move |offset| self.property_at(node.first as usize + offset))
    }

    /// The fields of a built-in structure that are always written.
    pub(crate) fn always(self) -> impl Iterator<Item = Property<'a>> {
        let node = self.node();
        let first = if node.always_count == 0 { 0 } else { node.always as usize };
        let offsets = &self.arena.always[first..first + usize::from(node.always_count)];
        offsets.iter().map(move |offset| self.property_at(node.first as usize + usize::from(*offset)))
    }

    /// Its number in the arena.
    pub(crate) fn index(self) -> usize {
        self.index as usize
    }

    /// The number of fields of a structure.
    pub(crate) fn field_count(self) -> usize {
        self.node().count as usize
    }

    /// The place of a field among those of its structure.
    pub(crate) fn field_offset(self, name: &str) -> Option<usize> {
        Some(self.field_index(name)? - self.node().first as usize)
    }

    /// The items of a list.
    pub fn item(self) -> Option<SchemaRef<'a>> {
        let node = self.node();
        (node.kind == Kind::Array && node.first != NONE).then(|| Self::new(self.arena, node.first))
    }

    /// The values of a map with string keys.
    pub fn values(self) -> Option<SchemaRef<'a>> {
        let node = self.node();
        (node.kind == Kind::Map && node.first != NONE).then(|| Self::new(self.arena, node.first))
    }

    /// The JSON schema in one of the kinds that hold one or something else ([`Kind::SchemaOrBool`] and its like).
    pub fn nested_schema(self) -> Option<SchemaRef<'a>> {
        let node = self.node();
        let holds = matches!(node.kind, Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrStrings);
        holds.then(|| Self::new(self.arena, node.first))
    }

    /// How server-side apply sees the list.
    pub fn list_type(self) -> ListType {
        match (self.has(flag::LIST_MAP), self.has(flag::LIST_SET)) {
            (true, _) => ListType::Map,
            (_, true) => ListType::Set,
            _ => ListType::Atomic,
        }
    }

    /// The fields that tell the items of a [`ListType::Map`] apart.
    pub fn list_keys(self) -> impl ExactSizeIterator<Item = &'a str> {
        let node = self.node();
        let first = if node.key_count == 0 { 0 } else { node.keys as usize };
        let keys = &self.arena.keys[first..first + usize::from(node.key_count)];
        keys.iter().map(|key| self.arena.str(*key))
    }

    /// How server-side apply sees the structure or map.
    pub fn map_type(self) -> MapType {
        if self.has(flag::ATOMIC) { MapType::Atomic } else { MapType::Granular }
    }

    /// What a strategic merge patch does here.
    pub fn patch_strategy(self) -> PatchStrategy {
        PatchStrategy {
            merge: self.has(flag::PATCH_MERGE),
            replace: self.has(flag::PATCH_REPLACE),
            retain_keys: self.has(flag::PATCH_RETAIN_KEYS),
        }
    }

    /// The field by which a strategic merge patch finds the items of a list.
    pub fn merge_key(self) -> Option<&'a str> {
        let key = self.arena.str(self.node().merge_key);
        (!key.is_empty()).then_some(key)
    }

    /// Whether `null` is a value here.
    pub fn is_nullable(self) -> bool {
        self.has(flag::NULLABLE)
    }

    /// Whether fields stay that the schema does not name.
    pub fn preserves_unknown(self) -> bool {
        self.has(flag::PRESERVE_UNKNOWN)
            || matches!(self.kind(), Kind::Any | Kind::Json | Kind::RawExtension | Kind::Fields)
    }

    /// Whether a whole object stands here, with `apiVersion`, `kind` and `metadata`.
    pub fn is_embedded(self) -> bool {
        self.has(flag::EMBEDDED)
    }

    /// What stands for an absent value. In built-in schemas only keys of map lists have one here; the rest is in
    /// [`default`](crate::default).
    pub fn default(self) -> Option<&'a Value> {
        self.rules()?.default.as_ref()
    }

    /// Rules beyond the kind; built-in schemas have hardly any.
    pub fn rules(self) -> Option<&'a Rules> {
        let extra = self.node().extra;
        (extra != NONE).then(|| &self.arena.rules[extra as usize])
    }

    /// The name of a built-in structure: package, version and type, such as `core.v1.Container`.
    pub fn type_name(self) -> Option<&'a str> {
        let name = self.arena.str(self.node().name);
        (!name.is_empty()).then_some(name)
    }

    /// The number of the protobuf message of a built-in structure.
    pub(crate) fn message(self) -> Option<u32> {
        let message = self.node().message;
        (message != NONE).then_some(message)
    }

    /// The fields of a protobuf message, sorted by number.
    pub(crate) fn message_fields(self, message: u32) -> &'static [MessageField] {
        self.arena.message(message)
    }
}

/// The metadata of every object, of custom resources too.
fn object_meta() -> Option<SchemaRef<'static>> {
    // Each walk over an object asks, and the names of types are long and much alike.
    static FOUND: LazyLock<Option<SchemaRef<'static>>> = LazyLock::new(|| builtin().type_named("meta.v1.ObjectMeta"));
    *FOUND
}

impl std::fmt::Debug for SchemaRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Schemas go in circles, so only this place is shown.
        f.debug_struct("SchemaRef").field("kind", &self.kind()).field("type", &self.type_name()).finish_non_exhaustive()
    }
}

impl PartialEq for SchemaRef<'_> {
    /// The same place of the same arena.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.arena, other.arena) && self.index == other.index
    }
}
