//! Priority and fairness: which requests belong together, and how much of the server they get.

use std::collections::BTreeSet;

use k3sd_objects::names;
use k3sd_objects::status::field::Error;
use serde_json::{Value, json};

use super::Context;
use super::read::{At, Errors, same};

/// The last place in which a schema is tried.
const PRECEDENCE_MAX: i64 = 10_000;

/// Queues of a level, at most.
const QUEUES_MAX: i64 = 10_000_000;

/// Bits of the number from which a flow's queues are dealt.
const HASH_BITS: f64 = 60.0;

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

/// The name of the schema, and of the level, that nothing holds up.
const EXEMPT: &str = "exempt";

/// The name of the schema, and of the level, of whatever is nobody's.
const CATCH_ALL: &str = "catch-all";

/// A FlowSchema.
pub(super) fn check_schema(object: &At<'_>, _: &Context, out: &mut Errors) {
    let (name, spec) = (object.field("metadata").text("name"), object.field("spec"));
    let precedence = spec.number("matchingPrecedence").unwrap_or_default();
    let mut wrong = |detail: String| out.push(spec.invalid_number("matchingPrecedence", detail));
    if precedence <= 0 {
        wrong("must be a positive value".to_owned());
    }
    if precedence > PRECEDENCE_MAX {
        wrong(format!("must not be greater than {PRECEDENCE_MAX}"));
    }
    if precedence == 1 && name != EXEMPT {
        wrong("only the schema named 'exempt' may have matchingPrecedence 1".to_owned());
    }
    if let Some(method) = spec.set("distinguisherMethod") {
        let supported = ["ByNamespace", "ByUser"];
        if !supported.contains(&method.text("type")) {
            out.push(Error::not_supported(&method.place("type"), method.value.clone(), &supported));
        }
    }
    let level = spec.field("priorityLevelConfiguration");
    if level.text("name").is_empty() {
        out.push(level.required("name", "must reference a priority level"));
    } else {
        level.syntax("name", names::dns_subdomain, out);
    }
    for rule in spec.items("rules") {
        check_rule(&rule, out);
    }
    let fixed = match name {
        EXEMPT => Some(everything(EXEMPT, 1, None, &["system:masters"])),
        CATCH_ALL => {
            let everybody = ["system:unauthenticated", "system:authenticated"];
            Some(everything(CATCH_ALL, PRECEDENCE_MAX, Some("ByUser"), &everybody))
        }
        _ => None,
    };
    if fixed.is_some_and(|fixed| !same(spec.value, &fixed)) {
        out.push(object.invalid("spec", format!("spec of '{name}' must equal the fixed value")));
    }
    check_status_conditions(object, out);
}

/// The specification of a schema about all requests of some groups.
fn everything(level: &str, precedence: i64, method: Option<&str>, groups: &[&str]) -> Value {
    let subjects = groups.iter().map(|group| json!({ "kind": "Group", "group": { "name": group } }));
    let mut spec = json!({
        "priorityLevelConfiguration": { "name": level },
        "matchingPrecedence": precedence,
        "rules": [{
            "subjects": subjects.collect::<Vec<_>>(),
            "resourceRules": [{
                "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"],
            }],
            "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
        }],
    });
    if let Some(method) = method {
        spec["distinguisherMethod"] = json!({ "type": method });
    }
    spec
}

/// A FlowSchema that takes the place of another.
pub(super) fn update_schema(new: &At<'_>, _: &At<'_>, context: &Context, out: &mut Errors) {
    check_schema(new, context, out);
}

/// The status of a FlowSchema or PriorityLevelConfiguration.
pub(super) fn update_status(new: &At<'_>, _: &At<'_>, _: &Context, out: &mut Errors) {
    check_status_conditions(new, out);
}

fn check_status_conditions(object: &At<'_>, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for condition in object.field("status").items("conditions") {
        let kind = condition.text("type");
        if !seen.insert(kind) {
            out.push(condition.duplicate("type"));
        }
        if kind.is_empty() {
            out.push(condition.required("type", "must not be empty"));
        }
    }
}

fn check_rule(rule: &At<'_>, out: &mut Errors) {
    if rule.count("subjects") == 0 {
        out.push(rule.required("subjects", "subjects must contain at least one value"));
    }
    for subject in rule.items("subjects") {
        check_subject(&subject, out);
    }
    if rule.count("resourceRules") + rule.count("nonResourceRules") == 0 {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        out.push(rule.required("", detail));
    }
    for resources in rule.items("resourceRules") {
        check_resources(&resources, out);
    }
    for paths in rule.items("nonResourceRules") {
        check_paths(&paths, out);
    }
}

