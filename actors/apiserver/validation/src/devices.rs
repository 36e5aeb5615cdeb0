//! Devices: classes of them, claims to them, and what a claim was given.
//!
//! Whether a selector's expression compiles is the business of those who run it.

use std::collections::{BTreeMap, BTreeSet};

use k3sd_objects::names;
use k3sd_objects::status::field::Error;
use serde_json::Value;

use super::Context;
use super::meta;
use super::pod::check_node_selector;
use super::read::{At, Errors, IMMUTABLE, same};
use super::volumes::check_driver;

/// Requests, constraints, configurations and selectors, at most.
const LIST_MAX: usize = 32;

/// Alternatives of one request.
const ALTERNATIVES_MAX: usize = 8;

/// Devices that one claim may be given.
const RESULTS_MAX: usize = 32;

/// Users of one claim.
const USERS_MAX: usize = 256;

/// Longest expression of a selector, and longest parameters of a driver, in bytes.
const TEXT_BYTES_MAX: usize = 10 * 1024;

/// Longest name of a pool, in bytes.
const POOL_BYTES_MAX: usize = 253;

/// Longest name of an attribute without its domain, in bytes.
const ID_BYTES_MAX: usize = 32;

/// Checks the items of a list that is not too long; of one that is, only that is said.
pub(super) fn check_list(at: &At<'_>, name: &str, most: usize, out: &mut Errors, check: impl Fn(&At<'_>, &mut Errors)) {
    let count = at.count(name);
    if count > most {
        out.push(Error::too_many(&at.place(name), count, most));
        return;
    }
    at.items(name).for_each(|item| check(&item, out));
}

/// Items of a list that have the same key as one before.
pub(super) fn check_unique<'a>(at: &At<'a>, name: &str, out: &mut Errors, key: impl Fn(&At<'a>) -> &'a str) {
    let mut seen = BTreeSet::new();
    for item in at.items(name) {
        let key = key(&item);
        if !seen.insert(key) {
            out.push(Error::duplicate(&item.path, key));
        }
    }
}

/// A DeviceClass.
pub(super) fn check_class(object: &At<'_>, _: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    check_list(&spec, "selectors", LIST_MAX, out, check_selector);
    check_list(&spec, "config", LIST_MAX, out, check_opaque);
    let name = spec.text("extendedResourceName");
    if spec.has("extendedResourceName") && !is_extended(name) {
        out.push(spec.invalid("extendedResourceName", "must be a valid extended resource name"));
    }
}

/// A DeviceClass that takes the place of another.
pub(super) fn update_class(new: &At<'_>, _: &At<'_>, context: &Context, out: &mut Errors) {
    check_class(new, context, out);
}

/// Whether a resource is none of Kubernetes' own: it has a domain, which isn't theirs.
fn is_extended(name: &str) -> bool {
    let foreign = name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.");
    foreign && names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn check_selector(at: &At<'_>, out: &mut Errors) {
    match at.set("cel") {
        None => out.push(at.required("cel", "")),
        Some(cel) if cel.text("expression").len() > TEXT_BYTES_MAX => {
            out.push(Error::too_long(&cel.place("expression"), TEXT_BYTES_MAX));
        }
        Some(_) => {}
    }
}

/// What a driver, and nobody else, understands.
fn check_opaque(at: &At<'_>, out: &mut Errors) {
    let Some(opaque) = at.set("opaque") else {
        out.push(at.required("opaque", ""));
        return;
    };
    check_driver(&opaque, "driver", out);
    match opaque.get("parameters") {
        Value::Null => out.push(opaque.required("parameters", "")),
        Value::Object(_) => {
            let bytes = opaque.get("parameters").to_string().len();
            if bytes > TEXT_BYTES_MAX {
                out.push(Error::too_long(&opaque.place("parameters"), TEXT_BYTES_MAX));
            }
        }
        _ => out.push(opaque.invalid("parameters", "parameters must be a valid JSON object")),
    }
}

/// Names of requests, with those of their alternatives.
struct Requests<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>);

impl<'a> Requests<'a> {
    fn of(devices: &At<'a>) -> Self {
        let alternatives = |request: &At<'a>| request.items("firstAvailable").map(|own| own.text("name")).collect();
        Self(devices.items("requests").map(|request| (request.text("name"), alternatives(&request))).collect())
    }

