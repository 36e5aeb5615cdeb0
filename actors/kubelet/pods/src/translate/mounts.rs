//! What a container sees where.

use std::collections::BTreeMap;

use k3sd_cri::v1::{Device, ImageSpec, Mount, MountPropagation};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::expand::expand_strictly;
use super::security::{IdRange, mapping};
use crate::spec::spec;

/// Where the kubelet puts the names of hosts.
const ETC_HOSTS: &str = "/etc/hosts";

/// A volume of the pod, as it is on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostVolume {
    /// Its directory, file or device.
    pub path: String,
    /// Whether it is mounted to be read only, whatever the container asks for.
    pub read_only: bool,
    /// Whether its files have to be labelled for SELinux.
    pub relabel: bool,
}

/// What mounts need beside the pod.
#[derive(Clone, Debug, Default)]
pub struct MountFacts {
    /// The pod's volumes by name.
    pub volumes: BTreeMap<String, HostVolume>,
    /// Paths of those volume mounts that show a part of a volume, by their place in the container's list.
    pub sub_paths: BTreeMap<usize, String>,
    /// The file that becomes /etc/hosts; none if the container brings its own, or has no network to have names in.
    pub etc_hosts: Option<String>,
    /// The file for the container's last words.
    pub message_file: Option<String>,
    /// The pod's user namespace, if it has one of its own.
    pub users: Option<IdRange>,
    /// Devices that were handed out for the container: path inside, path on the host, permissions.
    pub devices: Vec<(String, String, String)>,
    /// Mounts that came with those devices: path inside, path on the host, whether to be read only.
    pub device_mounts: Vec<(String, String, bool)>,
}

/// Which part of its volume a mount shows; nothing for all of it.
///
/// # Errors
/// A variable that nobody knows, or a path that leads out of the volume.
pub fn sub_path(
    mount: &k8s_openapi::api::core::v1::VolumeMount,
    variables: &BTreeMap<String, String>,
) -> Result<Option<String>, String> {
    let text = |of: &Option<String>| of.clone().filter(|path| !path.is_empty());
    let path = match (text(&mount.sub_path), text(&mount.sub_path_expr)) {
        (_, Some(expression)) => expand_strictly(&expression, variables).map_err(|name| {
            format!(
                "failed to expand subPathExpr {expression:?} of volumeMount {:?}: missing value for {name:?}",
                mount.name
            )
        })?,
        (Some(path), None) => path,
        (None, None) => return Ok(None),
    };
    if path.starts_with('/') {
        return Err(format!("error SubPath `{path}` must not be an absolute path"));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(format!("unable to provision SubPath `{path}`: must not contain '..'"));
    }
    Ok(Some(path))
}

/// Whether the container mounts something over /etc/hosts itself.
#[must_use]
pub fn brings_hosts(container: &Container) -> bool {
    container.volume_mounts.iter().flatten().any(|mount| mount.mount_path.trim_end_matches('/') == ETC_HOSTS)
}

/// The mounts of a container.
///
/// # Errors
/// A volume that isn't there, or something that the container may not ask for.
pub fn mounts(pod: &Pod, container: &Container, facts: &MountFacts) -> Result<Vec<Mount>, String> {
    let mut made = Vec::new();
    for (index, wanted) in container.volume_mounts.iter().flatten().enumerate() {
        let propagation = propagation(wanted.mount_propagation.as_deref());
        let container_path = absolute(&wanted.mount_path);
        if let Some(image) = image_volume(pod, &wanted.name) {
            if wanted.sub_path.as_deref().is_some_and(|path| !path.is_empty()) {
                return Err(format!("subPath of image volume {:?} is not supported by the runtime", wanted.name));
            }
            made.push(Mount { container_path, readonly: true, image: Some(image), ..Mount::default() });
            continue;
        }
        let volume = facts.volumes.get(&wanted.name).ok_or_else(|| {
            format!("cannot find volume {:?} to mount into container {:?}", wanted.name, container.name)
        })?;
        let readonly = wanted.read_only.unwrap_or_default() || volume.read_only;
        made.push(Mount {
            container_path,
            host_path: facts.sub_paths.get(&index).unwrap_or(&volume.path).clone(),
            readonly,
            selinux_relabel: volume.relabel,
            propagation: propagation as i32,
            recursive_read_only: readonly && wanted.recursive_read_only.as_deref() == Some("Enabled"),
            uid_mappings: facts.users.map(mapping).into_iter().collect(),
            gid_mappings: facts.users.map(mapping).into_iter().collect(),
            ..Mount::default()
        });
    }
    let file = |container_path: &str, host_path: &str, readonly| Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.to_owned(),
        readonly,
        selinux_relabel: true,
        uid_mappings: facts.users.map(mapping).into_iter().collect(),
        gid_mappings: facts.users.map(mapping).into_iter().collect(),
        ..Mount::default()
    };
    if let Some(hosts) = &facts.etc_hosts {
        let read_only = container.security_context.as_ref().and_then(|context| context.read_only_root_filesystem);
        made.push(file(ETC_HOSTS, hosts, read_only.unwrap_or_default()));
    }
    if let (Some(on_host), Some(path)) = (&facts.message_file, message_path(container)) {
        made.push(file(path, on_host, false));
    }
    for (inside, outside, readonly) in &facts.device_mounts {
        made.push(Mount { selinux_relabel: false, ..file(inside, outside, *readonly) });
    }
    Ok(made)
}

