//! Whether the rules of a definition can be used: that they compile, and that they can't cost too much.

use k3sd_apiserver_cel::{CompileError, Program, Wanted, count_max, has_type, repeats_max};
use k3sd_objects::schema::{Arena, Kind, ListType, MapType, SchemaRef, ValidationRule};
use k3sd_objects::status::field::{Error, Path};
use serde_json::Value;

use super::variables;

/// What one rule may cost, all its evaluations for one object together.
const RULE_COST_MAX: u64 = 10_000_000;

/// What all rules of a schema may cost together.
const SCHEMA_COST_MAX: u64 = 100_000_000;

/// Rules that are named when all of them together cost too much.
const DEAREST: usize = 4;

/// What is wrong with the rules of a schema, whose root is at `path`. `source` is the schema as it was written.
pub(crate) fn validate(arena: &Arena, source: &Value, path: &Path) -> Vec<Error> {
    let mut walk = Walk::default();
    walk.visit(arena.root(), source, path, &Place { count: Some(1), uncorrelated: None });
    let total = walk.costs.iter().fold(0_u64, |total, (cost, _)| total.saturating_add(*cost));
    if total > SCHEMA_COST_MAX {
        walk.costs.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        for (_, at) in walk.costs.iter().take(DEAREST) {
            let detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            walk.errors.push(Error::forbidden(at, detail));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        walk.errors.push(Error::forbidden(path, too_dear(what, total, SCHEMA_COST_MAX)));
    }
    walk.errors
}

#[derive(Default)]
struct Walk {
    errors: Vec<Error>,
    /// What each rule costs, and where it stands.
    costs: Vec<(u64, Path)>,
}

/// Where the walk is.
#[derive(Clone)]
struct Place {
    /// How often there can be such a value in an object; `None` without a limit but that of the request.
    count: Option<u64>,
    /// The nearest place around whose parts can't be told from their past.
    uncorrelated: Option<Path>,
}

impl Walk {
    fn visit(&mut self, schema: SchemaRef<'_>, source: &Value, path: &Path, place: &Place) {
        let rules = schema.rules().map_or(&[][..], |rules| &rules.validations);
        for (index, rule) in rules.iter().enumerate() {
            let at = path.child("x-kubernetes-validations").index(index);
            self.rule(rule, schema, &source["x-kubernetes-validations"][index], &at, place);
        }
        let lost = |loses: bool| {
            if loses { place.uncorrelated.clone().or_else(|| Some(path.clone())) } else { place.uncorrelated.clone() }
        };
        match schema.kind() {
            Kind::Object => {
                let below = Place { uncorrelated: lost(schema.map_type() == MapType::Atomic), ..place.clone() };
                for property in schema.properties() {
                    let at = path.child("properties").key(property.name);
                    self.visit(property.schema, &source["properties"][property.name], &at, &below);
                }
            }
            Kind::Map => {
                let Some(values) = schema.values() else { return };
                let below = Place {
                    count: repeated(place.count, schema),
                    uncorrelated: lost(schema.map_type() == MapType::Atomic),
                };
                let at = path.child("additionalProperties");
                self.visit(values, &source["additionalProperties"], &at, &below);
            }
            Kind::Array => {
                let Some(item) = schema.item() else { return };
                let below = Place {
                    count: repeated(place.count, schema),
                    uncorrelated: lost(schema.list_type() != ListType::Map),
                };
                self.visit(item, &source["items"], &path.child("items"), &below);
            }
            _ => {}
        }
    }

    fn rule(&mut self, rule: &ValidationRule, schema: SchemaRef<'_>, source: &Value, path: &Path, place: &Place) {
        let at = path.child("rule");
        if rule.rule.trim().is_empty() {
            return;
        }
        if !has_type(schema) {
            let what = "rule declared on schema that does not support validation rules type";
            return self.errors.push(Error::invalid(&at, source.clone(), what));
        }
        let variables = variables(rule, schema);
        let program = match Program::compile(&rule.rule, &variables, Wanted::Bool) {
            Ok(program) => program,
            Err(error) => return self.errors.push(Error::invalid(&at, source.clone(), compilation(&error))),
        };
        let times = place.count.unwrap_or_else(|| repeats_max(schema));
        let cost = program.cost_max().saturating_mul(times);
        if cost > RULE_COST_MAX {
            self.errors.push(Error::forbidden(&at, too_dear("estimated rule cost", cost, RULE_COST_MAX)));
        }
        self.costs.push((cost, at.clone()));
        if let Some(text) = rule.message_expression.as_deref() {
            let at = path.child("messageExpression");
            match Program::compile(text, &variables, Wanted::Text) {
                Ok(message) if message.cost_max() > RULE_COST_MAX => {
                    let what = too_dear("estimated messageExpression cost", message.cost_max(), RULE_COST_MAX);
                    self.errors.push(Error::forbidden(&at, what));
                }
                Ok(_) => {}
                Err(error) => {
                    let what =
                        compilation(&error).replace("compilation failed", "messageExpression compilation failed");
                    self.errors.push(Error::invalid(&at, source.clone(), what));
                }
            }
        }
        if program.uses("oldSelf") {
            if let Some(around) = &place.uncorrelated {
                let what =
                    format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {around}");
                self.errors.push(Error::invalid(&at, rule.rule.as_str(), what));
            }
        } else if let Some(optional) = rule.optional_old_self {
            let at = path.child("optionalOldSelf");
            self.errors.push(Error::invalid(&at, optional, "may not be set if oldSelf is not used in rule"));
        }
    }
}

/// How often there are parts of something that is there so often.
fn repeated(count: Option<u64>, schema: SchemaRef<'_>) -> Option<u64> {
    let limited = schema.rules().is_some_and(|rules| match schema.kind() {
        Kind::Array => rules.max_items.is_some(),
        _ => rules.max_properties.is_some(),
    });
    count.filter(|_| limited).map(|count| count.saturating_mul(count_max(schema)))
}

fn compilation(error: &CompileError) -> String {
    if error.is_about_a_place() { format!("compilation failed: {error}") } else { error.to_string() }
}

fn too_dear(what: &str, cost: u64, limit: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}
