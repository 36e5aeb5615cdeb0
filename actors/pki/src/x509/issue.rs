//! Makes certificates. The issuer's name is repeated byte for byte, so that those below any custom authority verify.

use std::net::IpAddr;
use std::time::Duration;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{DateTime, Encode as _};
use x509_cert::time::Time;

use super::der::{self, element, group};
use super::{COMMON_NAME, Certificate, CertificateRequest, ORGANIZATION, San, Terms};
use crate::error::MaterialError;
use crate::key::{PrivateKey, random};

/// How long an authority is valid.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How long a leaf is valid.
const LEAF_VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);
/// How far back a certificate's validity begins, for the sake of clocks that are late.
const BACKDATED: Duration = Duration::from_secs(3600);

/// What a leaf may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// To be recognised as a client.
    Client,
    /// To be recognised as a server.
    Server,
    /// Both.
    Both,
}

impl Usage {
    fn identifiers(self) -> &'static [&'static str] {
        const SERVER: &str = "1.3.6.1.5.5.7.3.1";
        const CLIENT: &str = "1.3.6.1.5.5.7.3.2";
        match self {
            Self::Client => &[CLIENT],
            Self::Server => &[SERVER],
            Self::Both => &[SERVER, CLIENT],
        }
    }
}

/// What a leaf is to say.
#[derive(Clone, Debug)]
pub(crate) struct Request<'a> {
    /// `CN`.
    pub common_name: &'a str,
    /// All `O`.
    pub organizations: &'a [&'a str],
    /// Names it is reached by.
    pub sans: &'a [San],
    /// What for.
    pub usage: Usage,
}

fn oid(text: &str) -> Vec<u8> {
    let identifier = ObjectIdentifier::new(text).expect("a constant of this file, or of the module above");
    identifier.to_der().expect("an identifier has an encoding")
}

/// Printable where that is enough, as Go writes it: so a name compares equal to one that K3s wrote.
fn string(text: &str) -> Vec<u8> {
    let printable = |byte: u8| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte);
    element(if text.bytes().all(printable) { der::PRINTABLE_STRING } else { der::UTF8_STRING }, text.as_bytes())
}

fn name(common_name: &str, organizations: &[&str]) -> Vec<u8> {
    let attribute = |kind: &str, text: &str| group(der::SEQUENCE, &[&oid(kind), &string(text)]);
    let mut all: Vec<Vec<u8>> = organizations.iter().map(|text| attribute(ORGANIZATION, text)).collect();
    all.push(attribute(COMMON_NAME, common_name));
    let sets: Vec<Vec<u8>> = all.iter().map(|attribute| element(der::SET, attribute)).collect();
    element(der::SEQUENCE, &sets.concat())
}

fn time(since_1970: Duration) -> Result<Vec<u8>, MaterialError> {
    let seconds = Duration::from_secs(since_1970.as_secs());
    let encoded = DateTime::from_unix_duration(seconds).and_then(|date| Time::from(date).to_der());
    encoded.map_err(|error| MaterialError::Certificate(error.to_string()))
}

fn extension(kind: &str, critical: bool, value: &[u8]) -> Vec<u8> {
    const TRUE: &[u8] = &[0x01, 0x01, 0xff];
    let marked = if critical { TRUE } else { &[] };
    group(der::SEQUENCE, &[&oid(kind), marked, &element(der::OCTET_STRING, value)])
}

/// Key usage: digital signature and key encipherment are the bits 0 and 2, signing certificates is bit 5. The first
/// byte counts the unused bits at the end.
fn key_usage(authority: bool) -> Vec<u8> {
    let bits: [u8; 2] = if authority { [2, 0b1010_0100] } else { [5, 0b1010_0000] };
    extension("2.5.29.15", true, &element(der::BIT_STRING, &bits))
}

fn extended_key_usage(usage: Usage) -> Vec<u8> {
    let identifiers: Vec<Vec<u8>> = usage.identifiers().iter().map(|text| oid(text)).collect();
    extension("2.5.29.37", false, &element(der::SEQUENCE, &identifiers.concat()))
}