    fn has(&self, name: &str) -> bool {
        match name.split_once('/') {
            None => self.0.contains_key(name),
            Some((request, own)) => self.0.get(request).is_some_and(|alternatives| alternatives.contains(own)),
        }
    }

    /// Checks the name of a request, or of a request and an alternative.
    fn check(&self, at: &At<'_>, out: &mut Errors) {
        const DETAIL: &str =
            "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        let name = at.text("");
        if name.matches('/').count() > 1 {
            out.push(at.invalid("", DETAIL));
            return;
        }
        for part in name.split('/') {
            out.extend(names::dns_label(part).into_iter().map(|fault| Error::invalid(&at.path, part, fault)));
        }
        if !self.has(name) {
            out.push(at.invalid("", DETAIL));
        }
    }
}

/// A ResourceClaim.
pub(super) fn check_claim(object: &At<'_>, _: &Context, out: &mut Errors) {
    check_claim_spec(&object.field("spec"), out);
}

/// A ResourceClaim that takes the place of another: what was asked for stays.
pub(super) fn update_claim(new: &At<'_>, old: &At<'_>, _: &Context, out: &mut Errors) {
    new.immutable(old, "spec", out);
}

/// A ResourceClaimTemplate.
pub(super) fn check_template(object: &At<'_>, _: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    let metadata = spec.field("metadata");
    meta::check_labels(&metadata, "labels", out);
    if let Some(annotations) = metadata.get("annotations").as_object() {
        out.extend(names::check_annotations(annotations, &metadata.place("annotations")));
    }
    check_claim_spec(&spec.field("spec"), out);
}

fn check_claim_spec(spec: &At<'_>, out: &mut Errors) {
    let devices = spec.field("devices");
    let requests = Requests::of(&devices);
    check_list(&devices, "requests", LIST_MAX, out, check_request);
    check_unique(&devices, "requests", out, |request| request.text("name"));
    check_list(&devices, "constraints", LIST_MAX, out, |constraint, out| {
        check_names(constraint, &requests, out);
        if constraint.has("matchAttribute") {
            check_full_name(constraint, "matchAttribute", out);
        } else {
            out.push(constraint.required("matchAttribute", ""));
        }
    });
    check_list(&devices, "config", LIST_MAX, out, |config, out| {
        check_names(config, &requests, out);
        check_opaque(config, out);
    });
}

/// The requests that something is about.
fn check_names(at: &At<'_>, requests: &Requests<'_>, out: &mut Errors) {
    check_list(at, "requests", LIST_MAX, out, |name, out| requests.check(name, out));
    check_unique(at, "requests", out, |name| name.text(""));
}

fn check_request(request: &At<'_>, out: &mut Errors) {
    request.syntax("name", names::dns_label, out);
    match (request.set("exactly"), request.count("firstAvailable") > 0) {
        (None, false) => out.push(request.required("", "exactly one of `exactly` or `firstAvailable` is required")),
        (Some(_), true) => {
            let detail = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            out.push(Error::invalid(&request.path, Value::Null, detail));
        }
        (Some(exactly), false) => check_wish(&exactly, out),
        (None, true) => {
            check_list(request, "firstAvailable", ALTERNATIVES_MAX, out, |own, out| {
                own.syntax("name", names::dns_label, out);
                check_wish(own, out);
            });
            check_unique(request, "firstAvailable", out, |own| own.text("name"));
        }
    }
}

/// Which devices are wanted, and how many.
fn check_wish(wish: &At<'_>, out: &mut Errors) {
    wish.name("deviceClassName", names::dns_subdomain, out);
    check_list(wish, "selectors", LIST_MAX, out, check_selector);
    let count = wish.number("count").unwrap_or_default();
    match wish.text("allocationMode") {
        "All" if count != 0 => {
            out.push(wish.invalid_number("count", "must not be specified when allocationMode is 'All'"));
        }
        "ExactCount" if count <= 0 => out.push(wish.invalid_number("count", "must be greater than zero")),
        "All" | "ExactCount" => {}
        _ => out.push(wish.unsupported("allocationMode", &["All", "ExactCount"])),
    }
}

