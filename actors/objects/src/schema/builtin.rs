//! The schemas of the built-in kinds, made when the crate is built.

use std::borrow::Cow;
use std::sync::LazyLock;

use serde_json::Value;

use crate::schema::arena::Arena;
use crate::schema::node::NONE;
use crate::schema::rules::Rules;

/// The constants; `build.rs` writes them.
mod generated {
    use crate::schema::node::{Field, Kind::*, Message, MessageField, NONE, Node, Presence, Text, Wire};

    const GIVEN: Presence = Presence::Given;
    const NON_ZERO: Presence = Presence::NonZero;
    const ALWAYS: Presence = Presence::Always;

    const fn text(start: u32, len: u32) -> Text {
        Text { start, len }
    }

    #[expect(clippy::too_many_arguments, reason = "one row of a table")]
    const fn node(
        kind: crate::schema::node::Kind,
        flags: u16,
        first: u32,
        count: u32,
        keys: u32,
        key_count: u16,
        (always, always_count): (u32, u16),
        merge_key: Text,
        name: Text,
        message: u32,
        extra: u32,
    ) -> Node {
        Node { kind, flags, first, count, keys, key_count, always, always_count, merge_key, name, message, extra }
    }

    const fn field(name: Text, node: u32, required: bool, presence: Presence) -> Field {
        Field { name, node, required, presence }
    }

    include!(concat!(env!("OUT_DIR"), "/schemas.rs"));
}

/// The schemas of all built-in kinds. They are constants, so that this costs nothing.
pub fn builtin() -> &'static Arena {
    static BUILTIN: LazyLock<Arena> = LazyLock::new(|| Arena {
        text: Cow::Borrowed(generated::TEXT),
        nodes: Cow::Borrowed(&generated::NODES),
        fields: Cow::Borrowed(&generated::FIELDS),
        keys: Cow::Borrowed(&generated::KEYS),
        always: &generated::WRITTEN,
        messages: &generated::MESSAGES,
        message_fields: &generated::MESSAGE_FIELDS,
        types: &generated::TYPES,
        rules: generated::DEFAULTS.iter().map(|default| Rules::with_default(Value::from(*default))).collect(),
        root: NONE,
    });
    &BUILTIN
}