/// Kinds of subjects, with the field that each has.
const SUBJECTS: [(&str, &str); 3] = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];

fn check_subject(subject: &At<'_>, out: &mut Errors) {
    let kind = subject.text("kind");
    let Some((_, own)) = SUBJECTS.iter().find(|(known, _)| *known == kind) else {
        out.push(subject.unsupported("kind", &["Group", "ServiceAccount", "User"]));
        return;
    };
    match subject.set(own) {
        None => out.push(subject.required(own, &format!("{own} is required when subject kind is '{kind}'"))),
        Some(account) if kind == "ServiceAccount" => {
            if account.text("name").is_empty() {
                out.push(account.required("name", ""));
            } else if account.text("name") != "*" {
                account.syntax("name", names::dns_subdomain, out);
            }
            if account.text("namespace").is_empty() {
                out.push(account.required("namespace", "must specify namespace for service account"));
            } else {
                account.syntax("namespace", names::dns_label, out);
            }
        }
        Some(named) if named.text("name").is_empty() => out.push(named.required("name", "")),
        Some(_) => {}
    }
    // In the order in which upstream looks: accounts, users, groups.
    for (other, field) in SUBJECTS.iter().filter(|(other, field)| other != &kind && subject.has(field)) {
        out.push(subject.forbidden(field, format!("{field} is forbidden when subject kind is not '{other}'")));
    }
}

/// Whether a list has a `*`, and then nothing else.
fn check_wildcard(rule: &At<'_>, name: &str, words: &str, out: &mut Errors) -> bool {
    let any = rule.texts(name).any(|text| text == "*");
    if any && rule.count(name) > 1 {
        out.push(rule.invalid(name, format!("if '*' is present, must not specify other {words}")));
    }
    any
}

fn check_verbs(rule: &At<'_>, out: &mut Errors) {
    if rule.count("verbs") == 0 {
        out.push(rule.required("verbs", "verbs must contain at least one value"));
    } else if !check_wildcard(rule, "verbs", "verbs", out) && !rule.texts("verbs").all(|verb| VERBS.contains(&verb)) {
        out.push(rule.unsupported("verbs", VERBS));
    }
}

fn check_resources(rule: &At<'_>, out: &mut Errors) {
    check_verbs(rule, out);
    for (name, words, detail) in [
        ("apiGroups", "api groups", "resource rules must supply at least one api group"),
        ("resources", "resources", "resource rules must supply at least one resource"),
    ] {
        if rule.count(name) == 0 {
            out.push(rule.required(name, detail));
        } else {
            check_wildcard(rule, name, words, out);
        }
    }
    if rule.count("namespaces") == 0 && !rule.flag("clusterScope") {
        let detail = "resource rules that are not cluster scoped must supply at least one namespace";
        out.push(rule.required("namespaces", detail));
    } else if !check_wildcard(rule, "namespaces", "namespaces", out) {
        for namespace in rule.items("namespaces") {
            for fault in names::dns_label(namespace.text("")) {
                let detail = format!("each member of this list must be '*' or a DNS-1123 label; {fault}");
                out.push(namespace.invalid("", detail));
            }
        }
    }
}

fn check_paths(rule: &At<'_>, out: &mut Errors) {
    const FIELD: &str = "nonResourceURLs";
    check_verbs(rule, out);
    if rule.count(FIELD) == 0 {
        out.push(rule.required(FIELD, "nonResourceURLs must contain at least one value"));
    } else if !check_wildcard(rule, FIELD, "non-resource URLs", out) {
        for path in rule.items(FIELD) {
            if let Some(detail) = wrong_path(path.text("")) {
                out.push(path.invalid("", detail));
            }
        }
    }
}

/// What is wrong with a path, in which a `*` may stand for what follows the last slash.
fn wrong_path(path: &str) -> Option<&'static str> {
    let stars = path.matches('*').count();
    match path {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !path.starts_with('/') => Some("must start with slash"),
        _ if path.contains(' ') => Some("must not contain white-space"),
        _ if path.contains("//") => Some("must not contain double slash"),
        _ if stars > 1 || (stars == 1 && !path.ends_with("/*")) => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}

