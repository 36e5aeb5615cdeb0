//! The levels of priority and the flow schemas that every cluster starts with, as of Kubernetes 1.34.
//!
//! Some are mandatory: whatever is done to their specification is undone. The others are suggestions: they are kept as
//! they are here while nobody changes them, or as long as they say so in an annotation.

use serde_json::{Value, json};

use crate::special::read::{items, text};

const API_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";
/// Whether the server may write over somebody's changes.
pub(crate) const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// How requests of a level wait: queues, how many of them one flow may use, how long each is.
struct Queuing(u32, u32, u32);

/// Name, shares of the server, percentage that others may borrow, and how requests wait; without that, too many are
/// refused.
struct Level(&'static str, u32, u32, Option<Queuing>);

const SUGGESTED_LEVELS: &[Level] = &[
    Level("global-default", 20, 50, Some(Queuing(128, 6, 50))),
    Level("leader-election", 10, 0, Some(Queuing(16, 4, 50))),
    Level("node-high", 40, 25, Some(Queuing(64, 6, 50))),
    Level("system", 30, 33, Some(Queuing(64, 6, 50))),
    Level("workload-high", 40, 50, Some(Queuing(128, 6, 50))),
    Level("workload-low", 100, 90, Some(Queuing(128, 6, 50))),
];

/// Whom a flow schema is about.
enum Who {
    Group(&'static str),
    User(&'static str),
    /// A service account of `kube-system`; `*` is all of them.
    Account(&'static str),
}
use Who::{Account, Group, User};

/// What a flow schema is about.
enum What {
    /// Every resource and every path.
    All,
    /// Verbs, group, resources, and whether those of the cluster are meant beside those of all namespaces.
    Resources(&'static [(&'static [&'static str], &'static str, &'static [&'static str], bool)]),
    /// Reading these paths.
    Paths(&'static [&'static str]),
}

/// Name, level, precedence, how flows are told apart (empty: all are one), who and what.
struct Schema(&'static str, &'static str, u32, &'static str, &'static [Who], What);

const EVERYBODY: &[Who] = &[Group("system:unauthenticated"), Group("system:authenticated")];
const LEAD: &[&str] = &["get", "create", "update"];
const LEASES: (&[&str], &str, &[&str], bool) = (LEAD, "coordination.k8s.io", &["leases"], false);
const MANAGER: Who = User("system:kube-controller-manager");
const SCHEDULER: Who = User("system:kube-scheduler");

const MANDATORY: &[Schema] = &[
    Schema("exempt", "exempt", 1, "", &[Group("system:masters")], What::All),
    Schema("catch-all", "catch-all", 10_000, "ByUser", EVERYBODY, What::All),
];

const SUGGESTED: &[Schema] = &[
    Schema("system-nodes", "system", 500, "ByUser", &[Group("system:nodes")], What::All),
    Schema(
        "system-node-high",
        "node-high",
        400,
        "ByUser",
        &[Group("system:nodes")],
        What::Resources(&[
            (&["*"], "", &["nodes", "nodes/status"], true),
            (&["*"], "coordination.k8s.io", &["leases"], false),
        ]),
    ),
    Schema("probes", "exempt", 2, "", EVERYBODY, What::Paths(&["/healthz", "/readyz", "/livez"])),
    Schema(
        "system-leader-election",
        "leader-election",
        100,
        "ByUser",
        &[MANAGER, SCHEDULER, Account("*")],
        What::Resources(&[LEASES]),
    ),
    Schema(
        "endpoint-controller",
        "workload-high",
        150,
        "ByUser",
        &[MANAGER, Account("endpoint-controller"), Account("endpointslicemirroring-controller")],
        What::Resources(&[(LEAD, "", &["endpoints"], false)]),
    ),
    Schema("workload-leader-election", "leader-election", 200, "ByUser", &[Account("*")], What::Resources(&[LEASES])),
    Schema("kube-controller-manager", "workload-high", 800, "ByNamespace", &[MANAGER], What::All),
    Schema("kube-scheduler", "workload-high", 800, "ByNamespace", &[SCHEDULER], What::All),
    Schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", &[Account("*")], What::All),
    Schema("service-accounts", "workload-low", 9000, "ByUser", &[Group("system:serviceaccounts")], What::All),
    Schema("global-default", "global-default", 9900, "ByUser", EVERYBODY, What::All),
];

fn metadata(name: &str) -> Value {
    json!({"name": name, "annotations": {AUTO_UPDATE: "true"}})
}

/// The mandatory levels, then the suggested ones.
pub(crate) fn levels() -> Vec<(Value, bool)> {
    let object = |name: &str, spec: Value, mandatory: bool| {
        let level = json!({"apiVersion": API_VERSION, "kind": "PriorityLevelConfiguration",
            "metadata": metadata(name), "spec": spec});
        (level, mandatory)
    };
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let mut levels =
        vec![object("exempt", exempt, true), object("catch-all", limited(&Level("catch-all", 5, 0, None)), true)];
    levels.extend(SUGGESTED_LEVELS.iter().map(|level| object(level.0, limited(level), false)));
    levels
}

fn limited(Level(_, shares, lendable, queuing): &Level) -> Value {
    let response = match queuing {
        None => json!({"type": "Reject"}),
        Some(Queuing(queues, hand, length)) => {
            json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length}})
        }
    };
    json!({"type": "Limited", "limited": {
        "nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response}})
}

/// The mandatory flow schemas, then the suggested ones.
pub(crate) fn schemas() -> Vec<(Value, bool)> {
    let rows = MANDATORY.iter().map(|row| (row, true)).chain(SUGGESTED.iter().map(|row| (row, false)));
    rows.map(|(row, mandatory)| (schema(row), mandatory)).collect()
}

fn schema(Schema(name, level, precedence, distinguisher, who, what): &Schema) -> Value {
    let mut rule = json!({"subjects": who.iter().map(subject).collect::<Vec<_>>()});
    match what {
        What::All => {
            rule["resourceRules"] = json!([resources(&["*"], "*", &["*"], true)]);
            rule["nonResourceRules"] = json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]);
        }
        What::Resources(rows) => {
            let rows = rows.iter().map(|(verbs, group, names, cluster)| resources(verbs, group, names, *cluster));
            rule["resourceRules"] = rows.collect();
        }
        What::Paths(paths) => rule["nonResourceRules"] = json!([{"verbs": ["get"], "nonResourceURLs": paths}]),
    }
    let mut spec =
        json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rule]});
    if !distinguisher.is_empty() {
        spec["distinguisherMethod"] = json!({"type": distinguisher});
    }
    json!({"apiVersion": API_VERSION, "kind": "FlowSchema", "metadata": metadata(name), "spec": spec})
}

