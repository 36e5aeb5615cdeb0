//! What a volume's files hold, from the objects that they come from. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccountTokenProjection,
};

use crate::config::Allocatable;
use crate::downward;
use crate::error::VolumeError;

/// One file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct FileContent {
    pub(crate) data: Vec<u8>,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Whose it is; root's without.
    pub(crate) owner: Option<u32>,
}

/// Contents are Secrets as often as not.
impl std::fmt::Debug for FileContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, mode {:o}", self.data.len(), self.mode)
    }
}

/// Files by their paths in the volume.
pub(crate) type Payload = BTreeMap<String, FileContent>;

/// The files of a volume and where they come from say so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) items: &'a [KeyToPath],
    pub(crate) mode: u32,
    pub(crate) optional: bool,
}

/// Permission bits as an object has them; the API server has checked and defaulted them.
pub(crate) fn mode(given: Option<i32>) -> u32 {
    given.and_then(|mode| u32::try_from(mode).ok()).map_or(0o644, |mode| mode & 0o777)
}

/// Files of a `ConfigMap`; `None` stands for one that isn't there and needn't be.
pub(crate) fn config_map(map: Option<&ConfigMap>, wanted: Wanted<'_>) -> Result<Payload, VolumeError> {
    let text = map.and_then(|map| map.data.as_ref());
    let binary = map.and_then(|map| map.binary_data.as_ref());
    let find = |key: &str| {
        let text = text.and_then(|data| data.get(key)).map(|value| value.as_bytes());
        text.or_else(|| binary.and_then(|data| data.get(key)).map(|value| value.0.as_slice()))
    };
    let keys = text.into_iter().flat_map(BTreeMap::keys).chain(binary.into_iter().flat_map(BTreeMap::keys));
    picked(keys, find, wanted, "configmap references non-existent config key")
}

/// The same of a Secret.
pub(crate) fn secret(secret: Option<&Secret>, wanted: Wanted<'_>) -> Result<Payload, VolumeError> {
    let data = secret.and_then(|secret| secret.data.as_ref());
    let find = |key: &str| data.and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    let keys = data.into_iter().flat_map(BTreeMap::keys);
    picked(keys, find, wanted, "references non-existent secret key")
}

fn picked<'a>(
    keys: impl Iterator<Item = &'a String>,
    find: impl Fn(&str) -> Option<&'a [u8]>,
    wanted: Wanted<'_>,
    complaint: &str,
) -> Result<Payload, VolumeError> {
    let mut payload = Payload::new();
    if wanted.items.is_empty() {
        for key in keys {
            let data = find(key).unwrap_or_default().to_vec();
            payload.insert(key.clone(), FileContent { data, mode: wanted.mode, owner: None });
        }
        return Ok(payload);
    }
    for item in wanted.items {
        let Some(data) = find(&item.key) else {
            if wanted.optional {
                continue;
            }
            return Err(VolumeError::Refused(format!("{complaint}: {}", item.key)));
        };
        let mode = item.mode.map_or(wanted.mode, |own| mode(Some(own)));
        payload.insert(item.path.clone(), FileContent { data: data.to_vec(), mode, owner: None });
    }
    Ok(payload)
}

/// Files that tell a pod about itself.
pub(crate) fn downward_api(
    pod: &Pod,
    files: &[DownwardAPIVolumeFile],
    default_mode: u32,
    node: &Allocatable,
) -> Result<Payload, VolumeError> {
    let mut payload = Payload::new();
    for file in files {
        let text = match (&file.field_ref, &file.resource_field_ref) {
            (Some(field), _) => downward::field(pod, &field.field_path)?,
            (None, Some(resource)) => downward::resource(pod, resource, node)?,
            (None, None) => String::new(),
        };
        let mode = file.mode.map_or(default_mode, |own| mode(Some(own)));
        payload.insert(file.path.clone(), FileContent { data: text.into_bytes(), mode, owner: None });
    }
    Ok(payload)
}

