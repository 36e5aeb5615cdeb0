//! Where a pod may run: selectors of nodes, affinity, tolerations, spreading, gates.

use k3sd_objects::names;
use k3sd_objects::selector::check_label_selector;
use k3sd_objects::status::field::Error;

use super::super::meta;
use super::super::read::{At, Errors};

/// The strings that name an effect of a taint, in the order in which messages list them.
pub(in super::super) const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// `affinity` of a pod.
pub(super) fn check_affinity(spec: &At<'_>, out: &mut Errors) {
    let Some(affinity) = spec.set("affinity") else { return };
    let (required, preferred) =
        ("requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution");
    if let Some(nodes) = affinity.set("nodeAffinity") {
        if let Some(selector) = nodes.set(required) {
            check_node_selector(&selector, out);
        }
        for term in nodes.items(preferred) {
            if !(1..=100).contains(&term.number("weight").unwrap_or_default()) {
                out.push(term.invalid_number("weight", "must be in the range 1-100"));
            }
            check_node_term(&term.field("preference"), out);
        }
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = affinity.set(name) else { continue };
        for term in pods.items(required) {
            check_pod_term(&term, out);
        }
        for weighted in pods.items(preferred) {
            if !(1..=100).contains(&weighted.number("weight").unwrap_or_default()) {
                out.push(weighted.invalid_number("weight", "must be in the range 1-100"));
            }
            check_pod_term(&weighted.field("podAffinityTerm"), out);
        }
    }
}

/// A selector of nodes: terms, of which one has to match.
pub(in super::super) fn check_node_selector(selector: &At<'_>, out: &mut Errors) {
    if selector.count("nodeSelectorTerms") == 0 {
        out.push(selector.required("nodeSelectorTerms", "must have at least one node selector term"));
    }
    for term in selector.items("nodeSelectorTerms") {
        check_node_term(&term, out);
    }
}

fn check_node_term(term: &At<'_>, out: &mut Errors) {
    for expression in term.items("matchExpressions") {
        check_node_requirement(&expression, out);
        out.extend(names::check_label_key(expression.text("key"), &expression.place("key")));
    }
    for field in term.items("matchFields") {
        check_field_requirement(&field, out);
    }
}

