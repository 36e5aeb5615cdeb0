//! The way to a server that runs somewhere else, from a kubeconfig as K3s writes it: with certificates inside, or in
//! files beside it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Uri;
use k3sd_client::api::{Connect, ServerAddress, link};
use k3sd_objects::decode;
use k3sd_runtime::ChildSpec;
use serde_json::Value;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// What is wrong with a kubeconfig.
#[derive(Debug)]
pub struct KubeconfigError(String);

impl fmt::Display for KubeconfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KubeconfigError {}

fn wrong(what: impl fmt::Display) -> KubeconfigError {
    KubeconfigError(what.to_string())
}

/// The task that keeps the connection of the current context, to be a child of whoever needs it, and the way over it.
///
/// # Errors
/// The file can't be read, or says too little: a server, its authority, and a client's certificate and key.
pub fn connect(name: &str, file: &Path) -> Result<(ChildSpec, Connect), KubeconfigError> {
    let text = std::fs::read(file).map_err(|error| wrong(format!("{}: {error}", file.display())))?;
    let config = decode::yaml(&text, None).map_err(wrong)?.value;
    let current = named(&config, "contexts", "context", &config["current-context"])?;
    let cluster = named(&config, "clusters", "cluster", &current["cluster"])?;
    let user = named(&config, "users", "user", &current["user"])?;
    let folder = file.parent().unwrap_or(Path::new("."));

    let mut roots = RootCertStore::empty();
    for authority in certificates(&material(cluster, "certificate-authority", folder)?)? {
        roots.add(authority).map_err(wrong)?;
    }
    let chain = certificates(&material(user, "client-certificate", folder)?)?;
    let key = PrivateKeyDer::from_pem_slice(&material(user, "client-key", folder)?).map_err(wrong)?;
    let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let tls = tls.with_safe_default_protocol_versions().map_err(wrong)?;
    let tls = tls.with_root_certificates(roots).with_client_auth_cert(chain, key).map_err(wrong)?;

    let server: Uri = cluster["server"].as_str().unwrap_or_default().parse().map_err(wrong)?;
    let host = server.host().ok_or_else(|| wrong("the server has no host"))?.trim_matches(['[', ']']).to_owned();
    let address = ServerAddress { host, port: server.port_u16().unwrap_or(443) };
    let (child, remote) = link(name, address, tls).map_err(wrong)?;
    Ok((child, Connect::over(remote)))
}

/// The entry of a list that has this name.
fn named<'a>(config: &'a Value, list: &str, kind: &str, name: &Value) -> Result<&'a Value, KubeconfigError> {
    let mut entries = config[list].as_array().into_iter().flatten();
    let found = entries.find(|entry| entry["name"] == *name && !name.is_null());
    found.map(|entry| &entry[kind]).ok_or_else(|| wrong(format!("no entry of {list} is named {name}")))
}

/// A certificate or a key: inside, or in a file, whose path counts from the kubeconfig's folder.
fn material(entry: &Value, name: &str, folder: &Path) -> Result<Vec<u8>, KubeconfigError> {
    if let Some(data) = entry[format!("{name}-data")].as_str() {
        return BASE64_STANDARD.decode(data).map_err(|error| wrong(format!("{name}-data: {error}")));
    }
    let path = entry[name].as_str().ok_or_else(|| wrong(format!("there is no {name}")))?;
    let path: PathBuf = folder.join(path);
    std::fs::read(&path).map_err(|error| wrong(format!("{}: {error}", path.display())))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, KubeconfigError> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(wrong)
}
