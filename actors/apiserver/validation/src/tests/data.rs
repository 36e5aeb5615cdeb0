//! ConfigMaps and Secrets.

use super::*;

fn of_type(kind: &str, data: Value) -> Value {
    json!({"metadata": {"name": "x", "namespace": "ns"}, "type": kind, "data": data})
}

#[test]
fn keys_of_a_config_map_are_file_names_and_unique() {
    let object = json!({"metadata": {"name": "x", "namespace": "ns"}, "data": {"k": "v"}, "binaryData": {}});
    check_creates(
        ("", "ConfigMap"),
        &object,
        &[
            (
                "/binaryData/k",
                json!("dg=="),
                &[
                    "data[k]: Invalid value: \"k\": duplicate of key present in binaryData",
                    "binaryData[k]: Invalid value: \"k\": duplicate of key present in data",
                ],
            ),
            ("/data/..", json!("v"), &["data[..]: Invalid value: \"..\": must not be '..'"]),
            ("/data/k", json!("v".repeat(1 << 20)), &[]),
            ("/data/k", json!("v".repeat((1 << 20) + 1)), &["<nil>: Too long: may not be more than 1048576 bytes"]),
        ],
    );
}

#[test]
fn an_immutable_config_map_stays_so_with_its_data() {
    let metadata = json!({"name": "x", "namespace": "ns"});
    let old = json!({"metadata": metadata, "immutable": true, "data": {"k": "v"}});
    check_updates(
        ("", "ConfigMap"),
        &old,
        &[
            ("/immutable", json!(false), &["immutable: Forbidden: field is immutable when `immutable` is set"]),
            ("/data/k", json!("w"), &["data: Forbidden: field is immutable when `immutable` is set"]),
            (
                "/binaryData",
                json!({"b": "dg=="}),
                &["binaryData: Forbidden: field is immutable when `immutable` is set"],
            ),
            ("/metadata/labels", json!({"a": "b"}), &[]),
        ],
    );
}

#[test]
fn secrets_of_a_known_type_have_its_keys() {
    let (file, text) = ("eyJhIjoxfQ==", "bm8=");
    for (kind, data, expected) in [
        ("kubernetes.io/tls", json!({}), &["data[tls.crt]: Required value", "data[tls.key]: Required value"][..]),
        ("kubernetes.io/tls", json!({"tls.crt": "", "tls.key": ""}), &[]),
        ("kubernetes.io/basic-auth", json!({"password": "dg=="}), &[]),
        ("kubernetes.io/basic-auth", json!({}), &["data[username]: Required value", "data[password]: Required value"]),
        ("kubernetes.io/ssh-auth", json!({}), &["data[ssh-privatekey]: Required value"]),
        ("kubernetes.io/dockercfg", json!({".dockercfg": file}), &[]),
        ("kubernetes.io/dockerconfigjson", json!({}), &["data[.dockerconfigjson]: Required value"]),
        (
            "kubernetes.io/service-account-token",
            json!({}),
            &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        ),
    ] {
        let errors = create(("", "Secret"), &of_type(kind, data.clone()), &Context::default());
        assert_eq!(texts(&errors), expected, "{kind} {data}");
    }
    let broken = of_type("kubernetes.io/dockerconfigjson", json!({".dockerconfigjson": text}));
    let errors = create(("", "Secret"), &broken, &Context::default());
    assert!(
        errors[0].to_string().starts_with("data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": ")
    );
}

#[test]
fn the_type_of_a_secret_never_changes() {
    check_updates(
        ("", "Secret"),
        &of_type("Opaque", json!({})),
        &[("/type", json!("x/y"), &["type: Invalid value: \"x/y\": field is immutable"])],
    );
}
