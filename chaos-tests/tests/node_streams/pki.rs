//! Certificates that `openssl` makes.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;
use tokio_rustls::rustls::crypto::ring::{default_provider, sign::any_supported_type};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

/// One authority for all, the server's certificate (127.0.0.1), and those of clients.
pub(crate) struct Pki(TempDir);

#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

impl Pki {
    pub(crate) fn new() -> Self {
        let pki = Self(TempDir::new().expect("a directory"));
        pki.openssl("ca", "/CN=ca", &[]);
        for (name, subject) in
            [("server", "/CN=server"), ("apiserver", "/O=system:masters/CN=system:apiserver"), ("ann", "/O=dev/CN=ann")]
        {
            let (ca, key) = (pki.path("ca.crt"), pki.path("ca.key"));
            let signed = ["-CA", &ca, "-CAkey", &key, "-addext", "basicConstraints=critical,CA:FALSE"];
            pki.openssl(name, subject, &[&signed[..], &["-addext", "subjectAltName=IP:127.0.0.1"]].concat());
        }
        pki
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn openssl(&self, name: &str, subject: &str, args: &[&str]) {
        let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let mut command = Command::new("openssl");
        command.args(new).args(["-subj", subject, "-keyout", &self.path(&format!("{name}.key"))]);
        let output = command.args(["-out", &self.path(&format!("{name}.crt"))]).args(args).output();
        let output = output.expect("openssl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub(crate) fn chain(&self, name: &str) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_file(Path::new(&self.path(&format!("{name}.crt")))).expect("a certificate")]
    }

    fn key(&self, name: &str) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(Path::new(&self.path(&format!("{name}.key")))).expect("a key")
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.chain("ca").remove(0)).expect("an authority");
        Arc::new(roots)
    }

    /// Clients with a certificate of the authority, and those without one.
    pub(crate) fn clients(&self) -> Arc<dyn ClientCertVerifier> {
        let builder = WebPkiClientVerifier::builder_with_provider(self.roots(), Arc::new(default_provider()));
        builder.allow_unauthenticated().build().expect("an authority")
    }

    pub(crate) fn certificate(&self) -> Arc<dyn ResolvesServerCert> {
        let key = any_supported_type(&self.key("server")).expect("a key");
        Arc::new(Fixed(Arc::new(CertifiedKey::new(self.chain("server"), key))))
    }

    /// A server with a certificate of `authority`, for clients of ours.
    pub(crate) fn server(&self, authority: &Self) -> ServerConfig {
        ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(self.clients())
            .with_cert_resolver(authority.certificate())
    }

    /// Whoever has this certificate, and believes the authority.
    pub(crate) fn client(&self, name: &str) -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(self.roots())
            .with_client_auth_cert(self.chain(name), self.key(name))
            .expect("a pair")
    }
}
