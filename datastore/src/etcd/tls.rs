//! TLS to etcd's members, and what the files of the operator mean for it.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme};

/// What etcd speaks inside TLS; newer members insist on being told.
const HTTP_2: &[u8] = b"h2";

/// Files for TLS, beside the endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcdTls {
    /// Certificates of those who may sign a member's certificate; without them, the machine's own.
    pub ca: Option<PathBuf>,
    /// The client's certificate. It goes together with the key.
    pub cert: Option<PathBuf>,
    /// The client's key.
    pub key: Option<PathBuf>,
    /// Take any certificate of a member as it is. Whoever is on the way can read and change everything then.
    pub skip_verify: bool,
}

fn failed(what: &str, path: &Path, error: impl Display) -> io::Error {
    io::Error::other(format!("{what} {} can't be used: {error}", path.display()))
}

fn certificates(what: &str, path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|error| failed(what, path, error))?;
    if read.is_empty() { Err(failed(what, path, "there is no certificate in it")) } else { Ok(read) }
}

impl EtcdTls {
    /// Reads the files.
    pub(super) fn connector(&self) -> io::Result<TlsConnector> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let builder = builder.map_err(io::Error::other)?;
        let builder = if self.skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        } else {
            builder.with_webpki_verifier(self.verifier(provider)?)
        };
        let mut config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let chain = certificates("certificate", cert)?;
                let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| failed("key", key, error))?;
                builder.with_client_auth_cert(chain, key_der).map_err(|error| failed("certificate", cert, error))?
            }
            (None, None) => builder.with_no_client_auth(),
            _ => return Err(io::Error::other("a client certificate and its key have to be given together")),
        };
        config.alpn_protocols = vec![HTTP_2.to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// Trusts the authority that was given, or those of the machine.
    fn verifier(&self, provider: Arc<CryptoProvider>) -> io::Result<Arc<WebPkiServerVerifier>> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = &self.ca {
            for certificate in certificates("authority", path)? {
                roots.add(certificate).map_err(|error| failed("authority", path, error))?;
            }
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.build().map_err(|error| io::Error::other(format!("no authority can be used: {error}")))
    }
}

/// Takes everybody for the member. Still checks that whoever it is has the key of the certificate.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
