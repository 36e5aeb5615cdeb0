//! Certificates: what is asked of one that was read, and how one is made.

pub(crate) mod der;
mod issue;
pub(crate) mod pem;
mod request;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ring::signature::{self, UnparsedPublicKey};
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, BasicConstraints, SubjectAltName, SubjectKeyIdentifier};
use x509_cert::name::Name;
use x509_cert::request::CertReq;

pub use self::issue::Usage;
pub(crate) use self::issue::{Request, issue, issue_requested, self_signed};
pub use self::request::{CertificateRequest, Terms};
use crate::error::MaterialError;

const COMMON_NAME: &str = "2.5.4.3";
const ORGANIZATION: &str = "2.5.4.10";

/// A name that a server is reached by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum San {
    /// A host name, possibly with `*` as its first label.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl San {
    /// An address when it looks like one, else a host name.
    pub fn new(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Dns(text.to_owned()), Self::Ip)
    }
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

/// A certificate that was read, with what is asked of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: CertificateDer<'static>,
    /// `CN`, empty when there is none.
    pub common_name: String,
    /// All `O`, in their order.
    pub organizations: Vec<String>,
    /// Subject alternative names: hosts and addresses.
    pub sans: Vec<San>,
    /// First second it is valid, since 1970.
    pub not_before: Duration,
    /// Last second it is valid, since 1970.
    pub not_after: Duration,
    /// Whether it may sign others.
    pub is_authority: bool,
    pub(crate) subject: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) subject_key: Option<Vec<u8>>,
    pub(crate) authority_key: Option<Vec<u8>>,
    pub(crate) public_key_info: Vec<u8>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("common_name", &self.common_name).finish_non_exhaustive()
    }
}

fn attributes(name: &Name, wanted: &str) -> Vec<String> {
    let found = name.iter().filter(|attribute| attribute.oid.to_string() == wanted);
    found.map(|attribute| String::from_utf8_lossy(attribute.value.value()).into_owned()).collect()
}

fn san(name: GeneralName) -> Option<San> {
    match name {
        GeneralName::DnsName(name) => Some(San::Dns(name.to_string())),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(San::Ip)
        }
        _ => None, // Nobody is reached by those.
    }
}

impl Certificate {
    /// Reads one.
    ///
    /// # Errors
    /// [`MaterialError::Certificate`].
    pub fn parse(der: CertificateDer<'static>) -> Result<Self, MaterialError> {
        Self::parse_der(der).map_err(|error| MaterialError::Certificate(error.to_string()))
    }

    fn parse_der(der: CertificateDer<'static>) -> Result<Self, x509_cert::der::Error> {
        let parsed = x509_cert::Certificate::from_der(&der)?;
        let body = parsed.tbs_certificate();
        let names = body.get_extension::<SubjectAltName>()?.map(|(_, names)| names.0).unwrap_or_default();
        let subject_key = body.get_extension::<SubjectKeyIdentifier>()?;
        let authority_key = body.get_extension::<AuthorityKeyIdentifier>()?;
        let constraints = body.get_extension::<BasicConstraints>()?;
        Ok(Self {
            common_name: attributes(body.subject(), COMMON_NAME).into_iter().next_back().unwrap_or_default(),
            organizations: attributes(body.subject(), ORGANIZATION),
            sans: names.into_iter().filter_map(san).collect(),
            not_before: body.validity().not_before.to_unix_duration(),
            not_after: body.validity().not_after.to_unix_duration(),
            is_authority: constraints.is_some_and(|(_, constraints)| constraints.ca),
            subject: body.subject().to_der()?,
            issuer: body.issuer().to_der()?,
            subject_key: subject_key.map(|(_, key)| key.0.as_bytes().to_vec()),
            authority_key: authority_key.and_then(|(_, key)| key.key_identifier).map(|key| key.as_bytes().to_vec()),
            public_key_info: body.subject_public_key_info().to_der()?,
            der,
        })
    }

    /// Reads the first one of a file.
    ///
    /// # Errors
    /// There is none, or it can't be read.
    pub fn from_pem(pem: &[u8]) -> Result<Self, MaterialError> {
        Ok(pem::certificates(pem)?.swap_remove(0))
    }

    /// Its bytes.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// As a section of a file.
    pub fn to_pem(&self) -> String {
        pem::section("CERTIFICATE", &self.der)
    }

    /// Whether it names itself as its issuer, in the way that makes a certificate a root.
    pub fn is_root(&self) -> bool {
        match (&self.authority_key, &self.subject_key) {
            (Some(authority), Some(subject)) => authority == subject,
            (Some(_), None) => false,
            (None, _) => true,
        }
    }

    /// Whether `authority` signed it, by name and by signature.
    pub fn is_signed_by(&self, authority: &Self) -> bool {
        self.issuer == authority.subject && self.verify(authority).is_ok()
    }

    fn verify(&self, authority: &Self) -> Result<(), MaterialError> {
        verify(&self.der, &authority.public_key_info)
    }
}

/// The public key (`SubjectPublicKeyInfo` in DER) for which somebody requests a certificate, with a request of PKCS#10 in
/// DER. Nothing else of the request counts: what the certificate says is decided by who signs it.
///
/// # Errors
/// It is no request, or it was not signed with the key that it is for.
pub fn requested_key(request: &[u8]) -> Result<Vec<u8>, MaterialError> {
    let unusable = |error: x509_cert::der::Error| MaterialError::Certificate(error.to_string());
    let parsed = CertReq::from_der(request).map_err(unusable)?;
    let key = parsed.info.public_key.to_der().map_err(unusable)?;
    verify(request, &key)?;
    Ok(key)
}

