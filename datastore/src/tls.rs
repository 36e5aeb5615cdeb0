//! TLS to servers: what the files of the operator mean, and how much of a server's certificate is believed.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

/// Files for TLS to a database server, beside the endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of those who may sign the server's certificate; without them, the machine's own.
    pub ca: Option<PathBuf>,
    /// The client's certificate. It goes together with the key.
    pub cert: Option<PathBuf>,
    /// The client's key.
    pub key: Option<PathBuf>,
}

/// What has to be right about a server's certificate. That the server has its key is looked at in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Nothing: whoever is on the way can read and change everything.
    Nothing,
    /// Who signed it, not whose it is.
    Authority,
    /// All of it.
    Everything,
}

fn failed(what: &str, path: &Path, error: impl Display) -> io::Error {
    io::Error::other(format!("{what} {} can't be used: {error}", path.display()))
}

fn certificates(what: &str, path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|error| failed(what, path, error))?;
    if read.is_empty() { Err(failed(what, path, "there is no certificate in it")) } else { Ok(read) }
}

impl TlsFiles {
    /// Reads the files. The error names the one that can't be used.
    pub(crate) fn client_config(&self, check: Check) -> io::Result<ClientConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let builder = builder.map_err(io::Error::other)?;
        let believes = match check {
            Check::Nothing => Believes::Anybody,
            Check::Authority => Believes::Signer(self.verifier(&provider)?),
            Check::Everything => Believes::Certificate(self.verifier(&provider)?),
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier { believes, provider }));
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let chain = certificates("certificate", cert)?;
                let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| failed("key", key, error))?;
                builder.with_client_auth_cert(chain, key_der).map_err(|error| failed("certificate", cert, error))
            }
            (None, None) => Ok(builder.with_no_client_auth()),
            _ => Err(io::Error::other("a client certificate and its key have to be given together")),
        }
    }

    /// Trusts the authority that was given, or those of the machine.
    fn verifier(&self, provider: &Arc<CryptoProvider>) -> io::Result<Arc<WebPkiServerVerifier>> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = &self.ca {
            for certificate in certificates("authority", path)? {
                roots.add(certificate).map_err(|error| failed("authority", path, error))?;
            }
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        builder.build().map_err(|error| io::Error::other(format!("no authority can be used: {error}")))
    }
}

#[derive(Debug)]
enum Believes {
    Anybody,
    Signer(Arc<WebPkiServerVerifier>),
    Certificate(Arc<WebPkiServerVerifier>),
}

#[derive(Debug)]
struct Verifier {
    believes: Believes,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let (inner, any_name) = match &self.believes {
            Believes::Anybody => return Ok(ServerCertVerified::assertion()),
            Believes::Signer(inner) => (inner, true),
            Believes::Certificate(inner) => (inner, false),
        };
        match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last, so everything else is right.
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if any_name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
