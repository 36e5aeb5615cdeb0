//! Publishes the keys of service accounts.
//!
//! Owns:    the place where they lie, which outlives it.
//! Needs:   whoever has the files, asked through [`TokenKeys`].
//! Restart: permanent. Its state is read again; meanwhile the last keys stay good.
//! Fails:   on keys that can't be used when it starts; later ones that can't are logged, and the ones before stay.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use k3sd_apiserver_access::authn::service_account::{PublicKey, SigningKey, sign};
use k3sd_runtime::{Actor, ActorError, Context, message_kinds};
use serde_json::Value;
use tokio::sync::watch;

use crate::error::KeysError;

type Text = Pin<Box<dyn Future<Output = Option<Vec<String>>> + Send>>;

/// Where the keys of service accounts come from: PEM, the first of which signs; all of them verify.
#[derive(Clone)]
pub struct TokenKeys(Arc<dyn Fn(bool) -> Text + Send + Sync>);

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKeys")
    }
}

impl TokenKeys {
    /// Asks a function: with `false` for the keys that there are, waiting until there are some; with `true` for the next
    /// ones, once they are others. `None` says that there will be no others.
    pub fn new<F: Future<Output = Option<Vec<String>>> + Send + 'static>(
        ask: impl Fn(bool) -> F + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move |changed| Box::pin(ask(changed))))
    }

    /// Keys that never change.
    #[must_use]
    pub fn fixed(pems: Vec<String>) -> Self {
        Self::new(move |changed| {
            let pems = (!changed).then(|| pems.clone());
            async move { pems }
        })
    }
}

/// The keys, ready for use.
#[derive(Debug)]
pub struct ServiceAccountKeys {
    /// Signs new tokens.
    pub signing: Arc<SigningKey>,
    /// All that may have signed those in use.
    pub verifying: Vec<PublicKey>,
}

impl ServiceAccountKeys {
    /// Reads them.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub fn of_pems(pems: &[String]) -> Result<Self, KeysError> {
        let first = pems.first().ok_or(KeysError::None)?;
        let signing = Arc::new(SigningKey::of_pem(first).map_err(KeysError::Key)?);
        let mut verifying: Vec<PublicKey> = Vec::new();
        for pem in pems {
            for key in PublicKey::all_of_pem(pem).map_err(KeysError::Key)? {
                if !verifying.contains(&key) {
                    verifying.push(key);
                }
            }
        }
        Ok(Self { signing, verifying })
    }

    /// Makes a token that says `claims`, signed with the first key.
    ///
    /// # Errors
    /// [`KeysError::Key`]: the key can't sign now.
    pub fn sign(&self, claims: &Value) -> Result<String, KeysError> {
        sign(&self.signing, claims).map_err(KeysError::Key)
    }
}

/// The place where they lie.
pub(crate) type KeysPlace = Arc<watch::Sender<Option<Arc<ServiceAccountKeys>>>>;

/// What the actor is started with.
#[derive(Clone, Debug)]
pub(crate) struct KeysArgs {
    pub(crate) source: TokenKeys,
    pub(crate) place: KeysPlace,
}

/// See the variants.
pub(crate) enum KeysMsg {
    /// There are others. `None`: there will be none.
    Changed {
        /// In PEM.
        pems: Option<Vec<String>>,
    },
}
message_kinds!(KeysMsg { Changed });

/// The actor itself.
pub(crate) struct Keys(KeysArgs);

impl Keys {
    fn wait(&self, ctx: &mut Context<KeysMsg>) {
        let changed = (self.0.source.0)(true);
        ctx.pipe(async move { KeysMsg::Changed { pems: changed.await } });
    }
}

impl Actor for Keys {
    type Args = KeysArgs;
    type Msg = KeysMsg;

    async fn init(ctx: &mut Context<KeysMsg>, args: KeysArgs) -> Result<Self, ActorError> {
        if let Some(pems) = (args.source.0)(false).await {
            args.place.send_replace(Some(Arc::new(ServiceAccountKeys::of_pems(&pems)?)));
        }
        let keys = Self(args);
        keys.wait(ctx);
        Ok(keys)
    }

    async fn handle(&mut self, ctx: &mut Context<KeysMsg>, message: KeysMsg) -> Result<(), ActorError> {
        let KeysMsg::Changed { pems } = message;
        let Some(pems) = pems else { return Ok(()) };
        match ServiceAccountKeys::of_pems(&pems) {
            Ok(keys) => {
                self.0.place.send_replace(Some(Arc::new(keys)));
            }
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "the new keys of service accounts can't be used; those before stay in use"
            ),
        }
        self.wait(ctx);
        Ok(())
    }
}
