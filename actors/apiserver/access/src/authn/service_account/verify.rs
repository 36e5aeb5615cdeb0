//! Whether a token is to be believed, and who comes with it.
//!
//! It takes two steps, for between them the objects have to be read that the token leans on: [`Tokens::verify`] looks at
//! the token alone, [`Verified::user`] at what became of the objects.

use k3sd_objects::status::go::quote;
use serde_json::Value;
use thiserror::Error;

use super::claims::{Bound, Claims, LEGACY_ISSUER, Reference, audiences, time};
use super::jwt::Unverified;
use super::key::PublicKey;
use crate::{User, service_account_name};

/// Seconds by which clocks may differ, and for which a token outlives an object that is being deleted.
const LEEWAY: i64 = 60;
/// The label of a Secret whose token doesn't count any more.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// The label of a Secret that says on which day its token was last used.
pub const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// Its length in seconds.
const DAY: i64 = 24 * 3600;

/// Why a token isn't believed. Served as 401; shows names, but nothing that could be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct TokenError {
    text: String,
    is_marked: bool,
}

impl TokenError {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_marked: false }
    }

    /// Whether it would be believed if its Secret weren't marked as one whose token doesn't count any more.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.is_marked
    }
}

fn refuse<T>(why: impl Into<String>) -> Result<T, TokenError> {
    Err(TokenError::new(why))
}

/// What tokens of service accounts are checked by.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// Names under which we make, and made, tokens; the first one is the present one.
    pub issuers: Vec<String>,
    /// All that may have signed them.
    pub keys: Vec<PublicKey>,
    /// Whom tokens are meant for that are meant for us.
    pub audiences: Vec<String>,
}

