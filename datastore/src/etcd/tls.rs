//! TLS to etcd's members.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::TlsConnector;

use crate::tls::{Check, TlsFiles};

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

impl EtcdTls {
    /// Reads the files.
    pub(super) fn connector(&self) -> io::Result<TlsConnector> {
        let Self { ca, cert, key, skip_verify } = self.clone();
        let check = if skip_verify { Check::Nothing } else { Check::Everything };
        let mut config = TlsFiles { ca, cert, key }.client_config(check)?;
        config.alpn_protocols = vec![HTTP_2.to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}
