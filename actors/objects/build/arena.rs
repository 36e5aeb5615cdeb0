//! Joins definitions and tables into the cells of one arena.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::node::{Field, Kind, Message, MessageField, NONE, Node, Presence, Text, flag};
use crate::tables::{self, Merging};
use crate::types::{Definitions, target};

/// All that the arena is made from.
pub(crate) struct Sources {
    pub definitions: Definitions,
    pub merging: BTreeMap<String, Merging>,
    pub messages: BTreeMap<String, Vec<tables::MessageField>>,
    pub presence: BTreeMap<String, Vec<String>>,
}

/// The finished cells; see `src/schema/node.rs` for what they mean.
#[derive(Default)]
pub(crate) struct Arena {
    pub text: String,
    pub nodes: Vec<Node>,
    pub fields: Vec<Field>,
    pub keys: Vec<Text>,
    /// Offsets, among the fields of their object, of the fields that are always written.
    pub always: Vec<u16>,
    pub messages: Vec<Message>,
    pub message_fields: Vec<MessageField>,
    /// Types by name, sorted.
    pub types: Vec<(Text, u32)>,
    /// What stands for an absent key of a map list; `extra` of a node is an index here.
    pub defaults: Vec<String>,
    /// Descriptions: one per type in the order of `types`, then one per field.
    pub descriptions: Vec<String>,
    texts: HashMap<String, Text>,
    known: HashMap<Node, u32>,
    objects: HashMap<String, u32>,
}

impl Arena {
    pub(crate) fn build(sources: &Sources) -> Self {
        let mut arena = Self::default();
        // Structures first, with their numbers reserved, because they refer to each other in circles.
        let names: Vec<&String> = sources.definitions.keys().filter(|name| special(name).is_none()).collect();
        for name in &names {
            if sources.definitions[*name].get("properties").is_some() {
                let text = arena.intern(name);
                let index = arena.push(Node { name: text, ..Node::new(Kind::Object) });
                arena.objects.insert((*name).clone(), index);
            }
        }
        let mut field_descriptions = Vec::new();
        for name in &names {
            arena.fill(sources, name, &mut field_descriptions);
        }
        arena.name_types(sources, &names);
        arena.default_keys(sources);
        arena.check_places(sources);
        arena.descriptions.extend(field_descriptions);
        crate::wire::number(&mut arena, sources);
        arena
    }

    /// Gives an object its fields.
    fn fill(&mut self, sources: &Sources, name: &str, descriptions: &mut Vec<String>) {
        let Some(&index) = self.objects.get(name) else { return };
        let definition = &sources.definitions[name];
        let properties = definition["properties"].as_object().expect("an object has fields");
        let required: Vec<&str> =
            definition["required"].as_array().into_iter().flatten().flat_map(Value::as_str).collect();
        let mut fields = Vec::new();
        for (field, schema) in properties {
            let node = self.convert(sources, schema, &format!("{name}.{field}"));
            let required = required.contains(&field.as_str());
            let place = format!("{name}.{field}");
            let presence = presence(sources, &place, self.nodes[node as usize].kind, required);
            fields.push(Field { name: self.intern(field), node, required, presence });
            descriptions.push(description(schema));
        }
        let first = u32::try_from(self.fields.len()).expect("few fields");
        let count = u32::try_from(fields.len()).expect("few fields");
        let always = (0_u16..).zip(&fields).filter(|(_, field)| field.presence == Presence::Always);
        let before = self.always.len();
        self.always.extend(always.map(|(offset, _)| offset));
        let always_count = u16::try_from(self.always.len() - before).expect("few fields");
        self.fields.extend(fields);
        let node = &mut self.nodes[index as usize];
        (node.first, node.count) = (first, count);
        (node.always, node.always_count) = (u32::try_from(before).expect("few fields"), always_count);
        if sources.merging.get(name).is_some_and(|row| row.map == "atomic") {
            node.flags |= flag::ATOMIC;
        }
    }

    fn name_types(&mut self, sources: &Sources, names: &[&String]) {
        let no_merging = "";
        for name in names {
            let text = self.intern(name);
            let node = match self.objects.get(*name) {
                Some(&node) => node,
                None => self.convert(sources, &sources.definitions[*name], no_merging),
            };
            self.types.push((text, node));
            self.descriptions.push(description(&sources.definitions[*name]));
        }
    }

