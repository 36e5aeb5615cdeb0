//! Webhooks of admission: which requests they are asked about, and how they are reached.

use std::collections::BTreeSet;

use k3sd_objects::names;
use k3sd_objects::status::field::{Error, Path};

use super::Context;
use super::pod::check_selector;
use super::read::{At, Errors, same};

/// What webhooks may be told to do when they fail.
pub(super) const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];

/// Whether other versions of the resources are meant, too.
pub(super) const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];

/// How a webhook may act on the world when nothing is to be kept.
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];

/// The same for webhooks of before that was asked.
const SIDE_EFFECTS_OLD: &[&str] = &["None", "NoneOnDryRun", "Some", "Unknown"];

const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

/// Versions of the question that webhooks are asked.
const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];

/// Seconds that a webhook may take, at most.
const TIMEOUT_SECONDS_MAX: i64 = 30;

/// Conditions of one webhook or policy, at most.
const CONDITIONS_MAX: usize = 64;

/// What is not asked of webhooks that were wrong before it was.
#[derive(Clone, Copy, Default)]
struct Leniency {
    side_effects: bool,
    versions: bool,
    names: bool,
    label_values: bool,
    conditions: bool,
}

/// A ValidatingWebhookConfiguration or a MutatingWebhookConfiguration.
pub(super) fn check(object: &At<'_>, _: &Context, out: &mut Errors) {
    check_all(object, Leniency::default(), out);
}

/// One that takes the place of another.
pub(super) fn update(new: &At<'_>, old: &At<'_>, _: &Context, out: &mut Errors) {
    let hooks = || old.items("webhooks");
    let mut seen = BTreeSet::new();
    let versions = |hook: &At<'_>| {
        hook.count("admissionReviewVersions") > 0
            && !hook.texts("admissionReviewVersions").any(|version| REVIEW_VERSIONS.contains(&version))
    };
    let labels = |hook: &At<'_>| {
        let mut errors = Errors::new();
        ["namespaceSelector", "objectSelector"].iter().for_each(|name| check_selector(hook, name, &mut errors));
        !errors.is_empty()
    };
    let conditions =
        |at: &At<'_>| -> Vec<_> { at.items("webhooks").map(|hook| hook.get("matchConditions").clone()).collect() };
    let (before, after) = (conditions(old), conditions(new));
    let leniency = Leniency {
        side_effects: hooks().any(|hook| !SIDE_EFFECTS.contains(&hook.text("sideEffects"))),
        versions: hooks().any(|hook| versions(&hook)),
        names: hooks().any(|hook| !seen.insert(hook.text("name"))),
        label_values: hooks().any(|hook| labels(&hook)),
        conditions: before.len() == after.len() && before.iter().zip(&after).all(|(old, new)| same(old, new)),
    };
    check_all(new, leniency, out);
}

fn check_all(object: &At<'_>, leniency: Leniency, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for hook in object.items("webhooks") {
        check_hook(&hook, leniency, out);
        check_versions(&hook, leniency, out);
        let name = hook.text("name");
        if !leniency.names && !name.is_empty() && !seen.insert(name) {
            out.push(hook.duplicate("name"));
        }
    }
}

fn check_hook(hook: &At<'_>, leniency: Leniency, out: &mut Errors) {
    check_qualified(hook, out);
    for rule in hook.items("rules") {
        check_rule(&rule, out);
    }
    hook.optional_of("failurePolicy", FAILURE_POLICIES, out);
    hook.optional_of("matchPolicy", MATCH_POLICIES, out);
    let allowed = if leniency.side_effects { SIDE_EFFECTS_OLD } else { SIDE_EFFECTS };
    if hook.has("sideEffects") {
        hook.one_of("sideEffects", allowed, out);
    } else {
        out.push(hook.required("sideEffects", &format!("must specify one of {}", allowed.join(", "))));
    }
    if hook.number("timeoutSeconds").is_some_and(|seconds| !(1..=TIMEOUT_SECONDS_MAX).contains(&seconds)) {
        out.push(hook.invalid_number("timeoutSeconds", "the timeout value must be between 1 and 30 seconds"));
    }
    let before = out.len();
    check_selector(hook, "namespaceSelector", out);
    check_selector(hook, "objectSelector", out);
    if leniency.label_values {
        let fresh = out.split_off(before);
        out.extend(fresh.into_iter().filter(|error| !error.field.contains(".values[")));
    }
    // Only those that change others have it.
    hook.optional_of("reinvocationPolicy", &["IfNeeded", "Never"], out);
    check_client(&hook.field("clientConfig"), out);
    if !leniency.conditions {
        check_conditions(hook, out);
    }
}

