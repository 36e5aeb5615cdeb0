//! Rules in CEL: `x-kubernetes-validations`.
//!
//! ```text
//! compile    once per published version: the rules of a schema as a tree of its places
//! check      each write: the tree along an object, within a budget
//! validate   each definition: whether its rules compile, and what they can cost
//! ```

mod check;
pub(crate) mod fields;
#[cfg(test)]
mod tests;
mod validate;

use std::sync::Arc;

use k3sd_apiserver_cel::{Program, Variable, Wanted};
use k3sd_apiserver_store::CustomRules;
use k3sd_objects::schema::{Arena, SchemaRef, ValidationRule};
use k3sd_objects::status::field::{Error, Path};
use serde_json::Value;

pub(crate) use self::validate::validate;

/// What one evaluation may cost; a tenth of a second or so.
const CALL_COST_MAX: u64 = 1_000_000;

/// What all rules may cost for one object.
const OBJECT_COST_MAX: u64 = 10_000_000;

/// The rules of a schema, by its places. Places without rules below them are left out.
#[derive(Debug, Default)]
struct Node {
    rules: Vec<Rule>,
    fields: Vec<(String, Node)>,
    /// The items of a list, or the values of a map.
    inner: Option<Box<Node>>,
}

/// A rule, compiled.
#[derive(Debug)]
struct Rule {
    source: ValidationRule,
    /// `Err` is why it can't be evaluated; only definitions that came another way than through the API have such.
    program: Result<Program, String>,
    /// What makes its message, if something does and can.
    message: Option<Program>,
    uses_old: bool,
    /// `fieldPath` as errors write it.
    field: String,
}

/// The rules of one version.
#[derive(Debug)]
struct Rules {
    arena: Arc<Arena>,
    root: Node,
}

impl CustomRules for Rules {
    fn check(&self, value: &Value, old: Option<&Value>) -> Vec<Error> {
        check::object(&self.root, self.arena.root(), value, old)
    }
}

/// Compiles the rules of a schema; `None` if it has none.
pub(crate) fn compile(arena: &Arc<Arena>) -> Option<Arc<dyn CustomRules>> {
    let root = node(arena.root())?;
    Some(Arc::new(Rules { arena: arena.clone(), root }))
}

fn node(schema: SchemaRef<'_>) -> Option<Node> {
    let sources = schema.rules().map_or(&[][..], |rules| &rules.validations);
    let rules = sources.iter().map(|source| rule(source, schema)).collect();
    let mut found = Node { rules, ..Node::default() };
    for property in schema.properties() {
        if let Some(inner) = node(property.schema) {
            found.fields.push((property.name.to_owned(), inner));
        }
    }
    found.inner = schema.item().or_else(|| schema.values()).and_then(node).map(Box::new);
    let something = !found.rules.is_empty() || !found.fields.is_empty() || found.inner.is_some();
    something.then_some(found)
}

fn rule(source: &ValidationRule, schema: SchemaRef<'_>) -> Rule {
    let variables = variables(source, schema);
    let program = Program::compile(&source.rule, &variables, Wanted::Bool).map_err(|error| error.to_string());
    let message = source.message_expression.as_deref().filter(|text| !text.trim().is_empty());
    let message = message.and_then(|text| Program::compile(text, &variables, Wanted::Text).ok());
    let uses_old = program.as_ref().is_ok_and(|program| program.uses("oldSelf"));
    let field = source.field_path.as_deref().map(written).unwrap_or_default();
    Rule { source: source.clone(), program, message, uses_old, field }
}

/// `self` and, for rules about changes, `oldSelf`.
fn variables<'s>(rule: &ValidationRule, schema: SchemaRef<'s>) -> [Variable<'s>; 2] {
    let optional = rule.optional_old_self == Some(true);
    [Variable { name: "self", schema, optional: false }, Variable { name: "oldSelf", schema, optional }]
}

/// A path in the form of errors: `.a['b.c']` is `a.b.c` of a structure.
fn written(path: &str) -> String {
    let (mut text, mut rest) = (String::new(), path);
    while let Some(start) = rest.find("['") {
        let Some(end) = rest[start..].find("']") else { break };
        text.push_str(&rest[..start]);
        text.push('.');
        text.push_str(&rest[start + 2..start + end]);
        rest = &rest[start + end + 2..];
    }
    text.push_str(rest);
    text.trim_start_matches('.').to_owned()
}

/// What upstream calls the type of a place.
fn type_word(schema: SchemaRef<'_>) -> &'static str {
    use k3sd_objects::schema::Kind;
    match schema.kind() {
        Kind::Object | Kind::Map => "object",
        Kind::Array => "array",
        Kind::String => "string",
        Kind::Int32 | Kind::Int64 => "integer",
        Kind::Number => "number",
        Kind::Bool => "boolean",
        _ => "",
    }
}

/// A path below another one.
fn below(path: &Path, name: &str) -> Path {
    if path.is_root() { Path::new(name) } else { path.child(name) }
}
