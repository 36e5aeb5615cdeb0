//! The `csrapproving` controller: what a node may have without a person, it gets at once.

use std::sync::Arc;

use k3sd_client::controller::setup::CertificateSigner;
use k3sd_client::controller::{Controller, Failure, Turn};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use kube::api::PostParams;
use kube::{Api, Client};

use super::rules::{Recognized, recognized};
use super::{APPROVED, DENIED, Requests, has, issued, with_condition};

pub(super) struct Approver {
    pub(super) client: Client,
    pub(super) requests: Requests,
    pub(super) signer: Arc<dyn CertificateSigner>,
}

/// Asks whether whoever wants the certificate may have it.
fn review(spec: &CertificateSigningRequestSpec, recognized: Recognized) -> SubjectAccessReview {
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".to_owned()),
                resource: Some("certificatesigningrequests".to_owned()),
                verb: Some("create".to_owned()),
                subresource: Some(recognized.subresource.to_owned()),
                version: Some("*".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

impl Controller for Approver {
    type Key = String;

    async fn reconcile(&self, key: &String, turn: &mut Turn) -> Result<(), Failure> {
        let shown = self.requests.snapshot();
        let Some(request) = shown.as_ref().and_then(|requests| requests.get("", key)) else { return Ok(()) };
        if issued(request).is_some() || has(request, APPROVED) || has(request, DENIED) {
            return Ok(());
        }
        // What can't be read is nobody's here; whoever looks at it by hand sees why.
        let Ok(read) = self.signer.read(&request.spec.request.0) else { return Ok(()) };
        let ways = recognized(&request.spec, &read);
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        for way in &ways {
            let answer = reviews.create(&PostParams::default(), &review(&request.spec, *way)).await?;
            if answer.status.is_some_and(|status| status.allowed) {
                let approved = with_condition(request, APPROVED, "AutoApproved", way.message, turn);
                let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
                let params = PostParams::default();
                let written = api.replace_subresource("approval", key, &params, &approved).await?;
                turn.wrote(&self.requests, &written);
                return Ok(());
            }
        }
        if ways.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = ways.iter().map(|way| way.subresource).collect();
        Err(Failure::other(format!(
            "recognized csr {key:?} as [{}] but subject access review was not approved",
            names.join(" ")
        )))
    }
}
