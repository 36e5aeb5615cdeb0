//! Requests for certificates: who may have one without being asked, who signs, and what is cleared away.
//!
//! ```text
//! CertificateSigningRequest ─▶ csrapproving: a node's, approved without a person
//!                           ─▶ csrsigning: approved ones, by the signers of Kubernetes itself
//!                           ─▶ csrcleaner: those that are done with, or that nobody wants
//! ```

mod approve;
mod clean;
mod rules;
mod sign;

use std::sync::Arc;

use k3sd_client::controller::setup::{CertificateSigner, Setup};
use k3sd_client::controller::{Loop, Turn};
use k3sd_client::informer::Informer;
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use self::approve::Approver;
use self::clean::Cleaner;
use self::sign::Signer;

/// Who the three controllers act as.
const ACCOUNT: &str = "certificate-controller";
/// Types of conditions.
const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";

type Requests = Informer<CertificateSigningRequest>;

/// The three loops. Without anybody who reads requests there is nothing to decide, and only clearing away goes on.
pub(crate) fn requests(setup: &mut Setup<'_>) -> Vec<ChildSpec> {
    let requests: Requests = setup.informers.informer();
    let client = setup.connect(ACCOUNT).client();
    let recorder = setup.recorder.component(ACCOUNT);
    let leading = setup.leading;
    let signer: Option<Arc<dyn CertificateSigner>> = setup.config.signer.clone();
    let cleaner = Cleaner { client: client.clone(), requests: requests.clone(), signer: signer.clone() };
    let mut children = vec![watching(Loop::new(cleaner, leading.clone()), &requests).child("csrcleaner")];
    if let Some(signer) = signer {
        let approver = Approver { client: client.clone(), requests: requests.clone(), signer: signer.clone() };
        let approver = watching(Loop::new(approver, leading.clone()), &requests);
        children.push(approver.quarantine(recorder.clone(), reference).child("csrapproving"));
        let longest = setup.config.certificate_duration.unwrap_or(rules::DURATION_MAX);
        let signing = Signer { client, requests: requests.clone(), signer, longest };
        let signing = watching(Loop::new(signing, leading.clone()), &requests);
        children.push(signing.quarantine(recorder, reference).child("csrsigning"));
    }
    children
}

/// The keys are names of requests.
fn watching<C: k3sd_client::controller::Controller<Key = String>>(looper: Loop<C>, requests: &Requests) -> Loop<C> {
    looper.watch(requests, |_, new, keys| keys.extend(new.and_then(|new| new.metadata.name.clone())))
}

#[expect(clippy::ptr_arg, reason = "keys are strings, and a loop hands out references to keys")]
fn reference(name: &String) -> Option<ObjectReference> {
    Some(ObjectReference {
        api_version: Some("certificates.k8s.io/v1".to_owned()),
        kind: Some("CertificateSigningRequest".to_owned()),
        name: Some(name.clone()),
        ..ObjectReference::default()
    })
}

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

fn has(request: &CertificateSigningRequest, condition: &str) -> bool {
    conditions(request).iter().any(|found| found.type_ == condition)
}

/// The certificate that was issued.
fn issued(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    Some(certificate.0.as_slice()).filter(|bytes| !bytes.is_empty())
}

/// The request with one condition more.
fn with_condition(
    request: &CertificateSigningRequest,
    condition: &str,
    reason: &str,
    message: &str,
    turn: &Turn,
) -> CertificateSigningRequest {
    let mut request = request.clone();
    let now = Some(Time(turn.now()));
    let condition = CertificateSigningRequestCondition {
        type_: condition.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: now.clone(),
        last_transition_time: now,
    };
    let status = request.status.get_or_insert_with(CertificateSigningRequestStatus::default);
    status.conditions.get_or_insert_default().push(condition);
    request
}