fn subject(who: &Who) -> Value {
    match who {
        Group(name) => json!({"kind": "Group", "group": {"name": name}}),
        User(name) => json!({"kind": "User", "user": {"name": name}}),
        Account(name) => {
            json!({"kind": "ServiceAccount", "serviceAccount": {"name": name, "namespace": "kube-system"}})
        }
    }
}

fn resources(verbs: &[&str], group: &str, names: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": names, "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = true.into();
    }
    rule
}

/// What a stored object should become, if it should change. Of a mandatory one the specification is ours; of a suggested
/// one it is ours unless its annotation says no, or, without the annotation, if somebody changed it (its generation tells).
pub(crate) fn mended(expected: &Value, mandatory: bool, stored: &Value) -> Option<Value> {
    let annotation = stored["metadata"]["annotations"][AUTO_UPDATE].as_str();
    let ours = mandatory
        || match annotation {
            Some(word) => word.eq_ignore_ascii_case("true"),
            None => stored["metadata"]["generation"].as_i64().unwrap_or(1) <= 1,
        };
    let mut wanted = stored.clone();
    let word = if ours { "true" } else { "false" };
    if annotation != Some(word) {
        let metadata = crate::special::read::map_mut(&mut wanted["metadata"], "annotations");
        metadata.insert(AUTO_UPDATE.to_owned(), word.into());
    }
    // Exempt levels may be given shares by whoever likes.
    let tuned = mandatory && expected["spec"]["type"] == "Exempt" && stored["spec"]["type"] == "Exempt";
    if ours && !tuned {
        wanted["spec"] = expected["spec"].clone();
    }
    (wanted != *stored).then_some(wanted)
}

