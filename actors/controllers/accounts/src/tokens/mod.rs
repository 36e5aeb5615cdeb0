//! Tokens of service accounts that Secrets hold: two controllers.
//!
//! * `serviceaccount-token` fills each Secret of this type with a token, and deletes it when its account is gone.
//! * `legacy-service-account-token-cleaner` marks those that were made by themselves once and lie unused for a year, and
//!   deletes them a year later. The API server notes when each was last used, and doesn't believe those that are marked.

mod clean;
mod core;
mod mounts;

use std::fmt;
use std::sync::Arc;

use k3sd_client::controller::setup::{Bundle, Setup, TokenSigner};
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::informer::{Index, Informer, InformerArgs, ObjectKey, informer};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::{ObjectReference, Secret, ServiceAccount};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};

use self::clean::Cleaner;
use self::core::{claims, filled, named, without_reference};

/// The type of these Secrets.
const TYPE: &str = "type=kubernetes.io/service-account-token";
/// The user who keeps tokens: upstream's manager does so as itself.
const MANAGER: &str = "system:kube-controller-manager";
/// What Events are from.
const COMPONENT: &str = "tokens-controller";
/// Finds Secrets by the account that they name.
const BY_ACCOUNT: &str = "account";

/// What the loop looks at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    /// A Secret.
    Secret(ObjectKey),
    /// A Secret that was deleted: its account may still refer to it.
    Gone {
        /// Its name, in the namespace of the account.
        secret: ObjectKey,
        /// The account that it named, and that account's uid if it said that.
        account: (String, String),
    },
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(secret) => write!(f, "{secret}"),
            Self::Gone { secret, .. } => write!(f, "{secret} (gone)"),
        }
    }
}

/// Both loops, and the informer of these Secrets alone.
pub(crate) fn tokens(setup: &mut Setup<'_>) -> Vec<ChildSpec> {
    let by_account = Index { name: BY_ACCOUNT, texts: by_account };
    let args = InformerArgs::<Secret>::all(setup.informers.connect()).fields(TYPE).indexes(vec![by_account]);
    let (child, secrets) = informer("service-account-tokens", args);
    let accounts = setup.informers.informer::<ServiceAccount>();
    let mut children = vec![child];
    children.extend(keeper(setup, &secrets, &accounts));
    let cleaner = Cleaner::new(setup, &secrets, &accounts);
    children.push(clean::child(setup, cleaner));
    children
}

fn by_account(secret: &Secret) -> Vec<String> {
    let of = |(account, _): (&str, &str)| text_of(secret.metadata.namespace.as_deref().unwrap_or_default(), account);
    named(secret).map(of).into_iter().collect()
}

fn text_of(namespace: &str, account: &str) -> String {
    format!("{namespace}/{account}")
}

/// The Secrets that name an account.
fn secrets_of(secrets: &Informer<Secret>, account: &ServiceAccount) -> Vec<ObjectKey> {
    let Some(shown) = secrets.snapshot() else { return Vec::new() };
    let meta = &account.metadata;
    let text = text_of(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    shown.by(BY_ACCOUNT, &text).map(|secret| ObjectKey::of(&**secret)).collect()
}

struct Keeper {
    client: Client,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    signer: Arc<dyn TokenSigner>,
    authority: Bundle,
}

/// `None` where no tokens can be signed.
fn keeper(setup: &Setup<'_>, secrets: &Informer<Secret>, accounts: &Informer<ServiceAccount>) -> Option<ChildSpec> {
    let keeper = Keeper {
        client: setup.identities.user(MANAGER, &[]).client(),
        secrets: secrets.clone(),
        accounts: accounts.clone(),
        signer: setup.config.tokens.clone()?,
        authority: setup.config.root_ca.clone(),
    };
    let known = secrets.clone();
    let looped = Loop::new(keeper, setup.leading.clone())
        .watch(secrets, |old: Option<&Secret>, new, keys| {
            keys.extend(new.map(|new| Key::Secret(ObjectKey::of(new))));
            let gone = old.filter(|_| new.is_none()).and_then(|old| {
                let (account, uid) = named(old)?;
                Some(Key::Gone { secret: ObjectKey::of(old), account: (account.to_owned(), uid.to_owned()) })
            });
            keys.extend(gone);
        })
        .watch(accounts, move |old: Option<&ServiceAccount>, new, keys| {
            // What an account says of itself is nothing to its Secrets; only which one it is.
            if old.zip(new).is_some_and(|(old, new)| old.metadata.uid == new.metadata.uid) {
                return;
            }
            let account = new.or(old);
            keys.extend(account.iter().flat_map(|account| secrets_of(&known, account)).map(Key::Secret));
        })
        .quarantine(setup.recorder.component(COMPONENT), |key| {
            let Key::Secret(key) = key else { return None };
            Some(reference(key))
        });
    Some(looped.child("serviceaccount-token"))
}

fn reference(key: &ObjectKey) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Secret".to_owned()),
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        ..ObjectReference::default()
    }
}