/// A name with a domain of its own.
fn check_qualified(hook: &At<'_>, out: &mut Errors) {
    let name = hook.text("name");
    let faults = names::dns_subdomain(name);
    if name.is_empty() {
        out.push(hook.required("name", ""));
    } else if !faults.is_empty() {
        out.push(hook.invalid("name", faults.join(",")));
    } else if name.split('.').count() < 3 {
        out.push(hook.invalid("name", "should be a domain with at least three segments separated by dots"));
    }
}

fn check_versions(hook: &At<'_>, leniency: Leniency, out: &mut Errors) {
    const FIELD: &str = "admissionReviewVersions";
    if hook.count(FIELD) == 0 {
        out.push(hook.required(FIELD, &format!("must specify one of {}", REVIEW_VERSIONS.join(", "))));
        return;
    }
    let mut seen = BTreeSet::new();
    for version in hook.items(FIELD) {
        if !seen.insert(version.text("")) {
            out.push(version.invalid("", "duplicate version"));
            continue;
        }
        version.syntax("", names::dns_1035_label, out);
    }
    if !leniency.versions && !REVIEW_VERSIONS.iter().any(|known| seen.contains(known)) {
        out.push(hook.invalid(FIELD, format!("must include at least one of {}", REVIEW_VERSIONS.join(", "))));
    }
}

/// Which requests a webhook or a policy is about.
pub(super) fn check_rule(rule: &At<'_>, out: &mut Errors) {
    check_exclusive(rule, "operations", "operations", out);
    for operation in rule.items("operations") {
        operation.one_of("", OPERATIONS, out);
    }
    check_exclusive(rule, "apiGroups", "API groups", out);
    check_exclusive(rule, "apiVersions", "API versions", out);
    for version in rule.items("apiVersions").filter(|version| version.text("").is_empty()) {
        out.push(version.required("", ""));
    }
    check_resources(rule, out);
    rule.optional_of("scope", &["*", "Cluster", "Namespaced"], out);
}

/// A list that may not be empty, and has nothing beside a `*`.
fn check_exclusive(rule: &At<'_>, name: &str, words: &str, out: &mut Errors) {
    let count = rule.count(name);
    if count == 0 {
        out.push(rule.required(name, ""));
    }
    if count > 1 && rule.texts(name).any(|text| text == "*") {
        out.push(rule.invalid(name, format!("if '*' is present, must not specify other {words}")));
    }
}

/// Resources and subresources, none of which is meant twice.
fn check_resources(rule: &At<'_>, out: &mut Errors) {
    const FIELD: &str = "resources";
    if rule.count(FIELD) == 0 {
        out.push(rule.required(FIELD, ""));
    }
    let (mut everything_below, mut everywhere) = (BTreeSet::new(), BTreeSet::new());
    let (mut both, mut all, mut plain) = (false, false, false);
    for item in rule.items(FIELD) {
        let text = item.text("");
        if text.is_empty() {
            out.push(item.required("", ""));
            continue;
        }
        both |= text == "*/*";
        all |= text == "*";
        let Some((resource, subresource)) = text.split_once('/') else {
            // As upstream has it, the last resource without a subresource decides.
            plain = text != "*";
            continue;
        };
        if everything_below.contains(resource) {
            out.push(item.invalid("", format!("if '{resource}/*' is present, must not specify {text}")));
        }
        if everywhere.contains(subresource) {
            out.push(item.invalid("", format!("if '*/{subresource}' is present, must not specify {text}")));
        }
        if subresource == "*" {
            everything_below.insert(resource);
        }
        if resource == "*" {
            everywhere.insert(subresource);
        }
    }
    if rule.count(FIELD) > 1 && both {
        out.push(rule.invalid(FIELD, "if '*/*' is present, must not specify other resources"));
    }
    if all && plain {
        let detail = "if '*' is present, must not specify other resources without subresources";
        out.push(rule.invalid(FIELD, detail));
    }
}

