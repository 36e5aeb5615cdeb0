//! Webhooks and policies of admission.

use super::*;

const GROUP: &str = "admissionregistration.k8s.io";

fn hook() -> Value {
    json!({
        "name": "check.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "failurePolicy": "Fail", "matchPolicy": "Equivalent", "timeoutSeconds": 10,
        "namespaceSelector": {}, "objectSelector": {},
        "clientConfig": { "service": { "name": "hook", "namespace": "ns", "port": 443, "path": "/check" } },
        "rules": [{ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "scope": "*" }],
    })
}

fn policy() -> Value {
    json!({ "metadata": { "name": "x" }, "spec": {
        "failurePolicy": "Fail",
        "paramKind": { "apiVersion": "example.com/v1", "kind": "Limit" },
        "matchConstraints": { "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
            "resourceRules": [{ "operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["*"] }] },
        "variables": [{ "name": "a", "expression": "1" }],
        "validations": [{ "expression": "true", "message": "no", "reason": "Invalid" }],
        "auditAnnotations": [{ "key": "k", "valueExpression": "'v'" }],
    } })
}

fn binding() -> Value {
    json!({ "metadata": { "name": "x" }, "spec": {
        "policyName": "p", "validationActions": ["Deny"],
        "paramRef": { "name": "l", "parameterNotFoundAction": "Deny" },
    } })
}

pub(super) fn examples() -> Vec<((&'static str, &'static str), Value)> {
    let configuration = json!({ "metadata": { "name": "x" }, "webhooks": [hook()] });
    vec![
        ((GROUP, "MutatingWebhookConfiguration"), configuration.clone()),
        ((GROUP, "ValidatingWebhookConfiguration"), configuration),
        ((GROUP, "ValidatingAdmissionPolicy"), policy()),
        ((GROUP, "ValidatingAdmissionPolicyBinding"), binding()),
    ]
}

fn configuration() -> Value {
    json!({ "metadata": { "name": "x" }, "webhooks": [hook()] })
}

#[test]
fn a_webhook_says_who_it_is_and_what_it_does() {
    check_creates(
        (GROUP, "ValidatingWebhookConfiguration"),
        &configuration(),
        &[
            ("/webhooks/0/name", json!(""), &["webhooks[0].name: Required value"]),
            (
                "/webhooks/0/name",
                json!("short.com"),
                &["webhooks[0].name: Invalid value: \"short.com\": should be a domain with at least three segments \
                   separated by dots"],
            ),
            (
                "/webhooks/0/sideEffects",
                Value::Null,
                &["webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun"],
            ),
            (
                "/webhooks/0/sideEffects",
                json!("Some"),
                &["webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\""],
            ),
            (
                "/webhooks/0/timeoutSeconds",
                json!(31),
                &["webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds"],
            ),
            (
                "/webhooks/0/failurePolicy",
                json!("Maybe"),
                &["webhooks[0].failurePolicy: Unsupported value: \"Maybe\": supported values: \"Fail\", \"Ignore\""],
            ),
            (
                "/webhooks/0/admissionReviewVersions",
                json!([]),
                &["webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1"],
            ),
            (
                "/webhooks/0/admissionReviewVersions",
                json!(["v2", "v2"]),
                &[
                    "webhooks[0].admissionReviewVersions[1]: Invalid value: \"v2\": duplicate version",
                    "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\",\"v2\"]: must include at least one of v1, v1beta1",
                ],
            ),
            ("/webhooks/-", hook(), &["webhooks[1].name: Duplicate value: \"check.example.com\""]),
            (
                "/webhooks/0/matchConditions",
                json!([{ "name": "a", "expression": "true" }, { "name": "a", "expression": " " }]),
                &[
                    "webhooks[0].matchConditions[1].expression: Required value",
                    "webhooks[0].matchConditions[1].name: Duplicate value: \"a\"",
                ],
            ),
        ],
    );
}

#[test]
fn a_webhook_can_be_reached() {
    const FORM: &str = "; desired format: https://host[/path]";
    let url = |url: &str, expected: &[&str]| {
        let object = with(&configuration(), "/webhooks/0/clientConfig", json!({ "url": url }));
        let errors = create((GROUP, "MutatingWebhookConfiguration"), &object, &Context::default());
        let expected: Vec<String> =
            expected.iter().map(|text| format!("webhooks[0].clientConfig.url: {text}").replace("FORM", FORM)).collect();
        assert_eq!(texts(&errors), expected, "{url}");
    };
    url("https://example.com:8443/path", &[]);
    url("http://example.com", &["Invalid value: \"http\": 'https' is the only allowed URL schemeFORM"]);
    url("https:///path", &["Invalid value: \"\": host must be providedFORM"]);
    url("https://me:secret@example.com", &["Invalid value: \"me\": user information is not permitted in the URL"]);
    url("https://example.com#x", &["Invalid value: \"x\": fragments are not permitted in the URL"]);
    url("https://example.com?q=1", &["Invalid value: \"q=1\": query parameters are not permitted in the URL"]);
    url("://x", &["Required value: url must be a valid URL: parse \"://x\": missing protocol schemeFORM"]);
    check_creates(
        (GROUP, "MutatingWebhookConfiguration"),
        &configuration(),
        &[
            (
                "/webhooks/0/clientConfig",
                json!({}),
                &["webhooks[0].clientConfig: Required value: exactly one of url or service is required"],
            ),
            (
                "/webhooks/0/clientConfig/service/name",
                json!(""),
                &["webhooks[0].clientConfig.service.name: Required value: service name is required"],
            ),
            (
                "/webhooks/0/clientConfig/service/port",
                json!(0),
                &[
                    "webhooks[0].clientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                "/webhooks/0/clientConfig/service/path",
                json!("check"),
                &["webhooks[0].clientConfig.service.path: Invalid value: \"check\": must start with a '/'"],
            ),
            (
                "/webhooks/0/clientConfig/service/path",
                json!("/a//b"),
                &["webhooks[0].clientConfig.service.path: Invalid value: \"/a//b\": segment[1] may not be empty"],
            ),
        ],
    );
}

#[test]
fn rules_name_nothing_twice() {
    check_creates(
        (GROUP, "ValidatingWebhookConfiguration"),
        &configuration(),
        &[
            ("/webhooks/0/rules/0/operations", json!([]), &["webhooks[0].rules[0].operations: Required value"]),
            (
                "/webhooks/0/rules/0/operations",
                json!(["*", "GET"]),
                &[
                    "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"GET\"]: if '*' is present, must not specify \
                 other operations",
                    "webhooks[0].rules[0].operations[1]: Unsupported value: \"GET\": supported values: \"*\", \"CONNECT\", \
                 \"CREATE\", \"DELETE\", \"UPDATE\"",
                ],
            ),
            (
                "/webhooks/0/rules/0/resources",
                json!(["pods/*", "pods/log"]),
                &["webhooks[0].rules[0].resources[1]: Invalid value: \"pods/log\": if 'pods/*' is present, must not \
                   specify pods/log"],
            ),
            (
                "/webhooks/0/rules/0/resources",
                json!(["*", "pods"]),
                &[
                    "webhooks[0].rules[0].resources: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify \
                   other resources without subresources",
                ],
            ),
            ("/webhooks/0/rules/0/apiVersions", json!([""]), &["webhooks[0].rules[0].apiVersions[0]: Required value"]),
            (
                "/webhooks/0/rules/0/scope",
                json!("All"),
                &[
                    "webhooks[0].rules[0].scope: Unsupported value: \"All\": supported values: \"*\", \"Cluster\", \"Namespaced\"",
                ],
            ),
        ],
    );
}

#[test]
fn what_was_wrong_before_may_stay() {
    let kind = (GROUP, "ValidatingWebhookConfiguration");
    for (pointer, value) in [
        ("/webhooks/0/sideEffects", json!("Some")),
        ("/webhooks/0/admissionReviewVersions", json!(["v9"])),
        ("/webhooks/-", hook()),
        ("/webhooks/0/matchConditions", json!([{ "name": "", "expression": "" }])),
    ] {
        let old = with(&configuration(), pointer, value);
        assert_ne!(texts(&create(kind, &old, &Context::default())), [""; 0], "{pointer}");
        let new = with(&old, "/metadata/labels", json!({ "a": "b" }));
        assert_eq!(texts(&update(kind, &new, &old, &Context::default())), [""; 0], "{pointer}");
    }
}

#[test]
fn a_policy_says_what_it_wants() {
    check_creates(
        (GROUP, "ValidatingAdmissionPolicy"),
        &policy(),
        &[
            ("/spec/failurePolicy", Value::Null, &["spec.failurePolicy: Required value"]),
            ("/spec/matchConstraints", Value::Null, &["spec.matchConstraints: Required value"]),
            (
                "/spec/matchConstraints/resourceRules",
                json!([]),
                &["spec.matchConstraints.resourceRules: Required value"],
            ),
            (
                "/spec/paramKind/kind",
                json!("9"),
                &[
                    "spec.paramKind.kind: Invalid value: \"9\": may have mixed case, but should otherwise match: a DNS-1035 \
                   label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, \
                   and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is \
                   '[a-z]([-a-z0-9]*[a-z0-9])?')",
                ],
            ),
            (
                "/spec/paramKind/apiVersion",
                json!("a/b/c"),
                &["spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c"],
            ),
            (
                "/spec/variables/0/name",
                json!("in"),
                &["spec.variables[0].name: Invalid value: \"in\": name is not a valid CEL identifier"],
            ),
            (
                "/spec/validations/0/expression",
                json!(" "),
                &["spec.validations[0].expression: Required value: expression is not specified"],
            ),
            (
                "/spec/validations/0/message",
                json!("a\nb"),
                &["spec.validations[0].message: Invalid value: \"a\\nb\": message must not contain line breaks"],
            ),
            (
                "/spec/auditAnnotations/-",
                json!({ "key": "k", "valueExpression": "" }),
                &[
                    "spec.auditAnnotations[1].valueExpression: Required value: valueExpression is not specified",
                    "spec.auditAnnotations[1].key: Duplicate value: \"k\"",
                ],
            ),
        ],
    );
    let empty = with(&with(&policy(), "/spec/validations", json!([])), "/spec/auditAnnotations", json!([]));
    assert_eq!(
        texts(&create((GROUP, "ValidatingAdmissionPolicy"), &empty, &Context::default())),
        [
            "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
            "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
        ]
    );
}

#[test]
fn a_binding_says_what_happens() {
    check_creates(
        (GROUP, "ValidatingAdmissionPolicyBinding"),
        &binding(),
        &[
            ("/spec/policyName", json!(""), &["spec.policyName: Required value"]),
            (
                "/spec/validationActions",
                json!([]),
                &["spec.validationActions: Required value: at least one validation action is required"],
            ),
            (
                "/spec/validationActions",
                json!(["Deny", "Warn"]),
                &["spec.validationActions: Invalid value: [\"Deny\",\"Warn\"]: must not contain both Deny and Warn \
                   (repeating the same validation failure information in the API response and headers serves no purpose)"],
            ),
            (
                "/spec/paramRef",
                json!({ "parameterNotFoundAction": "Deny" }),
                &["spec.paramRef: Required value: one of name or selector must be specified"],
            ),
            (
                "/spec/paramRef/selector",
                json!({}),
                &[
                    "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                    "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
                ],
            ),
        ],
    );
}
