//! A way to a server: directly or through a proxy, in the clear or encrypted.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::config::fetch::FetchError;
use crate::config::fetch::url::Url;

/// Longest answer of a proxy to the wish for a connection.
const PROXY_ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Both ways at once.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The authorities that may vouch for a server. Read once, when the first server asks to be believed.
pub(super) struct Trust<'a> {
    variables: &'a BTreeMap<String, String>,
    connector: Option<TlsConnector>,
}

impl<'a> Trust<'a> {
    pub(super) fn new(variables: &'a BTreeMap<String, String>) -> Self {
        Self { variables, connector: None }
    }

    /// Encrypts a stream, and makes sure who is at its other end.
    pub(super) async fn encrypt(&mut self, url: &Url, stream: Box<dyn Stream>) -> Result<Box<dyn Stream>, FetchError> {
        let name = ServerName::try_from(url.host.clone());
        let name = name.map_err(|_| FetchError::Url("its host is neither a name nor an address"))?;
        let connector = match &self.connector {
            Some(connector) => connector.clone(),
            None => self.connector.insert(self.connector()?).clone(),
        };
        let failed = |source| FetchError::Tls { host: url.host.clone(), source };
        Ok(Box::new(connector.connect(name, stream).await.map_err(failed)?))
    }

    fn connector(&self) -> Result<TlsConnector, FetchError> {
        let set = |name: &str| self.variables.get(name).filter(|path| !path.is_empty()).map(Path::new);
        let found = match (set("SSL_CERT_FILE"), set("SSL_CERT_DIR")) {
            (None, None) => rustls_native_certs::load_native_certs(),
            (file, directory) => rustls_native_certs::load_certs_from_paths(file, directory),
        };
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(found.certs);
        if usable == 0 {
            return Err(FetchError::NoAuthorities);
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("the provider has ciphers of both versions");
        Ok(TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
    }
}

/// Opens the way to a server. What comes back is ready for the request.
pub(super) async fn connect(
    url: &Url,
    proxy: Option<&Url>,
    trust: &mut Trust<'_>,
) -> Result<Box<dyn Stream>, FetchError> {
    let first = proxy.unwrap_or(url);
    let failed = |source| FetchError::Connect { address: first.authority(), source };
    let stream = TcpStream::connect((first.host.as_str(), first.port)).await.map_err(failed)?;
    let mut stream: Box<dyn Stream> = Box::new(stream);
    if let Some(proxy) = proxy {
        if proxy.tls {
            stream = trust.encrypt(proxy, stream).await?;
        }
        if url.tls {
            tunnel(&mut stream, url, proxy).await?;
        }
    }
    if url.tls { trust.encrypt(url, stream).await } else { Ok(stream) }
}

/// Has the proxy put us through.
async fn tunnel(stream: &mut Box<dyn Stream>, url: &Url, proxy: &Url) -> Result<(), FetchError> {
    let failed = |source| FetchError::Connect { address: proxy.authority(), source };
    let to = url.authority();
    let authorization = proxy.authorization();
    let authorization = authorization.as_ref().and_then(|value| value.to_str().ok());
    let authorization = authorization.map(|value| format!("Proxy-Authorization: {value}\r\n")).unwrap_or_default();
    let wish = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{authorization}\r\n");
    stream.write_all(wish.as_bytes()).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the empty line belongs to the server already.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == PROXY_ANSWER_BYTES_MAX {
            return Err(failed(io::Error::other("its answer is too long")));
        }
        answer.push(stream.read_u8().await.map_err(failed)?);
    }
    match status(&answer) {
        Some(200..=299) => Ok(()),
        Some(code) => Err(FetchError::ProxyRefused { proxy: proxy.authority(), code }),
        None => Err(failed(io::Error::other("it does not speak HTTP"))),
    }
}

/// The number in the first line of an answer.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    let mut words = line.split(|byte| *byte == b' ');
    words.next().filter(|version| version.starts_with(b"HTTP/1."))?;
    std::str::from_utf8(words.next()?).ok()?.parse().ok()
}
