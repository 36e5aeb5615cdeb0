//! Prints the arena as constants of Rust.

use std::fmt::Write as _;

use crate::arena::Arena;
use crate::node::{NONE, Presence, Text, Wire};
use crate::tables::Resource;

/// The module of the built-in arena.
pub(crate) fn arena(arena: &Arena) -> String {
    let mut out = String::new();
    let nodes: Vec<String> = arena
        .nodes
        .iter()
        .map(|node| {
            let (keys, merge_key, name) = (index(node.keys), text(node.merge_key), text(node.name));
            format!(
                "node({:?},{},{},{},{keys},{},({},{}),{merge_key},{name},{},{})",
                node.kind,
                node.flags,
                index(node.first),
                node.count,
                node.key_count,
                index(node.always),
                node.always_count,
                index(node.message),
                index(node.extra),
            )
        })
        .collect();
    let fields = arena.fields.iter().map(|field| {
        let presence = match field.presence {
            Presence::Given => "GIVEN",
            Presence::NonZero => "NON_ZERO",
            Presence::Always => "ALWAYS",
        };
        format!("field({},{},{},{presence})", text(field.name), field.node, field.required)
    });
    let messages =
        arena.messages.iter().map(|message| format!("Message{{first:{},count:{}}}", message.first, message.count));
    let message_fields = arena.message_fields.iter().map(|field| {
        let wire = match field.wire {
            Wire::Plain => "Plain",
            Wire::Wrapped => "Wrapped",
            Wire::Inline => "Inline",
        };
        format!("MessageField{{tag:{},wire:Wire::{wire},target:{}}}", field.tag, index(field.target))
    });
    let defaults = arena.defaults.iter().map(|default| format!("{default:?}"));
    let types = arena.types.iter().map(|(name, node)| format!("({},{node})", text(*name)));
    writeln!(out, "pub(super) static TEXT: &str = {:?};", arena.text).expect("strings grow");
    table(&mut out, "NODES", "Node", nodes);
    table(&mut out, "FIELDS", "Field", fields);
    table(&mut out, "KEYS", "Text", arena.keys.iter().map(|key| text(*key)));
    table(&mut out, "WRITTEN", "u16", arena.always.iter().map(u16::to_string));
    table(&mut out, "MESSAGES", "Message", messages);
    table(&mut out, "MESSAGE_FIELDS", "MessageField", message_fields);
    table(&mut out, "TYPES", "(Text, u32)", types);
    table(&mut out, "DEFAULTS", "&str", defaults);
    out
}

/// The module of the table of resources.
pub(crate) fn resources(resources: &[Resource]) -> String {
    let mut out = String::new();
    let rows = resources.iter().map(|row| {
        let subresources = row.subresources.iter().map(|sub| {
            let kind = sub.kind.clone().unwrap_or_else(|| (row.group.clone(), row.version.clone(), row.kind.clone()));
            format!(
                "Subresource{{name:{:?},verbs:&{:?},kind:GroupVersionKind{{group:{:?},version:{:?},kind:{:?}}}}}",
                sub.name, sub.verbs, kind.0, kind.1, kind.2
            )
        });
        format!(
            "Resource{{group:{:?},version:{:?},plural:{:?},singular:{:?},kind:{:?},namespaced:{:?},verbs:&{:?},\
             short_names:&{:?},categories:&{:?},storage_version:{:?},generation:{:?},selectors:&{:?},served:{:?},\
             type_name:{:?},subresources:&[{}]}}",
            row.group,
            row.version,
            row.plural,
            row.singular,
            row.kind,
            row.namespaced,
            row.verbs,
            row.short_names,
            row.categories,
            row.storage_version,
            row.generation,
            row.selectors,
            row.served,
            row.type_name(),
            subresources.collect::<Vec<_>>().join(","),
        )
    });
    table(&mut out, "RESOURCES", "Resource", rows);
    out
}

fn table(out: &mut String, name: &str, of: &str, rows: impl IntoIterator<Item = String>) {
    let rows: Vec<String> = rows.into_iter().collect();
    writeln!(out, "pub(super) static {name}: [{of}; {}] = [{}];", rows.len(), rows.join(",\n")).expect("strings grow");
}

fn text(text: Text) -> String {
    format!("text({},{})", text.start, text.len)
}

fn index(index: u32) -> String {
    if index == NONE { "NONE".to_owned() } else { index.to_string() }
}
