//! Path elements, sets and `fieldsV1`.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn path(steps: &[PathElement]) -> Path {
    steps.to_vec()
}

fn field(name: &str) -> PathElement {
    PathElement::field(name)
}

#[test]
fn path_elements_are_written_and_printed_as_upstream_does() {
    let key = |fields: &[(&str, Value)]| {
        PathElement::key(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    };
    for (element, text, printed) in [
        (field("spec"), "f:spec", ".spec"),
        (field(""), "f:", "."),
        (field("a:b"), "f:a:b", ".a:b"),
        (key(&[("name", json!("web"))]), r#"k:{"name":"web"}"#, r#"[name="web"]"#),
        (
            key(&[("protocol", json!("TCP")), ("containerPort", json!(80))]),
            r#"k:{"containerPort":80,"protocol":"TCP"}"#,
            r#"[containerPort=80,protocol="TCP"]"#,
        ),
        (PathElement::Value(json!("x")), r#"v:"x""#, r#"[="x"]"#),
        (PathElement::Value(json!(7)), "v:7", "[=7]"),
        (PathElement::Value(json!(true)), "v:true", "[=true]"),
        (PathElement::Value(json!("<a>")), r#"v:"\u003ca\u003e""#, r#"[="<a>"]"#),
        (PathElement::Index(3), "i:3", "[3]"),
    ] {
        assert_eq!(element.to_text(), text);
        assert_eq!(PathElement::from_text(text), Ok(element.clone()));
        assert_eq!(element.to_string(), printed);
    }
    for text in ["", "f", "spec", "k:7", "k:{", "v:", "v:x", "i:x", "i:"] {
        assert!(matches!(PathElement::from_text(text), Err(ElementError::Malformed(_))), "{text}");
    }
    assert_eq!(PathElement::from_text("z:later"), Err(ElementError::Unknown));
}

#[test]
fn fields_are_written_as_upstream_writes_them() {
    let set = Set::of([
        path(&[field("spec"), field("replicas")]),
        path(&[field("metadata"), field("labels")]),
        path(&[field("metadata"), field("labels"), field("app")]),
    ]);
    let fields = json!({
        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
        "f:spec": {"f:replicas": {}},
    });
    assert_eq!(set.to_fields(), fields);
    assert_eq!(Set::from_fields(&fields), Ok(set));
    assert_eq!(Set::from_fields(&json!({})), Ok(Set::default()));
    let later = json!({"f:a": {}, "z:x": {"f:b": {}}});
    assert_eq!(Set::from_fields(&later), Ok(Set::of([path(&[field("a")])])), "unknown steps are skipped");
    for (fields, error) in [
        (json!([]), "fieldsV1 is no object at "),
        (json!({"f:a": {"f:b": 7}}), "fieldsV1 is no object at .a.b"),
        (json!({"a": {}}), r#"malformed path element "a""#),
    ] {
        assert_eq!(Set::from_fields(&fields).unwrap_err().to_string(), error);
    }
}

#[test]
fn numbers_are_equal_however_they_are_written() {
    assert!(equal(&json!({"a": [1]}), &json!({"a": [1.0]})));
    assert!(equal(&json!(u64::MAX), &json!(u64::MAX)));
    assert!(!equal(&json!(u64::MAX), &json!(i64::MAX)));
    for (left, right) in
        [(json!(1), json!("1")), (json!(null), json!({})), (json!([]), json!({})), (json!(0), json!(false))]
    {
        assert!(!equal(&left, &right), "{left} {right}");
    }
}

fn any_path() -> impl Strategy<Value = Path> {
    let element = prop_oneof![
        prop::sample::select(vec!["a", "b", "c"]).prop_map(field),
        prop::sample::select(vec!["x", "y"]).prop_map(|value| PathElement::key(vec![("k".to_owned(), json!(value))])),
        (0..3).prop_map(|value| PathElement::Value(json!(value))),
    ];
    prop::collection::vec(element, 1..4)
}

fn any_paths() -> impl Strategy<Value = BTreeSet<Path>> {
    prop::collection::btree_set(any_path(), 0..12)
}

fn set(paths: &BTreeSet<Path>) -> Set {
    Set::of(paths.iter().cloned())
}

fn paths(set: &Set) -> BTreeSet<Path> {
    set.paths().into_iter().collect()
}

proptest! {
    #[test]
    fn sets_obey_the_algebra_of_sets(left in any_paths(), right in any_paths()) {
        let (a, b) = (set(&left), set(&right));
        prop_assert_eq!(paths(&a), left.clone());
        prop_assert_eq!(a.len(), left.len());
        prop_assert_eq!(paths(&a.clone().union(b.clone())), left.union(&right).cloned().collect());
        prop_assert_eq!(paths(&a.intersection(&b)), left.intersection(&right).cloned().collect());
        prop_assert_eq!(paths(&a.clone().difference(&b)), left.difference(&right).cloned().collect());
        let below = left.iter().filter(|path| !(1..=path.len()).any(|end| right.contains(&path[..end]))).cloned();
        prop_assert_eq!(paths(&a.clone().difference_below(&b)), below.collect());
        prop_assert_eq!(a.clone().difference(&a).is_empty(), true);
        prop_assert!(left.iter().all(|path| a.contains(path)));
    }

    #[test]
    fn fields_read_back_as_the_set_that_was_written(left in any_paths()) {
        let written = set(&left).to_fields();
        prop_assert_eq!(Set::from_fields(&written), Ok(set(&left)));
    }

    #[test]
    fn no_fields_upset_the_reader(
        text in any::<String>(),
        keys in prop::collection::vec("[fkviz.]?:?[a-z{}\":0-9]{0,6}", 0..6),
    ) {
        let _element = PathElement::from_text(&text);
        let fields: serde_json::Map<String, Value> = keys.into_iter().map(|key| (key, json!({"f:a": {}}))).collect();
        if let Ok(set) = Set::from_fields(&Value::Object(fields)) {
            prop_assert_eq!(Set::from_fields(&set.to_fields()), Ok(set));
        }
    }
}
