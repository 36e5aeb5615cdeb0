//! Requests for certificates.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;

const KIND: (&str, &str) = ("certificates.k8s.io", "CertificateSigningRequest");

fn request() -> Value {
    let pem = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        STANDARD.encode([0x30, 0x00])
    );
    json!({"metadata": {"name": "x"}, "spec": {"request": STANDARD.encode(pem), "usages": ["client auth"],
        "signerName": "kubernetes.io/kube-apiserver-client"}})
}

pub(super) fn examples() -> Vec<((&'static str, &'static str), Value)> {
    vec![(KIND, request())]
}

#[test]
fn a_request_says_what_for_and_whom_it_asks() {
    check_creates(
        KIND,
        &request(),
        &[
            (
                "/spec/request",
                json!("AAAA"),
                &["spec.request: Invalid value: \"AAAA\": PEM block type must be CERTIFICATE REQUEST"],
            ),
            ("/spec/usages/-", json!("client auth"), &["spec.usages[1]: Duplicate value: \"client auth\""]),
            ("/spec/usages", json!([]), &["spec.usages: Required value"]),
            (
                "/spec/signerName",
                json!("signer"),
                &["spec.signerName: Invalid value: \"signer\": must be a fully qualified domain and path of the form \
                   'example.com/signer-name'"],
            ),
            (
                "/spec/signerName",
                json!("kubernetes.io/legacy-unknown"),
                &["spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not \
                   allowed via this API version"],
            ),
            (
                "/spec/expirationSeconds",
                json!(599),
                &["spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 \
                   minutes)"],
            ),
        ],
    );
}

#[test]
fn decisions_are_made_through_approval_only() {
    let old = request();
    let approved = with(&old, "/status", json!({"conditions": [{"type": "Approved", "status": "True"}]}));
    let through = |through| texts(&subresource(KIND, through, &approved, &old, &Context::default()));
    let refused = ["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""];
    assert_eq!(texts(&update(KIND, &approved, &old, &Context::default())), refused);
    assert_eq!(through(Subresource::Status), refused);
    assert_eq!(through(Subresource::Approval), [""; 0]);
    let both = with(&approved, "/status/conditions/-", json!({"type": "Denied", "status": "True"}));
    assert_eq!(
        texts(&subresource(KIND, Subresource::Approval, &both, &approved, &Context::default())),
        ["status.conditions[1].type: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive"]
    );
}

#[test]
fn a_certificate_is_issued_once_through_status() {
    let old = with(&request(), "/status", json!({}));
    let issued = with(&old, "/status/certificate", json!("QQ=="));
    let other = with(&old, "/status/certificate", json!("Qg=="));
    let status = |new, old| texts(&subresource(KIND, Subresource::Status, new, old, &Context::default()));
    assert_eq!(status(&issued, &old), [""; 0]);
    assert_eq!(
        status(&other, &issued),
        ["status.certificate: Forbidden: updates may not modify existing certificate content"]
    );
    assert_eq!(
        texts(&subresource(KIND, Subresource::Approval, &issued, &old, &Context::default())),
        ["status.certificate: Forbidden: updates may not set certificate content"]
    );
}