fn check_node_requirement(at: &At<'_>, out: &mut Errors) {
    let count = at.count("values");
    match at.text("operator") {
        "In" | "NotIn" if count == 0 => {
            out.push(at.required("values", "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if count > 0 => {
            out.push(at.forbidden("values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
        }
        "Gt" | "Lt" if count != 1 => {
            let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            out.push(at.required("values", detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        _ => out.push(at.invalid("operator", "not a valid selector operator")),
    }
}

fn check_field_requirement(at: &At<'_>, out: &mut Errors) {
    match at.text("operator") {
        "In" | "NotIn" if at.count("values") != 1 => {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            out.push(at.required("values", detail));
        }
        "In" | "NotIn" => {}
        _ => out.push(at.invalid("operator", "not a valid selector operator")),
    }
    if at.text("key") == "metadata.name" {
        for value in at.items("values") {
            value.syntax("", names::dns_subdomain, out);
        }
    } else {
        out.push(at.invalid("key", "not a valid field selector key"));
    }
}

fn check_pod_term(term: &At<'_>, out: &mut Errors) {
    check_selector(term, "labelSelector", out);
    check_selector(term, "namespaceSelector", out);
    for namespace in term.items("namespaces") {
        for fault in names::dns_label(namespace.text("")) {
            // Upstream names the field in the singular here.
            out.push(Error::invalid(&term.place("namespace"), namespace.text(""), fault));
        }
    }
    for keys in ["matchLabelKeys", "mismatchLabelKeys"] {
        check_label_keys(term, keys, out);
    }
    let others: Vec<&str> = term.texts("mismatchLabelKeys").collect();
    for key in term.items("matchLabelKeys").filter(|key| others.contains(&key.text(""))) {
        out.push(key.invalid("", "exists in both matchLabelKeys and mismatchLabelKeys"));
    }
    if term.text("topologyKey").is_empty() {
        out.push(term.required("topologyKey", "can not be empty"));
    }
    out.extend(names::check_label_key(term.text("topologyKey"), &term.place("topologyKey")));
}

/// A selector of labels, if it is set.
pub(in super::super) fn check_selector(at: &At<'_>, name: &str, out: &mut Errors) {
    if let Some(selector) = at.set(name) {
        out.extend(check_label_selector(selector.value, &selector.path));
    }
}

/// Keys of labels that a selector is completed with, which needs one.
fn check_label_keys(at: &At<'_>, name: &str, out: &mut Errors) {
    if at.count(name) > 0 && !at.has("labelSelector") {
        out.push(at.forbidden(name, "must not be specified when labelSelector is not set"));
    }
    for key in at.items(name) {
        out.extend(names::check_label_key(key.text(""), &key.path));
    }
}

/// `tolerations` of a pod.
pub(in super::super) fn check_tolerations(spec: &At<'_>, out: &mut Errors) {
    for toleration in spec.items("tolerations") {
        let key = toleration.text("key");
        let operator = toleration.text("operator");
        if !key.is_empty() {
            out.extend(names::check_label_key(key, &toleration.place("key")));
        }
        if key.is_empty() && operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            out.push(toleration.invalid("operator", detail));
        }
        if toleration.has("tolerationSeconds") && toleration.text("effect") != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            out.push(toleration.invalid("effect", detail));
        }
        match operator {
            "" | "Equal" => {
                let faults = names::label_value(toleration.text("value"));
                out.extend(faults.first().map(|_| toleration.invalid("operator", faults.join(";"))));
            }
            "Exists" => {
                if !toleration.text("value").is_empty() {
                    let detail = "value must be empty when `operator` is 'Exists'";
                    out.push(toleration.invalid("operator", detail));
                }
            }
            _ => out.push(toleration.unsupported("operator", &["Equal", "Exists"])),
        }
        if !toleration.text("effect").is_empty() {
            toleration.one_of("effect", EFFECTS, out);
        }
    }
}

/// `topologySpreadConstraints` of a pod.
pub(super) fn check_spreading(spec: &At<'_>, out: &mut Errors) {
    let mut seen = Vec::new();
    for constraint in spec.items("topologySpreadConstraints") {
        if constraint.number("maxSkew").unwrap_or_default() <= 0 {
            out.push(constraint.invalid_number("maxSkew", "must be greater than zero"));
        }
        constraint.optional("topologyKey", names::qualified_name, out);
        if constraint.text("topologyKey").is_empty() {
            out.push(constraint.required("topologyKey", "can not be empty"));
        }
        constraint.one_of("whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"], out);
        let pair = (constraint.text("topologyKey"), constraint.text("whenUnsatisfiable"));
        if seen.contains(&pair) {
            let shown = format!("{{{}, {}}}", pair.0, pair.1);
            out.push(Error::duplicate(&constraint.place("{topologyKey, whenUnsatisfiable}"), shown));
        }
        seen.push(pair);
        check_domains(&constraint, out);
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.optional_of(policy, &["Honor", "Ignore"], out);
        }
        check_label_keys(&constraint, "matchLabelKeys", out);
        check_selector(&constraint, "labelSelector", out);
    }
}

fn check_domains(constraint: &At<'_>, out: &mut Errors) {
    let Some(least) = constraint.number("minDomains") else { return };
    if least <= 0 {
        out.push(constraint.invalid("minDomains", "must be greater than zero"));
    }
    let when = constraint.text("whenUnsatisfiable");
    if when != "DoNotSchedule" {
        let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
        out.push(constraint.invalid("minDomains", detail));
    }
}

/// `readinessGates` and `schedulingGates` of a pod.
pub(super) fn check_gates(spec: &At<'_>, out: &mut Errors) {
    for gate in spec.items("readinessGates") {
        gate.syntax("conditionType", names::qualified_name, out);
    }
    let mut seen = Vec::new();
    for gate in spec.items("schedulingGates") {
        let name = gate.text("name");
        out.extend(names::qualified_name(name).into_iter().map(|fault| Error::invalid(&gate.path, name, fault)));
        if seen.contains(&name) {
            out.push(Error::duplicate(&gate.path, name));
        }
        seen.push(name);
    }
}

/// `nodeSelector` of a pod.
pub(super) fn check_node_labels(spec: &At<'_>, out: &mut Errors) {
    meta::check_labels(spec, "nodeSelector", out);
}
