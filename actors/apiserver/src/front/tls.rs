//! The handshake: what the server shows, and that a client has the key to what it shows.
//!
//! No client is turned away for its certificate here. Whether anybody may be known by it is asked of the authorities
//! afterwards ([`super::certificate`]), so that a client with an odd certificate and a good token is served.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    DigitallySignedStruct, DistinguishedName, Error as RustlsError, ServerConfig, SignatureScheme,
    SupportedCipherSuite, SupportedProtocolVersion,
};

use crate::error::TlsError;

/// A name by which a client reached us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The host name of its hello.
    Host(String),
    /// The address it came to.
    Address(IpAddr),
}

/// Whom a listener tells by what names clients reach it, before it shows its certificate.
#[derive(Clone)]
pub struct Learn(LearnFn);

type LearnFn = Arc<dyn Fn(Vec<Reached>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

impl fmt::Debug for Learn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Learn")
    }
}

impl Learn {
    /// Tells a function, whose future ends when the certificate has the names or will not have them. It must have a limit
    /// of its own.
    pub fn new<F: Future<Output = ()> + Send + 'static>(
        learn: impl Fn(Vec<Reached>) -> F + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move |names| Box::pin(learn(names))))
    }

    pub(crate) async fn tell(&self, names: Vec<Reached>) {
        (self.0)(names).await;
    }
}

/// Which versions and cipher suites are spoken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsLimits {
    /// `VersionTLS12` or `VersionTLS13`; `None` is the first.
    pub version_min: Option<String>,
    /// Names as Go and IANA write them; empty for all that there are. Those of TLS 1.3 can't be chosen, as with Go.
    pub suites: Vec<String>,
}

/// IANA's names of what can be chosen, and rustls' names for the same.
const SUITES: &[(&str, &str)] = &[
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("TLS_AES_128_GCM_SHA256", "TLS13_AES_128_GCM_SHA256"),
    ("TLS_AES_256_GCM_SHA384", "TLS13_AES_256_GCM_SHA384"),
    ("TLS_CHACHA20_POLY1305_SHA256", "TLS13_CHACHA20_POLY1305_SHA256"),
];

/// The newer one first.
static BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

impl TlsLimits {
    fn versions(&self) -> Result<&'static [&'static SupportedProtocolVersion], TlsError> {
        match self.version_min.as_deref() {
            None | Some("" | "VersionTLS12") => Ok(BOTH),
            Some("VersionTLS13") => Ok(&BOTH[..1]),
            Some(other) => Err(TlsError::Version(other.to_owned())),
        }
    }

    fn provider(&self) -> Result<CryptoProvider, TlsError> {
        let mut provider = default_provider();
        if self.suites.is_empty() {
            return Ok(provider);
        }
        let mut wanted = Vec::new();
        for name in &self.suites {
            let found = SUITES.iter().find(|(iana, _)| iana == name);
            wanted.push(found.ok_or_else(|| TlsError::Suite(name.clone()))?.1);
        }
        provider.cipher_suites.retain(|suite| match suite {
            SupportedCipherSuite::Tls13(_) => true,
            SupportedCipherSuite::Tls12(_) => wanted.contains(&format!("{:?}", suite.suite()).as_str()),
        });
        Ok(provider)
    }

    /// What a listener shakes hands with.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn server(&self, certificate: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(self.provider()?);
        let clients = Arc::new(AnyClient(provider.signature_verification_algorithms));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions()?)
            .map_err(TlsError::Setup)?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(certificate);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A session that is resumed shows what was shown when it began; renewed certificates are to be seen at once.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }
}

/// Asks for a certificate and takes any, if its holder has the key.
#[derive(Debug)]
struct AnyClient(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, RustlsError> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suites(names: &[&str]) -> Result<usize, TlsError> {
        let suites = names.iter().map(|name| (*name).to_owned()).collect();
        TlsLimits { suites, ..TlsLimits::default() }.provider().map(|provider| provider.cipher_suites.len())
    }

    #[test]
    fn suites_are_chosen_by_the_names_that_go_has_for_them() {
        let modern = suites(&["TLS_AES_128_GCM_SHA256"]).expect("known");
        assert_eq!(modern, 3, "those of TLS 1.3 are always there");
        let one = suites(&["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"]).expect("known");
        assert_eq!(one, modern + 1);
        assert_eq!(suites(&[]).expect("all"), 9);
        for (name, _) in SUITES.iter().take(8) {
            assert_eq!(suites(&[name]).expect("known"), modern + 1, "{name}");
        }
        assert!(matches!(suites(&["TLS_RSA_WITH_RC4_128_SHA"]), Err(TlsError::Suite(_))));
    }

    #[test]
    fn versions_are_those_of_flags() {
        let versions = |text: &str| TlsLimits { version_min: Some(text.to_owned()), ..TlsLimits::default() };
        assert_eq!(versions("VersionTLS13").versions().expect("known").len(), 1);
        assert_eq!(versions("VersionTLS12").versions().expect("known").len(), 2);
        assert!(matches!(versions("VersionTLS10").versions(), Err(TlsError::Version(_))));
    }
}
