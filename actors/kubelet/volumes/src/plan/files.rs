//! Volumes that are files made from objects.

use k8s_openapi::api::core::v1::{
    KeyToPath, Pod, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use super::{Maker, Refresh};
use crate::disk::What;
use crate::error::VolumeError;
use crate::paths::{CONFIG_MAP, DOWNWARD_API, PROJECTED, SECRET};
use crate::payload::{self, Payload, Wanted};
use crate::tokens::TokenRef;
use crate::types::PodIdentity;

/// A token's life unless the volume says otherwise, in seconds.
const TOKEN_SECONDS: i64 = 3600;

impl Maker {
    /// What a volume's files are, if it is one of those. `refresh` becomes the moment of the first token, if it is earlier.
    pub(super) async fn files(
        &self,
        pod: &Pod,
        who: &PodIdentity,
        volume: &Volume,
        refresh: &mut Refresh,
    ) -> Result<Option<What>, VolumeError> {
        let memory_max = Some(self.memory_max(who));
        let no_items = |items: &Option<Vec<KeyToPath>>| items.clone().unwrap_or_default();
        if let Some(source) = &volume.config_map {
            let (items, optional) = (no_items(&source.items), source.optional == Some(true));
            let wanted = Wanted { items: &items, mode: payload::mode(source.default_mode), optional };
            let payload = self.config_map(pod, &source.name, wanted).await?;
            return Ok(Some(What::Files { plugin: CONFIG_MAP, memory_max: None, payload }));
        }
        if let Some(source) = &volume.secret {
            let (items, optional) = (no_items(&source.items), source.optional == Some(true));
            let wanted = Wanted { items: &items, mode: payload::mode(source.default_mode), optional };
            let name = source.secret_name.as_deref().unwrap_or_default();
            let payload = self.secret(pod, name, wanted).await?;
            return Ok(Some(What::Files { plugin: SECRET, memory_max, payload }));
        }
        if let Some(source) = &volume.downward_api {
            let (files, mode) = (source.items.as_deref().unwrap_or_default(), payload::mode(source.default_mode));
            let payload = payload::downward_api(pod, files, mode, &self.config.allocatable)?;
            return Ok(Some(What::Files { plugin: DOWNWARD_API, memory_max, payload }));
        }
        if let Some(source) = &volume.projected {
            let payload = self.projected(pod, who, source, refresh).await?;
            return Ok(Some(What::Files { plugin: PROJECTED, memory_max, payload }));
        }
        Ok(None)
    }

    async fn config_map(&self, pod: &Pod, name: &str, wanted: Wanted<'_>) -> Result<Payload, VolumeError> {
        let found = self.objects.config_map(namespace(pod), name).await?;
        if found.is_none() && !wanted.optional {
            return Err(VolumeError::NotFound { kind: "configmap", name: name.to_owned() });
        }
        payload::config_map(found.as_deref(), wanted)
    }

    async fn secret(&self, pod: &Pod, name: &str, wanted: Wanted<'_>) -> Result<Payload, VolumeError> {
        let found = self.objects.secret(namespace(pod), name).await?;
        if found.is_none() && !wanted.optional {
            return Err(VolumeError::NotFound { kind: "secret", name: name.to_owned() });
        }
        payload::secret(found.as_deref(), wanted)
    }

    async fn projected(
        &self,
        pod: &Pod,
        who: &PodIdentity,
        volume: &ProjectedVolumeSource,
        refresh: &mut Refresh,
    ) -> Result<Payload, VolumeError> {
        let mode = payload::mode(volume.default_mode);
        let mut all = Payload::new();
        for source in volume.sources.iter().flatten() {
            all.extend(self.projection(pod, who, source, mode, refresh).await?);
        }
        Ok(all)
    }

    async fn projection(
        &self,
        pod: &Pod,
        who: &PodIdentity,
        source: &VolumeProjection,
        mode: u32,
        refresh: &mut Refresh,
    ) -> Result<Payload, VolumeError> {
        if let Some(map) = &source.config_map {
            let items = map.items.clone().unwrap_or_default();
            let wanted = Wanted { items: &items, mode, optional: map.optional == Some(true) };
            return self.config_map(pod, &map.name, wanted).await;
        }
        if let Some(secret) = &source.secret {
            let items = secret.items.clone().unwrap_or_default();
            let wanted = Wanted { items: &items, mode, optional: secret.optional == Some(true) };
            return self.secret(pod, &secret.name, wanted).await;
        }
        if let Some(downward) = &source.downward_api {
            let files = downward.items.as_deref().unwrap_or_default();
            return payload::downward_api(pod, files, mode, &self.config.allocatable);
        }
        if let Some(token) = &source.service_account_token {
            return self.token(pod, who, token, mode, refresh).await;
        }
        if source.cluster_trust_bundle.as_ref().is_some_and(|bundle| bundle.optional == Some(true)) {
            return Ok(Payload::new());
        }
        Err(VolumeError::refused("ClusterTrustBundle and PodCertificate projections are not enabled on this node"))
    }

    async fn token(
        &self,
        pod: &Pod,
        who: &PodIdentity,
        source: &ServiceAccountTokenProjection,
        mode: u32,
        refresh: &mut Refresh,
    ) -> Result<Payload, VolumeError> {
        let token = self.tokens.get(token_ref(pod, source.audience.clone(), source.expiration_seconds)).await?;
        *refresh = Some(refresh.map_or(token.refresh, |known| known.min(token.refresh)));
        let owner = payload::common_user(pod);
        Ok(Payload::from([payload::token(source, &token.text, mode, owner, who.fs_group.is_some())]))
    }
}

/// A token of the pod's service account, bound to the pod as the API server knows it.
pub(crate) fn token_ref(pod: &Pod, audience: Option<String>, seconds: Option<i64>) -> TokenRef {
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).filter(|name| !name.is_empty());
    TokenRef {
        namespace: namespace(pod).to_owned(),
        account: account.unwrap_or_else(|| "default".to_owned()),
        pod: pod.metadata.name.clone().unwrap_or_default(),
        pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
        audience: audience.filter(|audience| !audience.is_empty()),
        seconds: seconds.unwrap_or(TOKEN_SECONDS),
    }
}

pub(super) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}
