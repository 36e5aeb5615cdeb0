//! Reads the schema of a custom resource: `spec.versions[].schema.openAPIV3Schema` of its definition.
//!
//! The definition was validated when it was stored, so this reads leniently: what it does not know says nothing. Only
//! what could hurt is refused: expressions that don't compile, and nesting without end.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::schema::arena::Arena;
use crate::schema::expression::expression;
use crate::schema::node::{Field, Kind, NONE, Node, Presence, Text, flag};
use crate::schema::rules::{Pattern, Rules, ValidationRule};

/// Deepest nesting of a schema. Bounds the recursion of everything that walks it; objects may be no deeper either.
const DEPTH_MAX: usize = 100;

/// Greatest compiled size of one expression: enough for any name syntax, not for a bomb.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Why a schema can't be used.
#[derive(Debug, Error)]
pub enum SchemaError {
    /// Schemas within schemas beyond any use.
    #[error("the schema is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// A `pattern` that is no regular expression, or a huge one.
    #[error("pattern {pattern:?} does not compile")]
    Pattern {
        /// As the schema writes it.
        pattern: String,
        /// What the compiler of expressions says.
        #[source]
        source: Box<regex::Error>,
    },
}

/// Reads a structural schema. Its root stands for a whole object, so `apiVersion`, `kind` and `metadata` are known
/// whether the schema names them or not.
pub fn structural(schema: &Value) -> Result<Arena, SchemaError> {
    let mut reader = Reader::default();
    let root = reader.read(schema, 0)?;
    let whole = reader.nodes[root as usize];
    reader.nodes[root as usize] = reader.embed(whole);
    Ok(Arena {
        text: Cow::Owned(reader.text),
        nodes: Cow::Owned(reader.nodes),
        fields: Cow::Owned(reader.fields),
        keys: Cow::Owned(reader.keys),
        always: &[],
        messages: &[],
        message_fields: &[],
        types: &[],
        rules: reader.rules,
        root,
    })
}

#[derive(Default)]
struct Reader {
    text: String,
    texts: HashMap<String, Text>,
    nodes: Vec<Node>,
    fields: Vec<Field>,
    keys: Vec<Text>,
    rules: Vec<Rules>,
    patterns: HashMap<String, Pattern>,
}

impl Reader {
    /// Adds the node of a schema and those below it.
    fn read(&mut self, schema: &Value, depth: usize) -> Result<u32, SchemaError> {
        if depth > DEPTH_MAX {
            return Err(SchemaError::TooDeep);
        }
        let empty = Map::new();
        let schema = schema.as_object().unwrap_or(&empty);
        let mut node = Node::new(kind(schema));
        match node.kind {
            Kind::Object => self.read_fields(schema, &mut node, depth)?,
            Kind::Map => node.first = self.read(&schema["additionalProperties"], depth + 1)?,
            Kind::Array => node.first = self.read(schema.get("items").unwrap_or(&Value::Null), depth + 1)?,
            _ => {}
        }
        node.flags |= flags(schema);
        self.read_keys(schema, &mut node);
        if let Some(rules) = self.read_rules(schema, depth)? {
            node.extra = index(self.rules.len());
            self.rules.push(rules);
        }
        if node.flags & flag::EMBEDDED != 0 {
            node = self.embed(node);
        }
        self.nodes.push(node);
        Ok(index(self.nodes.len() - 1))
    }

