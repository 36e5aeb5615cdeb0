//! Tokens: what a node shows to join, and how it knows that it talks to the right cluster.
//!
//! ```text
//! K10<64 digits of the hash of the server's authority>::<user>:<password>     full
//! K10<hash>::<6 characters>.<16 characters>                                   full, of kubeadm's kind
//! <password>                                                                  short: trusts whoever answers
//! <6 characters>.<16 characters>                                              short, of kubeadm's kind
//! ```

use std::fmt;

use ring::digest::{SHA256, digest};
use thiserror::Error;

use crate::error::MaterialError;
use crate::key::hex;
use crate::x509::{Certificate, pem};

/// What full tokens begin with.
const PREFIX: &str = "K10";
/// Hexadecimal digits of a hash.
const HASH_CHARACTERS: usize = 64;
/// Characters of the public part of a bootstrap token, and of the secret one.
const BOOTSTRAP_CHARACTERS: (usize, usize) = (6, 16);
/// Longer texts are no tokens.
const TOKEN_BYTES_MAX: usize = 64 << 10;

/// Why a text is no token, or not one for us.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Nothing in it.
    #[error("token must not be empty")]
    Empty,
    /// Too long to be one.
    #[error("token is longer than {TOKEN_BYTES_MAX} bytes")]
    Long,
    /// A line break or another control character in it, which no file or header could hold.
    #[error("token must not hold control characters")]
    Control,
    /// The hash is cut off.
    #[error("invalid token CA hash length")]
    HashLength,
    /// Neither user and password nor a bootstrap token.
    #[error("invalid token format")]
    Format,
    /// It can make agents join, but nothing can be derived from it.
    #[error("a bootstrap token cannot be used as a server token")]
    Bootstrap,
    /// It is of another cluster, or somebody stands in between.
    #[error("token CA hash does not match the Cluster CA certificate hash: {token} != {cluster}")]
    Hash {
        /// What the token says.
        token: String,
        /// What the certificates of the cluster have.
        cluster: String,
    },
}

/// What a token proves, and how it is sent.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// HTTP Basic. A short token has no user: agents then are `node`, servers `server`.
    Basic {
        /// Who.
        user: String,
        /// The secret.
        password: String,
    },
    /// A bearer token, `<id>.<secret>`.
    Bootstrap {
        /// Public.
        id: String,
        /// The secret.
        secret: String,
    },
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { user, .. } => f.debug_struct("Basic").field("user", user).finish_non_exhaustive(),
            Self::Bootstrap { id, .. } => f.debug_struct("Bootstrap").field("id", id).finish_non_exhaustive(),
        }
    }
}

/// A token that was taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The hash of the authority that the cluster has to show; without one, whoever answers is trusted.
    pub ca_hash: Option<String>,
    /// The rest.
    pub credential: Credential,
}

fn bootstrap(text: &str) -> Option<Credential> {
    let (id, secret) = text.split_once('.')?;
    let fine = |part: &str, length| {
        part.len() == length && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let (id_length, secret_length) = BOOTSTRAP_CHARACTERS;
    let found = fine(id, id_length) && fine(secret, secret_length);
    found.then(|| Credential::Bootstrap { id: id.to_owned(), secret: secret.to_owned() })
}

impl Token {
    /// Takes a token apart.
    ///
    /// # Errors
    /// It is none; see [`TokenError`].
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        match text {
            "" => return Err(TokenError::Empty),
            _ if text.len() > TOKEN_BYTES_MAX => return Err(TokenError::Long),
            _ if text.contains(char::is_control) => return Err(TokenError::Control),
            _ => {}
        }
        let Some(full) = text.strip_prefix(PREFIX) else {
            let short = || Credential::Basic { user: String::new(), password: text.to_owned() };
            return Ok(Self { ca_hash: None, credential: bootstrap(text).unwrap_or_else(short) });
        };
        let (hash, rest) = full.split_once("::").unwrap_or(("", full));
        if !hash.is_empty() && hash.len() != HASH_CHARACTERS {
            return Err(TokenError::HashLength);
        }
        let credential = match rest.split_once(':') {
            Some((user, password)) if !password.is_empty() => {
                Credential::Basic { user: user.to_owned(), password: password.to_owned() }
            }
            _ => bootstrap(rest).ok_or(TokenError::Format)?,
        };
        Ok(Self { ca_hash: Some(hash.to_owned()).filter(|hash| !hash.is_empty()), credential })
    }

    /// The secret alone, as it is stored and as keys are derived from it.
    ///
    /// # Errors
    /// It is a bootstrap token.
    pub fn password(&self) -> Result<&str, TokenError> {
        match &self.credential {
            Credential::Basic { password, .. } => Ok(password),
            Credential::Bootstrap { .. } => Err(TokenError::Bootstrap),
        }
    }

    /// Whether the cluster that shows this bundle is the one of the token. A token without hash accepts each.
    ///
    /// # Errors
    /// [`TokenError::Hash`].
    pub fn check(&self, bundle: &[u8]) -> Result<(), TokenError> {
        let Some(token) = &self.ca_hash else { return Ok(()) };
        let cluster = ca_hash(bundle);
        if *token == cluster { Ok(()) } else { Err(TokenError::Hash { token: token.clone(), cluster }) }
    }
}

/// A full token for a user.
pub fn full(ca_hash: &str, user: &str, password: &str) -> String {
    format!("{PREFIX}{ca_hash}::{user}:{password}")
}