/// A flow schema whose status says whether its level is there, if the stored one doesn't say so.
pub(crate) fn dangling(schema: &Value, levels: &[Value], now: &str) -> Option<Value> {
    let name = text(schema, "/spec/priorityLevelConfiguration/name");
    let found = levels.iter().any(|level| text(level, "/metadata/name") == name);
    let (status, reason, what) =
        if found { ("False", "Found", "and it exists") } else { ("True", "NotFound", "but there is no such object") };
    let shown = k3sd_objects::status::go::quote(name);
    let message = format!("This FlowSchema references the PriorityLevelConfiguration object named {shown} {what}");
    let said = items(schema, "/status/conditions").iter().find(|one| text(one, "/type") == "Dangling");
    if said.is_some_and(|one| text(one, "/status") == status && text(one, "/message") == message) {
        return None;
    }
    let mut wanted = schema.clone();
    wanted["status"]["conditions"] = json!([{"type": "Dangling", "status": status, "reason": reason,
        "message": message, "lastTransitionTime": now}]);
    Some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_names_a_level_that_there_is() {
        let names: Vec<String> = levels().iter().map(|(level, _)| level["metadata"]["name"].to_string()).collect();
        assert_eq!((names.len(), schemas().len()), (8, 13));
        for (schema, _) in schemas() {
            let level = schema["spec"]["priorityLevelConfiguration"]["name"].to_string();
            assert!(names.contains(&level), "{schema}");
        }
    }

    #[test]
    fn the_defaults_change_nothing() {
        for (kind, objects) in [("PriorityLevelConfiguration", levels()), ("FlowSchema", schemas())] {
            let found = k3sd_objects::schema::resources().iter().find(|resource| resource.kind == kind);
            let name = found.expect(kind).type_name;
            let schema = k3sd_objects::schema::builtin().type_named(name).expect(kind);
            for (object, _) in objects {
                let mut defaulted = object.clone();
                k3sd_objects::default::apply(&mut defaulted, schema);
                assert_eq!(defaulted["spec"], object["spec"]);
            }
        }
    }

    #[test]
    fn a_schema_says_whether_its_level_is_there() {
        let (schema, _) = schemas().remove(0);
        let (level, _) = levels().remove(0);
        let found = dangling(&schema, std::slice::from_ref(&level), "now").expect("said nothing yet");
        assert_eq!(text(&found, "/status/conditions/0/status"), "False");
        assert_eq!(dangling(&found, &[level], "later"), None);
        let lost = dangling(&found, &[], "later").expect("changed");
        assert_eq!(
            (text(&lost, "/status/conditions/0/status"), text(&lost, "/status/conditions/0/message")),
            (
                "True",
                "This FlowSchema references the PriorityLevelConfiguration object named \"exempt\" but there is no such object"
            )
        );
    }

    #[test]
    fn what_is_mended() {
        let (catch_all, _) = levels().swap_remove(1);
        let (system, _) = levels().swap_remove(5);
        let changed = |object: &Value, annotation: Option<&str>, generation: i64| {
            let mut stored = object.clone();
            stored["spec"]["limited"]["nominalConcurrencyShares"] = json!(77);
            stored["metadata"]["generation"] = json!(generation);
            match annotation {
                Some(word) => stored["metadata"]["annotations"][AUTO_UPDATE] = json!(word),
                None => stored["metadata"]["annotations"] = json!({}),
            }
            stored
        };
        let shares =
            |object: Option<Value>| object.map(|object| object["spec"]["limited"]["nominalConcurrencyShares"].clone());
        for (expected, mandatory, stored, shown) in [
            (&catch_all, true, changed(&catch_all, Some("false"), 3), Some(json!(5))),
            (&system, false, changed(&system, Some("true"), 3), Some(json!(30))),
            (&system, false, changed(&system, Some("false"), 3), None),
            (&system, false, changed(&system, None, 1), Some(json!(30))),
            (&system, false, changed(&system, None, 2), Some(json!(77))),
        ] {
            let found = mended(expected, mandatory, &stored);
            assert_eq!(shares(found.clone()), shown);
            if let Some(found) = found {
                assert_eq!(mended(expected, mandatory, &found), None, "once is enough");
            }
        }
        assert_eq!(mended(&system, false, &system), None);
    }
}
