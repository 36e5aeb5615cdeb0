//! Credentials for registries from programs of the administrator's: a file says which program knows about which images,
//! the program is asked when an image is pulled, and what it says is kept for as long as it says.
//!
//! * [`config`] reads the file or files, `cache` keeps answers, `plugin` runs the programs.

mod cache;
pub mod config;
mod plugin;

use std::path::Path;

use k3sd_client::api::Connect;
use k3sd_runtime::Clock;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use tokio::sync::{Semaphore, watch};

use self::cache::{Account, Cache, Scope};
use self::config::{CredentialError, Provider, TokenAttributes};
use crate::images::{Auths, Pattern, repository};
use crate::spec;

/// The programs of a node.
#[derive(Debug, Default)]
pub struct CredentialProviders(Vec<Known>);

/// A program, and what it said.
struct Known {
    provider: Provider,
    patterns: Vec<Pattern>,
    cache: watch::Sender<Cache>,
    /// One run at a time: who waits finds the answer when the other has it.
    turn: Semaphore,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never what it has said.
        f.debug_struct("Known").field("provider", &self.provider).finish_non_exhaustive()
    }
}

impl CredentialProviders {
    /// Reads the configuration, a file or a directory of files, and looks for the programs.
    ///
    /// # Errors
    /// What is wrong with it: a node doesn't start with credentials that it can't use.
    pub fn load(path: &Path, programs: &Path) -> Result<Self, CredentialError> {
        let providers = config::load(path, programs)?;
        Ok(Self(providers.into_iter().map(Known::new).collect()))
    }

    /// Asks each program that knows about the image. One that fails is told in the log, and has nothing to say.
    pub(crate) async fn ask(&self, connect: &Connect, clock: &Clock, pod: &Pod, image: &str) -> Auths {
        let mut found = Auths::default();
        for known in self.0.iter().filter(|known| known.patterns.iter().any(|pattern| pattern.matches(image))) {
            match known.ask(connect, clock, pod, image).await {
                Ok(auths) => found.extend(auths),
                Err(error) => {
                    tracing::warn!(provider = known.provider.name, image, error, "a credential provider failed");
                }
            }
        }
        found
    }
}

impl Known {
    fn new(provider: Provider) -> Self {
        let patterns = provider.match_images.iter().map(|text| Pattern::new(text)).collect();
        Self { provider, patterns, cache: watch::channel(Cache::default()).0, turn: Semaphore::new(1) }
    }

    async fn ask(&self, connect: &Connect, clock: &Clock, pod: &Pod, image: &str) -> Result<Auths, String> {
        let (image, account) = (
            repository(image),
            match &self.provider.token_attributes {
                None => None,
                Some(attributes) => match account(connect, pod, attributes).await? {
                    Whose::Nobody => return Ok(Auths::default()),
                    Whose::Node => None,
                    Whose::Account(account) => Some(account),
                },
            },
        );
        let known = |now| self.cache.borrow().get(&image, account.as_ref(), now);
        if let Some(auths) = known(clock.now()) {
            return Ok(auths);
        }
        let _turn = self.turn.acquire().await;
        if let Some(auths) = known(clock.now()) {
            return Ok(auths);
        }
        let token = match (&self.provider.token_attributes, &account) {
            (Some(attributes), Some(_)) => Some(token(connect, pod, attributes).await?),
            _ => None,
        };
        let request = plugin::request(&self.provider.api_version, &image, token.as_deref(), account.as_ref());
        let said = plugin::run(&self.provider, &request, clock).await?;
        let said = plugin::answer(&self.provider.api_version, &said)?;
        let keeps = said.keeps.unwrap_or(self.provider.default_cache_duration);
        if !keeps.is_zero() {
            let scope = match said.scope {
                plugin::CacheKeyType::Image => Scope::Image(image.clone()),
                plugin::CacheKeyType::Registry => Scope::Registry(cache::registry(&image).to_owned()),
                plugin::CacheKeyType::Global => Scope::Global,
            };
            let now = clock.now();
            self.cache.send_modify(|cache| cache.put((scope, account), said.auths.clone(), now, now + keeps));
        }
        Ok(said.auths)
    }
}

/// For whom a program is asked.
enum Whose {
    /// It isn't asked: the pod has no service account that it would need, or one that doesn't take part.
    Nobody,
    /// For the node itself.
    Node,
    /// For a pod's service account.
    Account(Account),
}

async fn account(connect: &Connect, pod: &Pod, attributes: &TokenAttributes) -> Result<Whose, String> {
    let spec = spec::spec(pod);
    let Some(name) = spec.service_account_name.as_deref().filter(|name| !name.is_empty() && !spec::is_static(pod))
    else {
        return Ok(if attributes.require_service_account { Whose::Nobody } else { Whose::Node });
    };
    let api: Api<ServiceAccount> = Api::namespaced(connect.client(), spec::namespace(pod));
    let found = api.get(name).await.map_err(|error| format!("service account {name:?}: {error}"))?;
    let own = found.metadata.annotations.unwrap_or_default();
    let value = |key: &String| own.get(key).map(|value| (key.clone(), value.clone()));
    let required: Vec<_> = attributes.required_service_account_annotation_keys.iter().filter_map(value).collect();
    if required.len() < attributes.required_service_account_annotation_keys.len() {
        return Ok(Whose::Nobody);
    }
    let optional = attributes.optional_service_account_annotation_keys.iter().filter_map(value);
    Ok(Whose::Account(Account {
        namespace: spec::namespace(pod).to_owned(),
        name: name.to_owned(),
        uid: found.metadata.uid.unwrap_or_default(),
        // What is for a token is for this pod's alone.
        pod: (attributes.cache_type == config::CacheType::Token).then(|| spec::uid(pod).to_owned()),
        annotations: required.into_iter().chain(optional).collect(),
    }))
}

/// A token of the pod's service account for the audience that the program is for.
async fn token(connect: &Connect, pod: &Pod, attributes: &TokenAttributes) -> Result<String, String> {
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(spec::name(pod).to_owned()),
        uid: Some(spec::uid(pod).to_owned()),
    };
    let wanted = TokenRequestSpec {
        audiences: vec![attributes.service_account_token_audience.clone()],
        bound_object_ref: Some(bound),
        expiration_seconds: None,
    };
    let body = TokenRequest { spec: wanted, ..TokenRequest::default() };
    let api: Api<ServiceAccount> = Api::namespaced(connect.client(), spec::namespace(pod));
    let account = spec::spec(pod).service_account_name.clone().unwrap_or_default();
    let made = api.create_token_request(&account, &PostParams::default(), &body).await;
    let made = made.map_err(|error| format!("a token of service account {account:?}: {error}"))?;
    made.status.map(|status| status.token).ok_or_else(|| "the API gave no token".to_owned())
}
