//! The two documents by which others can check our tokens without asking us about each.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use thiserror::Error;

use super::key::PublicKey;

/// Where the set of keys is served.
pub const KEY_SET_PATH: &str = "/openid/v1/jwks";
/// Where the document that points to it is served.
pub const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
/// Media type of the set of keys; the other document is plain JSON.
pub const KEY_SET_TYPE: &str = "application/jwk-set+json";

/// Why the documents can't be served, which then are not; tokens work all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DiscoveryError {
    /// The issuer's name is no address that begins with `https://`.
    #[error("issuer URL must use https scheme")]
    Scheme,
    /// The issuer's name has a `?` or a `#` in it.
    #[error("issuer URL may not include a query or a fragment")]
    Query,
    /// There would be nothing in the set.
    #[error("no keys provided for validating keyset")]
    NoKeys,
}

/// The set of keys that tokens are checked with (RFC 7517).
#[must_use]
pub fn key_set(keys: &[PublicKey]) -> Value {
    json!({"keys": keys.iter().map(PublicKey::json_web_key).collect::<Vec<_>>()})
}

/// The configuration of the issuer, as OpenID Connect Discovery wants it. `key_set_address` is where [`key_set`] is
/// served: as configured, or our own address with [`KEY_SET_PATH`].
///
/// # Errors
///
/// Fails if the issuer isn't named by an address or there are no keys.
pub fn configuration(issuer: &str, key_set_address: &str, keys: &[PublicKey]) -> Result<Value, DiscoveryError> {
    if !issuer.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) {
        return Err(DiscoveryError::Scheme);
    }
    if issuer.contains(['?', '#']) {
        return Err(DiscoveryError::Query);
    }
    if keys.is_empty() {
        return Err(DiscoveryError::NoKeys);
    }
    let algorithms: BTreeSet<&str> = keys.iter().map(|key| key.algorithm().name()).collect();
    Ok(json!({
        "issuer": issuer,
        "jwks_uri": key_set_address,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
    }))
}
