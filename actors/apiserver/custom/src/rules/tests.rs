//! Rules of definitions and what they say of instances.

use k3sd_objects::schema::structural;
use serde_json::json;

use super::*;

fn schema(spec: Value) -> Value {
    json!({ "type": "object", "properties": { "spec": spec } })
}

fn refused(spec: Value) -> Vec<String> {
    let source = schema(spec);
    let arena = structural(&source).unwrap();
    validate(&arena, &source, &Path::new("s")).iter().map(ToString::to_string).collect()
}

fn found(spec: Value, value: Value, old: Option<Value>) -> Vec<String> {
    let arena = Arc::new(structural(&schema(spec)).unwrap());
    let rules = compile(&arena).expect("there are rules");
    let whole = |spec: Value| json!({ "apiVersion": "a/v1", "kind": "A", "metadata": { "name": "n" }, "spec": spec });
    let (value, old) = (whole(value), old.map(whole));
    rules.check(&value, old.as_ref()).iter().map(ToString::to_string).collect()
}

fn replicas(rules: Value) -> Value {
    json!({ "type": "object", "x-kubernetes-validations": rules, "properties": {
        "min": { "type": "integer" }, "max": { "type": "integer" }, "name": { "type": "string", "maxLength": 20 } } })
}

#[test]
fn a_rule_says_what_is_wrong() {
    for (rule, value, error) in [
        (json!({ "rule": "self.min <= self.max" }), json!({ "min": 1, "max": 2 }), None),
        (
            json!({ "rule": "self.min <= self.max" }),
            json!({ "min": 3, "max": 2 }),
            Some("spec: Invalid value: \"object\": failed rule: self.min <= self.max"),
        ),
        (
            json!({ "rule": "self.min <= self.max", "message": " too much " }),
            json!({ "min": 3, "max": 2 }),
            Some("spec: Invalid value: \"object\": too much"),
        ),
        (
            json!({ "rule": "self.min <= self.max", "messageExpression": "'%d > %d'.format([self.min, self.max])" }),
            json!({ "min": 3, "max": 2 }),
            Some("spec: Invalid value: \"object\": 3 > 2"),
        ),
        (
            json!({ "rule": "self.min <= self.max", "reason": "FieldValueForbidden", "fieldPath": ".min" }),
            json!({ "min": 3, "max": 2 }),
            Some("spec.min: Forbidden: failed rule: self.min <= self.max"),
        ),
        (
            json!({ "rule": "self.min <= self.max" }),
            json!({ "min": 3 }),
            Some("spec: Invalid value: \"object\": no such key: max evaluating rule: self.min <= self.max"),
        ),
        (json!({ "rule": "!has(self.max) || self.min <= self.max" }), json!({ "min": 3 }), None),
    ] {
        let wanted: Vec<&str> = error.into_iter().collect();
        assert_eq!(found(replicas(json!([rule])), value, None), wanted, "{rule}");
    }
}

#[test]
fn rules_stand_anywhere_and_see_the_metadata_at_the_root() {
    let list = json!({ "type": "object", "properties": { "list": { "type": "array", "items": {
        "type": "integer", "x-kubernetes-validations": [{ "rule": "self > 1" }] } } } });
    assert_eq!(
        found(list, json!({ "list": [2, 1, 3, 0] }), None),
        [
            "spec.list[1]: Invalid value: \"integer\": failed rule: self > 1",
            "spec.list[3]: Invalid value: \"integer\": failed rule: self > 1",
        ]
    );
    let mut source = schema(json!({ "type": "object" }));
    source["x-kubernetes-validations"] = json!([{ "rule": "self.metadata.name.startsWith('x')" }]);
    let rules = compile(&Arc::new(structural(&source).unwrap())).unwrap();
    let errors = rules.check(&json!({ "metadata": { "name": "y" }, "spec": {} }), None);
    assert_eq!(
        errors[0].to_string(),
        "<nil>: Invalid value: \"object\": failed rule: self.metadata.name.startsWith('x')"
    );
}

