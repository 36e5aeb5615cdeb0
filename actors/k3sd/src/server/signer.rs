//! Signs certificates and tokens for the controllers, with the authorities and keys of this server.

use std::ops::Range;
use std::time::Duration;

use k3sd_apiserver::ServiceAccountKeys;
use k3sd_client::controller::setup::{
    CertificateAuthority, CertificateSigner, RequestedCertificate, RequestedNames, TokenSigner,
};
use k3sd_pki::{Authority, Certificate, CertificateRequest, Certificates, PrivateKey, Terms};
use serde_json::Value;

/// See the module's page.
#[derive(Debug)]
pub(super) struct Signer(pub(super) Certificates);

fn parse(request: &[u8]) -> Result<CertificateRequest, String> {
    CertificateRequest::from_pem(request).map_err(|error| error.to_string())
}

impl CertificateSigner for Signer {
    fn read(&self, request: &[u8]) -> Result<RequestedCertificate, String> {
        let read = parse(request)?;
        let names = RequestedNames {
            hosts: read.hosts().count(),
            addresses: read.addresses().count(),
            emails: read.emails.len(),
            uris: read.uris.len(),
        };
        Ok(RequestedCertificate { common_name: read.common_name, organizations: read.organizations, names })
    }

    fn ends(&self, certificates: &[u8]) -> Option<Duration> {
        Certificate::from_pem(certificates).ok().map(|certificate| certificate.not_after)
    }

    fn sign(
        &self,
        request: &[u8],
        authority: CertificateAuthority,
        usages: &[String],
        valid: Range<Duration>,
    ) -> Result<String, String> {
        let current = self.0.current().ok_or("the authorities aren't there yet")?;
        let authority = match authority {
            CertificateAuthority::Client => Authority::Client,
            CertificateAuthority::Server => Authority::Server,
        };
        let terms = Terms { usages, not_before: valid.start, not_after: valid.end };
        let signed = current.authority(authority).sign_requested(&parse(request)?, terms);
        signed.map(|certificate| certificate.to_pem()).map_err(|error| error.to_string())
    }
}

impl TokenSigner for Signer {
    fn sign(&self, claims: &Value) -> Result<String, String> {
        let current = self.0.current().ok_or("the keys aren't there yet")?;
        // Such tokens are rare, and keys change: they are read for each.
        let pems: Vec<String> = current.service_keys().iter().take(1).map(PrivateKey::to_pem).collect();
        let keys = ServiceAccountKeys::of_pems(&pems).map_err(|error| error.to_string())?;
        keys.sign(claims).map_err(|error| error.to_string())
    }
}