/// Where the container leaves its last words.
#[must_use]
pub fn message_path(container: &Container) -> Option<&str> {
    container.termination_message_path.as_deref().filter(|path| !path.is_empty())
}

/// The devices of a container: those handed out, and volumes that it takes as blocks.
///
/// # Errors
/// A volume that isn't there.
pub fn devices(container: &Container, facts: &MountFacts) -> Result<Vec<Device>, String> {
    let mut made: Vec<Device> = facts
        .devices
        .iter()
        .map(|(inside, outside, permissions)| Device {
            container_path: inside.clone(),
            host_path: outside.clone(),
            permissions: permissions.clone(),
        })
        .collect();
    for wanted in container.volume_devices.iter().flatten() {
        let volume = facts.volumes.get(&wanted.name).ok_or_else(|| {
            format!("cannot find volume {:?} to pass into container {:?}", wanted.name, container.name)
        })?;
        let permissions = if volume.read_only { "r" } else { "mrw" };
        made.push(Device {
            container_path: wanted.device_path.clone(),
            host_path: volume.path.clone(),
            permissions: permissions.to_owned(),
        });
    }
    Ok(made)
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn propagation(of: Option<&str>) -> MountPropagation {
    match of {
        Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => MountPropagation::PropagationBidirectional,
        _ => MountPropagation::PropagationPrivate,
    }
}

/// The image, if the volume of this name is one.
fn image_volume(pod: &Pod, volume: &str) -> Option<ImageSpec> {
    let spec = spec(pod);
    let of = spec.volumes.iter().flatten().find(|one| one.name == volume)?.image.clone()?;
    Some(ImageSpec { image: of.reference.unwrap_or_default(), ..ImageSpec::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::main_containers;
    use crate::testing::pod;

    fn facts() -> MountFacts {
        let volume = |path: &str, read_only| HostVolume { path: path.into(), read_only, relabel: false };
        MountFacts {
            volumes: [("v".into(), volume("/pods/u/v", false)), ("r".into(), volume("/pods/u/r", true))].into(),
            sub_paths: [(1, "/sub".into())].into(),
            etc_hosts: Some("/pods/u/etc-hosts".into()),
            message_file: Some("/pods/u/containers/c/1".into()),
            ..MountFacts::default()
        }
    }

    #[test]
    fn mounts_are_made() {
        let pod = pod("{spec: {volumes: [{name: i, image: {reference: img}}], containers: [{name: c, terminationMessagePath: /dev/termination-log, volumeMounts: [
            {name: v, mountPath: /v, mountPropagation: Bidirectional}, {name: v, mountPath: s}, {name: r, mountPath: /r, recursiveReadOnly: Enabled, readOnly: true}, {name: i, mountPath: /i}]}]}}");
        let made = mounts(&pod, &main_containers(&pod)[0], &facts()).unwrap();
        let shown: Vec<_> = made
            .iter()
            .map(|one| {
                format!(
                    "{}<{}:{}{}",
                    one.container_path,
                    one.host_path,
                    u8::from(one.readonly),
                    u8::from(one.recursive_read_only)
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                "/v</pods/u/v:00",
                "/s</sub:00",
                "/r</pods/u/r:11",
                "/i<:10",
                "/etc/hosts</pods/u/etc-hosts:00",
                "/dev/termination-log</pods/u/containers/c/1:00",
            ]
        );
        assert_eq!(made[0].propagation, MountPropagation::PropagationBidirectional as i32);
    }

    #[test]
    fn a_volume_that_is_not_there_is_named() {
        let pod = pod("{spec: {containers: [{name: c, volumeMounts: [{name: x, mountPath: /x}]}]}}");
        let error = mounts(&pod, &main_containers(&pod)[0], &facts()).unwrap_err();
        assert_eq!(error, "cannot find volume \"x\" to mount into container \"c\"");
    }

    #[test]
    fn parts_of_volumes_stay_inside() {
        let variables = BTreeMap::from([("POD".to_owned(), "p".to_owned())]);
        for (mount, expected) in [
            ("{name: v, mountPath: /v}", Ok(None)),
            ("{name: v, mountPath: /v, subPath: a/b}", Ok(Some("a/b"))),
            ("{name: v, mountPath: /v, subPathExpr: x/$(POD)}", Ok(Some("x/p"))),
            ("{name: v, mountPath: /v, subPathExpr: $(NO)}", Err("missing value")),
            ("{name: v, mountPath: /v, subPath: /a}", Err("absolute")),
            ("{name: v, mountPath: /v, subPath: a/../..}", Err("'..'")),
        ] {
            let pod = pod(&format!("{{spec: {{containers: [{{name: c, volumeMounts: [{mount}]}}]}}}}"));
            let found = sub_path(&main_containers(&pod)[0].volume_mounts.as_ref().unwrap()[0], &variables);
            match expected {
                Ok(path) => assert_eq!(found, Ok(path.map(str::to_owned)), "{mount}"),
                Err(words) => assert!(found.unwrap_err().contains(words), "{mount}"),
            }
        }
    }
}
