//! A container, as the runtime is asked for it.

use std::collections::BTreeMap;

use k3sd_cri::v1::{CdiDevice, ContainerConfig, ContainerMetadata, ImageSpec, KeyValue, LinuxContainerConfig};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::environment::Environment;
use super::expand::expand;
use super::labels;
use super::mounts::{MountFacts, devices, mounts};
use super::resources::{Means, of_container as resources_of};
use super::security::{SecurityFacts, check_user, of_container as security_of};

/// The image, as the runtime knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// What to run: the runtime's reference.
    pub reference: String,
    /// What the pod says.
    pub named: String,
    /// The image's user, if it is a number.
    pub uid: Option<i64>,
    /// The image's user, if it is a name.
    pub user: String,
}

/// What a container needs beside the pod.
#[derive(Debug, Default)]
pub struct ContainerFacts {
    /// How many containers of this name came before.
    pub attempt: u32,
    /// The image.
    pub image: Image,
    /// The environment.
    pub environment: Environment,
    /// What is mounted.
    pub mounts: MountFacts,
    /// As whom.
    pub security: SecurityFacts,
    /// Id of the container whose processes this one looks at.
    pub target: Option<String>,
    /// How the node gives resources.
    pub means: Means,
    /// Devices that the runtime knows by name.
    pub named_devices: Vec<String>,
    /// Annotations that devices brought.
    pub annotations: BTreeMap<String, String>,
}

/// Makes the request.
///
/// # Errors
/// What is wrong with it, as the container's waiting state shows it after `CreateContainerConfigError`.
pub fn config(pod: &Pod, container: &Container, facts: &ContainerFacts) -> Result<ContainerConfig, String> {
    check_user(pod, container, facts.image.uid, &facts.image.user)?;
    let variables = facts.environment.by_name();
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| expand(text, &[&variables])).collect()
    };
    let mut annotations = facts.annotations.clone();
    annotations.extend(labels::annotations(pod, container, facts.attempt));
    let user = (facts.image.uid, facts.image.user.as_str());
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt: facts.attempt }),
        image: Some(ImageSpec {
            image: facts.image.reference.clone(),
            user_specified_image: facts.image.named.clone(),
            ..ImageSpec::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: facts
            .environment
            .variables
            .iter()
            .map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() })
            .collect(),
        mounts: mounts(pod, container, &facts.mounts)?,
        devices: devices(container, &facts.mounts)?,
        cdi_devices: facts.named_devices.iter().map(|name| CdiDevice { name: name.clone() }).collect(),
        labels: labels::of_container(pod, container).into_iter().collect(),
        annotations: annotations.into_iter().collect(),
        log_path: labels::log_path(&container.name, facts.attempt),
        stdin: container.stdin.unwrap_or_default(),
        stdin_once: container.stdin_once.unwrap_or_default(),
        tty: container.tty.unwrap_or_default(),
        linux: Some(LinuxContainerConfig {
            resources: Some(resources_of(pod, container, facts.means)),
            security_context: Some(security_of(pod, container, user, facts.target.as_deref(), &facts.security)),
        }),
        ..ContainerConfig::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::main_containers;
    use crate::testing::pod;

    #[test]
    fn a_container_becomes_a_request() {
        let pod = pod(
            "{metadata: {name: p, namespace: 'n', uid: u}, spec: {containers: [{name: c, image: busybox, command: [sh, -c], args: ['echo $(A) $$(A) $(B)'], workingDir: /w, stdin: true, tty: true}]}}",
        );
        let facts = ContainerFacts {
            attempt: 2,
            image: Image { reference: "sha256:1".into(), named: "busybox".into(), uid: Some(0), user: String::new() },
            environment: Environment { variables: vec![("A".into(), "a".into())], skipped: vec![] },
            means: Means { with_quota: true, ..Means::default() },
            ..ContainerFacts::default()
        };
        let made = config(&pod, &main_containers(&pod)[0], &facts).unwrap();
        assert_eq!(made.metadata, Some(ContainerMetadata { name: "c".into(), attempt: 2 }));
        assert_eq!(made.image.unwrap().image, "sha256:1");
        assert_eq!(made.command, ["sh", "-c"]);
        assert_eq!(made.args, ["echo a $(A) $(B)"]);
        assert_eq!((made.working_dir.as_str(), made.log_path.as_str()), ("/w", "c/2.log"));
        assert!(made.stdin && made.tty && !made.stdin_once);
        assert_eq!(made.labels[labels::POD_UID], "u");
        assert_eq!(made.annotations[labels::RESTART_COUNT], "2");
        assert!(made.linux.unwrap().resources.is_some());
    }
}