/// How a webhook is reached.
fn check_client(client: &At<'_>, out: &mut Errors) {
    match (client.has("url"), client.set("service")) {
        (true, None) => check_url(&client.field("url"), out),
        (false, Some(service)) => check_service(&service, out),
        _ => out.push(client.required("", "exactly one of url or service is required")),
    }
}

/// A Service in the cluster.
fn check_service(service: &At<'_>, out: &mut Errors) {
    for (name, detail) in [("name", "service name is required"), ("namespace", "service namespace is required")] {
        if service.text(name).is_empty() {
            out.push(service.required(name, detail));
        }
    }
    if let Some(port) = service.number("port") {
        let faults = names::port_number(port);
        if !faults.is_empty() {
            out.push(service.invalid_number("port", format!("port is not valid: {}", faults.join(", "))));
        }
    }
    let path = service.text("path");
    if path.is_empty() || path == "/" {
        return;
    }
    if path == "//" {
        out.push(service.invalid("path", "segment[0] may not be empty"));
        return;
    }
    let Some(steps) = path.strip_prefix('/') else {
        out.push(service.invalid("path", "must start with a '/'"));
        return;
    };
    for (index, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            out.push(service.invalid("path", format!("segment[{index}] may not be empty")));
            continue;
        }
        for fault in names::dns_subdomain(step) {
            out.push(service.invalid("path", format!("segment[{index}]: {fault}")));
        }
    }
}

/// Parts of a URL, as far as is asked about them.
struct Url<'a> {
    scheme: &'a str,
    user: Option<&'a str>,
    host: &'a str,
    query: &'a str,
    fragment: &'a str,
}

impl<'a> Url<'a> {
    /// Takes a URL apart, or says why it is none.
    fn parse(text: &'a str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("parse {}: {why}", k3sd_objects::status::go::quote(text)));
        if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            return wrong("net/url: invalid control character in URL");
        }
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        let (scheme, rest) = match rest.split_once(':') {
            Some(("", _)) => return wrong("missing protocol scheme"),
            Some((scheme, rest))
                if scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(legal) =>
            {
                (scheme, rest)
            }
            Some((before, _)) if !before.contains(['/', '?']) => {
                return wrong("first path segment in URL cannot contain colon");
            }
            _ => ("", rest),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = rest.strip_prefix("//").map(|rest| rest.split('/').next().unwrap_or_default());
        let authority = authority.unwrap_or_default();
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        if host.contains(' ') {
            return wrong("invalid character \" \" in host name");
        }
        Ok(Self { scheme, user, host, query, fragment })
    }
}

/// A URL anywhere.
fn check_url(at: &At<'_>, out: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let url = match Url::parse(at.text("")) {
        Ok(url) => url,
        Err(error) => {
            out.push(at.required("", &format!("url must be a valid URL: {error}{FORM}")));
            return;
        }
    };
    let mut invalid = |shown: &str, detail: String| out.push(Error::invalid(&at.path, shown, detail));
    if !url.scheme.eq_ignore_ascii_case("https") {
        invalid(&url.scheme.to_ascii_lowercase(), format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if url.host.is_empty() {
        invalid("", format!("host must be provided{FORM}"));
    }
    if let Some(user) = url.user {
        // What stands there may be a password; its owner knows it.
        let name = user.split(':').next().unwrap_or_default();
        invalid(name, "user information is not permitted in the URL".to_owned());
    }
    if !url.fragment.is_empty() {
        invalid(url.fragment, "fragments are not permitted in the URL".to_owned());
    }
    if !url.query.is_empty() {
        invalid(url.query, "query parameters are not permitted in the URL".to_owned());
    }
}

/// Conditions under which a webhook or a policy is asked at all.
pub(super) fn check_conditions(at: &At<'_>, out: &mut Errors) {
    const FIELD: &str = "matchConditions";
    let path: Path = at.place(FIELD);
    if at.count(FIELD) > CONDITIONS_MAX {
        out.push(Error::too_many(&path, at.count(FIELD), CONDITIONS_MAX));
    }
    let mut seen = BTreeSet::new();
    for condition in at.items(FIELD) {
        if condition.text("expression").trim().is_empty() {
            out.push(condition.required("expression", ""));
        }
        condition.name("name", names::qualified_name, out);
        let name = condition.text("name");
        if !name.is_empty() && !seen.insert(name) {
            out.push(condition.duplicate("name"));
        }
    }
}