/// Checks the signature of a certificate or a request: both are a body, an algorithm and a signature.
fn verify(signed: &[u8], public_key_info: &[u8]) -> Result<(), MaterialError> {
    let (outer, _) = der::first(signed).ok_or(MaterialError::Signature)?;
    let parts = der::elements(outer.content);
    let &[body, algorithm, signature] = parts.as_slice() else { return Err(MaterialError::Signature) };
    let key_parts = der::first(public_key_info).map(|(outer, _)| der::elements(outer.content));
    let Some([key_algorithm, key]) = key_parts.as_deref() else { return Err(MaterialError::Signature) };
    let method = verifier(algorithm.content, key_algorithm.content).ok_or(MaterialError::Signature)?;
    // The first byte of a bit string counts the bits that are unused at its end: none, here.
    let (Some((0, key)), Some((0, signature))) = (key.content.split_first(), signature.content.split_first()) else {
        return Err(MaterialError::Signature);
    };
    UnparsedPublicKey::new(method, key).verify(body.whole, signature).map_err(|_| MaterialError::Signature)
}

/// How to check a signature, from the algorithm that the certificate names and the kind of the authority's key.
fn verifier(algorithm: &[u8], key: &[u8]) -> Option<&'static dyn signature::VerificationAlgorithm> {
    let oid = |bytes: &[u8]| {
        let (element, _) = der::first(bytes)?;
        x509_cert::der::oid::ObjectIdentifier::from_bytes(element.content).ok().map(|oid| oid.to_string())
    };
    let curve = der::elements(key).get(1).and_then(|curve| oid(curve.whole));
    Some(match (oid(algorithm)?.as_str(), curve.as_deref()) {
        ("1.2.840.10045.4.3.2", Some("1.2.840.10045.3.1.7")) => &signature::ECDSA_P256_SHA256_ASN1,
        ("1.2.840.10045.4.3.3", Some("1.2.840.10045.3.1.7")) => &signature::ECDSA_P256_SHA384_ASN1,
        ("1.2.840.10045.4.3.2", Some("1.3.132.0.34")) => &signature::ECDSA_P384_SHA256_ASN1,
        ("1.2.840.10045.4.3.3", Some("1.3.132.0.34")) => &signature::ECDSA_P384_SHA384_ASN1,
        ("1.2.840.113549.1.1.11", _) => &signature::RSA_PKCS1_2048_8192_SHA256,
        ("1.2.840.113549.1.1.12", _) => &signature::RSA_PKCS1_2048_8192_SHA384,
        ("1.2.840.113549.1.1.13", _) => &signature::RSA_PKCS1_2048_8192_SHA512,
        ("1.3.101.112", _) => &signature::ED25519,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::PrivateKey;

    const NOW: Duration = Duration::from_secs(1_767_225_600);

    fn authority() -> (Certificate, PrivateKey) {
        let key = PrivateKey::generate_ec().expect("random");
        (self_signed("somebody", &key, NOW).expect("it can be made"), key)
    }

    #[test]
    fn only_the_authority_that_signed_is_taken_for_it() {
        let ((one, key), (other, _)) = (authority(), authority());
        assert!(one.is_signed_by(&one) && other.is_signed_by(&other));
        assert!(!one.is_signed_by(&other) && !other.is_signed_by(&one), "the same name does not do");
        let request = Request { common_name: "é @ all", organizations: &["a", "b"], sans: &[], usage: Usage::Client };
        let leaf = issue(&request, key.public_key_info(), (&one, &key), NOW).expect("it can be made");
        assert_eq!((leaf.common_name.as_str(), leaf.organizations.join(" ").as_str()), ("é @ all", "a b"));
        assert!(leaf.is_signed_by(&one) && !leaf.is_signed_by(&other) && !leaf.is_root());
    }

    #[test]
    fn a_leaf_is_backdated_but_not_before_its_authority() {
        let (authority, key) = authority();
        let request = Request { common_name: "a", organizations: &[], sans: &[], usage: Usage::Client };
        let made = |now| issue(&request, key.public_key_info(), (&authority, &key), now).expect("it can be made");
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
        assert_eq!(made(NOW + minute).not_before, NOW);
        assert_eq!(made(NOW + hour * 3).not_before, NOW + hour * 2);
        assert_ne!(made(NOW).der(), made(NOW).der(), "serial numbers differ");
        let late = Duration::from_secs(2_524_608_000); // 2050, when the other form of time begins.
        assert_eq!(made(late + hour * 2).not_before, late + hour);
        assert!(issue(&request, b"no key", (&authority, &key), NOW).is_err());
    }

    proptest! {
        #[test]
        fn damage_is_an_error_and_never_verifies(at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<bool>()) {
            let (authority, _) = authority();
            let mut der = authority.der().to_vec();
            let at = at.index(der.len());
            prop_assume!(cut || der[at] != value);
            if cut {
                der.truncate(at);
            } else {
                der[at] = value;
            }
            let _refused = requested_key(&der);
            if let Ok(read) = Certificate::parse(der.into()) {
                prop_assert!(!read.is_signed_by(&authority));
            }
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Certificate::parse(bytes.clone().into()).is_err());
            prop_assert!(requested_key(&bytes).is_err());
            let (certificate, key) = (pem::section("CERTIFICATE", &bytes), pem::section("PRIVATE KEY", &bytes));
            prop_assert!(pem::certificates(certificate.as_bytes()).is_err());
            prop_assert!(PrivateKey::of_pem(key.as_bytes()).is_err());
        }
    }
}
