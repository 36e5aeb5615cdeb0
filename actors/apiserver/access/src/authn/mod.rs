//! Who makes a request: from certificates, tokens and headers, once others have read them off the wire, to a [`User`].
//!
//! ```text
//! subject of a verified certificate ─▶ certificate ─┐
//! Authorization, WebSocket protocols ─▶ bearer ─▶ token of a service account, of a Secret, of a file ─┤
//! headers of a trusted front proxy ─▶ front_proxy ──┴─▶ User ─▶ impersonate ─▶ the user it counts as
//! ```
//!
//! What is deliberately absent: verifying certificates (rustls does), and reading Secrets. Nothing here logs; tokens
//! appear in no error.

mod bearer;
mod bootstrap_token;
mod certificate;
mod front_proxy;
mod headers;
mod impersonate;
pub mod service_account;
mod static_tokens;
#[cfg(test)]
mod tests;

pub use bearer::{BearerError, WebSocketBearer, bearer_token, web_socket_token};
pub use bootstrap_token::BootstrapToken;
pub use certificate::{CertificateError, user_of_certificate};
pub use front_proxy::FrontProxy;
pub use headers::Headers;
pub use impersonate::{Impersonation, ImpersonationError};
pub use static_tokens::{StaticTokenError, StaticTokens};

use crate::User;

/// The name of whoever shows nothing.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group of everybody whom we know.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";

/// Who makes a request that shows nothing.
#[must_use]
pub fn anonymous() -> User {
    User::new(ANONYMOUS, &[UNAUTHENTICATED])
}

/// Puts a user whom we know into `system:authenticated`, unless a proxy said already which of the two groups it is.
#[must_use]
pub fn authenticated(mut user: User) -> User {
    let decided = user.groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED);
    if user.name != ANONYMOUS && !decided {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    user
}