/// The names of the objects of the token's namespace that [`Verified::user`] has to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// Only the service account.
    Nothing,
    /// A pod.
    Pod(&'a str),
    /// A Secret.
    Secret(&'a str),
    /// A node, which is in no namespace.
    Node(&'a str),
}

/// A token whose signature, times and audiences are right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What it says; of a token from a Secret, as far as that knows it.
    pub claims: Claims,
    /// For whom it is meant among those who were asked about.
    pub audiences: Vec<String>,
    legacy: bool,
}

impl Tokens {
    /// Checks a token at `now` (seconds since 1970). `wanted` are the audiences that a review asks about, empty for us.
    /// `None` for what is no token of a service account, which another authenticator may know.
    ///
    /// # Errors
    ///
    /// Fails for a token that claims to be ours and must not be believed.
    pub fn verify(&self, token: &str, wanted: &[String], now: i64) -> Result<Option<Verified>, TokenError> {
        let Some(unverified) = Unverified::parse(token) else { return Ok(None) };
        let issuer = unverified.claims["iss"].as_str().unwrap_or_default();
        let legacy = issuer == LEGACY_ISSUER;
        if !legacy && !self.issuers.iter().any(|ours| ours == issuer) {
            return Ok(None);
        }
        let candidates = unverified.candidates(&self.keys);
        if candidates.is_empty() {
            return refuse("invalid signature, no keys found");
        }
        if !candidates.into_iter().any(|key| unverified.is_signed_by(key)) {
            return refuse("invalid bearer token");
        }
        let claims = if legacy { legacy_claims(&unverified.claims)? } else { claims(&unverified.claims)? };
        check_times(&claims, now)?;
        let audiences = self.common_audiences(&claims, wanted, legacy)?;
        Ok(Some(Verified { claims, audiences, legacy }))
    }

    /// Only tokens of Secrets may do without audiences; they are meant for us.
    fn common_audiences(&self, claims: &Claims, wanted: &[String], legacy: bool) -> Result<Vec<String>, TokenError> {
        let meant = if legacy && claims.audiences.is_empty() { &self.audiences } else { &claims.audiences };
        let wanted = if wanted.is_empty() { &self.audiences } else { wanted };
        let common: Vec<String> = meant.iter().filter(|one| wanted.contains(one)).cloned().collect();
        if common.is_empty() && !self.audiences.is_empty() {
            let list = |all: &[String]| format!("[{}]", all.iter().map(|one| quote(one)).collect::<Vec<_>>().join(" "));
            let (meant, wanted) = (list(meant), list(wanted));
            return refuse(format!("token audiences {meant} is invalid for the target audiences {wanted}"));
        }
        Ok(common)
    }
}

impl Verified {
    /// Which object has to be read besides the service account.
    #[must_use]
    pub fn lookup(&self) -> Lookup<'_> {
        match &self.claims.bound {
            None => Lookup::Nothing,
            Some(Bound::Pod { pod, .. }) => Lookup::Pod(&pod.name),
            Some(Bound::Secret(secret)) => Lookup::Secret(&secret.name),
            Some(Bound::Node(node)) => Lookup::Node(&node.name),
        }
    }

    /// Whether it is kept in a Secret, on which its uses are noted.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.legacy
    }

    /// Whether it is kept in a Secret that was made by itself: then its account refers to that.
    #[must_use]
    pub fn is_generated(&self, account: &Value) -> bool {
        let Lookup::Secret(secret) = self.lookup() else { return false };
        let mut references = account["secrets"].as_array().into_iter().flatten();
        self.legacy && references.any(|reference| reference["name"] == secret)
    }

    /// Whether the token is used longer than its holder asked for, which clients should be warned of.
    #[must_use]
    pub fn is_stale(&self, now: i64) -> bool {
        self.claims.warn_after.is_some_and(|time| now > time)
    }

    /// Who comes with the token. `account` is the service account and `bound` the object of [`Verified::lookup`], `None`
    /// where there is none; `token` is the token again.
    ///
    /// # Errors
    ///
    /// Fails if one of the objects is gone or is another one of that name.
    pub fn user(
        &self,
        account: Option<&Value>,
        bound: Option<&Value>,
        token: &str,
        now: i64,
    ) -> Result<User, TokenError> {
        if self.legacy {
            self.check_legacy(account, bound, token)?;
        } else {
            self.check(account, bound, now)?;
        }
        let (namespace, account) = (&self.claims.namespace, &self.claims.account);
        let mut user = User::new(&service_account_name(namespace, &account.name), &["system:serviceaccounts"]);
        user.groups.push(format!("system:serviceaccounts:{namespace}"));
        user.uid.clone_from(&account.uid);
        let mut put = |key: &str, text: &str| {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![text.to_owned()]);
        };
        let node = match &self.claims.bound {
            Some(Bound::Pod { pod, node }) => {
                put("pod-name", &pod.name);
                put("pod-uid", &pod.uid);
                node.as_ref()
            }
            Some(Bound::Node(node)) => Some(node),
            _ => None,
        };
        if let Some(node) = node {
            put("node-name", &node.name);
            if !node.uid.is_empty() {
                put("node-uid", &node.uid);
            }
        }
        if !self.claims.id.is_empty() {
            put("credential-id", &format!("JTI={}", self.claims.id));
        }
        Ok(user)
    }

    fn check(&self, account: Option<&Value>, bound: Option<&Value>, now: i64) -> Result<(), TokenError> {
        let (namespace, expected) = (&self.claims.namespace, &self.claims.account);
        let Some(account) = account else {
            return refuse(format!("serviceaccounts {} not found", quote(&expected.name)));
        };
        if is_gone(account, now) {
            return refuse(format!("service account {namespace}/{} has been deleted", expected.name));
        }
        let found = uid(account);
        if found != expected.uid {
            return refuse(format!("service account UID ({found}) does not match claim ({})", expected.uid));
        }
        let (kind, expected) = match &self.claims.bound {
            None => return Ok(()),
            Some(Bound::Pod { pod, .. }) => ("pod", pod),
            Some(Bound::Secret(secret)) => ("secret", secret),
            Some(Bound::Node(node)) => ("node", node),
        };
        let Some(bound) = bound.filter(|bound| !is_gone(bound, now)) else {
            return refuse("service account token has been invalidated");
        };
        let (found, expected) = (uid(bound), &expected.uid);
        if found != expected {
            return refuse(format!(
                "{kind} UID ({found}) does not match service account {kind} ref claim ({expected})"
            ));
        }
        Ok(())
    }

    fn check_legacy(&self, account: Option<&Value>, secret: Option<&Value>, token: &str) -> Result<(), TokenError> {
        use base64::Engine as _;

        let (namespace, expected) = (&self.claims.namespace, &self.claims.account);
        let lives = |object: &&Value| object["metadata"]["deletionTimestamp"].is_null();
        let Some(secret) = secret.filter(lives) else { return refuse("Token has been invalidated") };
        let kept = secret["data"]["token"].as_str().unwrap_or_default();
        // No secret is given away by the time this takes: whoever has the signature has the token.
        if base64::engine::general_purpose::STANDARD.decode(kept).ok().as_deref() != Some(token.as_bytes()) {
            return refuse("Token does not match server's copy");
        }
        let Some(account) = account else {
            return refuse(format!("serviceaccounts {} not found", quote(&expected.name)));
        };
        if !lives(&account) {
            return refuse(format!("ServiceAccount {namespace}/{} has been deleted", expected.name));
        }
        let found = uid(account);
        if found != expected.uid {
            return refuse(format!("ServiceAccount UID ({found}) does not match claim ({})", expected.uid));
        }
        if secret["metadata"]["labels"][INVALID_SINCE].as_str().is_some_and(|since| !since.is_empty()) {
            let name = secret["metadata"]["name"].as_str().unwrap_or_default();
            let text = format!(
                "the token in secret {namespace}/{name} for service account {namespace}/{} has been marked invalid. Use \
                 tokens from the TokenRequest API or manually created secret-based tokens, or remove the \
                 '{INVALID_SINCE}' label from the secret to temporarily allow use of this token",
                expected.name
            );
            return Err(TokenError { text, is_marked: true });
        }
        Ok(())
    }
}