fn alternative_names(sans: &[San]) -> Vec<u8> {
    let one = |san: &San| match san {
        San::Dns(name) => element(0x82, name.as_bytes()),
        San::Ip(IpAddr::V4(address)) => element(0x87, &address.octets()),
        San::Ip(IpAddr::V6(address)) => element(0x87, &address.octets()),
    };
    let names: Vec<Vec<u8>> = sans.iter().map(one).collect();
    extension("2.5.29.17", false, &element(der::SEQUENCE, &names.concat()))
}

/// The SHA-1 of the key's bits: what RFC 5280 proposes, and only a name for the key.
fn key_identifier(key: &PrivateKey) -> Vec<u8> {
    let parts = der::first(key.public_key_info()).map(|(outer, _)| der::elements(outer.content)).unwrap_or_default();
    let bits = parts.get(1).map(|bits| bits.content).unwrap_or_default();
    digest(&SHA1_FOR_LEGACY_USE_ONLY, bits.get(1..).unwrap_or_default()).as_ref().to_vec()
}

/// What goes between the outer brackets of a certificate.
struct Body<'a> {
    serial: Vec<u8>,
    issuer: &'a [u8],
    subject: &'a [u8],
    not_before: Duration,
    not_after: Duration,
    public_key_info: &'a [u8],
    extensions: Vec<Vec<u8>>,
}

fn sign(body: &Body<'_>, signer: &PrivateKey) -> Result<Certificate, MaterialError> {
    let version = element(der::context(0), &[der::INTEGER, 1, 2]); // The third version is number 2.
    let validity = group(der::SEQUENCE, &[&time(body.not_before)?, &time(body.not_after)?]);
    let extensions = element(der::context(3), &element(der::SEQUENCE, &body.extensions.concat()));
    let algorithm = signer.signature_algorithm();
    let parts: [&[u8]; 8] =
        [&version, &body.serial, &algorithm, body.issuer, &validity, body.subject, body.public_key_info, &extensions];
    let signed = group(der::SEQUENCE, &parts);
    let signature = [&[0][..], &signer.sign(&signed)?].concat();
    let whole = group(der::SEQUENCE, &[&signed, &algorithm, &element(der::BIT_STRING, &signature)]);
    Certificate::parse(CertificateDer::from(whole))
}

/// A new authority: signed by itself, serial number 0, valid for ten years.
///
/// # Errors
/// The key can't sign, or the clock is beyond what a certificate can say.
pub(crate) fn self_signed(common_name: &str, key: &PrivateKey, now: Duration) -> Result<Certificate, MaterialError> {
    const AUTHORITY: &[u8] = &[der::SEQUENCE, 3, 0x01, 0x01, 0xff];
    let subject = name(common_name, &[]);
    let extensions = vec![
        key_usage(true),
        extension("2.5.29.19", true, AUTHORITY),
        extension("2.5.29.14", false, &element(der::OCTET_STRING, &key_identifier(key))),
    ];
    let body = Body {
        serial: der::integer(&[]),
        issuer: &subject,
        subject: &subject,
        not_before: now,
        not_after: now + AUTHORITY_VALIDITY,
        public_key_info: key.public_key_info(),
        extensions,
    };
    sign(&body, key)
}

fn serial() -> Result<Vec<u8>, MaterialError> {
    let mut serial: [u8; 16] = random()?;
    serial[0] = serial[0] & 0x3f | 0x40; // Positive, and always of the same length.
    Ok(der::integer(&serial))
}

fn authority_key(issuer: &Certificate) -> Option<Vec<u8>> {
    let key = issuer.subject_key.as_ref()?;
    Some(extension("2.5.29.35", false, &element(der::SEQUENCE, &element(0x80, key))))
}

