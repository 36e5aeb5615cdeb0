//! Tokens with which machines join: `abcdef.0123456789abcdef`, each kept in a Secret of `kube-system`.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::User;

/// The group of everybody who came with such a token.
const GROUP: &str = "system:bootstrappers";
/// What further groups of a token begin with.
const GROUP_PREFIX: &str = "system:bootstrappers:";
/// The type of the Secret.
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// Longest part of a group's name behind the prefix.
const GROUP_REST_MAX: usize = 256;

/// A token that is one by its looks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BootstrapToken<'a> {
    id: &'a str,
    secret: &'a str,
}

impl<'a> BootstrapToken<'a> {
    /// Takes a bearer token apart; `None` if it is some other kind of token.
    #[must_use]
    pub fn parse(token: &'a str) -> Option<Self> {
        let (id, secret) = token.split_once('.')?;
        let fine = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        (fine(id, 6) && fine(secret, 16)).then_some(Self { id, secret })
    }

    /// The name of the Secret in `kube-system` that knows this token.
    #[must_use]
    pub fn secret_name(self) -> String {
        format!("bootstrap-token-{}", self.id)
    }

    /// Who comes with this token, by what its Secret says at `now` (seconds since 1970). `None` for a wrong token, and
    /// for one that has expired, is being deleted or isn't meant for logging in.
    #[must_use]
    pub fn user(self, secret: &Value, now: i64) -> Option<User> {
        let data = |key: &str| {
            let encoded = secret["data"][key].as_str().unwrap_or_default();
            STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
        };
        let lives = secret["metadata"]["deletionTimestamp"].is_null() && secret["type"] == SECRET_TYPE;
        let matches = same(data("token-secret").as_bytes(), self.secret.as_bytes()) & (data("token-id") == self.id);
        let meant = data("usage-bootstrap-authentication") == "true";
        if !lives || !matches || !meant || has_expired(&data("expiration"), now) {
            return None;
        }
        let groups = groups(&data("auth-extra-groups"))?;
        Some(User { name: format!("system:bootstrap:{}", self.id), groups, ..User::default() })
    }
}

/// Compares without telling by the time it takes where the difference is.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |seen, (left, right)| seen | (left ^ right)) == 0
}

/// A time that can't be read counts as past.
fn has_expired(expiration: &str, now: i64) -> bool {
    match expiration {
        "" => false,
        text => text.parse::<jiff::Timestamp>().map_or(true, |time| time.as_second() <= now),
    }
}

/// The groups in order; `None` if one of them could be mistaken for somebody else's.
fn groups(extra: &str) -> Option<Vec<String>> {
    let mut groups = BTreeSet::from([GROUP.to_owned()]);
    for group in extra.split(',').filter(|_| !extra.is_empty()) {
        let rest = group.strip_prefix(GROUP_PREFIX)?.as_bytes();
        let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let (last, start) = rest.split_last()?;
        let fine = plain(last) && start.iter().all(|byte| plain(byte) || matches!(byte, b':' | b'-'));
        if !fine || rest.len() > GROUP_REST_MAX {
            return None;
        }
        groups.insert(group.to_owned());
    }
    Some(groups.into_iter().collect())
}