/// The hash of an authority as tokens hold it. Of a bundle with one certificate it is that of the file, of one with
/// more that of the root above the first; so it stays the same when an intermediate authority is exchanged. Bytes in
/// which no chain is found are hashed as they are.
pub fn ca_hash(bundle: &[u8]) -> String {
    let root = pem::certificates(bundle).ok().filter(|all| all.len() > 1).and_then(|all| root(&all).cloned());
    let hashed = root.as_ref().map_or(bundle, |root| root.der().as_ref());
    hex(digest(&SHA256, hashed).as_ref())
}

/// The root above the first certificate, found by following signatures through the others.
fn root(all: &[Certificate]) -> Option<&Certificate> {
    let (first, others) = all.split_first()?;
    let mut current = first;
    for _ in 0..others.len() {
        let above = |next: &&Certificate| next.is_authority && *next != current && current.is_signed_by(next);
        if let Some(found) = others.iter().filter(|next| next.is_root()).find(above) {
            return Some(found);
        }
        current = others.iter().filter(|next| !next.is_root()).find(above)?;
    }
    None
}

/// As [`Token::parse`] and [`Token::password`] in one step: for the configured secrets.
///
/// # Errors
/// It is no token, or a bootstrap token.
pub fn normalize(text: &str) -> Result<String, TokenError> {
    Token::parse(text)?.password().map(str::to_owned)
}

/// A new password: 16 random bytes.
///
/// # Errors
/// [`MaterialError::Random`].
pub(crate) fn new_password() -> Result<String, MaterialError> {
    crate::key::random_hex::<16>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn basic(user: &str, password: &str) -> Credential {
        Credential::Basic { user: user.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn tokens_of_each_form() {
        let hash = "ab".repeat(32);
        let bootstrap = Credential::Bootstrap { id: "abcdef".to_owned(), secret: "0123456789abcdef".to_owned() };
        for (text, wanted) in [
            ("secret".to_owned(), Ok((None, basic("", "secret")))),
            ("with:colons::inside".to_owned(), Ok((None, basic("", "with:colons::inside")))),
            (format!("K10{hash}::server:secret"), Ok((Some(hash.clone()), basic("server", "secret")))),
            (format!("K10{hash}::node:a:b::c"), Ok((Some(hash.clone()), basic("node", "a:b::c")))),
            (format!("K10{hash}:::secret"), Ok((Some(hash.clone()), basic("", "secret")))),
            ("K10::server:secret".to_owned(), Ok((None, basic("server", "secret")))),
            ("K10server:secret".to_owned(), Ok((None, basic("server", "secret")))),
            ("abcdef.0123456789abcdef".to_owned(), Ok((None, bootstrap.clone()))),
            (format!("K10{hash}::abcdef.0123456789abcdef"), Ok((Some(hash.clone()), bootstrap))),
            ("abcdeF.0123456789abcdef".to_owned(), Ok((None, basic("", "abcdeF.0123456789abcdef")))),
            (String::new(), Err(TokenError::Empty)),
            ("K10".to_owned(), Err(TokenError::Format)),
            ("K10secret".to_owned(), Err(TokenError::Format)),
            (format!("K10{hash}::server:"), Err(TokenError::Format)),
            ("K10abcd::server:secret".to_owned(), Err(TokenError::HashLength)),
            ("a\nb".to_owned(), Err(TokenError::Control)),
            ("x".repeat(TOKEN_BYTES_MAX + 1), Err(TokenError::Long)),
        ] {
            let wanted = wanted.map(|(ca_hash, credential)| Token { ca_hash, credential });
            assert_eq!(Token::parse(&text), wanted, "{text:.80}");
        }
    }

    #[test]
    fn a_bootstrap_token_is_no_password() {
        assert_eq!(normalize("abcdef.0123456789abcdef"), Err(TokenError::Bootstrap));
        assert_eq!(normalize("K10::server:x"), Ok("x".to_owned()));
    }

    #[test]
    fn a_token_of_another_cluster_is_told_with_both_hashes() {
        let ours = full(&ca_hash(b"ours"), "node", "x");
        let token = Token::parse(&ours).expect("it was just made");
        assert_eq!(token.check(b"ours"), Ok(()));
        let said = token.check(b"theirs").expect_err("another cluster").to_string();
        assert!(said.ends_with(&format!("{} != {}", ca_hash(b"ours"), ca_hash(b"theirs"))), "{said}");
        assert_eq!(Token::parse("x").expect("short").check(b"theirs"), Ok(()));
    }

    #[test]
    fn secrets_are_not_printed() {
        let token = Token::parse("K10::server:hunter2").expect("a token");
        assert!(!format!("{token:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_token_or_none(text in "\\PC{0,200}") {
            let _outcome = Token::parse(&text);
            let _outcome = Token::parse(&format!("K10{text}"));
        }

        #[test]
        fn a_full_token_gives_back_what_was_put_in(user in "[a-z]{0,8}", password in "[!-~]{1,40}", hash in "[0-9a-f]{64}") {
            let parsed = Token::parse(&full(&hash, &user, &password));
            prop_assert_eq!(parsed, Ok(Token { ca_hash: Some(hash), credential: basic(&user, &password) }));
        }

        #[test]
        fn a_password_is_its_own_normal_form(password in "[!-J L-~][!-~]{0,40}") {
            prop_assume!(bootstrap(&password).is_none());
            let normal = normalize(&password);
            prop_assert_eq!(normal.as_deref(), Ok(password.as_str()));
        }
    }
}
