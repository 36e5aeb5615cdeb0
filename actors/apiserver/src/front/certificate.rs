//! Whom the certificate of a client stands for, asked once for each connection.

use std::sync::Arc;
use std::time::Duration;

use k3sd_apiserver_access::User;
use k3sd_apiserver_access::authn::{authenticated, user_of_certificate};
use ring::digest::{SHA256, digest};
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use x509_cert::der::{Decode as _, Tag, Tagged as _};
use x509_cert::name::Name;

const COMMON_NAME: &str = "2.5.4.3";

/// The authorities that may vouch for clients.
#[derive(Clone, Debug)]
pub struct ClientAuthorities {
    /// For users.
    pub users: Arc<dyn ClientCertVerifier>,
    /// For front proxies, which say in headers whom they speak for; `None` if there are none.
    pub front_proxies: Option<Arc<dyn ClientCertVerifier>>,
}

/// What the certificate of a connection's client is good for.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientCertificate {
    /// Whom it names, if the authority for users signed it; else why it is good for nobody.
    pub(crate) user: Option<Result<Arc<User>, String>>,
    /// The common name, if the authority for front proxies signed it.
    pub(crate) front_proxy: Option<String>,
    /// The last second in which it is valid, since 1970.
    pub(crate) not_after: Duration,
}

impl ClientCertificate {
    /// Asks the authorities at `now`, the time since 1970. `chain` begins with the client's own.
    pub(crate) fn new(chain: &[CertificateDer<'_>], authorities: &ClientAuthorities, now: Duration) -> Self {
        let Some((own, above)) = chain.split_first() else { return Self::default() };
        let parsed = match x509_cert::Certificate::from_der(own) {
            Ok(parsed) => parsed,
            Err(error) => return Self { user: Some(Err(error.to_string())), ..Self::default() },
        };
        let subject = parsed.tbs_certificate().subject();
        let not_after = parsed.tbs_certificate().validity().not_after.to_unix_duration();
        let now = UnixTime::since_unix_epoch(now);
        let is_signed_for = |verifier: &Arc<dyn ClientCertVerifier>| verifier.verify_client_cert(own, above, now);
        let user = match is_signed_for(&authorities.users) {
            Ok(_) => user(subject, own),
            Err(error) => Some(Err(error.to_string())),
        };
        let proxies = authorities.front_proxies.as_ref();
        let is_proxy = proxies.is_some_and(|proxies| is_signed_for(proxies).is_ok());
        let name = || attributes(subject).into_iter().rfind(|(kind, _)| kind == COMMON_NAME).map(|(_, name)| name);
        Self { user, front_proxy: is_proxy.then(name).map(Option::unwrap_or_default), not_after }
    }
}

/// `None` for a certificate without a name, by which nobody is known and nobody refused.
fn user(subject: &Name, certificate: &[u8]) -> Option<Result<Arc<User>, String>> {
    let attributes = attributes(subject);
    let attributes: Vec<(&str, &str)> = attributes.iter().map(|(kind, text)| (kind.as_str(), text.as_str())).collect();
    let hash = digest(&SHA256, certificate);
    let hash = hash.as_ref().try_into().expect("SHA-256 has 32 bytes");
    let user = user_of_certificate(&attributes, hash).map_err(|error| error.to_string()).transpose();
    user.map(|user| user.map(|user| Arc::new(authenticated(user))))
}

/// Identifiers and texts of a name, in their order. What is no text is left out: nobody is called so.
fn attributes(name: &Name) -> Vec<(String, String)> {
    let text = |value: &x509_cert::der::Any| match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => {
            std::str::from_utf8(value.value()).ok().map(str::to_owned)
        }
        // Every byte is the character of the same number, as Go takes it.
        Tag::TeletexString => Some(value.value().iter().map(|byte| char::from(*byte)).collect()),
        Tag::BmpString => {
            let units = value.value().chunks(2).map(|pair| u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            String::from_utf16(&units.collect::<Vec<u16>>()).ok()
        }
        _ => None,
    };
    name.iter().filter_map(|attribute| Some((attribute.oid.to_string(), text(&attribute.value)?))).collect()
}
