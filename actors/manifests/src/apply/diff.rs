//! What has to change in an object: a patch of three sides.
//!
//! ```text
//! original    what was applied last: what it had and the wanted one hasn't is taken away
//! modified    what is wanted
//! current     what there is: whatever only this one has stays
//! ```
//!
//! A kind whose lists are known gets a strategic merge patch, which changes single items of them; any other a merge patch
//! (RFC 7386), which replaces them.

use k3sd_objects::schema::SchemaRef;
use serde_json::{Map, Value, json};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";

/// The patch; empty if there is nothing to change. With a schema it is a strategic one.
pub(super) fn patch(
    original: &Value,
    modified: &Value,
    current: &Value,
    schema: Option<SchemaRef<'_>>,
) -> Map<String, Value> {
    let (Value::Object(modified), Value::Object(current)) = (modified, current) else { return Map::new() };
    maps(original.as_object(), modified, current, schema)
}

fn maps(
    original: Option<&Map<String, Value>>,
    modified: &Map<String, Value>,
    current: &Map<String, Value>,
    schema: Option<SchemaRef<'_>>,
) -> Map<String, Value> {
    let mut patch = Map::new();
    for (name, wanted) in modified {
        let field = schema.and_then(|schema| schema.field(name));
        let was = original.and_then(|original| original.get(name));
        match (current.get(name), wanted) {
            (None, Value::Null) => {}
            (Some(is), wanted) if is == wanted => {}
            (Some(Value::Object(is)), Value::Object(wanted)) => {
                let strategy = field.map(SchemaRef::patch_strategy).unwrap_or_default();
                if strategy.replace {
                    patch.insert(name.clone(), Value::Object(wanted.clone()));
                    continue;
                }
                let mut change = maps(was.and_then(Value::as_object), wanted, is, field);
                if !change.is_empty() {
                    if strategy.retain_keys {
                        retain(&mut change, wanted);
                    }
                    patch.insert(name.clone(), Value::Object(change));
                }
            }
            (Some(Value::Array(is)), Value::Array(wanted)) => {
                lists(was.and_then(Value::as_array), wanted, is, (name, field), &mut patch);
            }
            (_, wanted) => _ = patch.insert(name.clone(), wanted.clone()),
        }
    }
    for name in original.into_iter().flatten().map(|(name, _)| name) {
        if !modified.contains_key(name) && current.contains_key(name) {
            patch.insert(name.clone(), Value::Null);
        }
    }
    patch
}

/// Names the fields that stay.
fn retain(change: &mut Map<String, Value>, wanted: &Map<String, Value>) {
    let names = wanted.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| Value::from(name.as_str()));
    change.insert(RETAIN_KEYS.to_owned(), names.collect());
}

fn lists(
    original: Option<&Vec<Value>>,
    modified: &[Value],
    current: &[Value],
    (name, field): (&str, Option<SchemaRef<'_>>),
    patch: &mut Map<String, Value>,
) {
    let strategy = field.map(SchemaRef::patch_strategy).unwrap_or_default();
    let original = original.map(Vec::as_slice).unwrap_or_default();
    let Some(field) = field.filter(|_| strategy.merge) else {
        patch.insert(name.to_owned(), modified.into());
        return;
    };
    match field.merge_key() {
        None => scalars(original, modified, current, name, patch),
        Some(key) if [original, modified, current].into_iter().all(|list| are_distinct(list, key)) => {
            let keyed = Keyed { key, item: field.item(), retains: strategy.retain_keys };
            keyed.lists(original, modified, current, name, patch);
        }
        // Two items of one key, as two ports of one number: they can't be told apart, so the list is replaced.
        Some(_) => {
            let item = field.item();
            let is_same = modified.len() == current.len()
                && modified.iter().zip(current).all(|(wanted, is)| same_item(wanted, is, item));
            if !is_same {
                let mut items = vec![json!({ (PATCH): "replace" })];
                items.extend(modified.iter().cloned());
                patch.insert(name.to_owned(), items.into());
            }
        }
    }
}

fn same_item(wanted: &Value, is: &Value, schema: Option<SchemaRef<'_>>) -> bool {
    match (wanted, is) {
        (Value::Object(wanted), Value::Object(is)) => maps(None, wanted, is, schema).is_empty(),
        (wanted, is) => wanted == is,
    }
}

/// A list of values that are there or not.
fn scalars(original: &[Value], modified: &[Value], current: &[Value], name: &str, patch: &mut Map<String, Value>) {
    let added: Vec<Value> = modified.iter().filter(|value| !current.contains(value)).cloned().collect();
    let is_gone = |value: &&Value| !modified.contains(value) && current.contains(value);
    let gone: Vec<Value> = original.iter().filter(is_gone).cloned().collect();
    if !added.is_empty() {
        patch.insert(name.to_owned(), added.into());
        patch.insert(format!("$setElementOrder/{name}"), modified.into());
    }
    if !gone.is_empty() {
        patch.insert(format!("$deleteFromPrimitiveList/{name}"), gone.into());
    }
}

/// Whether all items have the key, each another.
fn are_distinct(list: &[Value], key: &str) -> bool {
    let mut seen: Vec<&Value> = Vec::with_capacity(list.len());
    list.iter().all(|item| match item.get(key) {
        Some(value) if !seen.contains(&value) => {
            seen.push(value);
            true
        }
        _ => false,
    })
}

/// Lists of maps that a field tells apart.
struct Keyed<'a> {
    key: &'a str,
    item: Option<SchemaRef<'a>>,
    retains: bool,
}

