//! What the kubelet calls in a container: probes and hooks.

use k3sd_objects::names;

use super::super::read::{At, Errors};

/// The ways to call, in the order in which a second one is found to be too many.
const HANDLERS: &[(&str, Handler)] = &[
    ("exec", |at, _, out| {
        if at.count("command") == 0 {
            out.push(at.required("command", ""));
        }
    }),
    ("httpGet", |at, _, out| check_http(at, out)),
    ("tcpSocket", |at, _, out| check_port(at, "port", out)),
    ("grpc", |at, _, out| check_port(at, "port", out)),
    ("sleep", check_sleep),
];

/// A check of one way to call, given the pod's grace period in seconds.
type Handler = fn(&At<'_>, i64, &mut Errors);

/// The probes and hooks of a container that may have them. `grace` is the pod's grace period in seconds.
pub(super) fn check(container: &At<'_>, grace: i64, out: &mut Errors) {
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = container.field("lifecycle").set(hook) {
            check_handler(&hook, grace, out);
        }
    }
    if let Some(probe) = container.set("livenessProbe") {
        check_probe(&probe, grace, out);
        check_single_success(&probe, out);
    }
    if let Some(probe) = container.set("readinessProbe") {
        check_probe(&probe, grace, out);
        if probe.has("terminationGracePeriodSeconds") {
            out.push(probe.invalid("terminationGracePeriodSeconds", "must not be set for readinessProbes"));
        }
    }
    if let Some(probe) = container.set("startupProbe") {
        check_probe(&probe, grace, out);
        check_single_success(&probe, out);
    }
}

fn check_probe(probe: &At<'_>, grace: i64, out: &mut Errors) {
    check_handler(probe, grace, out);
    for name in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        probe.not_negative(name, out);
    }
    if probe.number("terminationGracePeriodSeconds").is_some_and(|seconds| seconds <= 0) {
        out.push(probe.invalid("terminationGracePeriodSeconds", "must be greater than 0"));
    }
}

/// One success is all that a container needs to be alive or started.
fn check_single_success(probe: &At<'_>, out: &mut Errors) {
    if probe.number("successThreshold").unwrap_or_default() != 1 {
        out.push(probe.invalid_number("successThreshold", "must be 1"));
    }
}

fn check_handler(at: &At<'_>, grace: i64, out: &mut Errors) {
    let mut found = false;
    for (name, check) in HANDLERS {
        let Some(handler) = at.set(name) else { continue };
        if found {
            out.push(handler.forbidden("", "may not specify more than 1 handler type"));
        } else {
            found = true;
            check(&handler, grace, out);
        }
    }
    if !found {
        out.push(at.required("", "must specify a handler type"));
    }
}

fn check_http(at: &At<'_>, out: &mut Errors) {
    if at.text("path").is_empty() {
        out.push(at.required("path", ""));
    }
    check_port(at, "port", out);
    at.one_of("scheme", &["HTTP", "HTTPS"], out);
    let path = at.place("httpHeaders");
    for header in at.items("httpHeaders") {
        // Upstream doesn't say which one of the list it is.
        let header = At { value: header.get("name"), path: path.clone() };
        header.syntax("", names::http_header, out);
    }
}

/// A port by number or by name.
pub(in super::super) fn check_port(at: &At<'_>, name: &str, out: &mut Errors) {
    if at.get(name).is_string() {
        at.syntax(name, names::port_name, out);
    } else {
        let number = at.number(name).unwrap_or_default();
        out.extend(names::port_number(number).into_iter().map(|fault| at.invalid_number(name, fault)));
    }
}

fn check_sleep(at: &At<'_>, grace: i64, out: &mut Errors) {
    let seconds = at.number("seconds").unwrap_or_default();
    if !(0..=grace).contains(&seconds) {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        out.push(k3sd_objects::status::field::Error::invalid(&at.path, seconds, detail));
    }
}
