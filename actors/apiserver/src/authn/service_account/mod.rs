//! Tokens of service accounts: which claims they hold, how they are signed and checked, and how others can check them.
//!
//! ```text
//! Claims ─▶ sign ─▶ token ─▶ Tokens::verify ─▶ Verified ─▶ the objects it leans on ─▶ User
//!            ▲                    ▲
//!        SigningKey ─────────▶ PublicKey ─▶ discovery
//! ```

mod claims;
mod der;
mod discovery;
mod jwt;
mod key;
#[cfg(test)]
mod tests;
mod verify;

pub use claims::{Bound, Claims, Reference};
pub use discovery::{CONFIGURATION_PATH, DiscoveryError, KEY_SET_PATH, KEY_SET_TYPE, configuration, key_set};
pub use jwt::sign;
pub use key::{Algorithm, KeyError, PublicKey, SigningKey};
pub use verify::{Lookup, TokenError, Tokens, Verified};