/// A PriorityLevelConfiguration.
pub(super) fn check_level(object: &At<'_>, _: &Context, out: &mut Errors) {
    let (name, spec) = (object.field("metadata").text("name"), object.field("spec"));
    let kind = spec.text("type");
    if (name == EXEMPT) != (kind == "Exempt") {
        out.push(spec.invalid("type", "type must be 'Exempt' if and only if name is 'exempt'"));
    }
    match kind {
        "Exempt" => {
            if spec.has("limited") {
                out.push(spec.forbidden("limited", "must be nil if the type is not Limited"));
            }
            if let Some(exempt) = spec.set("exempt") {
                check_shares(&exempt, out);
            } else {
                out.push(spec.required("exempt", "must not be empty when type is Exempt"));
            }
        }
        "Limited" => {
            if spec.has("exempt") {
                out.push(spec.forbidden("exempt", "must be nil if the type is Limited"));
            }
            if let Some(limited) = spec.set("limited") {
                check_limited(&limited, out);
            } else {
                out.push(spec.required("limited", "must not be empty when type is Limited"));
            }
        }
        _ => out.push(spec.unsupported("type", &["Exempt", "Limited"])),
    }
    if name == CATCH_ALL && !same(spec.value, &catch_all()) {
        out.push(object.invalid("spec", "spec of 'catch-all' must equal the fixed value"));
    }
    check_status_conditions(object, out);
}

/// The specification of the level of whatever is nobody's.
fn catch_all() -> Value {
    json!({ "type": "Limited", "limited": {
        "nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": { "type": "Reject" } } })
}

/// A PriorityLevelConfiguration that takes the place of another.
pub(super) fn update_level(new: &At<'_>, _: &At<'_>, context: &Context, out: &mut Errors) {
    check_level(new, context, out);
}

fn check_shares(at: &At<'_>, out: &mut Errors) {
    if at.number("nominalConcurrencyShares").is_some_and(|shares| shares < 0) {
        out.push(at.invalid_number("nominalConcurrencyShares", "must be a non-negative integer"));
    }
    if at.number("borrowingLimitPercent").is_some_and(|percent| percent < 0) {
        out.push(at.invalid_number("borrowingLimitPercent", "if specified, must be a non-negative integer"));
    }
    if at.number("lendablePercent").is_some_and(|percent| !(0..=100).contains(&percent)) {
        out.push(at.invalid_number("lendablePercent", "must be between 0 and 100, inclusive"));
    }
}

fn check_limited(limited: &At<'_>, out: &mut Errors) {
    check_shares(limited, out);
    let response = limited.field("limitResponse");
    match (response.text("type"), response.set("queuing")) {
        ("Reject", Some(_)) => {
            let detail = "must be nil if limited.limitResponse.type is not Limited";
            out.push(response.forbidden("queuing", detail));
        }
        ("Reject", None) => {}
        ("Queue", Some(queuing)) => check_queuing(&queuing, out),
        ("Queue", None) => {
            let detail = "must not be empty if limited.limitResponse.type is Limited";
            out.push(response.required("queuing", detail));
        }
        _ => out.push(response.unsupported("type", &["Queue", "Reject"])),
    }
}

fn check_queuing(queuing: &At<'_>, out: &mut Errors) {
    const POSITIVE: &str = "must be positive";
    let number = |name: &str| queuing.number(name).unwrap_or_default();
    if number("queueLengthLimit") <= 0 {
        out.push(queuing.invalid_number("queueLengthLimit", POSITIVE));
    }
    let (queues, hand) = (number("queues"), number("handSize"));
    if queues <= 0 {
        out.push(queuing.invalid_number("queues", POSITIVE));
    } else if queues > QUEUES_MAX {
        out.push(queuing.invalid_number("queues", format!("must not be greater than {QUEUES_MAX}")));
    }
    if hand <= 0 {
        out.push(queuing.invalid_number("handSize", POSITIVE));
    } else if hand > queues {
        out.push(queuing.invalid_number("handSize", format!("should not be greater than queues ({queues})")));
    } else if bits(queues, hand) > HASH_BITS {
        let detail = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
        );
        out.push(queuing.invalid_number("handSize", detail));
    }
}

/// Bits of a number from which a hand of queues can be dealt.
fn bits(queues: i64, hand: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "both are 32 bits wide on the wire")]
    let (queues, hand) = (queues as f64, hand as f64);
    (queues.log2() * hand).ceil()
}
