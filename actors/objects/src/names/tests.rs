//! Each syntax against values on both sides of its border, and the texts in full where clients see them.

use proptest::prelude::*;
use serde_json::json;

use super::*;

type Check = fn(&str) -> Faults;

#[test]
fn each_syntax_takes_and_refuses_what_upstream_does() {
    let long = |count: usize| "a".repeat(count);
    let (l63, l64, l253, l254) = (long(63), long(64), long(253), long(254));
    let qualified_long = format!("{l253}/{l63}");
    let cases: &[(&str, Check, &[&str], &[&str])] = &[
        ("label", dns_label, &["a", "0", "a-b", "a--b", &l63], &["", "-a", "a-", "A", "a.b", "a_b", "ä", &l64]),
        (
            "subdomain",
            dns_subdomain,
            &["a", "a.b", "0.1", "a-b.c-d", &l253],
            &["", ".", "a.", ".a", "a..b", "a.-b", "A.b", "a_b", &l254],
        ),
        ("wildcard", wildcard_subdomain, &["*.a", "*.a.b"], &["*", "*.", "a.b", "*.*.a", "f*.a", ""]),
        ("1035", dns_1035_label, &["a", "a1", "a-1", &l63], &["", "1", "1a", "a-", "A", "a.b", &l64]),
        ("segment", path_segment, &["a", "system:x", "A B", "...", ""], &[".", "..", "a/b", "a%b"]),
        (
            "qualified",
            qualified_name,
            &["a", "A_b.c-d", "example.com/a", "0/0", &qualified_long],
            &["", "/", "/a", "a/", "a/b/c", "-a", "a-", "a b", "Example.com/a", "ä", &l64],
        ),
        ("value", label_value, &["", "a", "A_b.c-d", "12345", &l63], &["-", "a-", "_a", "a b", "ä", &l64]),
        ("config key", config_key, &["a", ".a", "A_b-c", &l253], &["", ".", "..", "..a", "a/b", "a b", &l254]),
        ("environment", environment_variable, &["A", "a b", "1", "a.b-c:d"], &["", "a=b", "ä", "a\n"]),
        ("identifier", c_identifier, &["a", "_", "a1"], &["", "1a", "a-b"]),
        ("port", port_name, &["a", "http", "a1-b2"], &["", "1", "A", "a--b", "-a", "a-", "a_b", "a234567890123456"]),
        ("percent", percent, &["1%", "100%"], &["", "%", "1", "a%", "1%%", "-1%"]),
        ("header", http_header, &["X-A"], &["", "a b", "a_b"]),
    ];
    for (name, check, good, bad) in cases {
        for value in *good {
            assert_eq!(check(value), Faults::new(), "{name}: {value:?}");
        }
        for value in *bad {
            assert_ne!(check(value), Faults::new(), "{name}: {value:?}");
        }
    }
}

#[test]
fn the_texts_are_those_that_clients_match() {
    assert_eq!(
        dns_label("A"),
        ["a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
          end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
          '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"]
    );
    assert_eq!(dns_label("a.b"), ["must not contain dots"]);
    assert_eq!(dns_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
    assert_eq!(
        dns_subdomain("A"),
        ["a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
          start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
          '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"]
    );
    assert_eq!(
        label_value("-"),
        ["a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
          start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
          validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"]
    );
    let part = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    assert_eq!(qualified_name(""), ["name part must be non-empty", part]);
    assert_eq!(qualified_name("/a"), ["prefix part must be non-empty"]);
    assert!(qualified_name("A/a")[0].starts_with("prefix part a lowercase RFC 1123 subdomain must"));
    assert!(qualified_name("a/b/c")[0].starts_with("a qualified name must consist of alphanumeric characters, '-',"));
    assert!(qualified_name("a/b/c")[0].ends_with("prefix and '/' (e.g. 'example.com/MyName')"));
    assert_eq!(path_segment("a/%"), ["may not contain '/'", "may not contain '%'"]);
    assert_eq!(port_number(0), ["must be between 1 and 65535, inclusive"]);
    assert_eq!(port_number(65_536), ["must be between 1 and 65535, inclusive"]);
    assert_eq!(port_number(65_535), Faults::new());
}

#[test]
fn labels_and_annotations_are_reported_at_the_map() {
    let path = Path::new("metadata").child("labels");
    let labels = json!({"a": "b", "b/": "c", "c": "-", "d": 7});
    let errors = check_labels(labels.as_object().unwrap(), &path);
    assert_eq!(errors.len(), 3, "the key of one breaks two rules, the value of another breaks one");
    assert!(errors[0].to_string().starts_with(r#"metadata.labels: Invalid value: "b/": name part must be non-empty"#));
    assert!(errors[2].to_string().starts_with(r#"metadata.labels: Invalid value: "-": a valid label must be"#));

    let path = Path::new("metadata").child("annotations");
    let full = "x".repeat(ANNOTATIONS_BYTES_MAX - 1);
    assert_eq!(check_annotations(json!({"A": full}).as_object().unwrap(), &path), []);
    let over = check_annotations(json!({"A": full, "b": ""}).as_object().unwrap(), &path);
    assert_eq!(over[0].to_string(), "metadata.annotations: Too long: may not be more than 262144 bytes");
}

#[test]
fn a_field_manager_is_short_and_printable() {
    let path = Path::new("fieldManager");
    assert_eq!(check_field_manager("", &path), []);
    assert_eq!(check_field_manager(&"a".repeat(128), &path), []);
    assert_eq!(check_field_manager(&"a".repeat(129), &path).len(), 1);
    let errors = check_field_manager("a\nb", &path);
    assert!(errors[0].to_string().ends_with("invalid character U+000A (at position 1)"), "{}", errors[0]);
}

#[test]
fn a_prefix_may_end_with_a_dash() {
    assert_eq!(as_prefix("web-"), "weba");
    assert_eq!(as_prefix("-"), "-", "a dash alone begins no name");
    assert_eq!(as_prefix("web"), "web");
}

#[test]
fn suffixes_spread_over_all_letters() {
    let used: std::collections::BTreeSet<char> =
        (0..27).flat_map(|n| generate("", n * 0x9e37_79b9_7f4a).chars().collect::<Vec<_>>()).collect();
    assert!(used.len() > 20, "{used:?}");
}

proptest! {
    #[test]
    fn a_generated_name_is_a_label_if_its_base_begins_one(base in "[a-z]([-a-z0-9]{0,80}[a-z0-9])?-?", random: u64) {
        let name = generate(&base, random);
        prop_assert_eq!(dns_label(&name), Faults::new());
        prop_assert_eq!(name.len(), base.len().min(GENERATED_BASE_BYTES_MAX) + SUFFIX_LETTERS_COUNT);
        prop_assert_eq!(&name, &generate(&base, random), "no other source of chance");
    }

    #[test]
    fn no_text_upsets_a_check(value in any::<String>(), random: u64) {
        for check in [dns_label, dns_subdomain, wildcard_subdomain, dns_1035_label, path_segment, qualified_name,
            label_value, config_key, environment_variable, c_identifier, port_name, percent, http_header] as [Check; 13]
        {
            let _faults = check(&value);
        }
        let _name = generate(&value, random);
        let _prefix = as_prefix(&value);
    }
}

#[test]
fn ids_are_written_in_groups() {
    assert_eq!(uuid(0x0123_4567_89ab_cdef, 0x0011_2233_4455_66ff), "01234567-89ab-4def-8011-2233445566ff");
    assert_eq!(uuid(0, 0), "00000000-0000-4000-8000-000000000000");
    assert_eq!(uuid(u64::MAX, u64::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
}
