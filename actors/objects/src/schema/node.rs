//! The cells of an arena: plain numbers, so that the built-in schemas are constants that no start-up code touches.
//!
//! The build script uses this file too, and prints the cells as they are declared here.

/// What a value is, in JSON and on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Anything at all; nothing below is known.
    Any,
    /// A structure with named fields; `first` and `count` are its fields.
    Object,
    /// String keys to values of one kind; `first` is the node of the values.
    Map,
    /// A list; `first` is the node of the items.
    Array,
    /// Text.
    String,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// A floating-point number.
    Number,
    /// `true` or `false`.
    Bool,
    /// Bytes, base64 in JSON.
    Bytes,
    /// A moment to the second, RFC 3339 in JSON.
    Time,
    /// A moment to the microsecond, RFC 3339 with six decimals in JSON.
    MicroTime,
    /// An amount such as `500m` or `2Gi`; JSON may also give it as a number.
    Quantity,
    /// A whole number of 32 bits or text.
    IntOrString,
    /// An object of a kind that only it knows; kept as it came.
    RawExtension,
    /// The set of fields of a manager: an object that only server-side apply reads.
    Fields,
    /// Any JSON value, kept as it came.
    Json,
    /// A JSON schema or a list of them; `first` is the node of the schema.
    SchemaOrArray,
    /// A JSON schema or a boolean; `first` is the node of the schema.
    SchemaOrBool,
    /// A JSON schema or a list of strings; `first` is the node of the schema.
    SchemaOrStrings,
}

/// The first part of the names of a group's types: `core` for the empty group, `rbac` for `rbac.authorization.k8s.io`.
pub(crate) fn package(group: &str) -> &str {
    match group {
        "" => "core",
        "internal.apiserver.k8s.io" => "apiserverinternal",
        "meta.k8s.io" => "meta",
        _ => group.split('.').next().unwrap_or(group),
    }
}

/// A piece of the arena's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Text {
    /// Byte offset.
    pub(crate) start: u32,
    /// Length in bytes; names of fields come from outside too, but no document is as long as that.
    pub(crate) len: u32,
}

/// "No such index".
pub(crate) const NONE: u32 = u32::MAX;

/// Bits of [`Node::flags`].
pub(crate) mod flag {
    /// JSON `null` is a value here.
    pub(crate) const NULLABLE: u16 = 1;
    /// Fields that the schema does not name are kept.
    pub(crate) const PRESERVE_UNKNOWN: u16 = 1 << 1;
    /// A whole Kubernetes object stands here, with `apiVersion`, `kind` and `metadata`.
    pub(crate) const EMBEDDED: u16 = 1 << 2;
    /// A list without order and repetition.
    pub(crate) const LIST_SET: u16 = 1 << 3;
    /// A list that is keyed by some of its items' fields.
    pub(crate) const LIST_MAP: u16 = 1 << 4;
    /// A structure or map that has one owner as a whole.
    pub(crate) const ATOMIC: u16 = 1 << 5;
    /// Strategic merge patches merge instead of replacing.
    pub(crate) const PATCH_MERGE: u16 = 1 << 6;
    /// Strategic merge patches replace, although a structure would be merged.
    pub(crate) const PATCH_REPLACE: u16 = 1 << 7;
    /// Strategic merge patches name all fields to keep.
    pub(crate) const PATCH_RETAIN_KEYS: u16 = 1 << 8;
}

/// What stands at one place of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Bits of [`flag`].
    pub(crate) flags: u16,
    /// First field of an object; node of the items of a list, the values of a map, a schema.
    pub(crate) first: u32,
    /// Number of fields of an object.
    pub(crate) count: u32,
    /// First of the keys of a map list, in the arena's list of keys.
    pub(crate) keys: u32,
    /// Number of keys.
    pub(crate) key_count: u16,
    /// First of the fields that are always written, in the arena's list of them.
    pub(crate) always: u32,
    /// Number of such fields.
    pub(crate) always_count: u16,
    /// Field by which patches find the items of a list; empty when there is none.
    pub(crate) merge_key: Text,
    /// Name of the type of a built-in structure; empty for others.
    pub(crate) name: Text,
    /// Index of the protobuf message, or [`NONE`].
    pub(crate) message: u32,
    /// Index of the rules beyond the kind (defaults, limits), or [`NONE`].
    pub(crate) extra: u32,
}

impl Node {
    /// A node of which only the kind is known.
    pub(crate) const fn new(kind: Kind) -> Self {
        Self {
            kind,
            flags: 0,
            first: NONE,
            count: 0,
            keys: 0,
            key_count: 0,
            always: NONE,
            always_count: 0,
            merge_key: Text { start: 0, len: 0 },
            name: Text { start: 0, len: 0 },
            message: NONE,
            extra: NONE,
        }
    }
}

/// When a field of a built-in structure is written, which follows from how upstream declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presence {
    /// Whatever was given, the zero value too: `replicas: 0`. Absent when it was not given.
    Given,
    /// Unless it is zero or empty: `hostNetwork: false` is not kept.
    NonZero,
    /// Always, if need be as zero or empty: `restartCount: 0`, `resources: {}`.
    Always,
}

/// A named field of an object. The fields of an object are sorted by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Field {
    pub(crate) name: Text,
    pub(crate) node: u32,
    pub(crate) required: bool,
    pub(crate) presence: Presence,
}

/// Fields of one protobuf message, sorted by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Message {
    pub(crate) first: u32,
    pub(crate) count: u16,
}

/// How a protobuf field relates to the JSON object around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Wire {
    /// It is the field of the same name, and says the same.
    Plain,
    /// It is a list in JSON, and a message with one repeated field on the wire.
    Wrapped,
    /// Its fields are fields of the object itself in JSON; `target` is a message over the same object.
    Inline,
}

/// A field of a protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct MessageField {
    pub(crate) tag: u16,
    pub(crate) wire: Wire,
    /// Index among the fields of the object for [`Wire::Plain`] and [`Wire::Wrapped`], of the message for
    /// [`Wire::Inline`].
    pub(crate) target: u32,
}
