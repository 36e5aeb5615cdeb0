//! The `legacy-service-account-token-cleaner`: see the module's page.

use std::time::Duration;

use jiff::SignedDuration;
use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::informer::{Informer, ObjectKey};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;

use super::core::{Fate, INVALID_SINCE, day, fate, named, refers};
use super::{mounts, secrets_of};

const COMPONENT: &str = "legacy-service-account-token-cleaner";
/// Where the API server says since which day it notes uses.
const TRACKING: (&str, &str) = ("kube-system", "kube-apiserver-legacy-service-account-token-tracking");
const SINCE: &str = "since";
/// How long a token may lie unused, and then be marked.
const PERIOD: Duration = Duration::from_secs(8760 * 3600);
/// How soon one is asked about again that only a pod keeps; as often as upstream asks about all.
const LOOK_EVERY: Duration = Duration::from_secs(24 * 3600);

pub(super) struct Cleaner {
    client: Client,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    pods: Informer<Pod>,
    period: SignedDuration,
}

impl Cleaner {
    pub(super) fn new(setup: &mut Setup<'_>, secrets: &Informer<Secret>, accounts: &Informer<ServiceAccount>) -> Self {
        let period = setup.config.token_clean_up_period.unwrap_or(PERIOD);
        Self {
            client: setup.connect(COMPONENT).client(),
            secrets: secrets.clone(),
            accounts: accounts.clone(),
            pods: setup.informers.informer(),
            period: SignedDuration::try_from(period).unwrap_or(SignedDuration::MAX),
        }
    }

    /// Whether the Secret was made by itself, for an account that there still is.
    fn is_generated(&self, secret: &Secret, key: &ObjectKey) -> bool {
        let Some((name, uid)) = named(secret) else { return false };
        let shown = self.accounts.snapshot();
        let account = shown.as_ref().and_then(|shown| shown.get(&key.namespace, name));
        account.is_some_and(|account| {
            let is_meant = uid.is_empty() || account.metadata.uid.as_deref() == Some(uid);
            is_meant && refers(account, &key.name)
        })
    }

    fn is_used(&self, key: &ObjectKey) -> bool {
        let shown = self.pods.snapshot();
        shown.is_none_or(|shown| shown.of_namespace(&key.namespace).any(|pod| mounts::uses(pod, &key.name)))
    }

    /// The day since which uses are noted.
    async fn tracked(&self) -> Result<jiff::civil::Date, Failure> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), TRACKING.0);
        let map = api.get(TRACKING.1).await?;
        let since = map.data.as_ref().and_then(|data| data.get(SINCE)).and_then(|since| day(since));
        since.ok_or_else(|| Failure::other(format!("ConfigMap {} names no day", TRACKING.1)))
    }
}

/// The loop; its keys are Secrets.
pub(super) fn child(setup: &Setup<'_>, cleaner: Cleaner) -> ChildSpec {
    let (secrets, accounts, pods) = (cleaner.secrets.clone(), cleaner.accounts.clone(), cleaner.pods.clone());
    let known = secrets.clone();
    Loop::new(cleaner, setup.leading.clone())
        .watch(&secrets, |_, new, keys| keys.extend(new.map(ObjectKey::of)))
        .watch(&accounts, move |old: Option<&ServiceAccount>, new, keys| {
            if old.map(|old| &old.secrets) != new.map(|new| &new.secrets) {
                keys.extend(new.iter().flat_map(|account| secrets_of(&known, account)));
            }
        })
        .needs(&pods)
        .child(COMPONENT)
}

impl Controller for Cleaner {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let shown = self.secrets.snapshot();
        let Some(secret) = shown.as_ref().and_then(|shown| shown.get(&key.namespace, &key.name)) else { return Ok(()) };
        if !self.is_generated(secret, key) {
            return Ok(());
        }
        let fate = fate(secret, self.tracked().await?, self.period, turn.now());
        if let Fate::Until(due) = fate {
            turn.again_at(due);
        }
        if matches!(fate, Fate::Stays | Fate::Until(_)) {
            return Ok(());
        }
        if self.is_used(key) {
            turn.again(LOOK_EVERY);
            return Ok(());
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        let (uid, version) = (secret.metadata.uid.clone(), secret.metadata.resource_version.clone());
        let outcome = if let Fate::Marked(today) = fate {
            tracing::info!(secret = %key, "a token that was made by itself is unused, and is marked as invalid");
            let mark = json!({"metadata": {"uid": uid, "labels": {INVALID_SINCE: today.to_string()}}});
            let marked = api.patch(&key.name, &PatchParams::default(), &Patch::Merge(mark)).await;
            marked.map(|marked| turn.wrote(&self.secrets, &marked))
        } else {
            tracing::info!(secret = %key, "a token that was marked as invalid is deleted");
            // This very state: it may just have been used.
            let preconditions = Some(Preconditions { uid, resource_version: version });
            let deleted = api.delete(&key.name, &DeleteParams { preconditions, ..DeleteParams::default() }).await;
            deleted.map(|_| turn.deleted(&self.secrets, secret))
        };
        match outcome.map_err(Failure::from) {
            Err(failure) if !failure.is_stale() => Err(failure),
            _ => Ok(()),
        }
    }
}