#[test]
fn rules_about_changes_need_a_past() {
    let rule = json!([{ "rule": "self.min >= oldSelf.min", "message": "may only grow" }]);
    assert_eq!(found(replicas(rule.clone()), json!({ "min": 1 }), None), [""; 0]);
    assert_eq!(found(replicas(rule.clone()), json!({ "min": 2 }), Some(json!({ "min": 1 }))), [""; 0]);
    let error = "spec: Invalid value: \"object\": may only grow";
    assert_eq!(found(replicas(rule), json!({ "min": 1 }), Some(json!({ "min": 2 }))), [error]);
    let rule =
        json!([{ "rule": "oldSelf.hasValue() || self.min == 0", "optionalOldSelf": true, "message": "begins at 0" }]);
    assert_eq!(
        found(replicas(rule.clone()), json!({ "min": 1 }), None),
        ["spec: Invalid value: \"object\": begins at 0"]
    );
    assert_eq!(found(replicas(rule), json!({ "min": 1 }), Some(json!({ "min": 0 }))), [""; 0]);
    // Items of a list are found again by their keys.
    let parts = json!({ "type": "object", "properties": { "parts": {
        "type": "array", "maxItems": 10, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
        "items": { "type": "object", "required": ["n"], "properties": {
            "n": { "type": "string", "maxLength": 9 },
            "v": { "type": "integer", "x-kubernetes-validations": [{ "rule": "self == oldSelf", "message": "fixed" }] } } } } } });
    assert_eq!(refused(parts.clone()), [""; 0]);
    let old = json!({ "parts": [{ "n": "a", "v": 1 }, { "n": "b", "v": 2 }] });
    let new = json!({ "parts": [{ "n": "b", "v": 2 }, { "n": "c", "v": 9 }, { "n": "a", "v": 7 }] });
    assert_eq!(found(parts, new, Some(old)), ["spec.parts[2].v: Invalid value: \"integer\": fixed"]);
}

#[test]
fn what_was_wrong_before_may_stay() {
    let spec = json!({ "type": "object", "properties": {
        "a": { "type": "integer", "x-kubernetes-validations": [{ "rule": "self > 1" }] },
        "b": { "type": "integer", "x-kubernetes-validations": [{ "rule": "self > 1" }] } } });
    let old = json!({ "a": 0, "b": 0 });
    assert_eq!(found(spec.clone(), json!({ "a": 0, "b": 5 }), Some(old.clone())), [""; 0]);
    assert_eq!(
        found(spec, json!({ "a": 0, "b": 1 }), Some(old)),
        ["spec.b: Invalid value: \"integer\": failed rule: self > 1"]
    );
}

#[test]
fn rules_that_can_not_be_used_are_refused() {
    for (rule, error) in [
        (
            json!({ "rule": "self.no == 1" }),
            "s.properties[spec].x-kubernetes-validations[0].rule: Invalid value: {\"rule\":\"self.no == 1\"}: compilation failed: ERROR: <input>:1:5: undefined field 'no'",
        ),
        (json!({ "rule": "self.min" }), "cel expression must evaluate to a bool"),
        (json!({ "rule": "true", "messageExpression": "1" }), "messageExpression must evaluate to a string"),
        (
            json!({ "rule": "true", "messageExpression": "self.no" }),
            "x-kubernetes-validations[0].messageExpression: Invalid value: ",
        ),
        (
            json!({ "rule": "true", "optionalOldSelf": true }),
            "x-kubernetes-validations[0].optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule",
        ),
    ] {
        let found = refused(replicas(json!([rule])));
        assert!(found.len() == 1 && found[0].contains(error), "{rule}\n{found:#?}");
    }
    let list = |items: Value| json!({ "type": "object", "properties": { "list": items } });
    let old = list(json!({ "type": "array", "maxItems": 3, "items": {
        "type": "integer", "x-kubernetes-validations": [{ "rule": "self == oldSelf" }] } }));
    assert_eq!(
        refused(old),
        [
            "s.properties[spec].properties[list].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within s.properties[spec].properties[list]"
        ]
    );
    let dear = list(json!({ "type": "array", "items": { "type": "string" },
        "x-kubernetes-validations": [{ "rule": "self.all(a, self.all(b, a == b))" }] }));
    let found = refused(dear);
    let wanted = "rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
    assert!(found[0].ends_with(wanted), "{found:#?}");
    assert!(
        found
            .iter()
            .any(|found| found
                .starts_with("s: Forbidden: x-kubernetes-validations estimated rule cost total for entire"))
    );
    let fine = list(json!({ "type": "array", "maxItems": 10, "items": { "type": "string", "maxLength": 10 },
        "x-kubernetes-validations": [{ "rule": "self.all(a, self.all(b, a == b))" }] }));
    assert_eq!(refused(fine), [""; 0]);
}

#[test]
fn a_budget_bounds_what_an_object_costs() {
    let spec = json!({ "type": "object", "properties": { "list": { "type": "array", "items": { "type": "integer" },
        "x-kubernetes-validations": [{ "rule": "self.all(a, self.all(b, a + b >= 0))" }] } } });
    let list: Vec<u32> = (0..5000).collect();
    assert_eq!(
        found(spec, json!({ "list": list }), None),
        [
            "spec.list: Invalid value: \"array\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: self.all(a, self.all(b, a + b >= 0))"
        ]
    );
    let spec = json!({ "type": "object", "properties": { "list": { "type": "array", "items": { "type": "integer",
        "x-kubernetes-validations": [{ "rule": "lists.range(20000).all(b, b >= 0)" }] } } } });
    let errors = found(spec, json!({ "list": vec![1; 500] }), None);
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0]
            .ends_with("validation failed due to running out of cost budget, no further validation rules will be run")
    );
}
