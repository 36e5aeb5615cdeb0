//! Priority and fairness, and groups that others answer for.

use super::*;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

fn schema() -> Value {
    json!({ "metadata": { "name": "x" }, "spec": {
        "matchingPrecedence": 100, "priorityLevelConfiguration": { "name": "global-default" },
        "distinguisherMethod": { "type": "ByUser" },
        "rules": [{
            "subjects": [{ "kind": "Group", "group": { "name": "g" } }],
            "resourceRules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"] }],
            "nonResourceRules": [{ "verbs": ["get"], "nonResourceURLs": ["/healthz/*"] }],
        }],
    } })
}

fn level() -> Value {
    json!({ "metadata": { "name": "x" }, "spec": { "type": "Limited", "limited": {
        "nominalConcurrencyShares": 10, "lendablePercent": 0,
        "limitResponse": { "type": "Queue", "queuing": { "queues": 64, "handSize": 6, "queueLengthLimit": 50 } } } } })
}

fn service() -> Value {
    json!({ "metadata": { "name": "v1.example.com" }, "spec": {
        "group": "example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 15,
        "service": { "name": "s", "namespace": "ns", "port": 443 }, "caBundle": "AAAA",
    } })
}

pub(super) fn examples() -> Vec<((&'static str, &'static str), Value)> {
    vec![
        ((GROUP, "FlowSchema"), schema()),
        ((GROUP, "PriorityLevelConfiguration"), level()),
        (("apiregistration.k8s.io", "APIService"), service()),
    ]
}

#[test]
fn a_schema_has_its_place_and_its_level() {
    check_creates(
        (GROUP, "FlowSchema"),
        &schema(),
        &[
            (
                "/spec/matchingPrecedence",
                json!(0),
                &["spec.matchingPrecedence: Invalid value: 0: must be a positive value"],
            ),
            (
                "/spec/matchingPrecedence",
                json!(10_001),
                &["spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000"],
            ),
            (
                "/spec/matchingPrecedence",
                json!(1),
                &[
                    "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
                ],
            ),
            (
                "/spec/priorityLevelConfiguration/name",
                json!(""),
                &["spec.priorityLevelConfiguration.name: Required value: must reference a priority level"],
            ),
            (
                "/spec/distinguisherMethod/type",
                json!("ByLuck"),
                &["spec.distinguisherMethod.type: Unsupported value: {\"type\":\"ByLuck\"}: supported values: \
                   \"ByNamespace\", \"ByUser\""],
            ),
            (
                "/metadata/name",
                json!("catch-all"),
                &[&format!(
                    "spec: Invalid value: {}: spec of 'catch-all' must equal the fixed value",
                    schema()["spec"]
                )],
            ),
        ],
    );
}

#[test]
fn a_schema_says_whom_and_what_it_is_about() {
    let rule = "/spec/rules/0";
    check_creates(
        (GROUP, "FlowSchema"),
        &schema(),
        &[
            (
                &format!("{rule}/subjects"),
                json!([]),
                &["spec.rules[0].subjects: Required value: subjects must contain at least one value"],
            ),
            (
                &format!("{rule}/subjects/0"),
                json!({ "kind": "User", "group": { "name": "g" } }),
                &[
                    "spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'",
                    "spec.rules[0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
                ],
            ),
            (
                &format!("{rule}/subjects/0"),
                json!({ "kind": "ServiceAccount", "serviceAccount": { "name": "*" } }),
                &["spec.rules[0].subjects[0].serviceAccount.namespace: Required value: must specify namespace for \
                   service account"],
            ),
            (
                &format!("{rule}/resourceRules/0/verbs"),
                json!(["*", "get"]),
                &["spec.rules[0].resourceRules[0].verbs: Invalid value: [\"*\",\"get\"]: if '*' is present, must not \
                   specify other verbs"],
            ),
            (
                &format!("{rule}/resourceRules/0/namespaces"),
                json!([]),
                &["spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster \
                   scoped must supply at least one namespace"],
            ),
            (
                &format!("{rule}/nonResourceRules/0/nonResourceURLs/0"),
                json!("/a*"),
                &[
                    "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"/a*\": wildcard can only do \
                   suffix matching",
                ],
            ),
            (
                rule,
                json!({ "subjects": [{ "kind": "Group", "group": { "name": "g" } }] }),
                &[
                    "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
                ],
            ),
        ],
    );
}

#[test]
fn a_level_deals_its_queues() {
    let queuing = "/spec/limited/limitResponse/queuing";
    check_creates(
        (GROUP, "PriorityLevelConfiguration"),
        &level(),
        &[
            (
                &format!("{queuing}/handSize"),
                json!(65),
                &[
                    "spec.limited.limitResponse.queuing.handSize: Invalid value: 65: should not be greater than queues (64)",
                ],
            ),
            (
                &format!("{queuing}/handSize"),
                json!(11),
                &[
                    "spec.limited.limitResponse.queuing.handSize: Invalid value: 11: required entropy bits of deckSize 64 \
                   and handSize 11 should not be greater than 60",
                ],
            ),
            (
                &format!("{queuing}/queueLengthLimit"),
                json!(0),
                &["spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: 0: must be positive"],
            ),
            (
                "/spec/limited/limitResponse",
                json!({ "type": "Queue" }),
                &[
                    "spec.limited.limitResponse.queuing: Required value: must not be empty if limited.limitResponse.type \
                   is Limited",
                ],
            ),
            (
                "/spec/limited/lendablePercent",
                json!(101),
                &["spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive"],
            ),
            (
                "/spec/type",
                json!("Exempt"),
                &[
                    "spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'",
                    "spec.limited: Forbidden: must be nil if the type is not Limited",
                    "spec.exempt: Required value: must not be empty when type is Exempt",
                ],
            ),
        ],
    );
    let exempt = json!({ "metadata": { "name": "exempt" }, "spec": { "type": "Exempt",
        "exempt": { "nominalConcurrencyShares": 7, "lendablePercent": 50 } } });
    assert_eq!(texts(&create((GROUP, "PriorityLevelConfiguration"), &exempt, &Context::default())), [""; 0]);
    let twice = with(&level(), "/status", json!({ "conditions": [{ "type": "A" }, { "type": "A" }] }));
    let through =
        subresource((GROUP, "PriorityLevelConfiguration"), Subresource::Status, &twice, &level(), &Context::default());
    assert_eq!(texts(&through), ["status.conditions[1].type: Duplicate value: \"A\""]);
}

#[test]
fn a_group_of_another_server_is_named_after_it() {
    check_creates(
        ("apiregistration.k8s.io", "APIService"),
        &service(),
        &[
            (
                "/metadata/name",
                json!("v2.example.com"),
                &["metadata.name: Invalid value: \"v2.example.com\": must be `spec.version+\".\"+spec.group`: \
                   \"v1.example.com\""],
            ),
            (
                "/spec/groupPriorityMinimum",
                json!(20_001),
                &["spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000"],
            ),
            (
                "/spec/versionPriority",
                json!(0),
                &["spec.versionPriority: Invalid value: 0: must be positive and less than 1000"],
            ),
            (
                "/spec/insecureSkipTLSVerify",
                json!(true),
                &["spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present"],
            ),
            (
                "/spec/service",
                Value::Null,
                &["spec.caBundle: Invalid value: \"3 bytes\": local APIServices may not have a caBundle"],
            ),
        ],
    );
}