    fn read_fields(&mut self, schema: &Map<String, Value>, node: &mut Node, depth: usize) -> Result<(), SchemaError> {
        let required = strings(schema, "required");
        let mut fields = Vec::new();
        for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let required = required.iter().any(|other| other == name);
            fields.push((name.clone(), self.read(field, depth + 1)?, required));
        }
        self.add_fields(fields, node);
        Ok(())
    }

    fn add_fields(&mut self, mut fields: Vec<(String, u32, bool)>, node: &mut Node) {
        fields.sort();
        (node.first, node.count) = (index(self.fields.len()), index(fields.len()));
        for (name, value, required) in fields {
            let name = self.intern(&name);
            self.fields.push(Field { name, node: value, required, presence: Presence::Given });
        }
    }

    /// Makes a node stand for a whole object. What its schema says of `metadata` stays, for validation.
    fn embed(&mut self, mut node: Node) -> Node {
        node.flags |= flag::EMBEDDED;
        if !matches!(node.kind, Kind::Object | Kind::Any) {
            return node;
        }
        if node.kind == Kind::Any {
            node.flags |= flag::PRESERVE_UNKNOWN;
        }
        let old = if node.count == 0 { 0..0 } else { node.first as usize..(node.first + node.count) as usize };
        let mut fields: Vec<(String, u32, bool)> = self.fields[old]
            .iter()
            .map(|field| (self.str(field.name).to_owned(), field.node, field.required))
            .collect();
        for (name, kind) in [("apiVersion", Kind::String), ("kind", Kind::String), ("metadata", Kind::Object)] {
            if !fields.iter().any(|(other, ..)| other == name) {
                self.nodes.push(Node::new(kind));
                fields.push((name.to_owned(), index(self.nodes.len() - 1), false));
            }
        }
        node.kind = Kind::Object;
        self.add_fields(fields, &mut node);
        node
    }

    fn read_keys(&mut self, schema: &Map<String, Value>, node: &mut Node) {
        let keys = strings(schema, "x-kubernetes-list-map-keys");
        if node.kind != Kind::Array || keys.is_empty() {
            return;
        }
        node.keys = index(self.keys.len());
        node.key_count = u16::try_from(keys.len()).unwrap_or(u16::MAX);
        for key in keys.iter().take(usize::from(node.key_count)) {
            let key = self.intern(key);
            self.keys.push(key);
        }
    }

    /// The rules beyond the kind, if there are any.
    fn read_rules(&mut self, schema: &Map<String, Value>, depth: usize) -> Result<Option<Rules>, SchemaError> {
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or_default();
        let float = |name: &str| schema.get(name).and_then(Value::as_f64);
        let count = |name: &str| schema.get(name).and_then(Value::as_u64);
        let list = |name: &str| schema.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        let rules = Rules {
            default: schema.get("default").filter(|default| !default.is_null()).cloned(),
            enumeration: list("enum"),
            required: strings(schema, "required"),
            minimum: float("minimum"),
            maximum: float("maximum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            multiple_of: float("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            pattern: schema
                .get("pattern")
                .and_then(Value::as_str)
                .filter(|p| !p.is_empty())
                .map(|text| self.read_pattern(text))
                .transpose()?,
            format: schema.get("format").and_then(Value::as_str).map(str::to_owned),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            unique_items: flag("uniqueItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            all_of: self.read_all(&list("allOf"), depth)?,
            any_of: self.read_all(&list("anyOf"), depth)?,
            one_of: self.read_all(&list("oneOf"), depth)?,
            not: schema.get("not").map(|not| self.read(not, depth + 1)).transpose()?,
            validations: list("x-kubernetes-validations").iter().map(validation).collect(),
        };
        Ok(rules.says_something().then_some(rules))
    }

    /// Places often have the same pattern; it is compiled once, and shared.
    fn read_pattern(&mut self, text: &str) -> Result<Pattern, SchemaError> {
        if let Some(known) = self.patterns.get(text) {
            return Ok(known.clone());
        }
        let pattern = Pattern::compile(text)?;
        self.patterns.insert(text.to_owned(), pattern.clone());
        Ok(pattern)
    }

    fn read_all(&mut self, schemas: &[Value], depth: usize) -> Result<Vec<u32>, SchemaError> {
        schemas.iter().map(|schema| self.read(schema, depth + 1)).collect()
    }

    fn str(&self, text: Text) -> &str {
        &self.text[text.start as usize..(text.start + text.len) as usize]
    }

    fn intern(&mut self, text: &str) -> Text {
        if let Some(&known) = self.texts.get(text) {
            return known;
        }
        let interned = Text { start: index(self.text.len()), len: index(text.len()) };
        self.text.push_str(text);
        self.texts.insert(text.to_owned(), interned);
        interned
    }
}

fn kind(schema: &Map<String, Value>) -> Kind {
    let has = |name: &str| schema.get(name).is_some_and(|value| *value == Value::Bool(true));
    if has("x-kubernetes-int-or-string") {
        return Kind::IntOrString;
    }
    match schema.get("type").and_then(Value::as_str).unwrap_or_default() {
        "object" if schema.get("additionalProperties").is_some_and(Value::is_object) => Kind::Map,
        "object" if has("additionalProperties") => Kind::Any,
        "object" => Kind::Object,
        "array" => Kind::Array,
        "string" => Kind::String,
        "boolean" => Kind::Bool,
        "integer" if schema.get("format").is_some_and(|format| format == "int32") => Kind::Int32,
        "integer" => Kind::Int64,
        "number" => Kind::Number,
        // Under `anyOf` and its like, a schema may have fields without saying that it is an object.
        _ if schema.contains_key("properties") => Kind::Object,
        _ if schema.contains_key("items") => Kind::Array,
        _ => Kind::Any,
    }
}

fn flags(schema: &Map<String, Value>) -> u16 {
    let bits = [
        ("nullable", Value::Bool(true), flag::NULLABLE),
        ("x-kubernetes-preserve-unknown-fields", Value::Bool(true), flag::PRESERVE_UNKNOWN),
        ("x-kubernetes-embedded-resource", Value::Bool(true), flag::EMBEDDED),
        ("x-kubernetes-list-type", Value::from("set"), flag::LIST_SET),
        ("x-kubernetes-list-type", Value::from("map"), flag::LIST_MAP),
        ("x-kubernetes-map-type", Value::from("atomic"), flag::ATOMIC),
    ];
    let set = bits.iter().filter(|(name, value, _)| schema.get(*name) == Some(value));
    set.fold(0, |flags, (_, _, bit)| flags | bit)
}

fn strings(schema: &Map<String, Value>, name: &str) -> Vec<String> {
    let list = schema.get(name).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

impl Pattern {
    /// Reads an expression.
    ///
    /// # Errors
    /// When it is none, or a huge one.
    pub fn compile(text: &str) -> Result<Self, SchemaError> {
        Self::compile_within(text, PATTERN_BYTES_MAX)
    }

    /// The same for an expression that takes at most so many bytes once it is compiled; what takes more than
    /// [`compile`](Self::compile) allows never does.
    ///
    /// # Errors
    /// When it is none, or a greater one.
    pub fn compile_within(text: &str, bytes_max: usize) -> Result<Self, SchemaError> {
        let regex = expression(text, bytes_max.min(PATTERN_BYTES_MAX));
        let regex =
            regex.map_err(|source| SchemaError::Pattern { pattern: text.to_owned(), source: Box::new(source) })?;
        Ok(Self { text: text.to_owned(), regex })
    }
}

fn validation(rule: &Value) -> ValidationRule {
    let text = |name: &str| rule[name].as_str().map(str::to_owned);
    ValidationRule {
        rule: text("rule").unwrap_or_default(),
        message: text("message"),
        message_expression: text("messageExpression"),
        reason: text("reason"),
        field_path: text("fieldPath"),
        optional_old_self: rule["optionalOldSelf"].as_bool(),
    }
}

/// Schemas are parts of a request, which is bounded far below four gigabytes.
fn index(index: usize) -> u32 {
    u32::try_from(index).ok().filter(|index| *index != NONE).expect("a schema is a few megabytes at most")
}
