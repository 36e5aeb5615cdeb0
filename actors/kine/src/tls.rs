//! TLS for those who connect to us. Certificates are read from files, and read again when these have changed: a renewed
//! certificate is used from the next connection on, and nobody has to be restarted.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use thiserror::Error;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

/// Whom we are, for those who connect, and who may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// The certificate, and those between it and its authority.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Certificates of those who may sign a client's; with them, clients without a certificate are refused.
    pub client_ca: Option<PathBuf>,
}

/// Files that can't be used for TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file can't be read, or nothing in it is what it should be.
    #[error("no {what} can be read from {}", path.display())]
    File {
        /// What should be in it.
        what: &'static str,
        /// As configured.
        path: PathBuf,
        /// What the reader said.
        #[source]
        source: pem::Error,
    },
    /// Certificate and key do not fit, or one of them is of an unknown kind.
    #[error("certificate {} and key {} can't be used together", cert.display(), key.display())]
    Pair {
        /// As configured.
        cert: PathBuf,
        /// As configured.
        key: PathBuf,
        /// What rustls said.
        #[source]
        source: rustls::Error,
    },
    /// No authority for clients is left.
    #[error("no authority in {} can be used", path.display())]
    Authority {
        /// As configured.
        path: PathBuf,
        /// What rustls said.
        #[source]
        source: VerifierBuilderError,
    },
}

/// When a file was written, and which one it is: a replaced file differs even within one tick of the clock.
type Stamp = Option<(SystemTime, u64, u64)>;

#[derive(Clone)]
struct Loaded {
    stamps: [Stamp; 3],
    config: Arc<ServerConfig>,
}

struct Inner {
    files: ServerTls,
    /// What is spoken inside, for clients that ask.
    protocol: &'static [u8],
    loaded: watch::Sender<Loaded>,
}

/// The certificates in use. Cloning it shares them.
#[derive(Clone)]
pub struct Certificates(Arc<Inner>);

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificates").field(&self.0.files).finish()
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len(), meta.ino()))
}

fn stamps(files: &ServerTls) -> [Stamp; 3] {
    [stamp(&files.cert), stamp(&files.key), files.client_ca.as_deref().and_then(stamp)]
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fault = |source| TlsError::File { what, path: path.to_owned(), source };
    let found: Vec<_> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(fault)?;
    if found.is_empty() { Err(fault(pem::Error::NoItemsFound)) } else { Ok(found) }
}

fn read(files: &ServerTls, protocol: &'static [u8]) -> Result<Arc<ServerConfig>, TlsError> {
    let ServerTls { cert, key, client_ca } = files;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let pair = |source| TlsError::Pair { cert: cert.clone(), key: key.clone(), source };
    let builder = builder.map_err(pair)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates("certificate", path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            let authority = |source| TlsError::Authority { path: path.clone(), source };
            builder.with_client_cert_verifier(verifier.map_err(authority)?)
        }
    };
    let chain = certificates("certificate", cert)?;
    let key_der = PrivateKeyDer::from_pem_file(key);
    let key_der = key_der.map_err(|source| TlsError::File { what: "key", path: key.clone(), source })?;
    let mut config = builder.with_single_cert(chain, key_der).map_err(pair)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

impl Certificates {
    /// For etcd's clients.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn for_clients(files: ServerTls) -> Result<Self, TlsError> {
        Self::load(files, b"h2")
    }

    /// For those who fetch metrics, who need no certificate of their own.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn for_metrics(files: ServerTls) -> Result<Self, TlsError> {
        Self::load(ServerTls { client_ca: None, ..files }, b"http/1.1")
    }

    fn load(files: ServerTls, protocol: &'static [u8]) -> Result<Self, TlsError> {
        let loaded = Loaded { stamps: stamps(&files), config: read(&files, protocol)? };
        Ok(Self(Arc::new(Inner { files, protocol, loaded: watch::Sender::new(loaded) })))
    }

    /// For one connection: with what the files hold now, or with what they held when they were last whole.
    fn acceptor(&self) -> TlsAcceptor {
        let Inner { files, protocol, loaded } = &*self.0;
        let now = stamps(files);
        let Loaded { stamps, config } = loaded.borrow().clone();
        if stamps == now {
            return TlsAcceptor::from(config);
        }
        // Several connections may come here at once, and read the same.
        let config = match read(files, protocol) {
            Ok(fresh) => {
                tracing::info!(cert = %files.cert.display(), "the changed certificate is used from now on");
                fresh
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the changed certificate can't be used; the one before stays in use"
                );
                config
            }
        };
        loaded.send_replace(Loaded { stamps: now, config: config.clone() });
        TlsAcceptor::from(config)
    }

    /// Shakes hands over a new connection. Has no limit of its own.
    ///
    /// # Errors
    /// The peer wants something else, or goes away.
    pub(crate) async fn accept<S>(&self, stream: S) -> io::Result<tokio_rustls::server::TlsStream<S>>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        self.acceptor().accept(stream).await
    }
}