    /// Gives the key fields of map lists that have a default a node of their own.
    fn default_keys(&mut self, sources: &Sources) {
        let rows = sources.merging.iter().filter_map(|(place, row)| Some((place, row.key_default.as_ref()?)));
        for (place, (key, default)) in rows {
            let (owner, list) = place.rsplit_once('.').expect("a list is a field of a type");
            let list = self.field(self.objects[owner], list);
            let item = self.nodes[self.fields[list].node as usize].first;
            let field = self.field(item, key);
            let extra = u32::try_from(self.defaults.len()).expect("few defaults");
            self.defaults.push(default.clone());
            self.fields[field].node = self.push(Node { extra, ..Node::new(Kind::String) });
        }
    }

    /// Stops the build when a table speaks of a field that is not there.
    fn check_places(&self, sources: &Sources) {
        let fields = sources.merging.keys().filter(|place| !self.objects.contains_key(*place));
        for place in fields.chain(sources.presence.keys()) {
            let (owner, field) = place.rsplit_once('.').expect("type.field");
            let owner = self.objects.get(owner).unwrap_or_else(|| panic!("{place}: no such type"));
            self.field(*owner, field);
        }
    }

    /// The index of a field of an object.
    fn field(&self, object: u32, name: &str) -> usize {
        let node = self.nodes[object as usize];
        let mut fields = node.first..node.first + node.count;
        fields
            .find(|&field| self.str(self.fields[field as usize].name) == name)
            .unwrap_or_else(|| panic!("no field {name}")) as usize
    }

    /// The node of a value; `place` is its `type.field`, by which the tables know it.
    fn convert(&mut self, sources: &Sources, schema: &Value, place: &str) -> u32 {
        let mut node = self.bare(sources, schema, place);
        if let Some(row) = sources.merging.get(place) {
            self.merge_as(&mut node, row);
        }
        // The few structures that merge differently at one place are copies that share the fields.
        if let (Kind::Object, Some(&original)) = (node.kind, self.objects.get(self.str(node.name))) {
            if self.nodes[original as usize].flags == node.flags {
                return original;
            }
            return self.copies(original, node.flags);
        }
        self.node(node)
    }