impl Keyed<'_> {
    fn find<'v>(&self, list: &'v [Value], key: &Value) -> Option<&'v Map<String, Value>> {
        list.iter().find(|item| item.get(self.key) == Some(key)).and_then(Value::as_object)
    }

    fn lists(
        &self,
        original: &[Value],
        modified: &[Value],
        current: &[Value],
        name: &str,
        patch: &mut Map<String, Value>,
    ) {
        let mut items = Vec::new();
        for wanted in modified.iter().filter_map(Value::as_object) {
            let key = &wanted[self.key];
            let Some(is) = self.find(current, key) else {
                items.push(Value::Object(wanted.clone()));
                continue;
            };
            let mut change = maps(self.find(original, key), wanted, is, self.item);
            if !change.is_empty() {
                if self.retains {
                    retain(&mut change, wanted);
                }
                change.insert(self.key.to_owned(), key.clone());
                items.push(Value::Object(change));
            }
        }
        for was in original {
            let key = &was[self.key];
            if self.find(modified, key).is_none() && self.find(current, key).is_some() {
                items.push(json!({ (PATCH): "delete", (self.key): key }));
            }
        }
        let keys = |list: &[Value], of: &[Value]| -> Vec<Value> {
            let shared = list.iter().map(|item| item[self.key].clone());
            shared.filter(|key| self.find(of, key).is_some()).collect()
        };
        let moved = keys(modified, current) != keys(current, modified);
        if !items.is_empty() || moved {
            let order = modified.iter().map(|item| json!({ (self.key): item[self.key] }));
            patch.insert(format!("$setElementOrder/{name}"), order.collect());
        }
        if !items.is_empty() {
            patch.insert(name.to_owned(), items.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use k3sd_objects::patch::{apply_merge_patch, apply_strategic_patch};
    use k3sd_objects::schema::builtin;

    use super::*;

    /// The patch, and that it makes of the current object what is wanted; again there is nothing to do then.
    fn check(type_name: Option<&str>, [original, modified, current]: [Value; 3], wanted_patch: Value, wanted: Value) {
        let schema = type_name.map(|name| builtin().type_named(name).unwrap());
        let made = Value::Object(patch(&original, &modified, &current, schema));
        assert_eq!(made, wanted_patch);
        let outcome = match schema {
            Some(schema) => apply_strategic_patch(current, made, schema),
            None => apply_merge_patch(current, made),
        };
        let outcome = outcome.unwrap();
        assert_eq!(outcome, wanted);
        assert_eq!(patch(&modified, &modified, &outcome, schema), Map::new(), "{outcome}");
    }

    #[test]
    fn merge_patches_change_add_and_take_away() {
        check(
            None,
            [
                json!({"spec": {"a": 1, "gone": 1, "deep": {"x": 1, "y": 2}}}),
                json!({"spec": {"a": 2, "new": null, "deep": {"x": 1}, "list": [1]}}),
                json!({"spec": {"a": 1, "gone": 1, "other": 1, "deep": {"x": 1, "y": 2}, "list": [1, 2]}}),
            ],
            json!({"spec": {"a": 2, "gone": null, "deep": {"y": null}, "list": [1]}}),
            json!({"spec": {"a": 2, "other": 1, "deep": {"x": 1}, "list": [1]}}),
        );
    }

    #[test]
    fn what_others_wrote_stays() {
        let object = json!({"metadata": {"labels": {"a": "1"}}});
        let current = json!({"metadata": {"labels": {"a": "1", "b": "2"}, "uid": "u"}, "status": {}});
        check(Some("core.v1.Pod"), [object.clone(), object, current.clone()], json!({}), current);
    }

    #[test]
    fn items_of_lists_are_changed_one_by_one() {
        let spec = |containers: Value| json!({"spec": {"containers": containers}});
        check(
            Some("core.v1.Pod"),
            [
                spec(json!([{"name": "a", "image": "1", "tty": true}, {"name": "b", "image": "1"}])),
                spec(json!([{"name": "a", "image": "2"}, {"name": "c", "image": "1"}])),
                spec(json!([{"name": "a", "image": "1", "tty": true, "stdin": true}, {"name": "b", "image": "1"},
                    {"name": "injected", "image": "1"}])),
            ],
            json!({"spec": {
                "containers": [
                    {"name": "a", "image": "2", "tty": null},
                    {"name": "c", "image": "1"},
                    {"name": "b", "$patch": "delete"},
                ],
                "$setElementOrder/containers": [{"name": "a"}, {"name": "c"}],
            }}),
            spec(json!([{"name": "a", "image": "2", "stdin": true}, {"name": "c", "image": "1"},
                {"name": "injected", "image": "1"}])),
        );
    }

    #[test]
    fn items_are_put_in_order() {
        let spec = |names: &[&str]| {
            let containers: Value = names.iter().map(|name| json!({ "name": name })).collect();
            json!({"spec": {"containers": containers}})
        };
        check(
            Some("core.v1.Pod"),
            [spec(&["a", "b"]), spec(&["b", "a"]), spec(&["a", "b"])],
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
            spec(&["b", "a"]),
        );
    }

    #[test]
    fn items_without_a_key_of_their_own_replace_the_list() {
        let ports = |ports: Value| json!({"spec": {"ports": ports}});
        let both = json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]);
        let server = json!([{"port": 53, "protocol": "UDP", "targetPort": 53},
            {"port": 53, "protocol": "TCP", "targetPort": 53}]);
        let kind = Some("core.v1.Service");
        check(kind, [json!({}), ports(both.clone()), ports(server.clone())], json!({}), ports(server.clone()));
        let more = json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}, {"port": 9153}]);
        check(
            kind,
            [json!({}), ports(more.clone()), ports(server)],
            ports(json!([{"$patch": "replace"}, {"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"},
                {"port": 9153}])),
            ports(more),
        );
    }

    #[test]
    fn values_of_sets_come_and_go() {
        let finalizers = |names: &[&str]| json!({"metadata": {"finalizers": names}});
        check(
            Some("core.v1.Pod"),
            [finalizers(&["a", "b"]), finalizers(&["a", "c"]), finalizers(&["a", "b", "x"])],
            json!({"metadata": {"finalizers": ["c"], "$setElementOrder/finalizers": ["a", "c"],
                "$deleteFromPrimitiveList/finalizers": ["b"]}}),
            finalizers(&["a", "c", "x"]),
        );
    }

    #[test]
    fn a_strategy_takes_its_old_settings_along() {
        let strategy = |strategy: Value| json!({"spec": {"strategy": strategy}});
        check(
            Some("apps.v1.Deployment"),
            [
                strategy(json!({"type": "RollingUpdate"})),
                strategy(json!({"type": "Recreate"})),
                strategy(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}})),
            ],
            strategy(json!({"type": "Recreate", "$retainKeys": ["type"]})),
            strategy(json!({"type": "Recreate"})),
        );
    }
}