/// The name of an attribute or a capacity, perhaps with a domain before it.
pub(super) fn check_qualified(at: &At<'_>, name: &str, text: &str, out: &mut Errors) {
    let path = at.place(name);
    let id = |text: &str, out: &mut Errors| {
        if text.len() > ID_BYTES_MAX {
            out.push(Error::too_long(&path, ID_BYTES_MAX));
        }
        out.extend(names::c_identifier(text).into_iter().map(|fault| Error::invalid(&path, text, fault)));
    };
    match text.split_once('/') {
        None => id(text, out),
        Some((_, rest)) if rest.contains('/') => {
            out.push(Error::invalid(&path, text, "must not contain more than one slash"));
        }
        Some((domain, rest)) => {
            if domain.is_empty() {
                out.push(Error::invalid(&path, "", "the domain must not be empty"));
            } else {
                let faults = names::dns_subdomain(&domain.to_lowercase());
                out.extend(faults.into_iter().map(|fault| Error::invalid(&path, domain, fault)));
            }
            if rest.is_empty() {
                out.push(Error::invalid(&path, "", "the name must not be empty"));
            } else {
                id(rest, out);
            }
        }
    }
}

fn check_full_name(at: &At<'_>, name: &str, out: &mut Errors) {
    let text = at.text(name);
    check_qualified(at, name, text, out);
    if !text.contains('/') {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        out.push(at.invalid(name, detail));
    }
}

/// The name of a pool: subdomains between slashes.
pub(super) fn check_pool(at: &At<'_>, name: &str, out: &mut Errors) {
    let (text, path) = (at.text(name), at.place(name));
    if text.is_empty() {
        out.push(at.required(name, ""));
        return;
    }
    if text.len() > POOL_BYTES_MAX {
        out.push(Error::too_long(&path, POOL_BYTES_MAX));
    }
    for part in text.split('/') {
        out.extend(names::dns_subdomain(part).into_iter().map(|fault| Error::invalid(&path, part, fault)));
    }
}

/// The status of a ResourceClaim: what it was given, and who uses it.
pub(super) fn update_claim_status(new: &At<'_>, old: &At<'_>, _: &Context, out: &mut Errors) {
    let (status, before) = (new.field("status"), old.field("status"));
    check_list(&status, "reservedFor", USERS_MAX, out, |user, out| {
        for name in ["resource", "name", "uid"].into_iter().filter(|name| user.text(name).is_empty()) {
            out.push(user.required(name, ""));
        }
    });
    check_unique(&status, "reservedFor", out, |user| user.text("uid"));
    if status.count("reservedFor") > 0 {
        let deleted = new.field("metadata").has("deletionTimestamp");
        let known = |user: &At<'_>| before.items("reservedFor").any(|old| same(old.value, user.value));
        if !status.has("allocation") {
            out.push(status.forbidden("reservedFor", "may not be specified when `allocated` is not set"));
        } else if deleted && !status.items("reservedFor").all(|user| known(&user)) {
            let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            out.push(status.forbidden("reservedFor", detail));
        }
    }
    match (status.set("allocation"), before.has("allocation")) {
        (Some(allocation), true) if !same(allocation.value, before.get("allocation")) => {
            out.push(allocation.invalid("", IMMUTABLE));
        }
        (Some(allocation), false) => check_allocation(&allocation, &new.field("spec").field("devices"), out),
        _ => {}
    }
}

fn check_allocation(allocation: &At<'_>, wanted: &At<'_>, out: &mut Errors) {
    let (requests, devices) = (Requests::of(wanted), allocation.field("devices"));
    check_list(&devices, "results", RESULTS_MAX, out, |result, out| {
        requests.check(&result.field("request"), out);
        check_driver(result, "driver", out);
        check_pool(result, "pool", out);
        result.syntax("device", names::dns_label, out);
    });
    check_list(&devices, "config", 2 * LIST_MAX, out, |config, out| {
        config.required_of("source", &["FromClaim", "FromClass"], out);
        check_names(config, &requests, out);
        check_opaque(config, out);
    });
    if let Some(selector) = allocation.set("nodeSelector") {
        check_node_selector(&selector, out);
    }
}
