//! What selects pods and nodes, read from their typed forms once, so that deciding only compares.

use std::collections::BTreeMap;

use k3sd_objects::selector::{LabelSelector, Operator, Requirement};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

/// Labels as objects carry them.
pub type Labels = BTreeMap<String, String>;

/// The only field of a node that a selector may name.
const NAME_FIELD: &str = "metadata.name";

/// Reads a label selector. An absent one selects nothing, an empty one everything; one that makes no sense, which the
/// API refuses, selects nothing.
pub fn selector(source: Option<&meta::LabelSelector>) -> LabelSelector {
    let Some(source) = source else { return LabelSelector::nothing() };
    let mut requirements = Vec::new();
    for (key, value) in source.match_labels.iter().flatten() {
        requirements.push(Requirement::new(key, Operator::In, vec![value.clone()]));
    }
    for expression in source.match_expressions.iter().flatten() {
        let Some(operator) = operator(&expression.operator) else { return LabelSelector::nothing() };
        requirements.push(Requirement::new(&expression.key, operator, expression.values.clone().unwrap_or_default()));
    }
    requirements
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .map_or_else(|_| LabelSelector::nothing(), LabelSelector::new)
}

/// The selector of those who have all of these labels.
pub fn with_labels(labels: &Labels) -> LabelSelector {
    let requirement = |(key, value): (&String, &String)| Requirement::new(key, Operator::In, vec![value.clone()]);
    let made: Result<Vec<_>, _> = labels.iter().map(requirement).collect();
    made.map_or_else(|_| LabelSelector::nothing(), LabelSelector::new)
}

/// The same selector asking for more.
pub fn narrowed(selector: &LabelSelector, more: impl IntoIterator<Item = Requirement>) -> LabelSelector {
    if selector.is_nothing() {
        return LabelSelector::nothing();
    }
    LabelSelector::new(selector.requirements().iter().cloned().chain(more).collect())
}

/// Whether labels are selected.
pub fn selects(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    selector.matches(|key| labels.and_then(|labels| labels.get(key)).map(String::as_str))
}

fn operator(word: &str) -> Option<Operator> {
    Some(match word {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return None,
    })
}

/// What one term of a node selector asks of a node's name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NameRequirement {
    name: String,
    /// It has to be this name, or may not be.
    wanted: bool,
}

/// One term of a node selector: all that it asks for has to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTerm {
    labels: Vec<Requirement>,
    names: Vec<NameRequirement>,
}

impl NodeTerm {
    /// Reads a term. `None` for one that selects no node: it is empty, or makes no sense.
    pub fn read(term: &core::NodeSelectorTerm) -> Option<Self> {
        let mut labels = Vec::new();
        for expression in term.match_expressions.iter().flatten() {
            let values = expression.values.clone().unwrap_or_default();
            labels.push(Requirement::new(&expression.key, operator(&expression.operator)?, values).ok()?);
        }
        let mut names = Vec::new();
        for field in term.match_fields.iter().flatten() {
            let [name] = field.values.as_deref().unwrap_or_default() else { return None };
            let wanted = match field.operator.as_str() {
                "In" => true,
                "NotIn" => false,
                _ => return None,
            };
            if field.key != NAME_FIELD {
                return None;
            }
            names.push(NameRequirement { name: name.clone(), wanted });
        }
        (!labels.is_empty() || !names.is_empty()).then_some(Self { labels, names })
    }

    /// Whether a node is selected.
    pub fn matches(&self, name: &str, labels: Option<&Labels>) -> bool {
        let value = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
        self.names.iter().all(|wanted| (wanted.name == name) == wanted.wanted)
            && self.labels.iter().all(|requirement| requirement.matches(value(requirement.key())))
    }

    /// The only name that it admits, if it asks for one.
    pub fn name(&self) -> Option<&str> {
        self.names.iter().find(|field| field.wanted).map(|field| field.name.as_str())
    }

    /// Whether it asks for two names at once, which no node has.
    fn is_contradiction(&self) -> bool {
        let mut names = self.names.iter().filter(|field| field.wanted);
        let first = names.next();
        names.any(|other| first.is_some_and(|first| first.name != other.name))
    }
}

