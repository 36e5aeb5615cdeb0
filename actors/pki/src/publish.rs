//! Hands out certificates to those in this process, and takes each renewal to them: an immutable snapshot, in which key
//! and certificate always belong together, replaced as a whole. Connections that are open keep what they began with;
//! the next handshake sees the new one. A TLS session that is resumed shows what was shown when it began, so whoever has
//! to see a renewal at once offers no resumption (`send_tls13_tickets` 0, `NoServerSessionStorage`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsError, RootCertStore, SignatureScheme,
};

use crate::error::MaterialError;
use crate::key::PrivateKey;
use crate::plan::fits;
use crate::table::{Authority, Leaf};
use crate::x509::{
    Certificate, CertificateRequest, Request, San, Terms, Usage, issue, issue_requested, pem, self_signed,
};

/// A certificate with those above it, and the key that belongs to it.
#[derive(Clone, Debug)]
pub struct KeyPair {
    certificates: Arc<[Certificate]>,
    key: PrivateKey,
    certified: Arc<CertifiedKey>,
}

impl KeyPair {
    /// Puts the two together.
    ///
    /// # Errors
    /// [`MaterialError::Mismatch`], or there is no certificate.
    pub(crate) fn new(certificates: Vec<Certificate>, key: PrivateKey) -> Result<Self, MaterialError> {
        if !fits(&certificates, &key) {
            return Err(MaterialError::Mismatch);
        }
        let chain = certificates.iter().map(|certificate| certificate.der().clone()).collect();
        let certified = Arc::new(CertifiedKey::new(chain, key.signer()));
        Ok(Self { certificates: certificates.into(), key, certified })
    }

    /// The certificate that the key belongs to.
    pub fn certificate(&self) -> &Certificate {
        &self.certificates[0]
    }

    /// That one, and all that follow it in the file.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// The key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// As rustls presents it.
    pub fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

/// An authority: it signs, and is trusted.
#[derive(Clone, Debug)]
pub struct AuthorityPair {
    pair: KeyPair,
    clients: Arc<dyn ClientCertVerifier>,
    servers: Arc<WebPkiServerVerifier>,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

impl AuthorityPair {
    pub(crate) fn new(pair: KeyPair) -> Result<Self, MaterialError> {
        let mut roots = RootCertStore::empty();
        let unusable = |error: String| MaterialError::Certificate(error);
        for certificate in pair.certificates() {
            roots.add(certificate.der().clone()).map_err(|error| unusable(error.to_string()))?;
        }
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider()).build();
        let servers = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
        Ok(Self {
            pair,
            clients: clients.map_err(|error| unusable(error.to_string()))?,
            servers: servers.map_err(|error| unusable(error.to_string()))?,
        })
    }

    /// A new one that is in no file: for a cluster that is played in one process. Valid for ten years from `now`, the
    /// time since 1970.
    ///
    /// # Errors
    /// The system has no randomness, or `now` is beyond what a certificate can say.
    pub fn generate(common_name: &str, now: Duration) -> Result<Self, MaterialError> {
        let key = PrivateKey::generate_ec()?;
        Self::new(KeyPair::new(vec![self_signed(common_name, &key, now)?], key)?)
    }

    /// The certificate that signs.
    pub fn certificate(&self) -> &Certificate {
        self.pair.certificate()
    }

    /// All of its bundle.
    pub fn certificates(&self) -> &[Certificate] {
        self.pair.certificates()
    }

    /// The bundle as a file holds it.
    pub fn bundle_pem(&self) -> String {
        pem::bundle(self.certificates())
    }

    pub(crate) fn key(&self) -> &PrivateKey {
        self.pair.key()
    }

    /// Signs a leaf for a node or another component, of which only the public key is known. Valid for a year from
    /// `now`, the time since 1970.
    ///
    /// # Errors
    /// The key of a custom authority is of a kind that can't sign, or `public_key_info` is no public key.
    pub fn sign(
        &self,
        subject: (&str, &[&str]),
        sans: &[San],
        usage: Usage,
        public_key_info: &[u8],
        now: Duration,
    ) -> Result<Certificate, MaterialError> {
        let request = Request { common_name: subject.0, organizations: subject.1, sans, usage };
        issue(&request, public_key_info, (self.certificate(), self.key()), now)
    }
}

impl AuthorityPair {
    /// Signs what somebody requested, for whoever has decided that the request is right.
    ///
    /// # Errors
    /// The key of a custom authority is of a kind that can't sign, or a usage is unknown.
    pub fn sign_requested(&self, request: &CertificateRequest, terms: Terms<'_>) -> Result<Certificate, MaterialError> {
        issue_requested(request, terms, (self.certificate(), self.key()))
    }
}

/// All certificates and keys at one time. Never changes.
#[derive(Debug)]
pub struct Snapshot {
    authorities: BTreeMap<Authority, AuthorityPair>,
    leaves: BTreeMap<Leaf, KeyPair>,
    service_keys: Vec<PrivateKey>,
}

impl Snapshot {
    pub(crate) fn new(
        authorities: BTreeMap<Authority, AuthorityPair>,
        leaves: BTreeMap<Leaf, KeyPair>,
        service_keys: Vec<PrivateKey>,
    ) -> Self {
        Self { authorities, leaves, service_keys }
    }

