//! Tokens as they travel: `header.payload.signature`, each in base64url (RFC 7515).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::key::{KeyError, PublicKey, SigningKey};

/// A token taken apart, not yet believed.
pub(super) struct Unverified<'a> {
    header: Value,
    /// What it claims.
    pub(super) claims: Value,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// `None` for what isn't such a token.
    pub(super) fn parse(token: &'a str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let json = |part: &str| -> Option<Value> {
            let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
            serde_json::from_slice(&bytes).ok().filter(Value::is_object)
        };
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        Some(Self { header: json(header)?, claims: json(claims)?, signed, signature })
    }

    /// The keys that may have signed it: the one it names, or all if it names none.
    pub(super) fn candidates<'k>(&self, keys: &'k [PublicKey]) -> Vec<&'k PublicKey> {
        let id = self.header["kid"].as_str().unwrap_or_default();
        keys.iter().filter(|key| id.is_empty() || key.id() == id).collect()
    }

    /// Whether this key signed it, in the way that the header says. Extensions that must be understood are not.
    pub(super) fn is_signed_by(&self, key: &PublicKey) -> bool {
        self.header["alg"] == key.algorithm().name()
            && self.header["crit"].is_null()
            && key.verifies(self.signed.as_bytes(), &self.signature)
    }
}

/// Makes a token of claims.
///
/// # Errors
///
/// Fails if the key can't sign.
pub fn sign(key: &SigningKey, claims: &Value) -> Result<String, KeyError> {
    let header = json!({"alg": key.public().algorithm().name(), "kid": key.public().id()});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(claims));
    let signature = key.sign(signed.as_bytes())?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
