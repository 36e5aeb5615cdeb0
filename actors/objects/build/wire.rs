//! Joins the field numbers of protobuf with the fields of JSON.

use std::collections::HashMap;

use crate::arena::{Arena, Sources};
use crate::node::{Kind, Message, MessageField, NONE, Wire};

/// JSON names that are not those of the message.
const RENAMED: &[(&str, &str)] = &[
    ("ref", "$ref"),
    ("schema", "$schema"),
    ("xKubernetesPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields"),
    ("xKubernetesEmbeddedResource", "x-kubernetes-embedded-resource"),
    ("xKubernetesIntOrString", "x-kubernetes-int-or-string"),
    ("xKubernetesListMapKeys", "x-kubernetes-list-map-keys"),
    ("xKubernetesListType", "x-kubernetes-list-type"),
    ("xKubernetesMapType", "x-kubernetes-map-type"),
    ("xKubernetesValidations", "x-kubernetes-validations"),
];

/// Messages whose one field is a list that JSON has without a name around it.
const WRAPPERS: &[&str] = &["ExtraValue", "Verbs"];

/// Gives each object its message. Copies of an object, marked in `message`, take over what it has.
pub(crate) fn number(arena: &mut Arena, sources: &Sources) {
    let copies: Vec<(usize, u32)> = (0..arena.nodes.len())
        .filter(|&index| arena.nodes[index].message != NONE)
        .map(|index| (index, arena.nodes[index].message))
        .collect();
    let mut done = HashMap::new();
    let mut objects: Vec<(String, u32)> = arena.objects().map(|(name, index)| (name.clone(), index)).collect();
    objects.sort();
    for (name, index) in objects {
        if sources.messages.contains_key(&name) {
            arena.nodes[index as usize].message = message(arena, sources, &name, index, &mut done);
        }
    }
    for (copy, original) in copies {
        let original = arena.nodes[original as usize];
        let node = &mut arena.nodes[copy];
        (node.message, node.first, node.count) = (original.message, original.first, original.count);
        (node.always, node.always_count) = (original.always, original.always_count);
    }
}

/// The number of a message over the fields of an object; several objects may inline the same message.
fn message(
    arena: &mut Arena,
    sources: &Sources,
    name: &str,
    object: u32,
    done: &mut HashMap<(String, u32), u32>,
) -> u32 {
    if let Some(&known) = done.get(&(name.to_owned(), object)) {
        return known;
    }
    let mut fields = Vec::new();
    for field in &sources.messages[name] {
        let json = RENAMED.iter().find(|(wire, _)| *wire == field.name && name.ends_with("JSONSchemaProps"));
        let json = json.map_or(field.name.as_str(), |(_, json)| json);
        let (wire, target) = match position(arena, object, json) {
            Some(target) => {
                // In a map the values are wrapped, not the map.
                let wrapped = !field.map && WRAPPERS.iter().any(|wrapper| field.of.ends_with(wrapper));
                check(arena, object, target, field, name);
                (if wrapped { Wire::Wrapped } else { Wire::Plain }, target)
            }
            None if field.of.contains('.')
                && !field.repeated
                && !field.map
                && sources.messages.contains_key(&field.of) =>
            {
                let inner = field.of.clone();
                (Wire::Inline, message(arena, sources, &inner, object, done))
            }
            None => panic!("{name}.{} is on the wire only", field.name),
        };
        fields.push(MessageField { tag: field.tag, wire, target });
    }
    fields.sort_by_key(|field| field.tag);
    let first = u32::try_from(arena.message_fields.len()).expect("few fields");
    let count = u16::try_from(fields.len()).expect("few fields");
    arena.message_fields.extend(fields);
    arena.messages.push(Message { first, count });
    let index = u32::try_from(arena.messages.len() - 1).expect("few messages");
    done.insert((name.to_owned(), object), index);
    index
}

/// The place of a field among those of an object.
fn position(arena: &Arena, object: u32, name: &str) -> Option<u32> {
    let node = arena.nodes[object as usize];
    // The compiler of the messages changes the case of a few names.
    (0..node.count)
        .find(|offset| arena.str(arena.fields[(node.first + offset) as usize].name).eq_ignore_ascii_case(name))
}

/// Stops the build when the two descriptions of a field cannot both be true.
fn check(arena: &Arena, object: u32, target: u32, field: &crate::tables::MessageField, owner: &str) {
    let node = arena.nodes[object as usize];
    let value = arena.nodes[arena.fields[(node.first + target) as usize].node as usize];
    let inner = |value: crate::node::Node| arena.nodes[value.first as usize];
    let fits = match value.kind {
        Kind::Map => field.map && scalar_fits(inner(value).kind, &field.of),
        Kind::Array => {
            (field.repeated && scalar_fits(inner(value).kind, &field.of))
                || WRAPPERS.iter().any(|wrapper| field.of.ends_with(wrapper))
        }
        kind => !field.map && !field.repeated && scalar_fits(kind, &field.of),
    };
    assert!(fits, "{owner}.{}: {:?} in JSON, {field:?} on the wire", field.name, value.kind);
}

fn scalar_fits(kind: Kind, of: &str) -> bool {
    match of {
        "string" => kind == Kind::String,
        "bool" => kind == Kind::Bool,
        "bytes" => kind == Kind::Bytes,
        "double" => kind == Kind::Number,
        "int32" => kind == Kind::Int32,
        "int64" => kind == Kind::Int64,
        message => match crate::arena::special(message) {
            Some(special) => kind == special,
            None => matches!(kind, Kind::Object | Kind::Any | Kind::Array),
        },
    }
}
