//! What devices there are, as drivers tell it.

use k3sd_objects::names;
use k3sd_objects::status::field::Error;

use super::Context;
use super::devices::{check_list, check_pool, check_qualified, check_unique};
use super::pod::check_node_selector;
use super::read::{At, Errors};
use super::volumes::check_driver;

/// Devices in one slice.
const DEVICES_MAX: usize = 128;

/// Attributes and capacities of one device, together.
const ATTRIBUTES_MAX: usize = 32;

/// Longest value of an attribute, in bytes.
const VALUE_BYTES_MAX: usize = 64;

/// A ResourceSlice.
pub(super) fn check(object: &At<'_>, _: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    check_driver(&spec, "driver", out);
    check_origin(&spec.field("pool"), out);
    check_place(&spec, out);
    check_list(&spec, "devices", DEVICES_MAX, out, |device, out| {
        check_device(device, spec.flag("perDeviceNodeSelection"), out);
    });
    check_unique(&spec, "devices", out, |device| device.text("name"));
}

/// A ResourceSlice that takes the place of another: it stays where it is.
pub(super) fn update(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    check(new, context, out);
    spec.field("pool").immutable(&before.field("pool"), "name", out);
    spec.immutable(&before, "driver", out);
    spec.immutable(&before, "nodeName", out);
}

/// The pool that a slice is part of.
fn check_origin(pool: &At<'_>, out: &mut Errors) {
    check_pool(pool, "name", out);
    if pool.number("resourceSliceCount").unwrap_or_default() <= 0 {
        out.push(pool.invalid_number("resourceSliceCount", "must be greater than zero"));
    }
    if pool.number("generation").unwrap_or_default() < 0 {
        out.push(pool.invalid_number("generation", "must be greater than or equal to zero"));
    }
}

/// Where the devices can be used, which is told in one way.
fn check_place(spec: &At<'_>, out: &mut Errors) {
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let mut ways = Vec::new();
    if spec.has("nodeName") {
        if spec.text("nodeName").is_empty() {
            out.push(spec.invalid("nodeName", "must be either unset or set to a non-empty string"));
        } else {
            ways.push("`nodeName`");
            spec.syntax("nodeName", names::dns_subdomain, out);
        }
    }
    if let Some(selector) = spec.set("nodeSelector") {
        ways.push("`nodeSelector`");
        check_node_selector(&selector, out);
        if selector.count("nodeSelectorTerms") != 1 {
            out.push(selector.invalid("nodeSelectorTerms", "must have exactly one node selector term"));
        }
    }
    for (name, way) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        check_flag(spec, name, way, &mut ways, out);
    }
    match ways.len() {
        0 => out.push(spec.required("", ONE)),
        1 => {}
        _ => {
            let shown = format!("{{{}}}", ways.join(", "));
            out.push(Error::invalid(&spec.path, shown, format!("{ONE}, but multiple fields are set")));
        }
    }
}

/// A flag that is true or isn't there.
fn check_flag<'w>(at: &At<'_>, name: &str, way: &'w str, ways: &mut Vec<&'w str>, out: &mut Errors) {
    if at.flag(name) {
        ways.push(way);
    } else if at.has(name) {
        out.push(at.invalid(name, "must be either unset or set to true"));
    }
}

fn check_device(device: &At<'_>, placed: bool, out: &mut Errors) {
    device.syntax("name", names::dns_label, out);
    let count = device.count("attributes") + device.count("capacity");
    if count > ATTRIBUTES_MAX {
        let detail = format!("the total number of attributes and capacities must not exceed {ATTRIBUTES_MAX}");
        out.push(Error::invalid(&device.path, count, detail));
    }
    for (name, attribute) in device.entries("attributes") {
        check_qualified(&attribute, "", name, out);
        check_attribute(&attribute, out);
    }
    for (name, capacity) in device.entries("capacity") {
        check_qualified(&capacity, "", name, out);
    }
    if placed {
        check_device_place(device, out);
    } else if ["nodeName", "nodeSelector", "allNodes"].iter().any(|name| device.has(name)) {
        let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to \
                      true in the ResourceSlice spec";
        out.push(Error::invalid(&device.path, serde_json::Value::Null, detail));
    }
}

fn check_device_place(device: &At<'_>, out: &mut Errors) {
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
                       `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    let mut ways = Vec::new();
    if device.has("nodeName") {
        if device.text("nodeName").is_empty() {
            out.push(device.invalid("nodeName", "must not be empty"));
        } else {
            ways.push("`nodeName`");
            device.syntax("nodeName", names::dns_subdomain, out);
        }
    }
    if let Some(selector) = device.set("nodeSelector") {
        ways.push("`nodeSelector`");
        check_node_selector(&selector, out);
    }
    check_flag(device, "allNodes", "`allNodes`", &mut ways, out);
    match ways.len() {
        0 => out.push(device.required("", ONE)),
        1 => {}
        _ => out.push(Error::invalid(&device.path, format!("{{{}}}", ways.join(", ")), ONE)),
    }
}

/// An attribute, which has one value.
fn check_attribute(attribute: &At<'_>, out: &mut Errors) {
    if attribute.text("string").len() > VALUE_BYTES_MAX {
        out.push(Error::too_long(&attribute.place("string"), VALUE_BYTES_MAX));
    }
    let version = attribute.text("version");
    if attribute.has("version") && !is_version(version) {
        out.push(attribute.invalid("version", "must be a string compatible with semver.org spec 2.0.0"));
    }
    if version.len() > VALUE_BYTES_MAX {
        out.push(Error::too_long(&attribute.place("version"), VALUE_BYTES_MAX));
    }
    match ["bool", "int", "string", "version"].iter().filter(|name| attribute.has(name)).count() {
        1 => {}
        0 => out.push(Error::invalid(&attribute.path, "", "exactly one value must be specified")),
        _ => out.push(attribute.invalid("", "exactly one value must be specified")),
    }
}

/// Whether a text is a semantic version: three numbers, then perhaps what it precedes, then perhaps how it was built.
fn is_version(text: &str) -> bool {
    let number = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'))
    };
    let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, before) = rest.split_once('-').map_or((rest, None), |(core, before)| (core, Some(before)));
    let numbers: Vec<&str> = core.split('.').collect();
    numbers.len() == 3
        && numbers.into_iter().all(number)
        && before.is_none_or(|before| {
            let fits = |part: &str| word(part) && (number(part) || !part.bytes().all(|byte| byte.is_ascii_digit()));
            before.split('.').all(fits)
        })
        && build.is_none_or(|build| build.split('.').all(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_semantic() {
        for good in ["1.2.3", "0.0.0", "1.0.0-alpha.1", "1.0.0-0a", "1.0.0+b-1.2", "1.0.0-x+y"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["", "1", "1.2", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3+", "v1.2.3", "1.2.3-a..b", "1.2.3 "] {
            assert!(!is_version(bad), "{bad}");
        }
    }
}
