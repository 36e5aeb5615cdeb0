//! Whatever comes, nothing panics.

use std::panic::catch_unwind;

use proptest::prelude::*;

use super::*;

/// What may stand anywhere, of the right type or not.
fn odd_values() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("é\u{0}/%'['"),
        json!([]),
        json!([null, {}, "", [[]]]),
        json!({}),
        json!({"": {"": null}}),
    ]
}

/// Pointers to everything in a value.
fn pointers(value: &Value, prefix: &str, found: &mut Vec<String>) {
    found.push(prefix.to_owned());
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                pointers(field, &format!("{prefix}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointers(item, &format!("{prefix}/{index}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn odd_values_anywhere_make_no_check_panic() {
    for (kind, object) in examples().into_iter().chain([(("", "Pod"), pods::rich_pod())]) {
        let mut places = Vec::new();
        pointers(&object, "", &mut places);
        for (place, odd) in places.iter().flat_map(|place| odd_values().into_iter().map(move |odd| (place, odd))) {
            let mut changed = object.clone();
            *changed.pointer_mut(place).expect("it was found there") = odd.clone();
            let outcome = catch_unwind(|| {
                let context = Context::default();
                let mut count = create(kind, &changed, &context).len();
                count +=
                    update(kind, &changed, &object, &context).len() + update(kind, &object, &changed, &context).len();
                for through in [Subresource::Status, Subresource::EphemeralContainers, Subresource::Resize] {
                    count += subresource(kind, through, &changed, &object, &context).len();
                    count += subresource(kind, through, &object, &changed, &context).len();
                }
                count
            });
            assert!(outcome.is_ok(), "{kind:?} with {odd} at {place}");
        }
    }
}

/// Any JSON, a few levels deep, with keys that objects have.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    let key = "name|spec|template|data|metadata|containers|volumes|labels|[a-z]{0,5}";
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_makes_no_check_panic(new in anything(), old in anything()) {
        for (kind, _) in examples() {
            let context = Context::default();
            let errors = create(kind, &new, &context);
            prop_assert_eq!(&errors, &create(kind, &new, &context), "the same answer for the same object");
            std::hint::black_box(update(kind, &new, &old, &context));
            for through in [Subresource::Status, Subresource::EphemeralContainers, Subresource::Resize] {
                std::hint::black_box(subresource(kind, through, &new, &old, &context));
            }
        }
    }
}