/// Terms of which one is enough. Without any it selects no node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSelector(Vec<NodeTerm>);

/// The nodes that a selector can select at all, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedNodes {
    /// Any.
    Any,
    /// Only these.
    Only(Vec<String>),
}

impl NodeSelector {
    /// Reads a selector; terms that select nothing are left out.
    pub fn read(selector: &core::NodeSelector) -> Self {
        Self(selector.node_selector_terms.iter().filter_map(NodeTerm::read).collect())
    }

    /// Whether a node is selected.
    pub fn matches(&self, name: &str, labels: Option<&Labels>) -> bool {
        self.0.iter().any(|term| term.matches(name, labels))
    }

    /// Which nodes it names. A term without a name admits any.
    pub fn named(&self) -> NamedNodes {
        let mut names = Vec::new();
        for term in &self.0 {
            match term.name() {
                Some(_) if term.is_contradiction() => {}
                Some(name) => names.push(name.to_owned()),
                None => return NamedNodes::Any,
            }
        }
        if self.0.is_empty() {
            return NamedNodes::Any;
        }
        names.sort_unstable();
        names.dedup();
        NamedNodes::Only(names)
    }
}

/// Whether a toleration puts up with a taint.
pub fn tolerates(toleration: &core::Toleration, taint: &core::Taint) -> bool {
    let set = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(str::to_owned);
    if set(&toleration.effect).is_some_and(|effect| effect != taint.effect) {
        return false;
    }
    if set(&toleration.key).is_some_and(|key| key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        None | Some("" | "Equal") => {
            toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
        }
        Some("Exists") => true,
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> core::Toleration {
        let text = |part: &str| (!part.is_empty()).then(|| part.to_owned());
        core::Toleration {
            key: text(key),
            operator: text(operator),
            value: text(value),
            effect: text(effect),
            ..core::Toleration::default()
        }
    }

    #[test]
    fn tolerations_match_taints_as_documented() {
        let taint =
            core::Taint { key: "k".into(), value: Some("v".into()), effect: "NoSchedule".into(), time_added: None };
        let rows = [
            (toleration("k", "Equal", "v", "NoSchedule"), true),
            (toleration("k", "", "v", ""), true),
            (toleration("k", "Equal", "w", "NoSchedule"), false),
            (toleration("k", "Exists", "", "NoSchedule"), true),
            (toleration("", "Exists", "", ""), true),
            (toleration("k", "Exists", "", "NoExecute"), false),
            (toleration("other", "Exists", "", ""), false),
            (toleration("k", "Odd", "v", ""), false),
        ];
        for (toleration, expected) in rows {
            assert_eq!(tolerates(&toleration, &taint), expected, "{toleration:?}");
        }
    }

    #[test]
    fn node_terms_ask_for_labels_and_names() {
        let term = |json: serde_json::Value| serde_json::from_value::<core::NodeSelectorTerm>(json).unwrap();
        let labels = Labels::from([("cpu".to_owned(), "8".to_owned()), ("zone".to_owned(), "a".to_owned())]);
        let check = |json, expected: bool| {
            let read = NodeTerm::read(&term(json));
            assert_eq!(read.is_some_and(|term| term.matches("n1", Some(&labels))), expected);
        };
        check(serde_json::json!({"matchExpressions": [{"key": "cpu", "operator": "Gt", "values": ["4"]}]}), true);
        check(serde_json::json!({"matchExpressions": [{"key": "cpu", "operator": "Lt", "values": ["4"]}]}), false);
        check(serde_json::json!({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}), false);
        check(serde_json::json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}), true);
        check(
            serde_json::json!({"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n1"]}]}),
            false,
        );
        check(serde_json::json!({}), false);
    }

    #[test]
    fn an_absent_selector_selects_nothing_and_an_empty_one_everything() {
        assert!(!selects(&selector(None), None));
        assert!(selects(&selector(Some(&meta::LabelSelector::default())), None));
    }
}
