//! What a Job makes of how its pods and indexes end.

use std::collections::BTreeSet;

use k3sd_objects::names;
use k3sd_objects::status::field::Error;

use super::read::{At, Errors};

/// Rules of a policy, and patterns of a rule.
const RULES_MAX: usize = 20;

/// Exit codes of a rule.
const CODES_MAX: usize = 255;

/// Longest list of indexes.
const INDEXES_BYTES_MAX: usize = 64 << 10;

/// A string that is one of several, with the words that this kind has for one that is missing.
fn check_choice(at: &At<'_>, name: &str, supported: &[&str], out: &mut Errors) {
    if at.text(name).is_empty() {
        let values: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        out.push(at.required(name, &format!("valid values: [{}]", values.join(" "))));
    } else {
        at.one_of(name, supported, out);
    }
}

/// What becomes of pods that fail.
pub(super) fn check_failure(spec: &At<'_>, out: &mut Errors) {
    let policy = spec.field("podFailurePolicy");
    let count = policy.count("rules");
    if count > RULES_MAX {
        out.push(Error::too_many(&policy.place("rules"), count, RULES_MAX));
    }
    let pod = spec.field("template").field("spec");
    let containers: BTreeSet<&str> =
        pod.items("containers").chain(pod.items("initContainers")).map(|container| container.text("name")).collect();
    for rule in policy.items("rules") {
        check_failure_rule(&rule, spec, &containers, out);
    }
}

fn check_failure_rule(rule: &At<'_>, spec: &At<'_>, containers: &BTreeSet<&str>, out: &mut Errors) {
    if rule.text("action") != "FailIndex" {
        check_choice(rule, "action", &["Count", "FailIndex", "FailJob", "Ignore"], out);
    } else if !spec.has("backoffLimitPerIndex") {
        out.push(rule.invalid("action", "requires the backoffLimitPerIndex to be set"));
    }
    let conditions = rule.count("onPodConditions");
    let detail = match (rule.has("onExitCodes"), conditions > 0) {
        (false, false) => Some("specifying one of OnExitCodes and OnPodConditions is required"),
        (true, true) => Some("specifying both OnExitCodes and OnPodConditions is not supported"),
        _ => None,
    };
    out.extend(detail.map(|detail| Error::invalid_unshown(&rule.path, detail)));
    if let Some(codes) = rule.set("onExitCodes") {
        check_codes(&codes, containers, out);
    }
    if conditions > RULES_MAX {
        out.push(Error::too_many(&rule.place("onPodConditions"), conditions, RULES_MAX));
    }
    for pattern in rule.items("onPodConditions") {
        pattern.syntax("type", names::qualified_name, out);
        check_choice(&pattern, "status", &["False", "True", "Unknown"], out);
    }
}

fn check_codes(codes: &At<'_>, containers: &BTreeSet<&str>, out: &mut Errors) {
    check_choice(codes, "operator", &["In", "NotIn"], out);
    if codes.has("containerName") && !containers.contains(codes.text("containerName")) {
        let detail = "must be one of the container or initContainer names in the pod template";
        out.push(codes.invalid("containerName", detail));
    }
    let count = codes.count("values");
    if count == 0 {
        out.push(codes.invalid("values", "at least one value is required"));
    } else if count > CODES_MAX {
        out.push(Error::too_many(&codes.place("values"), count, CODES_MAX));
    }
    let mut seen = BTreeSet::new();
    let (mut last, mut ordered) = (i64::MIN, true);
    for value in codes.items("values") {
        let code = value.number("").unwrap_or_default();
        if codes.text("operator") == "In" && code == 0 {
            out.push(value.invalid("", "must not be 0 for the In operator"));
        }
        if !seen.insert(code) {
            out.push(value.duplicate(""));
        }
        ordered &= last <= code;
        last = code;
    }
    if !ordered {
        out.push(codes.invalid("values", "must be ordered"));
    }
}

/// Which indexes have to succeed for the whole to succeed.
pub(super) fn check_success(spec: &At<'_>, indexed: bool, out: &mut Errors) {
    let Some(policy) = spec.set("successPolicy") else { return };
    if !indexed {
        out.push(policy.invalid("", "requires indexed completion mode"));
        return;
    }
    let count = policy.count("rules");
    if count == 0 {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        out.push(policy.required("rules", detail));
    } else if count > RULES_MAX {
        out.push(Error::too_many(&policy.place("rules"), count, RULES_MAX));
    }
    let completions = spec.number("completions").unwrap_or_default();
    for rule in policy.items("rules") {
        check_success_rule(&rule, completions, out);
    }
}

fn check_success_rule(rule: &At<'_>, completions: i64, out: &mut Errors) {
    let (indexes, succeeded) = (rule.set("succeededIndexes"), rule.number("succeededCount"));
    if indexes.is_none() && succeeded.is_none() {
        out.push(rule.required("", "at least one of succeededCount or succeededIndexes must be specified"));
    }
    let listed = indexes.map(|indexes| {
        if indexes.text("").len() > INDEXES_BYTES_MAX {
            out.push(Error::too_long(&indexes.path, INDEXES_BYTES_MAX));
        }
        count_indexes(indexes.text(""), completions).unwrap_or_else(|fault| {
            out.push(indexes.invalid("", format!("error parsing succeededIndexes: {fault}")));
            0
        })
    });
    let Some(succeeded) = succeeded else { return };
    rule.not_negative("succeededCount", out);
    if succeeded > completions {
        let detail = format!("must be less than or equal to {completions} (the number of specified completions)");
        out.push(rule.invalid("succeededCount", detail));
    }
    if let Some(listed) = listed.filter(|listed| succeeded > *listed) {
        let detail = format!(
            "must be less than or equal to {listed} (the number of indexes in the specified succeededIndexes field)"
        );
        out.push(rule.invalid("succeededCount", detail));
    }
}

/// How many indexes a list such as `1,3-5` has; they rise and stay below the number of completions.
pub(super) fn count_indexes(list: &str, completions: i64) -> Result<i64, String> {
    let mut total = 0;
    let mut last = None;
    let fragments = list.split(',').filter(|_| !list.is_empty());
    for fragment in fragments {
        let limits: Vec<&str> = fragment.split('-').collect();
        if limits.len() > 2 {
            return Err(format!(
                "the fragment {fragment:?} violates the requirement that an index interval can have at most two parts \
                 separated by '-'"
            ));
        }
        let mut first = None;
        for limit in limits {
            let index: i64 =
                limit.parse().map_err(|_| format!("cannot convert string to integer for index: {limit:?}"))?;
            if index >= completions {
                return Err(format!("too large index: {limit:?}"));
            }
            if let Some(previous) = last.filter(|previous| *previous >= index) {
                return Err(format!("non-increasing order, previous: {previous}, current: {index}"));
            }
            last = Some(index);
            // The second limit adds what lies between, itself included.
            total += first.map_or(1, |first: i64| index - first);
            first = Some(index);
        }
    }
    Ok(total)
}

/// When a pod that goes away gets its successor.
pub(super) fn check_replacement(spec: &At<'_>, out: &mut Errors) {
    let supported: &[&str] =
        if spec.has("podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    spec.optional_of("podReplacementPolicy", supported, out);
}