/// A token's file: private, if it is known whose it is to be, and as open as the volume's other files otherwise.
pub(crate) fn token(
    source: &ServiceAccountTokenProjection,
    token: &str,
    default_mode: u32,
    owner: Option<u32>,
    has_group: bool,
) -> (String, FileContent) {
    let mode = if owner.is_some() || has_group { 0o600 } else { default_mode };
    (source.path.clone(), FileContent { data: token.as_bytes().to_vec(), mode, owner })
}

/// The user that all of the pod's containers run as, if they agree and say so.
pub(crate) fn common_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let own = containers
        .map(|container| container.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod));
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let others = ephemeral
        .map(|container| container.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod));
    let mut users = own.chain(others);
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn names(payload: &Payload) -> Vec<(&str, &[u8], u32)> {
        payload.iter().map(|(path, file)| (path.as_str(), file.data.as_slice(), file.mode)).collect()
    }

    fn items(value: Value) -> Vec<KeyToPath> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_config_map_gives_all_its_keys_or_those_asked_for() {
        let map: ConfigMap =
            serde_json::from_value(json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AP8="}})).unwrap();
        let all = Wanted { items: &[], mode: 0o644, optional: false };
        let found = config_map(Some(&map), all).unwrap();
        assert_eq!(names(&found), [("a", &b"1"[..], 0o644), ("b", b"2", 0o644), ("c", &[0, 255], 0o644)]);
        let asked = items(json!([{"key": "c", "path": "x/y", "mode": 256}, {"key": "a", "path": "z"}]));
        let found = config_map(Some(&map), Wanted { items: &asked, ..all }).unwrap();
        assert_eq!(names(&found), [("x/y", &[0, 255][..], 0o400), ("z", b"1", 0o644)]);
        assert!(config_map(None, all).unwrap().is_empty());
    }

    #[test]
    fn a_missing_key_is_named_unless_it_is_optional() {
        let asked = items(json!([{"key": "k", "path": "p"}]));
        let wanted = Wanted { items: &asked, mode: 0o644, optional: false };
        let text = |outcome: Result<Payload, VolumeError>| outcome.unwrap_err().to_string();
        assert_eq!(text(config_map(None, wanted)), "configmap references non-existent config key: k");
        assert_eq!(text(secret(Some(&Secret::default()), wanted)), "references non-existent secret key: k");
        assert!(secret(None, Wanted { optional: true, ..wanted }).unwrap().is_empty());
        let shown = text(secret(None, wanted)).clone().of_volume("v");
        assert_eq!(shown, "MountVolume.SetUp failed for volume \"v\" : references non-existent secret key: k");
    }

    trait OfVolume {
        fn of_volume(self, name: &str) -> String;
    }

    impl OfVolume for String {
        fn of_volume(self, name: &str) -> String {
            VolumeError::Refused(self).of(name).event()
        }
    }

    #[test]
    fn a_token_is_private_to_the_user_that_all_containers_have() {
        let pod = |spec: Value| -> Pod { serde_json::from_value(json!({"spec": spec})).unwrap() };
        let as_user = |user: u32| json!({"name": "c", "securityContext": {"runAsUser": user}});
        let plain = json!({"name": "c"});
        for (spec, expected) in [
            (json!({"containers": [plain]}), None),
            (json!({"containers": [as_user(5)]}), Some(5)),
            (json!({"containers": [as_user(5), as_user(5)], "initContainers": [as_user(5)]}), Some(5)),
            (json!({"containers": [as_user(5), as_user(6)]}), None),
            (json!({"containers": [as_user(5), plain]}), None),
            (json!({"containers": [plain], "securityContext": {"runAsUser": 7}}), Some(7)),
            (
                json!({"containers": [as_user(5)], "initContainers": [plain], "securityContext": {"runAsUser": 5}}),
                Some(5),
            ),
        ] {
            assert_eq!(common_user(&pod(spec.clone())), expected, "{spec}");
        }
        let source = ServiceAccountTokenProjection { path: "token".to_owned(), ..Default::default() };
        for (owner, group, mode) in [(None, false, 0o644), (Some(5), false, 0o600), (None, true, 0o600)] {
            assert_eq!(token(&source, "t", 0o644, owner, group).1.mode, mode);
        }
    }
}
