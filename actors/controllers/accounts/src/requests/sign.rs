//! The `csrsigning` controller: signs what was approved, for the signers of Kubernetes itself.

use std::sync::Arc;
use std::time::Duration;

use k3sd_client::controller::setup::CertificateSigner;
use k3sd_client::controller::{Controller, Failure, Turn};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::PostParams;
use kube::{Api, Client};

use super::rules::{SignerName, validity};
use super::{APPROVED, DENIED, FAILED, Requests, has, issued, with_condition};

pub(super) struct Signer {
    pub(super) client: Client,
    pub(super) requests: Requests,
    pub(super) signer: Arc<dyn CertificateSigner>,
    /// The longest time for which a certificate is valid.
    pub(super) longest: Duration,
}

impl Signer {
    /// The request with its certificate, or with the reason why it gets none.
    fn decided(
        &self,
        name: SignerName,
        request: &CertificateSigningRequest,
        turn: &Turn,
    ) -> Result<CertificateSigningRequest, Failure> {
        let spec = &request.spec;
        let usages = spec.usages.as_deref().unwrap_or_default();
        let read = self.signer.read(&spec.request.0);
        if let Err(reason) = read.and_then(|read| name.permits(&read, usages)) {
            return Ok(with_condition(request, FAILED, "SignerValidationFailure", &reason, turn));
        }
        let now = Duration::from_secs(u64::try_from(turn.now().as_second()).unwrap_or(0));
        let valid = validity(spec.expiration_seconds, self.longest, now);
        let pem = self.signer.sign(&spec.request.0, name.authority(), usages, valid).map_err(Failure::other)?;
        let mut signed = request.clone();
        signed.status.get_or_insert_default().certificate = Some(ByteString(pem.into_bytes()));
        Ok(signed)
    }
}

impl Controller for Signer {
    type Key = String;

    async fn reconcile(&self, key: &String, turn: &mut Turn) -> Result<(), Failure> {
        let shown = self.requests.snapshot();
        let Some(request) = shown.as_ref().and_then(|requests| requests.get("", key)) else { return Ok(()) };
        let Some(name) = SignerName::of(&request.spec.signer_name) else { return Ok(()) };
        let is_open = has(request, APPROVED) && !has(request, DENIED) && !has(request, FAILED);
        if !is_open || issued(request).is_some() {
            return Ok(());
        }
        let decided = self.decided(name, request, turn)?;
        let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        let written = api.replace_status(key, &PostParams::default(), &decided).await?;
        turn.wrote(&self.requests, &written);
        Ok(())
    }
}
