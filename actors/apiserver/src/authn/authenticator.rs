//! From what a request shows to whom it counts as.
//!
//! In upstream's order: a front proxy's word, the certificate, a token of a file, of a service account, of a Secret. The
//! first that knows somebody decides. Whoever shows something that nobody knows is refused; whoever shows nothing is
//! anonymous, if that is allowed.

use std::sync::Arc;
use std::time::Duration;

use k3sd_apiserver_access::User;
use k3sd_apiserver_access::authn::service_account::{Lookup, TokenError, Tokens, Verified, use_to_note};
use k3sd_apiserver_access::authn::{
    BootstrapToken, FrontProxy, Headers, StaticTokens, anonymous, authenticated, bearer_token, web_socket_token,
};
use k3sd_apiserver_store::{ReadAt, Stores};
use k3sd_objects::object::Object;
use ring::digest::{SHA256, digest};
use serde_json::Value;
use tokio::sync::watch;

use super::{ServiceAccountKeys, Uses};
use crate::front::ClientCertificate;

/// How long a signature that was checked isn't checked again; as long as upstream remembers a token.
const MEMORY: Duration = Duration::from_secs(10);

/// What is said to whoever comes with a token that was made by itself.
const GENERATED: &str = "Use tokens from the TokenRequest API or manually created secret-based tokens instead of \
     auto-generated secret-based tokens.";

/// What tells who somebody is, as metrics name it: his certificate.
pub(crate) const CERTIFICATE: &str = "x509";

/// Somebody we know.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// Who it is.
    pub(crate) user: Arc<User>,
    /// What told us, as metrics name it.
    pub(crate) by: &'static str,
    /// What he should be told about how he showed it.
    pub(crate) warning: Option<&'static str>,
}

/// Why a request is answered 401. For logs; the client is told nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refusal(String);

/// The last token of a connection whose signature was right: the next request comes with the same.
#[derive(Clone, Debug)]
pub(crate) struct TokenMemory(Arc<watch::Sender<Option<Remembered>>>);

#[derive(Clone, Debug)]
struct Remembered {
    digest: [u8; 32],
    verified: Arc<Verified>,
    keys: Arc<ServiceAccountKeys>,
    until: Duration,
}

