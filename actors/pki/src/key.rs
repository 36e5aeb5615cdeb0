//! Private keys: made, read in each form that is in use, and used to sign.
//!
//! Keys and serial numbers come from the operating system and not from the clock's random numbers, which a seed replays.

use std::fmt;
use std::sync::Arc;

use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use tokio_rustls::rustls::SignatureScheme;
use tokio_rustls::rustls::crypto::ring::sign::any_supported_type;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivateSec1KeyDer};
use tokio_rustls::rustls::sign::SigningKey;

use crate::error::MaterialError;
use crate::rsa;
use crate::x509::{der, pem};

/// What a signature of a certificate is made with, in the order of preference, and how the certificate says so (the
/// encoded algorithm identifier).
const SCHEMES: &[(SignatureScheme, &[u8])] = &[
    (SignatureScheme::ECDSA_NISTP256_SHA256, &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]),
    (SignatureScheme::ECDSA_NISTP384_SHA384, &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03]),
    (
        SignatureScheme::RSA_PKCS1_SHA256,
        &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00],
    ),
    (SignatureScheme::ED25519, &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70]),
];

/// Random bytes fit for keys.
///
/// # Errors
/// [`MaterialError::Random`].
pub(crate) fn random<const N: usize>() -> Result<[u8; N], MaterialError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| MaterialError::Random)?;
    Ok(bytes)
}

/// Random bytes fit for passwords, as small hexadecimal digits.
///
/// # Errors
/// [`MaterialError::Random`].
pub(crate) fn random_hex<const N: usize>() -> Result<String, MaterialError> {
    Ok(hex(&random::<N>()?))
}

/// Bytes as small hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A private key. Never printed.
#[derive(Clone)]
pub struct PrivateKey {
    der: Arc<PrivateKeyDer<'static>>,
    signer: Arc<dyn SigningKey>,
    public_key_info: Arc<[u8]>,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

impl PrivateKey {
    /// Takes a key of any form and kind that TLS can use.
    ///
    /// # Errors
    /// [`MaterialError::Key`].
    pub fn new(der: PrivateKeyDer<'static>) -> Result<Self, MaterialError> {
        let signer = any_supported_type(&der).map_err(|error| MaterialError::Key(error.to_string()))?;
        let public = signer.public_key().map(|info| Arc::from(info.as_ref()));
        let public_key_info = public.ok_or_else(|| MaterialError::Key("its public half is unknown".to_owned()))?;
        Ok(Self { der: Arc::new(der), signer, public_key_info })
    }

    /// A new key on the curve P-256.
    ///
    /// # Errors
    /// [`MaterialError::Random`].
    pub fn generate_ec() -> Result<Self, MaterialError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
        let document = document.map_err(|_| MaterialError::Random)?;
        let sec1 = sec1_of_pkcs8(document.as_ref()).ok_or_else(|| MaterialError::Key("unknown layout".to_owned()))?;
        Self::new(PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(sec1)))
    }

    /// A new RSA key of 2048 bits. Takes a while.
    ///
    /// # Errors
    /// [`MaterialError::Random`].
    pub fn generate_rsa() -> Result<Self, MaterialError> {
        Self::new(PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(rsa::generate()?)))
    }

    /// All keys of a file, in their order; other sections are passed over.
    ///
    /// # Errors
    /// There is none, or one of them can't be used.
    pub fn all_of_pem(pem: &[u8]) -> Result<Vec<Self>, MaterialError> {
        let mut found = Vec::new();
        for der in PrivateKeyDer::pem_slice_iter(pem) {
            found.push(Self::new(der.map_err(|error| MaterialError::Pem(error.to_string()))?)?);
        }
        if found.is_empty() {
            return Err(MaterialError::Absent { what: "key" });
        }
        Ok(found)
    }

    /// The first key of a file.
    ///
    /// # Errors
    /// There is none, or it can't be used.
    pub fn of_pem(pem: &[u8]) -> Result<Self, MaterialError> {
        let first = PrivateKeyDer::from_pem_slice(pem).map_err(|_| MaterialError::Absent { what: "key" })?;
        Self::new(first)
    }

    /// As a section of a file, in the form it was read or made in.
    pub fn to_pem(&self) -> String {
        let label = match &*self.der {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        pem::section(label, self.der.secret_der())
    }

    /// The public half, as certificates hold it (`SubjectPublicKeyInfo` in DER).
    pub fn public_key_info(&self) -> &[u8] {
        &self.public_key_info
    }

    /// The key as rustls signs with it.
    pub fn signer(&self) -> Arc<dyn SigningKey> {
        self.signer.clone()
    }

    fn scheme(&self) -> Option<(SignatureScheme, &'static [u8])> {
        SCHEMES.iter().copied().find(|(scheme, _)| self.signer.choose_scheme(&[*scheme]).is_some())
    }

    /// The encoded identifier of the algorithm that [`PrivateKey::sign`] uses; empty when there is none.
    pub(crate) fn signature_algorithm(&self) -> Vec<u8> {
        self.scheme().map(|(_, identifier)| identifier.to_vec()).unwrap_or_default()
    }

    /// Signs.
    ///
    /// # Errors
    /// The key is of a kind that certificates are not signed with here.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, MaterialError> {
        let signer = self.scheme().and_then(|(scheme, _)| self.signer.choose_scheme(&[scheme]));
        let signer = signer.ok_or_else(|| MaterialError::Key("certificates can't be signed with it".to_owned()))?;
        signer.sign(message).map_err(|error| MaterialError::Key(error.to_string()))
    }
}

/// The form of K3s' files (`EC PRIVATE KEY`) of a key as ring makes it. The curve, which there stands around the key, is
/// put into it.
fn sec1_of_pkcs8(pkcs8: &[u8]) -> Option<Vec<u8>> {
    const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let (outer, _) = der::first(pkcs8)?;
    let parts = der::elements(outer.content);
    let (inner, _) = der::first(parts.get(2)?.content)?;
    let parts = der::elements(inner.content);
    let public = parts.iter().find(|part| part.tag == der::context(1))?;
    let curve = der::element(der::context(0), P256);
    Some(der::group(der::SEQUENCE, &[parts.first()?.whole, parts.get(1)?.whole, &curve, public.whole]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_from_their_files() {
        for key in [PrivateKey::generate_ec().expect("random"), PrivateKey::generate_rsa().expect("random")] {
            let again = PrivateKey::of_pem(key.to_pem().as_bytes()).expect("it was just written");
            assert_eq!(again.public_key_info(), key.public_key_info());
            assert_eq!(again.to_pem(), key.to_pem());
        }
        assert!(PrivateKey::generate_ec().expect("random").to_pem().starts_with("-----BEGIN EC PRIVATE KEY-----\n"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(PrivateKey::of_pem(b"").unwrap_err(), MaterialError::Absent { what: "key" });
        assert!(PrivateKey::all_of_pem(b"nothing").is_err());
        let cut = pem::section("EC PRIVATE KEY", &[0x30, 3, 2, 1, 1]);
        assert!(matches!(PrivateKey::of_pem(cut.as_bytes()), Err(MaterialError::Key(_))));
    }
}
