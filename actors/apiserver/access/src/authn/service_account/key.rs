//! Keys that tokens are signed and checked with, from the files they are kept in.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING,
    EcdsaKeyPair, KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use serde_json::{Value, json};
use thiserror::Error;

use super::der::{self, BIT_STRING, Element, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE};

/// `rsaEncryption`, `id-ecPublicKey`, and the two curves, as the content of object identifiers.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];

/// Why a file of keys can't be used. Shows nothing of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// No section of the file is a key.
    #[error("the file holds no key")]
    Absent,
    /// A key is damaged, of a kind or size that isn't supported, or without its public half.
    #[error("the file holds a key that can't be used; RSA of 2048 bits or more, P-256 and P-384 can")]
    Unusable,
    /// The system has no random numbers, or the key refuses.
    #[error("the token could not be signed")]
    Signing,
}

/// How a token is signed, by the name in its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// RSA with PKCS#1 padding and SHA-256.
    Rs256,
}

impl Algorithm {
    /// The name in `alg`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
        }
    }

    fn of_curve(identifier: &[u8]) -> Option<Self> {
        [(P256, Self::Es256), (P384, Self::Es384)].into_iter().find(|(curve, _)| *curve == identifier).map(|(_, it)| it)
    }
}

/// What a token is checked with.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: Algorithm,
    id: String,
    /// A point of the curve, or a `RSAPublicKey` in DER.
    raw: Vec<u8>,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey").field("algorithm", &self.algorithm).field("id", &self.id).finish_non_exhaustive()
    }
}

impl PublicKey {
    /// All keys of a file, private ones by their public half; sections that hold something else are passed over.
    ///
    /// # Errors
    ///
    /// Fails if there is none, and if one of them can't be used.
    pub fn all_of_pem(pem: &str) -> Result<Vec<Self>, KeyError> {
        let mut keys = Vec::new();
        for (label, bytes) in der::sections(pem) {
            let key = match label {
                "PUBLIC KEY" => of_info(&bytes),
                "RSA PUBLIC KEY" => Self::of_rsa(&bytes),
                "CERTIFICATE" => info_of_certificate(&bytes).and_then(of_info),
                _ => match Pair::of_section(label, &bytes) {
                    None => continue,
                    Some(pair) => pair.and_then(|pair| pair.public()),
                },
            };
            keys.push(key.ok_or(KeyError::Unusable)?);
        }
        if keys.is_empty() { Err(KeyError::Absent) } else { Ok(keys) }
    }

    /// What tokens call this key: a digest of it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How tokens are signed that this key checks.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether the message was signed with the private half.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self.algorithm {
            Algorithm::Es256 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.raw).verify(message, signature),
            Algorithm::Es384 => UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &self.raw).verify(message, signature),
            Algorithm::Rs256 => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.raw).verify(message, signature)
            }
        }
        .is_ok()
    }

    /// The key as one of a JSON Web Key Set (RFC 7517).
    #[must_use]
    pub fn json_web_key(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut key = json!({"use": "sig", "kid": self.id, "alg": self.algorithm.name()});
        let curve = match self.algorithm {
            Algorithm::Es256 => "P-256",
            Algorithm::Es384 => "P-384",
            Algorithm::Rs256 => {
                let (modulus, exponent) = rsa_parts(&self.raw).unwrap_or_default();
                key["kty"] = "RSA".into();
                key["n"] = text(modulus).into();
                key["e"] = text(exponent).into();
                return key;
            }
        };
        // An uncompressed point: a byte that says so, then two halves.
        let point = self.raw.get(1..).unwrap_or_default();
        let (x, y) = point.split_at(point.len() / 2);
        key["kty"] = "EC".into();
        key["crv"] = curve.into();
        key["x"] = text(x).into();
        key["y"] = text(y).into();
        key
    }

    fn of_rsa(raw: &[u8]) -> Option<Self> {
        let (modulus, exponent) = rsa_parts(raw)?;
        let fine = (256..=1024).contains(&modulus.len()) && (1..=8).contains(&exponent.len());
        fine.then(|| Self::new(Algorithm::Rs256, raw))
    }

    fn of_point(algorithm: Algorithm, point: &[u8]) -> Option<Self> {
        let length = if algorithm == Algorithm::Es256 { 65 } else { 97 };
        (point.len() == length && point.starts_with(&[4])).then(|| Self::new(algorithm, point))
    }

    fn new(algorithm: Algorithm, raw: &[u8]) -> Self {
        let identifier = |content: &[u8]| der::encode(OBJECT_IDENTIFIER, &[content]);
        let (kind, parameters) = match algorithm {
            Algorithm::Es256 => (identifier(EC), identifier(P256)),
            Algorithm::Es384 => (identifier(EC), identifier(P384)),
            Algorithm::Rs256 => (identifier(RSA), vec![0x05, 0x00]),
        };
        let algorithm_identifier = der::encode(SEQUENCE, &[&kind, &parameters]);
        let info = der::encode(SEQUENCE, &[&algorithm_identifier, &der::encode(BIT_STRING, &[&[0], raw])]);
        let digest = ring::digest::digest(&ring::digest::SHA256, &info);
        Self { algorithm, id: URL_SAFE_NO_PAD.encode(digest), raw: raw.to_vec() }
    }
}

