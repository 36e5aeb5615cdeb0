//! Tokens of service accounts: which claims they hold, how they are signed and checked, how others can check them,
//! and when one is given out.
//!
//! ```text
//! TokenRequest ─▶ Issuer ─▶ Claims ─▶ sign ─▶ token ─▶ Tokens::verify ─▶ Verified ─▶ the objects it leans on ─▶ User
//!                                      ▲                    ▲
//!                                  SigningKey ─────────▶ PublicKey ─▶ discovery
//! ```

mod claims;
mod der;
mod discovery;
mod jwt;
mod key;
mod request;
#[cfg(test)]
mod tests;
mod verify;

pub use claims::{Bound, Claims, Reference};
pub use discovery::{CONFIGURATION_PATH, DiscoveryError, KEY_SET_PATH, KEY_SET_TYPE, configuration, key_set};
pub use jwt::sign;
pub use key::{Algorithm, KeyError, PublicKey, SigningKey};
pub use request::{Grant, Issuer, Objects, requested};
pub use verify::{LAST_USED, Lookup, TokenError, Tokens, Verified, use_to_note};