    fn bare(&mut self, sources: &Sources, schema: &Value, place: &str) -> Node {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = target(reference);
            if let Some(kind) = special(&name) {
                let first = if matches!(kind, Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrStrings) {
                    self.objects["apiextensions.v1.JSONSchemaProps"]
                } else {
                    NONE
                };
                return Node { first, ..Node::new(kind) };
            }
            if let Some(&index) = self.objects.get(&name) {
                let mut node = self.nodes[index as usize];
                // The object may not be filled yet, and its own flag must not be lost on a copy of it.
                if sources.merging.get(&name).is_some_and(|row| row.map == "atomic") {
                    node.flags |= flag::ATOMIC;
                    self.nodes[index as usize].flags |= flag::ATOMIC;
                }
                return node;
            }
            return self.bare(sources, &sources.definitions[&name], place);
        }
        let format = schema["format"].as_str().unwrap_or_default();
        match (schema["type"].as_str().unwrap_or_default(), format) {
            ("string", "byte") => Node::new(Kind::Bytes),
            ("string", "date-time") => Node::new(Kind::Time),
            ("string", _) => Node::new(Kind::String),
            ("boolean", _) => Node::new(Kind::Bool),
            ("integer", "int32") => Node::new(Kind::Int32),
            ("integer", "int64") => Node::new(Kind::Int64),
            ("number", _) => Node::new(Kind::Number),
            ("array", _) => {
                // A key's default is a property of the items of this very list.
                let first = self.convert(sources, &schema["items"], "");
                Node { first, ..Node::new(Kind::Array) }
            }
            ("object", _) if schema.get("additionalProperties").is_some() => {
                let first = self.convert(sources, &schema["additionalProperties"], "");
                Node { first, ..Node::new(Kind::Map) }
            }
            ("object" | "", _) => Node::new(Kind::Any),
            other => panic!("{place}: no kind for {other:?}"),
        }
    }

    fn merge_as(&mut self, node: &mut Node, row: &Merging) {
        node.flags |= match (row.list.as_str(), row.map.as_str()) {
            ("set", _) => flag::LIST_SET,
            ("map", _) => flag::LIST_MAP,
            (_, "atomic") => flag::ATOMIC,
            _ => 0,
        };
        if row.map == "granular" {
            node.flags &= !flag::ATOMIC;
        }
        for strategy in &row.strategy {
            node.flags |= match strategy.as_str() {
                "merge" => flag::PATCH_MERGE,
                "replace" => flag::PATCH_REPLACE,
                "retainKeys" => flag::PATCH_RETAIN_KEYS,
                other => panic!("lists.txt: {other}"),
            };
        }
        if !row.merge_key.is_empty() {
            node.merge_key = self.intern(&row.merge_key);
        }
        if !row.keys.is_empty() {
            node.keys = u32::try_from(self.keys.len()).expect("few keys");
            node.key_count = u16::try_from(row.keys.len()).expect("few keys");
            for key in &row.keys {
                let text = self.intern(key);
                self.keys.push(text);
            }
        }
    }

    /// A copy of an object's node with other flags. Its fields are known only when all objects are filled.
    fn copies(&mut self, original: u32, flags: u16) -> u32 {
        let of = self.nodes[original as usize].name;
        let found =
            self.nodes.iter().position(|node| node.name == of && node.flags == flags && node.message == original);
        // `message` marks the copy with its original until the messages are numbered.
        let index = found.unwrap_or_else(|| {
            self.nodes.push(Node { flags, message: original, ..self.nodes[original as usize] });
            self.nodes.len() - 1
        });
        u32::try_from(index).expect("few nodes")
    }

    /// The index of a node like this one.
    fn node(&mut self, node: Node) -> u32 {
        match self.known.get(&node) {
            Some(&index) => index,
            None => {
                let index = self.push(node);
                self.known.insert(node, index);
                index
            }
        }
    }

    fn push(&mut self, node: Node) -> u32 {
        self.nodes.push(node);
        u32::try_from(self.nodes.len() - 1).expect("few nodes")
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = (&String, u32)> {
        self.objects.iter().map(|(name, index)| (name, *index))
    }

    pub(crate) fn str(&self, text: Text) -> &str {
        &self.text[text.start as usize..(text.start + text.len) as usize]
    }

    fn intern(&mut self, text: &str) -> Text {
        if let Some(&known) = self.texts.get(text) {
            return known;
        }
        let start = u32::try_from(self.text.len()).expect("little text");
        let interned = Text { start, len: u32::try_from(text.len()).expect("little text") };
        self.text.push_str(text);
        self.texts.insert(text.to_owned(), interned);
        interned
    }
}

/// Types whose JSON is not what their definition says, or says too little.
pub(crate) fn special(name: &str) -> Option<Kind> {
    Some(match name {
        "resource.Quantity" => Kind::Quantity,
        "intstr.IntOrString" => Kind::IntOrString,
        "meta.v1.Time" => Kind::Time,
        "meta.v1.MicroTime" => Kind::MicroTime,
        "meta.v1.FieldsV1" => Kind::Fields,
        "runtime.RawExtension" => Kind::RawExtension,
        "apiextensions.v1.JSON" => Kind::Json,
        "apiextensions.v1.JSONSchemaPropsOrArray" => Kind::SchemaOrArray,
        "apiextensions.v1.JSONSchemaPropsOrBool" => Kind::SchemaOrBool,
        "apiextensions.v1.JSONSchemaPropsOrStringArray" => Kind::SchemaOrStrings,
        _ => return None,
    })
}

fn presence(sources: &Sources, place: &str, kind: Kind, required: bool) -> Presence {
    let said: &[String] = sources.presence.get(place).map_or(&[], Vec::as_slice);
    let is = |word: &str| said.iter().any(|other| other == word);
    let plain = matches!(
        kind,
        Kind::String
            | Kind::Int32
            | Kind::Int64
            | Kind::Number
            | Kind::Bool
            | Kind::Bytes
            | Kind::Array
            | Kind::Map
            | Kind::Fields
    );
    // Metadata is a part of every object, never a reference to one.
    let metadata = place.ends_with(".metadata") && kind == Kind::Object;
    if is("pointer") {
        Presence::Given
    } else if is("value") || is("always") || required || metadata {
        Presence::Always
    } else if plain {
        Presence::NonZero
    } else {
        Presence::Given
    }
}

fn description(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().to_owned()
}