    /// An authority.
    pub fn authority(&self, name: Authority) -> &AuthorityPair {
        self.authorities.get(&name).expect("a snapshot is made with all authorities")
    }

    /// A leaf; `None` for those of etcd on a server that has none.
    pub fn leaf(&self, name: Leaf) -> Option<&KeyPair> {
        self.leaves.get(&name)
    }

    /// The keys of service accounts: the first signs, all verify.
    pub fn service_keys(&self) -> &[PrivateKey] {
        &self.service_keys
    }

    /// When each leaf ends, since 1970.
    pub(crate) fn ends(&self) -> impl Iterator<Item = Duration> + '_ {
        self.leaves.values().map(|pair| pair.certificate().not_after)
    }
}

/// Where snapshots are put by their owner. Outlives it: certificates stay good when nobody renews them for a while.
pub(crate) type Place = Arc<watch::Sender<Option<Arc<Snapshot>>>>;

/// The way to the certificates. Cheap to clone; never waits for their owner once there is a snapshot.
#[derive(Clone)]
pub struct Certificates(watch::Receiver<Option<Arc<Snapshot>>>);

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates")
    }
}

impl Certificates {
    /// A place, and the way to what will lie there.
    pub(crate) fn place() -> (Place, Self) {
        let (place, receiver) = watch::channel(None);
        (Arc::new(place), Self(receiver))
    }

    /// What is valid now; `None` before the first start is done.
    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.0.borrow().clone()
    }

    /// Waits for the first snapshot. `None` when there will be none, because the tree is gone.
    pub async fn ready(&mut self) -> Option<Arc<Snapshot>> {
        self.0.wait_for(Option::is_some).await.ok().and_then(|found| found.clone())
    }

    /// Waits until there is another than the last that was waited for. `None` when there will be none.
    pub async fn changed(&mut self) -> Option<Arc<Snapshot>> {
        self.0.changed().await.ok()?;
        self.0.borrow_and_update().clone()
    }

    fn certified(&self, leaf: Leaf) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().as_ref()?.leaf(leaf).map(KeyPair::certified)
    }

    /// Presents a leaf to clients, always the current one.
    pub fn server(&self, leaf: Leaf) -> Arc<dyn ResolvesServerCert> {
        Arc::new(LivePair { certificates: self.clone(), leaf })
    }

    /// Presents a leaf to servers, always the current one.
    pub fn client(&self, leaf: Leaf) -> Arc<dyn ResolvesClientCert> {
        Arc::new(LivePair { certificates: self.clone(), leaf })
    }

    /// Accepts clients that the current authority signed. Clients without a certificate are let through, unless
    /// `mandatory`: who they are is found out by other means.
    pub fn client_verifier(&self, authority: Authority, mandatory: bool) -> Arc<dyn ClientCertVerifier> {
        Arc::new(LiveAuthority { certificates: self.clone(), authority, mandatory })
    }

    /// Accepts servers that the current authority signed.
    pub fn server_verifier(&self, authority: Authority) -> Arc<dyn ServerCertVerifier> {
        Arc::new(LiveAuthority { certificates: self.clone(), authority, mandatory: true })
    }
}

#[derive(Debug)]
struct LivePair {
    certificates: Certificates,
    leaf: Leaf,
}

impl ResolvesServerCert for LivePair {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certificates.certified(self.leaf)
    }
}

impl ResolvesClientCert for LivePair {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certificates.certified(self.leaf).filter(|pair| pair.key.choose_scheme(schemes).is_some())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct LiveAuthority {
    certificates: Certificates,
    authority: Authority,
    mandatory: bool,
}

impl LiveAuthority {
    fn current(&self) -> Result<AuthorityPair, TlsError> {
        let snapshot = self.certificates.current();
        let found = snapshot.map(|snapshot| snapshot.authority(self.authority).clone());
        found.ok_or(TlsError::InvalidCertificate(CertificateError::UnknownIssuer))
    }
}

fn schemes() -> Vec<SignatureScheme> {
    default_provider().signature_verification_algorithms.supported_schemes()
}

impl ClientCertVerifier for LiveAuthority {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// No hints: a client has one certificate for us, and the names of authorities may change under our hands.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        self.current()?.clients.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.current()?.clients.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.current()?.clients.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ServerCertVerifier for LiveAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        self.current()?.servers.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.current()?.servers.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.current()?.servers.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_in_no_file_signs_as_others_do() {
        const NOW: Duration = Duration::from_secs(1_893_456_000);
        let authority = AuthorityPair::generate("k3s-ca", NOW).expect("it can be made");
        let key = PrivateKey::generate_ec().expect("it can be made");
        let leaf = authority.sign(("somebody", &[]), &[], Usage::Client, key.public_key_info(), NOW);
        let leaf = leaf.expect("it can be signed");
        assert!(authority.certificate().is_authority && leaf.is_signed_by(authority.certificate()));
        let now = UnixTime::since_unix_epoch(NOW);
        assert!(authority.clients.verify_client_cert(leaf.der(), &[], now).is_ok());
        let other = AuthorityPair::generate("k3s-ca", NOW).expect("it can be made");
        assert!(other.clients.verify_client_cert(leaf.der(), &[], now).is_err());
    }
}