/// The day to note on a Secret whose token is used at `now` (seconds since 1970), in the label [`LAST_USED`]; `None` if it
/// is noted there. Tomorrow is as good as today: servers' clocks differ.
#[must_use]
pub fn use_to_note(secret: &Value, now: i64) -> Option<String> {
    let day = |time: i64| {
        let time = jiff::Timestamp::from_second(time).unwrap_or(jiff::Timestamp::MAX);
        time.strftime("%Y-%m-%d").to_string()
    };
    let noted = secret["metadata"]["labels"][LAST_USED].as_str().unwrap_or_default();
    let today = day(now);
    (noted != today && noted != day(now.saturating_add(DAY))).then_some(today)
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

/// Whether an object is being deleted for longer than a token may outlive it. A time that can't be read counts as past.
fn is_gone(object: &Value, now: i64) -> bool {
    let Some(text) = object["metadata"]["deletionTimestamp"].as_str() else { return false };
    text.parse::<jiff::Timestamp>().map_or(true, |time| time.as_second() < now.saturating_sub(LEEWAY))
}

fn check_times(claims: &Claims, now: i64) -> Result<(), TokenError> {
    if claims.not_before.is_some_and(|time| now.saturating_add(LEEWAY) < time) {
        return refuse("service account token is not valid yet");
    }
    if claims.expires.is_some_and(|time| now.saturating_sub(LEEWAY) > time) {
        return refuse("service account token has expired");
    }
    if claims.issued.is_some_and(|time| now.saturating_add(LEEWAY) < time) {
        return refuse("service account token is issued in the future");
    }
    Ok(())
}

fn claims(json: &Value) -> Result<Claims, TokenError> {
    Claims::from_json(json).ok_or_else(|| TokenError::new("service account token claims could not be read"))
}

/// Tokens of Secrets have their claims side by side.
fn legacy_claims(json: &Value) -> Result<Claims, TokenError> {
    let text = |key: &str, what: &str| match json[key].as_str() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => refuse(format!("{what} claim is missing")),
    };
    let subject = text("sub", "sub")?;
    let namespace = text("kubernetes.io/serviceaccount/namespace", "namespace")?;
    let secret = text("kubernetes.io/serviceaccount/secret.name", "secretName")?;
    let name = text("kubernetes.io/serviceaccount/service-account.name", "serviceAccountName")?;
    let uid = text("kubernetes.io/serviceaccount/service-account.uid", "serviceAccountUID")?;
    if subject != service_account_name(&namespace, &name) {
        return refuse("sub claim is invalid");
    }
    let unreadable = || TokenError::new("service account token claims could not be read");
    Ok(Claims {
        issuer: LEGACY_ISSUER.to_owned(),
        audiences: audiences(&json["aud"]).ok_or_else(unreadable)?,
        expires: time(&json["exp"]).ok_or_else(unreadable)?,
        issued: time(&json["iat"]).ok_or_else(unreadable)?,
        not_before: time(&json["nbf"]).ok_or_else(unreadable)?,
        id: String::new(),
        namespace,
        account: Reference { name, uid },
        bound: Some(Bound::Secret(Reference { name: secret, uid: String::new() })),
        warn_after: None,
    })
}
