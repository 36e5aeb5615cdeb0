//! Events, in both of their groups. Errors name fields as the older group does.

use k3sd_objects::names;

use super::Context;
use super::read::{At, Errors, same};
use k3sd_objects::status::field::{Error, Path};

/// Longest action, reason and instance of a reporter, in bytes.
const WORD_BYTES_MAX: usize = 128;

/// Longest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Fields that the newer group calls otherwise: the older name, then the newer.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingController", "reportingComponent"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// Fields that stay, once an Event is told in the newer group.
const KEPT: &[&str] = &[
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "reason",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingController",
    "reportingInstance",
];

/// A field by the name that the older group's types have, whichever name it goes by on the wire.
fn field<'a>(event: &At<'a>, name: &str) -> At<'a> {
    let other = RENAMED.iter().find(|(older, _)| *older == name).map(|(_, newer)| *newer);
    let wire = other.filter(|newer| event.has(newer)).unwrap_or(name);
    At { value: event.get(wire), path: event.place(name) }
}

/// An Event of the older group.
pub(super) fn check(event: &At<'_>, _: &Context, out: &mut Errors) {
    let about = field(event, "involvedObject");
    let (namespace, theirs) = (event.field("metadata").text("namespace"), about.text("namespace"));
    let timed = event.has("eventTime");
    let fits = match (timed, theirs) {
        (false, "") => ["", "default"].contains(&namespace),
        (false, _) => theirs == namespace,
        (true, "") => ["default", "kube-system"].contains(&namespace),
        (true, _) => true,
    };
    if !fits {
        out.push(Error::invalid(&about.place("namespace"), theirs, "does not match event.namespace"));
    }
    if timed {
        check_words(event, out);
    }
    for fault in names::dns_subdomain(namespace) {
        out.push(Error::invalid(&Path::new("namespace"), namespace, fault));
    }
}

/// What an Event with a time of its own has to say.
fn check_words(event: &At<'_>, out: &mut Errors) {
    let controller = field(event, "reportingController");
    if controller.text("").is_empty() {
        out.push(controller.required("", ""));
    }
    controller.syntax("", names::qualified_name, out);
    for (name, most) in [
        ("reportingInstance", WORD_BYTES_MAX),
        ("action", WORD_BYTES_MAX),
        ("reason", WORD_BYTES_MAX),
        ("message", MESSAGE_BYTES_MAX),
    ] {
        let text = field(event, name);
        if text.text("").is_empty() && name != "message" {
            out.push(text.required("", ""));
        }
        if text.text("").len() > most {
            out.push(unshown(event, name, format!("can have at most {most} characters")));
        }
    }
}

/// An error that shows nothing of the field.
fn unshown(event: &At<'_>, name: &str, detail: impl Into<String>) -> Error {
    Error::invalid(&event.place(name), "", detail)
}

/// An Event of the newer group.
pub(super) fn check_new(event: &At<'_>, context: &Context, out: &mut Errors) {
    check(event, context, out);
    check_series(event, out);
    if !event.has("eventTime") {
        out.push(event.required("eventTime", ""));
    }
    if !["Normal", "Warning"].contains(&event.text("type")) {
        out.push(unshown(event, "type", format!("has invalid value: {}", event.text("type"))));
    }
    for name in ["firstTimestamp", "lastTimestamp", "count", "source"] {
        let value = field(event, name);
        let zero = value.value.is_null() || value.number("") == Some(0);
        let empty = name == "source" && ["component", "host"].iter().all(|part| value.text(part).is_empty());
        if !zero && !empty {
            out.push(unshown(event, name, "needs to be unset"));
        }
    }
}

fn check_series(event: &At<'_>, out: &mut Errors) {
    let Some(series) = event.set("series") else { return };
    if series.number("count").unwrap_or_default() < 2 {
        out.push(unshown(event, "series.count", "should be at least 2"));
    }
    if !series.has("lastObservedTime") {
        out.push(event.required("series.lastObservedTime", ""));
    }
}

/// An Event of the older group that takes the place of another.
pub(super) fn update(new: &At<'_>, _: &At<'_>, context: &Context, out: &mut Errors) {
    check(new, context, out);
}

/// An Event of the newer group that takes the place of another: only how often it was seen changes.
pub(super) fn update_new(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    check(new, context, out);
    if !same(new.get("series"), old.get("series")) {
        check_series(new, out);
    }
    for name in KEPT {
        field(new, name).immutable(&field(old, name), "", out);
    }
}