/// Usages by the names of Kubernetes' `certificates.k8s.io`: those that are a bit of the key usage, ...
const KEY_USAGES: &[(&str, u32)] = &[
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];
/// ... and those that have an identifier, by RFC 5280 and by those who made up one.
const EXTENDED_USAGES: &[(&str, &str)] = &[
    ("any", "2.5.29.37.0"),
    ("server auth", "1.3.6.1.5.5.7.3.1"),
    ("client auth", "1.3.6.1.5.5.7.3.2"),
    ("code signing", "1.3.6.1.5.5.7.3.3"),
    ("email protection", "1.3.6.1.5.5.7.3.4"),
    ("s/mime", "1.3.6.1.5.5.7.3.4"),
    ("ipsec end system", "1.3.6.1.5.5.7.3.5"),
    ("ipsec tunnel", "1.3.6.1.5.5.7.3.6"),
    ("ipsec user", "1.3.6.1.5.5.7.3.7"),
    ("timestamping", "1.3.6.1.5.5.7.3.8"),
    ("ocsp signing", "1.3.6.1.5.5.7.3.9"),
    ("microsoft sgc", "1.3.6.1.4.1.311.10.3.3"),
    ("netscape sgc", "2.16.840.1.113730.4.1"),
];

/// The extensions for usages, each usage once.
fn usages(wanted: &[String]) -> Result<Vec<Vec<u8>>, MaterialError> {
    let (mut bits, mut identifiers) = (0_u16, Vec::new());
    for usage in wanted {
        let bit = KEY_USAGES.iter().find(|(name, _)| name == usage);
        let identifier = EXTENDED_USAGES.iter().find(|(name, _)| name == usage);
        match (bit, identifier) {
            (Some((_, bit)), _) => bits |= 0x8000 >> bit,
            (None, Some((_, identifier))) if identifiers.contains(identifier) => {}
            (None, Some((_, identifier))) => identifiers.push(identifier),
            (None, None) => return Err(MaterialError::Request(format!("unrecognized usage values: {usage:?}"))),
        }
    }
    let mut extensions = Vec::new();
    if bits != 0 {
        // Zeros at the end are left out, and a first byte counts those of them that share the last byte.
        let unused = bits.trailing_zeros();
        let bytes = bits.to_be_bytes();
        let content =
            if unused >= 8 { vec![unused as u8 - 8, bytes[0]] } else { vec![unused as u8, bytes[0], bytes[1]] };
        extensions.push(extension("2.5.29.15", true, &element(der::BIT_STRING, &content)));
    }
    if !identifiers.is_empty() {
        let identifiers: Vec<u8> = identifiers.into_iter().flat_map(oid).collect();
        extensions.push(extension("2.5.29.37", false, &element(der::SEQUENCE, &identifiers)));
    }
    Ok(extensions)
}

/// A new leaf that says what was requested: the subject and the alternative names as they were written.
///
/// # Errors
/// As [`issue`], or a usage is unknown.
pub(crate) fn issue_requested(
    request: &CertificateRequest,
    terms: Terms<'_>,
    authority: (&Certificate, &PrivateKey),
) -> Result<Certificate, MaterialError> {
    let (issuer, signer) = authority;
    let mut extensions = usages(terms.usages)?;
    extensions.push(extension("2.5.29.19", true, &element(der::SEQUENCE, &[])));
    extensions.extend(authority_key(issuer));
    extensions.extend(request.names.as_ref().map(|names| extension("2.5.29.17", false, names)));
    let body = Body {
        serial: serial()?,
        issuer: &issuer.subject,
        subject: &request.subject,
        not_before: terms.not_before.max(issuer.not_before),
        not_after: terms.not_after.min(issuer.not_after),
        public_key_info: &request.public_key_info,
        extensions,
    };
    sign(&body, signer)
}

/// A new leaf for a key of which only the public half need be known.
///
/// # Errors
/// The authority can't sign, or the clock is beyond what a certificate can say.
pub(crate) fn issue(
    request: &Request<'_>,
    public_key_info: &[u8],
    authority: (&Certificate, &PrivateKey),
    now: Duration,
) -> Result<Certificate, MaterialError> {
    let (issuer, signer) = authority;
    let mut extensions = vec![key_usage(false), extended_key_usage(request.usage)];
    extensions.extend(authority_key(issuer));
    if !request.sans.is_empty() {
        extensions.push(alternative_names(request.sans));
    }
    let body = Body {
        serial: serial()?,
        issuer: &issuer.subject,
        subject: &name(request.common_name, request.organizations),
        not_before: now.saturating_sub(BACKDATED).max(issuer.not_before),
        not_after: now + LEAF_VALIDITY,
        public_key_info,
        extensions,
    };
    sign(&body, signer)
}