/// The modulus and the exponent, without leading zeros.
fn rsa_parts(raw: &[u8]) -> Option<(&[u8], &[u8])> {
    let (whole, rest) = der::first(raw)?;
    let parts = whole.parts(SEQUENCE).filter(|_| rest.is_empty())?;
    let [modulus, exponent] = parts.as_slice() else { return None };
    let trimmed =
        |part: &Element<'_>| part.content(INTEGER).map(|bytes| bytes.iter().take_while(|it| **it == 0).count());
    Some((modulus.content.get(trimmed(modulus)?..)?, exponent.content.get(trimmed(exponent)?..)?))
}

/// A key as a certificate holds it.
fn of_info(info: &[u8]) -> Option<PublicKey> {
    let parts = der::first(info)?.0.parts(SEQUENCE)?;
    let [algorithm, key] = parts.as_slice() else { return None };
    let algorithm = algorithm.parts(SEQUENCE)?;
    match algorithm.first()?.content(OBJECT_IDENTIFIER)? {
        RSA => PublicKey::of_rsa(key.bits()?),
        EC => PublicKey::of_point(Algorithm::of_curve(algorithm.get(1)?.content(OBJECT_IDENTIFIER)?)?, key.bits()?),
        _ => None,
    }
}

/// Where in a certificate its key stands: behind serial number, algorithm, issuer, validity and subject.
fn info_of_certificate(certificate: &[u8]) -> Option<&[u8]> {
    const VERSION: u8 = 0xa0;
    let outer = der::first(certificate)?.0.parts(SEQUENCE)?;
    let inner = outer.first()?.parts(SEQUENCE)?;
    let versions = inner.iter().take_while(|part| part.tag == VERSION).count();
    inner.get(versions + 5).map(|info| info.whole)
}

/// What a token is signed with. Never printed.
pub struct SigningKey {
    pair: Pair,
    public: PublicKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public).finish()
    }
}

impl SigningKey {
    /// The first private key of a file, in the form of PKCS#1, SEC 1 or PKCS#8.
    ///
    /// # Errors
    ///
    /// Fails if there is none, and if it can't be used.
    pub fn of_pem(pem: &str) -> Result<Self, KeyError> {
        let sections = der::sections(pem);
        let pair = sections.iter().find_map(|(label, bytes)| Pair::of_section(label, bytes)).ok_or(KeyError::Absent)?;
        let pair = pair.ok_or(KeyError::Unusable)?;
        let public = pair.public().ok_or(KeyError::Unusable)?;
        Ok(Self { pair, public })
    }

    /// The half that everybody may know.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs, in the form that tokens hold.
    ///
    /// # Errors
    ///
    /// Fails if the system has no random numbers.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ec(_, pair) => pair.sign(&random, message).map(|signature| signature.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map(|()| signature)
            }
        }
        .map_err(|_| KeyError::Signing)
    }
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ec(Algorithm, Box<EcdsaKeyPair>),
}

impl Pair {
    /// `None` for what is no private key, `Some(None)` for one that can't be used.
    fn of_section(label: &str, bytes: &[u8]) -> Option<Option<Self>> {
        match label {
            "RSA PRIVATE KEY" => Some(Self::of_rsa(bytes)),
            "EC PRIVATE KEY" => Some(Self::of_sec1(bytes, None)),
            "PRIVATE KEY" => Some(Self::of_pkcs8(bytes)),
            _ => None,
        }
    }

    fn of_rsa(bytes: &[u8]) -> Option<Self> {
        RsaKeyPair::from_der(bytes).ok().map(|pair| Self::Rsa(Box::new(pair)))
    }

    /// A version, an algorithm, and around one of the other two forms a string of bytes.
    fn of_pkcs8(bytes: &[u8]) -> Option<Self> {
        let parts = der::first(bytes)?.0.parts(SEQUENCE)?;
        let algorithm = parts.get(1)?.parts(SEQUENCE)?;
        let inner = parts.get(2)?.content(OCTET_STRING)?;
        match algorithm.first()?.content(OBJECT_IDENTIFIER)? {
            RSA => Self::of_rsa(inner),
            EC => Self::of_sec1(inner, algorithm.get(1)?.content(OBJECT_IDENTIFIER)),
            _ => None,
        }
    }

    /// A version, the number, and with tags of their own the curve, which may also stand around all this, and the point.
    fn of_sec1(bytes: &[u8], curve: Option<&[u8]>) -> Option<Self> {
        const CURVE: u8 = 0xa0;
        const POINT: u8 = 0xa1;
        let parts = der::first(bytes)?.0.parts(SEQUENCE)?;
        let tagged = |tag: u8| parts.iter().find_map(|part| der::first(part.content(tag)?)).map(|(element, _)| element);
        let curve = curve.or_else(|| tagged(CURVE)?.content(OBJECT_IDENTIFIER))?;
        let algorithm = Algorithm::of_curve(curve)?;
        let how = match algorithm {
            Algorithm::Es384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
            _ => &ECDSA_P256_SHA256_FIXED_SIGNING,
        };
        let number = parts.get(1)?.content(OCTET_STRING)?;
        let point = tagged(POINT)?.bits()?;
        let pair = EcdsaKeyPair::from_private_key_and_public_key(how, number, point, &SystemRandom::new()).ok()?;
        Some(Self::Ec(algorithm, Box::new(pair)))
    }

    fn public(&self) -> Option<PublicKey> {
        match self {
            Self::Rsa(pair) => PublicKey::of_rsa(pair.public_key().as_ref()),
            Self::Ec(algorithm, pair) => PublicKey::of_point(*algorithm, pair.public_key().as_ref()),
        }
    }
}