impl Controller for Keeper {
    type Key = Key;

    async fn reconcile(&self, key: &Key, turn: &mut Turn) -> Result<(), Failure> {
        match key {
            Key::Secret(key) => self.keep(key, turn).await,
            Key::Gone { secret, account: (account, uid) } => self.forget(secret, account, uid, turn).await,
        }
    }
}

impl Keeper {
    /// Fills a Secret, or deletes it if its account is gone.
    async fn keep(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let shown = self.secrets.snapshot();
        let Some(secret) = shown.as_ref().and_then(|shown| shown.get(&key.namespace, &key.name)) else { return Ok(()) };
        let Some((name, uid)) = named(secret) else { return Ok(()) };
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        let Some(account) = self.account(&key.namespace, name, uid).await? else {
            let uid = secret.metadata.uid.clone();
            let preconditions = Some(Preconditions { uid, resource_version: None });
            let params = DeleteParams { preconditions, ..DeleteParams::default() };
            match api.delete(&key.name, &params).await.map_err(Failure::from) {
                Ok(_) => turn.deleted(&self.secrets, secret),
                // Gone already, or another one by now.
                Err(failure) if failure.is_stale() => {}
                Err(failure) => return Err(failure),
            }
            return Ok(());
        };
        let sign = || self.signer.sign(&claims(&account, &key.name));
        let Some(filled) = filled(secret, &account, &self.authority.pem(), sign).map_err(Failure::other)? else {
            return Ok(());
        };
        match api.replace(&key.name, &PostParams::default(), &filled).await.map_err(Failure::from) {
            Ok(written) => turn.wrote(&self.secrets, &written),
            // Its informer tells of what it is by now.
            Err(failure) if failure.is_stale() => {}
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    /// An account; one that the copies don't show may be new. Another one of the name doesn't count, if it is known
    /// which is meant.
    async fn account(&self, namespace: &str, name: &str, uid: &str) -> Result<Option<Arc<ServiceAccount>>, Failure> {
        let is_meant = |account: &Arc<ServiceAccount>| {
            uid.is_empty() || account.metadata.uid.as_deref().is_some_and(|found| found == uid)
        };
        let shown = self.accounts.snapshot().and_then(|shown| shown.get(namespace, name).cloned());
        if let Some(account) = shown.filter(is_meant) {
            return Ok(Some(account));
        }
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        Ok(api.get_opt(name).await?.map(Arc::new).filter(is_meant))
    }

    /// Takes a Secret that is gone out of its account's list.
    async fn forget(&self, secret: &ObjectKey, account: &str, uid: &str, turn: &mut Turn) -> Result<(), Failure> {
        let is_back = |secrets: &Informer<Secret>| {
            secrets.snapshot().is_some_and(|shown| shown.get(&secret.namespace, &secret.name).is_some())
        };
        let shown = self.accounts.snapshot();
        let Some(found) = shown.as_ref().and_then(|shown| shown.get(&secret.namespace, account)) else { return Ok(()) };
        let is_meant = uid.is_empty() || found.metadata.uid.as_deref() == Some(uid);
        if !is_meant || is_back(&self.secrets) {
            return Ok(());
        }
        let Some(without) = without_reference(found, &secret.name) else { return Ok(()) };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &secret.namespace);
        match api.replace(account, &PostParams::default(), &without).await {
            Ok(written) => turn.wrote(&self.accounts, &written),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
