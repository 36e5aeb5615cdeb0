//! Classes of storage.

use k3sd_objects::names;
use k3sd_objects::status::field::Error;

use super::Context;
use super::read::{At, Errors, same};

/// Parameters that a class can have.
const PARAMETERS_MAX: usize = 512;

/// All parameters of a class together, keys and values.
const PARAMETERS_BYTES_MAX: usize = 256 << 10;

/// A StorageClass.
pub(super) fn check_class(object: &At<'_>, _: &Context, out: &mut Errors) {
    object.name("provisioner", |name| names::qualified_name(&name.to_lowercase()), out);
    check_parameters(object, out);
    object.optional_of("reclaimPolicy", &["Delete", "Retain"], out);
    object.required_of("volumeBindingMode", &["Immediate", "WaitForFirstConsumer"], out);
    for term in object.items("allowedTopologies") {
        for expression in term.items("matchLabelExpressions") {
            if expression.count("values") == 0 {
                out.push(expression.required("values", ""));
            }
            out.extend(names::check_label_key(expression.text("key"), &expression.place("key")));
        }
    }
}

/// The parameters of a class.
pub(super) fn check_parameters(object: &At<'_>, out: &mut Errors) {
    let count = object.count("parameters");
    let path = object.place("parameters");
    if count > PARAMETERS_MAX {
        // Upstream counts these in bytes by its words.
        out.push(Error::too_long(&path, PARAMETERS_MAX));
        return;
    }
    let mut bytes = 0;
    for (key, value) in object.entries("parameters") {
        if key.is_empty() {
            out.push(Error::invalid(&path, key, "field can not be empty."));
        }
        bytes += key.len() + value.text("").len();
    }
    if bytes > PARAMETERS_BYTES_MAX {
        out.push(Error::too_long(&path, PARAMETERS_BYTES_MAX));
    }
}

/// A StorageClass that takes the place of another: volumes were made by its terms.
pub(super) fn update_class(new: &At<'_>, old: &At<'_>, _: &Context, out: &mut Errors) {
    for (name, detail) in [
        ("parameters", "updates to parameters are forbidden."),
        ("provisioner", "updates to provisioner are forbidden."),
        ("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
    ] {
        if !same(new.get(name), old.get(name)) {
            out.push(new.forbidden(name, detail));
        }
    }
    new.immutable(old, "volumeBindingMode", out);
}
