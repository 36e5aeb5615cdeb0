//! Roles whose rules are those of other roles.

use k3sd_objects::selector::LabelSelector;
use serde_json::Value;

use super::super::rule::PolicyRule;

/// What the rules of an aggregated role should be: the rules of all roles that its selectors find, itself left out, in
/// the order of their names, none twice. `None` for a role that isn't aggregated. A selector that can't be read finds
/// nothing.
#[must_use]
pub fn aggregated_rules(role: &Value, all: &[Value]) -> Option<Vec<PolicyRule>> {
    let selectors = role.pointer("/aggregationRule/clusterRoleSelectors")?.as_array()?;
    let selectors: Vec<LabelSelector> =
        selectors.iter().filter_map(|selector| LabelSelector::from_object(Some(selector)).ok()).collect();
    let name = |role: &Value| role.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let label = |role: &Value, key: &str| role["metadata"]["labels"][key].as_str().map(str::to_owned);
    let mut rules = Vec::new();
    for selector in selectors {
        let matches = |other: &&Value| {
            let wanted = |requirement: &k3sd_objects::selector::Requirement| {
                requirement.matches(label(other, requirement.key()).as_deref())
            };
            !selector.is_nothing() && selector.requirements().iter().all(wanted)
        };
        let mut found: Vec<&Value> = all.iter().filter(matches).filter(|other| name(other) != name(role)).collect();
        found.sort_by_key(|other| name(other));
        for rule in found.into_iter().flat_map(PolicyRule::list_of) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    Some(rules)
}
