//! Texts that are selectors and texts that aren't, what they select, and that printing is the way back.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::status::field::Path;

fn labels(text: &str) -> LabelSelector {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn fields(text: &str) -> FieldSelector {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn label_selectors_print_in_one_form() {
    for (text, printed) in [
        ("", ""),
        ("  ", ""),
        ("x", "x"),
        ("!x", "!x"),
        ("! x", "!x"),
        ("x=a", "x=a"),
        (" x = a ", "x=a"),
        ("x==a", "x==a"),
        ("x!=a", "x!=a"),
        ("x=", "x="),
        ("x=,y=b", "x=,y=b"),
        ("x in (b,a,b)", "x in (a,b)"),
        ("x in(a)", "x in (a)"),
        ("x notin (a)", "x notin (a)"),
        ("x notin (,a)", "x notin (,a)"),
        ("x in ()", "x in ()"),
        ("x in (a,)", "x in (,a)"),
        ("x in (a,,b)", "x in (,a,b)"),
        ("x>1", "x>1"),
        ("x<1,a", "a,x<1"),
        ("in", "in"),
        ("in in (in,notin)", "in in (in,notin)"),
        ("notin=in", "notin=in"),
        ("z,y,x", "x,y,z"),
        ("x=a,x!=b", "x=a,x!=b"),
        ("example.com/x\t=\r\na", "example.com/x=a"),
    ] {
        assert_eq!(labels(text).to_string(), printed, "{text:?}");
        assert_eq!(labels(printed), labels(text), "{text:?}");
    }
}

#[test]
fn label_selectors_are_refused_in_upstreams_words() {
    for (text, error) in [
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        (",", "found ',', expected: !, identifier, or 'end of string'"),
        ("x,", "found '', expected: identifier after ','"),
        ("x,,y", "found ',', expected: identifier after ','"),
        ("!x=a", "found '=', expected: ',' or 'end of string'"),
        ("x=a b", "found 'b', expected: ',' or 'end of string'"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("!!x", "unable to parse requirement: found '!', expected: identifier"),
        ("x y", "unable to parse requirement: found 'y', expected: in, notin, =, ==, !=, gt, lt"),
        ("x gt 1", "unable to parse requirement: found 'gt', expected: in, notin, =, ==, !=, gt, lt"),
        ("x (a)", "unable to parse requirement: found '(', expected: in, notin, =, ==, !=, gt, lt"),
        ("x in", "unable to parse requirement: found '' expected: '('"),
        ("x in a", "unable to parse requirement: found 'a' expected: '('"),
        ("x in (", "unable to parse requirement: found '', expected: ',', ')' or identifier"),
        ("x in (=", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
        ("x in (a", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("x in (a b)", "unable to parse requirement: found 'b', expected: ',' or ')'"),
        ("x in (a,", "unable to parse requirement: found '', expected: ',', or identifier"),
        ("x==!", "unable to parse requirement: found '!', expected: identifier"),
        (
            "x>a",
            "unable to parse requirement: values[0]: Invalid value: \"a\": for 'Gt', 'Lt' operators, the value must be \
             an integer",
        ),
    ] {
        assert_eq!(text.parse::<LabelSelector>().unwrap_err().to_string(), error, "{text:?}");
    }
    let key = "a/b/c=x".parse::<LabelSelector>().unwrap_err().to_string();
    assert!(
        key.starts_with(r#"unable to parse requirement: <nil>: Invalid value: "a/b/c": a qualified name"#),
        "{key}"
    );
    let value = "app=-x".parse::<LabelSelector>().unwrap_err().to_string();
    assert!(
        value.starts_with(r#"unable to parse requirement: values[0][app]: Invalid value: "-x": a valid"#),
        "{value}"
    );
}

#[test]
fn requirements_have_as_many_values_as_their_operator_takes() {
    let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    for (operator, values, error) in [
        (Operator::In, &[][..], "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"),
        (
            Operator::Equals,
            &["a", "b"],
            r#"values: Invalid value: ["a","b"]: exact-match compatibility requires one single value"#,
        ),
        (
            Operator::Exists,
            &["a"],
            r#"values: Invalid value: ["a"]: values set must be empty for exists and does not exist"#,
        ),
        (Operator::LessThan, &[], "values: Invalid value: []: for 'Gt', 'Lt' operators, exactly one value is required"),
    ] {
        assert_eq!(Requirement::new("x", operator, owned(values)).unwrap_err().to_string(), error);
    }
}

#[test]
fn labels_are_selected_as_upstream_selects_them() {
    let object = [("app", "web"), ("rank", "7"), ("empty", "")];
    let lookup = |key: &str| object.iter().find(|(known, _)| *known == key).map(|(_, value)| *value);
    for (text, selected) in [
        ("", true),
        ("app", true),
        ("!app", false),
        ("none", false),
        ("!none", true),
        ("app=web", true),
        ("app==api", false),
        ("app!=api", true),
        ("app!=web", false),
        ("none!=web", true),
        ("none=", false),
        ("empty=", true),
        ("app in (web,api)", true),
        ("app in (api)", false),
        ("none in (web)", false),
        ("app notin (web)", false),
        ("app notin (api)", true),
        ("none notin (web)", true),
        ("rank>6", true),
        ("rank>7", false),
        ("rank<8", true),
        ("rank<7", false),
        ("app>1", false),
        ("none<1", false),
        ("app=web,rank=8", false),
    ] {
        assert_eq!(labels(text).matches(lookup), selected, "{text}");
    }
    assert!(!LabelSelector::nothing().matches(lookup));
    assert!(LabelSelector::nothing().is_nothing() && !LabelSelector::nothing().is_everything());
    assert!(LabelSelector::everything().is_everything());
}

#[test]
fn an_index_can_serve_a_selector_of_one_value() {
    assert_eq!(labels("app=web").exact("app"), Some("web"));
    assert_eq!(labels("app in (web)").exact("app"), Some("web"));
    for text in ["app in (a,b)", "app!=web", "app", "other=web", ""] {
        assert_eq!(labels(text).exact("app"), None, "{text}");
    }
    assert_eq!(fields("metadata.name=a").exact("metadata.name"), Some("a"));
    assert_eq!(fields("metadata.name!=a").exact("metadata.name"), None);
}

#[test]
fn selector_objects_are_selectors_too() {
    let object = json!({
        "matchLabels": {"b": "1", "a": "2"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["x", "w"]},
            {"key": "canary", "operator": "DoesNotExist"},
            {"key": "a", "operator": "Exists"},
            {"key": "z", "operator": "NotIn", "values": ["q"]},
        ],
    });
    let selector = LabelSelector::from_object(Some(&object)).unwrap();
    assert_eq!(selector.to_string(), "a=2,a,b=1,!canary,tier in (w,x),z notin (q)");
    assert_eq!(check_label_selector(&object, &Path::new("spec").child("selector")), []);
    assert!(LabelSelector::from_object(Some(&json!({}))).unwrap().is_everything());
    assert!(LabelSelector::from_object(None).unwrap().is_nothing());
    assert!(LabelSelector::from_object(Some(&json!(null))).unwrap().is_nothing());
    let error = LabelSelector::from_object(Some(&json!({"matchExpressions": [{"key": "a", "operator": "Gt"}]})));
    assert_eq!(error.unwrap_err().to_string(), r#""Gt" is not a valid label selector operator"#);
}

#[test]
fn wrong_selector_objects_name_each_field() {
    let object = json!({
        "matchLabels": {"a": "-"},
        "matchExpressions": [
            {"key": "a", "operator": "In"},
            {"key": "a", "operator": "Exists", "values": ["b"]},
            {"key": "", "operator": "Gt"},
            {"key": "a", "operator": "NotIn", "values": ["b", "-"]},
        ],
    });
    let errors = check_label_selector(&object, &Path::new("selector"));
    let starts: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.field, error.kind.words())).collect();
    assert_eq!(
        starts,
        [
            "selector.matchLabels: Invalid value",
            "selector.matchExpressions[0].values: Required value",
            "selector.matchExpressions[1].values: Forbidden",
            "selector.matchExpressions[2].operator: Invalid value",
            "selector.matchExpressions[2].key: Invalid value",
            "selector.matchExpressions[2].key: Invalid value",
            "selector.matchExpressions[3].values[1]: Invalid value",
        ]
    );
}

#[test]
fn field_selectors_print_in_one_form() {
    for (text, printed) in [
        ("", ""),
        (",", ""),
        ("a=b", "a=b"),
        ("a==b", "a=b"),
        ("a!=b", "a!=b"),
        ("a=", "a="),
        ("z=1,a=2", "a=2,z=1"),
        ("a=x\\,y\\=z\\\\", "a=x\\,y\\=z\\\\"),
        ("spec.nodeName=n 1", "spec.nodeName=n 1"),
    ] {
        assert_eq!(fields(text).to_string(), printed, "{text:?}");
        assert_eq!(fields(printed), fields(text));
    }
    for (text, error) in [
        ("a", "invalid selector: 'a'; can't understand 'a'"),
        ("a=b,c", "invalid selector: 'a=b,c'; can't understand 'c'"),
        ("a=b=c", "invalid field selector: unescaped character in value: 61"),
        ("a=\\n", "invalid field selector: invalid escape sequence: \\n"),
        ("a=b\\", "invalid field selector: invalid escape sequence: \\"),
    ] {
        assert_eq!(text.parse::<FieldSelector>().unwrap_err().to_string(), error, "{text:?}");
    }
}

#[test]
fn fields_are_selected_and_renamed() {
    let lookup = |field: &str| (field == "spec.nodeName").then_some("n1");
    for (text, selected) in [
        ("", true),
        ("spec.nodeName=n1", true),
        ("spec.nodeName!=n1", false),
        ("spec.nodeName=n2", false),
        ("none=", true),
        ("none!=", false),
        ("none!=x", true),
        ("spec.nodeName=n1,none=x", false),
    ] {
        assert_eq!(fields(text).matches(lookup), selected, "{text}");
    }
    assert!(FieldSelector::default().is_everything());
    assert_eq!(FieldSelector::equals("a", "b,c").to_string(), "a=b\\,c");
    let renamed = fields("spec.host=n1").rename(|field| match field {
        "spec.host" => Ok("spec.nodeName".to_owned()),
        other => Err(format!("field label not supported: {other}")),
    });
    assert!(renamed.unwrap().matches(lookup));
    let refused = fields("spec.moon=1").rename(|field| Err::<String, _>(format!("field label not supported: {field}")));
    assert_eq!(refused.unwrap_err(), "field label not supported: spec.moon");
}

fn any_requirement() -> impl Strategy<Value = Requirement> {
    let key = "([a-z][a-z0-9]{0,5}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,8}[A-Za-z0-9])?";
    let value = "([A-Za-z0-9]([-A-Za-z0-9_.]{0,8}[A-Za-z0-9])?)?";
    let operator = prop::sample::select(vec![
        Operator::In,
        Operator::NotIn,
        Operator::Equals,
        Operator::DoubleEquals,
        Operator::NotEquals,
        Operator::Exists,
        Operator::DoesNotExist,
        Operator::GreaterThan,
        Operator::LessThan,
    ]);
    (key, operator, prop::collection::vec(value, 1..4), any::<u32>()).prop_map(|(key, operator, mut values, number)| {
        match operator {
            Operator::In | Operator::NotIn => {}
            Operator::Exists | Operator::DoesNotExist => values.clear(),
            Operator::GreaterThan | Operator::LessThan => values = vec![number.to_string()],
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals => values.truncate(1),
        }
        Requirement::new(&key, operator, values).expect("made to fit")
    })
}

proptest! {
    #[test]
    fn a_printed_label_selector_parses_to_itself(requirements in prop::collection::vec(any_requirement(), 0..5)) {
        let selector = LabelSelector::new(requirements);
        prop_assert_eq!(selector.to_string().parse::<LabelSelector>(), Ok(selector));
    }

    #[test]
    fn a_printed_field_selector_parses_to_itself(
        terms in prop::collection::vec(("[a-z.]{1,9}", any::<bool>(), any::<String>()), 0..5),
    ) {
        let print = |(field, negated, value): &(String, bool, String)| {
            FieldRequirement { field: field.clone(), negated: *negated, value: value.clone() }.to_string()
        };
        let text = terms.iter().map(print).collect::<Vec<_>>().join(",");
        let selector = fields(&text);
        prop_assert_eq!(selector.requirements().len(), terms.len());
        for (field, negated, value) in terms {
            let wanted = FieldRequirement { field, negated, value };
            prop_assert!(selector.requirements().contains(&wanted));
        }
        prop_assert_eq!(fields(&selector.to_string()), selector);
    }

    #[test]
    fn no_text_upsets_the_parsers(text in any::<String>(), like in "[a-z!=<>(), \\\\]{0,40}") {
        for text in [text, like] {
            if let Ok(selector) = text.parse::<LabelSelector>() {
                prop_assert_eq!(labels(&selector.to_string()), selector);
            }
            if let Ok(selector) = text.parse::<FieldSelector>() {
                prop_assert_eq!(fields(&selector.to_string()), selector);
            }
        }
    }

    #[test]
    fn no_object_upsets_the_reader(
        labels in prop::collection::btree_map(".{0,5}", ".{0,5}", 0..3),
        expressions in prop::collection::vec((".{0,5}", "In|NotIn|Exists|DoesNotExist|.{0,3}", prop::option::of(0_usize..3)), 0..3),
        odd: bool,
    ) {
        let expressions: Vec<serde_json::Value> = expressions
            .into_iter()
            .map(|(key, operator, values)| match values {
                Some(count) => json!({"key": key, "operator": operator, "values": vec!["a"; count]}),
                None => json!([key, operator]),
            })
            .collect();
        let object = if odd {
            json!({"matchLabels": expressions, "matchExpressions": labels})
        } else {
            json!({"matchLabels": labels, "matchExpressions": expressions})
        };
        let wrong = check_label_selector(&object, &Path::new("selector"));
        let read = LabelSelector::from_object(Some(&object));
        prop_assert!(read.is_err() != wrong.is_empty(), "what passes the check is a selector, and only that: {}", object);
    }
}
