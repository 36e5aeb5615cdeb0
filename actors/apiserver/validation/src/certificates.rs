//! Requests for certificates.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k3sd_objects::names;
use k3sd_objects::status::field::Error;

use super::Context;
use super::read::{At, Errors, same};

/// What a certificate may be used for, in the order of the alphabet as computers have it.
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// Shortest life of a certificate that can be asked for, in seconds.
const SECONDS_MIN: i64 = 600;

/// Longest name of a signer: a subdomain, a slash and a path of labels.
const SIGNER_BYTES_MAX: usize = 571;

/// The signer of old, who can't be asked any more.
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";

/// A CertificateSigningRequest.
pub(super) fn check(object: &At<'_>, _: &Context, out: &mut Errors) {
    check_request(object, out);
    check_conditions(&object.field("status"), out);
}

fn check_request(object: &At<'_>, out: &mut Errors) {
    let spec = object.field("spec");
    if let Err(fault) = block(spec.text("request"), "CERTIFICATE REQUEST") {
        out.push(Error::invalid(&spec.place("request"), spec.get("request").clone(), fault));
    }
    if spec.count("usages") == 0 {
        out.push(spec.required("usages", ""));
    }
    let mut seen = BTreeSet::new();
    for usage in spec.items("usages") {
        usage.one_of("", USAGES, out);
        if !seen.insert(usage.text("")) {
            out.push(usage.duplicate(""));
        }
    }
    if spec.text("signerName") == LEGACY_SIGNER {
        out.push(spec.invalid("signerName", "the legacy signerName is not allowed via this API version"));
    } else {
        check_signer(&spec, out);
    }
    if spec.number("expirationSeconds").is_some_and(|seconds| seconds < SECONDS_MIN) {
        out.push(spec.invalid("expirationSeconds", "may not specify a duration less than 600 seconds (10 minutes)"));
    }
}

/// A signer has a domain, and a path within.
fn check_signer(spec: &At<'_>, out: &mut Errors) {
    let name = "signerName";
    let text = spec.text(name);
    if text.is_empty() {
        out.push(spec.required(name, ""));
        return;
    }
    let Some((domain, path)) = text.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        out.push(spec.invalid(name, "must be a fully qualified domain and path of the form 'example.com/signer-name'"));
        return;
    };
    if text.len() > SIGNER_BYTES_MAX {
        out.push(Error::too_long(&spec.place(name), SIGNER_BYTES_MAX));
    }
    spec.syntax(name, |_| names::dns_subdomain(domain), out);
    if !domain.contains('.') {
        out.push(spec.invalid(name, "should be a domain with at least two segments separated by dots"));
    }
    for label in path.split('.') {
        spec.syntax(name, |_| names::dns_label(label), out);
    }
}

/// Whether this is text of one block of PEM of a kind, itself in base64 as JSON has bytes.
fn block(encoded: &str, kind: &str) -> Result<(), &'static str> {
    const NOT_A_BLOCK: &str = "PEM block type must be CERTIFICATE REQUEST";
    let bytes = STANDARD.decode(encoded).map_err(|_| NOT_A_BLOCK)?;
    let text = String::from_utf8(bytes).map_err(|_| NOT_A_BLOCK)?;
    let (begin, end) = (format!("-----BEGIN {kind}-----"), format!("-----END {kind}-----"));
    let body = text.split_once(&begin).map(|(_, rest)| rest).ok_or(NOT_A_BLOCK)?;
    let (body, _) = body.split_once(&end).ok_or(NOT_A_BLOCK)?;
    let body: String = body.split_whitespace().collect();
    let bytes = STANDARD.decode(body).map_err(|_| NOT_A_BLOCK)?;
    // What stands within is a sequence of DER; whether its signature holds is the signer's question.
    if bytes.first() == Some(&0x30) { Ok(()) } else { Err("asn1: structure error: tags don't match") }
}

fn check_conditions(status: &At<'_>, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    let mut decided = None;
    for condition in status.items("conditions") {
        let kind = condition.text("type");
        if kind.is_empty() {
            out.push(condition.required("type", ""));
        }
        match (kind, condition.text("status")) {
            (_, "") => out.push(condition.required("status", "")),
            ("Approved" | "Denied" | "Failed", status) if status != "True" => {
                out.push(condition.unsupported("status", &["True"]));
            }
            _ => condition.one_of("status", &["False", "True", "Unknown"], out),
        }
        if matches!(kind, "Approved" | "Denied") {
            if decided.is_some_and(|other| other != kind) {
                out.push(condition.invalid("type", "Approved and Denied conditions are mutually exclusive"));
            }
            decided = Some(kind);
        }
        if !kind.is_empty() && !seen.insert(kind) {
            out.push(condition.duplicate("type"));
        }
    }
}

/// A request that takes the place of another: neither decisions nor the certificate change this way, nor does what was
/// asked for.
pub(super) fn update(new: &At<'_>, old: &At<'_>, _: &Context, out: &mut Errors) {
    new.immutable(old, "spec", out);
    check_decision(new, old, out);
    check_issued(new, old, out);
}

/// A decision over a request, through `approval`.
pub(super) fn update_approval(new: &At<'_>, old: &At<'_>, _: &Context, out: &mut Errors) {
    check_conditions(&new.field("status"), out);
    check_issued(new, old, out);
}

/// What became of a request, through `status`.
pub(super) fn update_status(new: &At<'_>, old: &At<'_>, _: &Context, out: &mut Errors) {
    check_decision(new, old, out);
    check_conditions(&new.field("status"), out);
    if old.field("status").has("certificate") {
        check_issued(new, old, out);
    }
}

/// Decisions stay as they are but through `approval`.
fn check_decision(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    let conditions = new.field("status").field("conditions");
    for kind in ["Approved", "Denied"] {
        let find = |at: &At<'_>| {
            at.field("status")
                .items("conditions")
                .find(|condition| condition.text("type") == kind)
                .map(|found| found.value.clone())
        };
        let detail = match (find(new), find(old)) {
            (None, Some(_)) => format!("updates may not remove a condition of type \"{kind}\""),
            (Some(_), None) => format!("updates may not add a condition of type \"{kind}\""),
            (Some(new), Some(old)) if !same(&new, &old) => {
                format!("updates may not modify a condition of type \"{kind}\"")
            }
            _ => continue,
        };
        out.push(conditions.forbidden("", detail));
    }
}

fn check_issued(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    let (status, before) = (new.field("status"), old.field("status"));
    if !same(status.get("certificate"), before.get("certificate")) {
        let done = if before.has("certificate") {
            "updates may not modify existing certificate content"
        } else {
            "updates may not set certificate content"
        };
        out.push(status.forbidden("certificate", done));
    }
}
