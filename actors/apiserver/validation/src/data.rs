//! ConfigMaps and Secrets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k3sd_objects::names;
use k3sd_objects::status::field::{Error, Path};
use serde_json::Value;

use super::Context;
use super::read::{At, Errors, same};

/// All values of a ConfigMap or Secret together.
const BYTES_MAX: usize = 1 << 20;

/// What is said of an object that was declared immutable.
const SEALED: &str = "field is immutable when `immutable` is set";

/// A ConfigMap.
pub(super) fn check_config_map(object: &At<'_>, _context: &Context, out: &mut Errors) {
    let mut bytes = 0;
    for (key, value) in object.entries("data") {
        check_key(key, &value, out);
        if object.field("binaryData").has(key) {
            out.push(value_error(&value, key, "duplicate of key present in binaryData"));
        }
        bytes += value.text("").len();
    }
    for (key, value) in object.entries("binaryData") {
        check_key(key, &value, out);
        if object.field("data").has(key) {
            out.push(value_error(&value, key, "duplicate of key present in data"));
        }
        bytes += decoded_bytes(value.text(""));
    }
    if bytes > BYTES_MAX {
        out.push(Error::too_long(&Path::root(), BYTES_MAX));
    }
}

fn check_key(key: &str, at: &At<'_>, out: &mut Errors) {
    out.extend(names::config_key(key).into_iter().map(|fault| value_error(at, key, fault)));
}

/// An error about an entry that shows its key.
fn value_error(at: &At<'_>, key: &str, detail: impl Into<String>) -> Error {
    Error::invalid(&at.path, key, detail)
}

/// Bytes that well-formed base64 stands for.
pub(super) fn decoded_bytes(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|b| *b == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

/// A ConfigMap that takes the place of another.
pub(super) fn update_config_map(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    check_sealed(new, old, &["data", "binaryData"], out);
    check_config_map(new, context, out);
}

/// Once immutable, always so, and with the data it had.
fn check_sealed(new: &At<'_>, old: &At<'_>, fields: &[&str], out: &mut Errors) {
    if !old.flag("immutable") {
        return;
    }
    if !new.flag("immutable") {
        out.push(new.forbidden("immutable", SEALED));
    }
    for field in fields.iter().filter(|field| !same(new.get(field), old.get(field))) {
        out.push(new.forbidden(field, SEALED));
    }
}

/// A Secret.
pub(super) fn check_secret(object: &At<'_>, _context: &Context, out: &mut Errors) {
    let mut bytes = 0;
    for (key, value) in object.entries("data") {
        check_key(key, &value, out);
        bytes += decoded_bytes(value.text(""));
    }
    if bytes > BYTES_MAX {
        out.push(Error::too_long(&object.place("data"), BYTES_MAX));
    }
    let data = object.field("data");
    match object.text("type") {
        "kubernetes.io/service-account-token" => {
            let annotations = object.field("metadata").field("annotations");
            if annotations.text("kubernetes.io/service-account.name").is_empty() {
                let key = "kubernetes.io/service-account.name";
                out.push(Error::required(&annotations.path.key(key), ""));
            }
        }
        "kubernetes.io/dockercfg" => check_docker(&data, ".dockercfg", out),
        "kubernetes.io/dockerconfigjson" => check_docker(&data, ".dockerconfigjson", out),
        "kubernetes.io/basic-auth" if !data.has("username") && !data.has("password") => {
            require_key(&data, "username", out);
            require_key(&data, "password", out);
        }
        "kubernetes.io/ssh-auth" if data.text("ssh-privatekey").is_empty() => {
            require_key(&data, "ssh-privatekey", out);
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"].into_iter().filter(|key| !data.has(key)) {
                require_key(&data, key, out);
            }
        }
        _ => {}
    }
}

fn require_key(data: &At<'_>, key: &str, out: &mut Errors) {
    out.push(Error::required(&data.path.key(key), ""));
}

/// A file of credentials for registries: there, and JSON. What it holds is never shown.
fn check_docker(data: &At<'_>, key: &str, out: &mut Errors) {
    if !data.has(key) {
        require_key(data, key, out);
        return;
    }
    // What isn't base64 didn't pass the schema.
    let text = STANDARD.decode(data.text(key)).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<Value>(&text) {
        out.push(Error::invalid(&data.path.key(key), "<secret contents redacted>", error.to_string()));
    }
}

/// A Secret that takes the place of another.
pub(super) fn update_secret(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    new.immutable(old, "type", out);
    check_sealed(new, old, &["data"], out);
    check_secret(new, context, out);
}
