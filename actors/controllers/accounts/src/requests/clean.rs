//! The `csrcleaner` controller: requests go when they are done with, or when nobody wants them.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k3sd_client::controller::setup::CertificateSigner;
use k3sd_client::controller::{Controller, Failure, Turn};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client};

use super::{APPROVED, DENIED, FAILED, Requests, conditions, issued};

/// How long a request stays that was decided, and one that wasn't; upstream's.
const DECIDED: Duration = Duration::from_secs(3600);
const PENDING: Duration = Duration::from_secs(24 * 3600);

pub(super) struct Cleaner {
    pub(super) client: Client,
    pub(super) requests: Requests,
    pub(super) signer: Option<Arc<dyn CertificateSigner>>,
}

/// When a request has to go; `None` if it stays. `ends` is when the certificate that was issued ends.
fn due(request: &CertificateSigningRequest, ends: Option<Timestamp>) -> Option<Timestamp> {
    let all = conditions(request);
    if all.is_empty() {
        return request.metadata.creation_timestamp.as_ref().map(|made| made.0 + PENDING);
    }
    let is_issued = issued(request).is_some();
    let decided = all.iter().filter(|condition| match condition.type_.as_str() {
        APPROVED => is_issued,
        DENIED | FAILED => true,
        _ => false,
    });
    let decided = decided.filter_map(|condition| condition.last_update_time.as_ref()).map(|time| time.0 + DECIDED);
    decided.chain(ends.filter(|_| is_issued)).min()
}

impl Controller for Cleaner {
    type Key = String;

    async fn reconcile(&self, key: &String, turn: &mut Turn) -> Result<(), Failure> {
        let shown = self.requests.snapshot();
        let Some(request) = shown.as_ref().and_then(|requests| requests.get("", key)) else { return Ok(()) };
        let ends = self.signer.as_ref().zip(issued(request)).and_then(|(signer, pem)| signer.ends(pem));
        let ends = ends.and_then(|ends| Timestamp::from_second(i64::try_from(ends.as_secs()).ok()?).ok());
        let Some(due) = due(request, ends) else { return Ok(()) };
        if due > turn.now() {
            turn.again_at(due);
            return Ok(());
        }
        let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        let uid = request.metadata.uid.clone();
        let preconditions = Some(Preconditions { uid, resource_version: None });
        match api.delete(key, &DeleteParams { preconditions, ..DeleteParams::default() }).await.map_err(Failure::from) {
            Ok(_) => turn.deleted(&self.requests, request),
            Err(failure) if failure.is_stale() => {}
            Err(failure) => return Err(failure),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_go_when_they_are_done_with() {
        let condition = |kind: &str, time: &str| json!({"type": kind, "status": "True", "lastUpdateTime": time});
        let (ten, eleven) = ("2030-01-01T10:00:00Z", "2030-01-01T11:00:00Z");
        for (conditions, certificate, ends, wanted) in [
            (json!([]), None, None, Some("2030-01-02T09:00:00Z")),
            (json!([condition(APPROVED, ten)]), None, None, None),
            (json!([condition(APPROVED, ten)]), Some("eA=="), None, Some(eleven)),
            (
                json!([condition(APPROVED, ten)]),
                Some("eA=="),
                Some("2030-01-01T10:10:00Z"),
                Some("2030-01-01T10:10:00Z"),
            ),
            (json!([condition(DENIED, ten)]), None, None, Some(eleven)),
            (json!([condition(APPROVED, ten), condition(FAILED, eleven)]), None, None, Some("2030-01-01T12:00:00Z")),
        ] {
            let request = json!({"metadata": {"name": "a", "creationTimestamp": "2030-01-01T09:00:00Z"},
                "spec": {"request": "", "signerName": "a/b"},
                "status": {"conditions": conditions, "certificate": certificate}});
            let request = serde_json::from_value(request).expect("a request");
            let time = |text: Option<&str>| text.map(|text| text.parse::<Timestamp>().expect("a time"));
            assert_eq!(due(&request, time(ends)), time(wanted), "{conditions}");
        }
    }
}
