//! Requests for certificates: `CertificateApproval`, `CertificateSigning`, `CertificateSubjectRestriction`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k3sd_apiserver_access::{Attributes as Asked, RequestInfo, SYSTEM_MASTERS};
use k3sd_objects::status::Status;
use k3sd_objects::status::go::quote;
use serde_json::Value;
use x509_cert::der::{Decode as _, Tagged as _};
use x509_cert::request::CertReq;

use crate::Rights;
use crate::attributes::{Attributes, Operation};
use crate::read::{field, same, text};

const GROUP: &str = "certificates.k8s.io";
const PLURAL: &str = "certificatesigningrequests";

/// Signs certificates that the API server knows its clients by.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

const COMMON_NAME: &str = "2.5.4.3";
const ORGANIZATION: &str = "2.5.4.10";

/// Whom a certificate is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) common_name: String,
    pub(crate) organizations: Vec<String>,
}

/// Approving takes the right to approve for the signer, who may be another one after the change.
pub(crate) fn check_approval(a: &Attributes<'_>, request: &Value, rights: &Rights) -> Result<(), Status> {
    if a.operation != Operation::Update || a.subresource != "approval" || !a.is(GROUP, PLURAL) {
        return Ok(());
    }
    let signer = text(field(request, "spec"), "signerName");
    if may(a, "approve", signer, rights) {
        return Ok(());
    }
    Err(a.forbidden(request, format!("user not permitted to approve requests with signerName {}", quote(signer))))
}

/// Handing out a certificate takes the right to sign for the signer.
pub(crate) fn check_signing(a: &Attributes<'_>, request: &Value, rights: &Rights) -> Result<(), Status> {
    if a.operation != Operation::Update || a.subresource != "status" || !a.is(GROUP, PLURAL) {
        return Ok(());
    }
    let (old, new) = (field(a.before(), "status"), field(request, "status"));
    let unchanged = |name: &str| same(field(old, name), field(new, name));
    if unchanged("certificate") && unchanged("conditions") {
        return Ok(());
    }
    let signer = text(field(a.before(), "spec"), "signerName");
    if may(a, "sign", signer, rights) {
        return Ok(());
    }
    Err(a.forbidden(request, format!("user not permitted to sign requests with signerName {}", quote(signer))))
}

/// Nobody gets a certificate for the group that may do everything.
pub(crate) fn check_subject(a: &Attributes<'_>, request: &Value) -> Result<(), Status> {
    let spec = field(request, "spec");
    if a.operation != Operation::Create
        || !a.subresource.is_empty()
        || !a.is(GROUP, PLURAL)
        || text(spec, "signerName") != CLIENT_SIGNER
    {
        return Ok(());
    }
    let subject =
        subject(text(spec, "request")).map_err(|why| a.forbidden(request, format!("failed to parse CSR: {why}")))?;
    if subject.organizations.iter().any(|group| group == SYSTEM_MASTERS) {
        let why = format!("use of {CLIENT_SIGNER} signer with {SYSTEM_MASTERS} group is not allowed");
        return Err(a.forbidden(request, why));
    }
    Ok(())
}

/// Whether the user has a right on this signer, or on all of the signer's domain.
fn may(a: &Attributes<'_>, verb: &str, signer: &str, rights: &Rights) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    [signer.to_owned(), format!("{domain}/*")].into_iter().any(|name| {
        let request = RequestInfo {
            is_resource: true,
            verb: verb.to_owned(),
            group: GROUP.to_owned(),
            version: "*".to_owned(),
            resource: "signers".to_owned(),
            name,
            ..RequestInfo::default()
        };
        rights(Asked { user: a.user, request: &request })
    })
}

/// Reads the subject of a request, which is PEM in base64.
///
/// # Errors
///
/// Fails for what is no request.
pub(crate) fn subject(request: &str) -> Result<Subject, String> {
    const NOT_A_BLOCK: &str = "PEM block type must be CERTIFICATE REQUEST";
    let der = pem(request).ok_or(NOT_A_BLOCK)?;
    let parsed = CertReq::from_der(&der).map_err(|error| error.to_string())?;
    let mut subject = Subject::default();
    for attribute in parsed.info.subject.iter() {
        let read = || decoded(attribute.value.tag().number().value(), attribute.value.value());
        match attribute.oid.to_string().as_str() {
            COMMON_NAME => subject.common_name = read(),
            ORGANIZATION => subject.organizations.push(read()),
            _ => {}
        }
    }
    Ok(subject)
}

/// Text of an attribute. One kind of it, of old, has two bytes to a letter.
fn decoded(tag: u32, bytes: &[u8]) -> String {
    const BMP_STRING: u32 = 30;
    if tag != BMP_STRING {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let units: Vec<u16> =
        bytes.chunks(2).map(|pair| pair.iter().fold(0, |unit, byte| unit << 8 | u16::from(*byte))).collect();
    String::from_utf16_lossy(&units)
}

/// What stands between the lines that say what it is.
fn pem(request: &str) -> Option<Vec<u8>> {
    let text = String::from_utf8(STANDARD.decode(request).ok()?).ok()?;
    let (_, body) = text.split_once("-----BEGIN CERTIFICATE REQUEST-----")?;
    let (body, _) = body.split_once("-----END CERTIFICATE REQUEST-----")?;
    STANDARD.decode(body.split_whitespace().collect::<String>()).ok()
}