impl Default for TokenMemory {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

/// What is asked who somebody is.
pub(crate) struct Authenticator {
    pub(crate) stores: Stores,
    pub(crate) keys: watch::Receiver<Option<Arc<ServiceAccountKeys>>>,
    /// Names under which tokens are and were made; the first is the present one.
    pub(crate) issuers: Vec<String>,
    pub(crate) audiences: Vec<String>,
    pub(crate) static_tokens: Arc<StaticTokens>,
    pub(crate) front_proxy: FrontProxy,
    pub(crate) bootstrap_tokens: bool,
    pub(crate) anonymous: bool,
    /// Told when the token of a Secret is used.
    pub(crate) uses: Uses,
}

/// What was found out about one way of being known.
enum Found {
    /// It wasn't tried.
    Nothing,
    /// Who, by what, and for whom a token is meant among those who were asked about.
    Somebody(User, &'static str, Vec<String>),
    /// The same, by a token that was made by itself and lies in a Secret.
    Generated(User, &'static str, Vec<String>),
    Wrong(String),
}

impl Authenticator {
    /// Finds out who makes a request. `wall` is the time since 1970.
    ///
    /// # Errors
    /// Something was shown, and nobody is known by it; or nothing was shown, which isn't allowed.
    pub(crate) async fn authenticate(
        &self,
        certificate: &ClientCertificate,
        headers: Headers<'_>,
        memory: &TokenMemory,
        wall: Duration,
    ) -> Result<Known, Refusal> {
        let mut wrong = Vec::new();
        if let Some(user) = self.front_proxy(certificate, headers, wall) {
            return Ok(Known { user: Arc::new(authenticated(user)), by: "request-header", warning: None });
        }
        match &certificate.user {
            Some(Ok(_)) if certificate.not_after < wall => {
                wrong.push("the certificate has expired".to_owned());
            }
            Some(Ok(user)) => return Ok(Known { user: user.clone(), by: CERTIFICATE, warning: None }),
            Some(Err(why)) => wrong.push(why.clone()),
            None => {}
        }
        match self.by_header(headers, memory, wall).await {
            Found::Somebody(user, by, _) => {
                return Ok(Known { user: Arc::new(authenticated(user)), by, warning: None });
            }
            Found::Generated(user, by, _) => {
                return Ok(Known { user: Arc::new(authenticated(user)), by, warning: Some(GENERATED) });
            }
            Found::Wrong(why) => wrong.push(why),
            Found::Nothing => {}
        }
        match (wrong.is_empty(), self.anonymous) {
            (true, true) => Ok(Known { user: Arc::new(anonymous()), by: "anonymous", warning: None }),
            (true, false) => Err(Refusal("nothing was shown".to_owned())),
            (false, _) => Err(Refusal(wrong.join("; "))),
        }
    }

    fn front_proxy(&self, certificate: &ClientCertificate, headers: Headers<'_>, wall: Duration) -> Option<User> {
        let name = certificate.front_proxy.as_deref()?;
        if certificate.not_after < wall || !self.front_proxy.trusts(name) {
            return None;
        }
        self.front_proxy.user(headers)
    }

    /// Looks at a token as it would be looked at in a request, for a review: who comes with it, and for whom of `wanted`
    /// (empty stands for us) it is meant. `None` for a token that nobody knows.
    ///
    /// # Errors
    /// Why it isn't believed.
    pub(crate) async fn review(
        &self,
        token: &str,
        wanted: &[String],
        wall: Duration,
    ) -> Result<Option<(User, Vec<String>)>, String> {
        match self.by_token(token, wanted, &TokenMemory::default(), wall).await {
            Found::Somebody(user, _, audiences) | Found::Generated(user, _, audiences) => {
                Ok(Some((authenticated(user), audiences)))
            }
            Found::Nothing => Ok(None),
            Found::Wrong(why) => Err(why),
        }
    }

    async fn by_header(&self, headers: Headers<'_>, memory: &TokenMemory, wall: Duration) -> Found {
        if let Some(token) = bearer_token(headers) {
            return self.by_token(token, &[], memory, wall).await;
        }
        let upgrades = headers.all("Upgrade").any(|protocol| protocol.eq_ignore_ascii_case("websocket"));
        match upgrades.then(|| web_socket_token(headers)).transpose() {
            Ok(None | Some(None)) => Found::Nothing,
            Ok(Some(Some(bearer))) => self.by_token(&bearer.token, &[], memory, wall).await,
            Err(error) => Found::Wrong(error.to_string()),
        }
    }

    async fn by_token(&self, token: &str, wanted: &[String], memory: &TokenMemory, wall: Duration) -> Found {
        // Tokens that name nobody they are meant for are meant for us.
        let ours: Vec<String> = match wanted {
            [] => self.audiences.clone(),
            wanted => wanted.iter().filter(|one| self.audiences.contains(one)).cloned().collect(),
        };
        if let Some(user) = self.static_tokens.user(token).filter(|_| !ours.is_empty()) {
            return Found::Somebody(user.clone(), "static-token", ours);
        }
        let now = i64::try_from(wall.as_secs()).unwrap_or(i64::MAX);
        match self.by_service_account(token, wanted, memory, wall, now).await {
            Ok(Found::Nothing) => {}
            Ok(found) => return found,
            Err(why) => return Found::Wrong(why),
        }
        let bootstrap = BootstrapToken::parse(token).filter(|_| self.bootstrap_tokens && !ours.is_empty());
        if let Some(bootstrap) = bootstrap {
            match self.object("secrets", "kube-system", &bootstrap.secret_name()).await {
                Ok(secret) => {
                    if let Some(user) = secret.and_then(|secret| bootstrap.user(&secret.value(), now)) {
                        return Found::Somebody(user, "bootstrap-token", ours);
                    }
                }
                Err(why) => return Found::Wrong(why),
            }
        }
        Found::Wrong("invalid bearer token".to_owned())
    }

    async fn by_service_account(
        &self,
        token: &str,
        wanted: &[String],
        memory: &TokenMemory,
        wall: Duration,
        now: i64,
    ) -> Result<Found, String> {
        let Some(verified) = self.verify(token, wanted, memory, wall, now)? else { return Ok(Found::Nothing) };
        let namespace = &verified.claims.namespace;
        let account = self.object("serviceaccounts", namespace, &verified.claims.account.name).await?;
        let bound = match verified.lookup() {
            Lookup::Nothing => None,
            Lookup::Pod(name) => self.object("pods", namespace, name).await?,
            Lookup::Secret(name) => self.object("secrets", namespace, name).await?,
            Lookup::Node(name) => self.object("nodes", "", name).await?,
        };
        let value = |object: Option<Object>| object.map(|object| object.value());
        let (account, bound): (Option<Value>, Option<Value>) = (value(account), value(bound));
        let outcome = verified.user(account.as_ref(), bound.as_ref(), token, now);
        // Somebody who still uses one that doesn't count is worth knowing of too.
        if verified.is_kept()
            && outcome.as_ref().map_or_else(TokenError::is_marked, |_| true)
            && let (Lookup::Secret(name), Some(secret)) = (verified.lookup(), &bound)
            && use_to_note(secret, now).is_some()
        {
            self.uses.tell(namespace, name);
        }
        let user = outcome.map_err(|error| error.to_string())?;
        let (by, audiences) = ("service-account", verified.audiences.clone());
        Ok(match account.is_some_and(|account| verified.is_generated(&account)) {
            true => Found::Generated(user, by, audiences),
            false => Found::Somebody(user, by, audiences),
        })
    }

    /// Whether the signature and the times of a token are right. Checking a signature costs more than most requests.
    fn verify(
        &self,
        token: &str,
        wanted: &[String],
        memory: &TokenMemory,
        wall: Duration,
        now: i64,
    ) -> Result<Option<Arc<Verified>>, String> {
        let Some(keys) = self.keys.borrow().clone() else { return Ok(None) };
        let hash = digest(&SHA256, token.as_bytes());
        let hash: [u8; 32] = hash.as_ref().try_into().expect("SHA-256 has 32 bytes");
        if let Some(remembered) = &*memory.0.borrow()
            && remembered.digest == hash
            && remembered.until > wall
            && Arc::ptr_eq(&remembered.keys, &keys)
        {
            return Ok(Some(remembered.verified.clone()));
        }
        let tokens =
            Tokens { issuers: self.issuers.clone(), keys: keys.verifying.clone(), audiences: self.audiences.clone() };
        let verified = tokens.verify(token, wanted, now).map_err(|error| error.to_string())?;
        let verified = verified.map(Arc::new);
        if let Some(verified) = &verified {
            let remembered = Remembered { digest: hash, verified: verified.clone(), keys, until: wall + MEMORY };
            memory.0.send_replace(Some(remembered));
        }
        Ok(verified)
    }

    /// An object, from the cache if it is there; else from the store, for it may be new.
    async fn object(&self, plural: &str, namespace: &str, name: &str) -> Result<Option<Object>, String> {
        let Some(store) = self.stores.get("", plural) else { return Ok(None) };
        if let Some(object) = store.snapshot().get(namespace, name) {
            return Ok(Some(object.clone()));
        }
        store.get(namespace, name, ReadAt::Latest).await.map_err(|status| status.message)
    }
}
