//! Starting: the sandbox, and containers in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k3sd_cri::v1;
use k3sd_kubelet_cgroups::qos_class;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};
use kube::Api;

use super::sync::Worker;
use super::{Next, Wanted, files};
use crate::config::DeviceGrant;
use crate::lifecycle::Hook;
use crate::plan::backoff::shown as wait_shown;
use crate::runtime::{Runtime, Sandbox, State};
use crate::spec::{self, Role, is_sidecar, shown};
use crate::status::Hindrance;
use crate::translate::container::{ContainerFacts, config};
use crate::translate::environment::{Environment, References, environment, needs};
use crate::translate::fields::Here;
use crate::translate::hosts::{file, file_of_host, host_and_domain};
use crate::translate::mounts::{HostVolume, MountFacts, brings_hosts, message_path, sub_path};
use crate::translate::sandbox::{SandboxFacts, config as sandbox_config};
use crate::translate::security::SecurityFacts;
use crate::translate::{labels, services};
use crate::users::{is_supported, unsupported};

/// What failed to start for a reason that may pass by itself is tried again after this.
const RETRY: SignedDuration = SignedDuration::from_secs(5);

/// Why a container wasn't started.
#[derive(Debug)]
pub(super) struct Obstacle {
    pub(super) hindrance: Hindrance,
    /// When to try again.
    pub(super) until: Option<Timestamp>,
}

impl Obstacle {
    pub(super) fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { hindrance: Hindrance { reason: reason.to_owned(), message: message.into() }, until: None }
    }
}

/// What all containers of one round of starts have in common.
struct Round<'a> {
    pod: &'a std::sync::Arc<Pod>,
    runtime: &'a Runtime,
    sandbox: &'a Sandbox,
    sandbox_config: v1::PodSandboxConfig,
    volumes: &'a BTreeMap<String, HostVolume>,
}

impl Worker<'_> {
    fn security(&self) -> SecurityFacts {
        let config = &self.shared.config;
        SecurityFacts {
            seccomp_root: config.root.join("seccomp").to_string_lossy().into_owned(),
            seccomp_default: config.seccomp_default,
            users: self.shared.users.of(&self.entry.uid),
            ..SecurityFacts::default()
        }
    }

    fn sandbox_config(&self, pod: &Pod, attempt: u32, warn: bool) -> Result<v1::PodSandboxConfig, String> {
        let config = &self.shared.config;
        let parent = match &self.shared.deps.cgroups {
            Some(cgroups) => {
                cgroups.parent_for_cri(&self.entry.uid, qos_class(pod)).map_err(|error| error.to_string())?
            }
            None => String::new(),
        };
        let facts = SandboxFacts {
            attempt,
            logs: &config.logs,
            cgroup_parent: parent,
            dns: &config.dns,
            security: self.security(),
        };
        let (made, warnings) = sandbox_config(pod, &facts)?;
        for warning in warnings.iter().filter(|_| warn) {
            let (reason, text) = warning.event(&shown(pod));
            self.warn(pod, reason, &text);
        }
        Ok(made)
    }

    /// Makes the pod's sandbox.
    pub(super) async fn make_sandbox(&self, pod: &Pod, attempt: u32) -> Result<(), String> {
        let fail = |text: String| {
            let text = format!("Failed to create pod sandbox: {text}");
            self.warn(pod, "FailedCreatePodSandBox", &text);
            text
        };
        let handler = self.handler(pod).await.map_err(fail)?;
        if spec::spec(pod).host_users == Some(false) {
            self.take_users(&handler).await.map_err(fail)?;
        }
        let made = self.sandbox_config(pod, attempt, true).map_err(fail)?;
        let asked = v1::RunPodSandboxRequest { config: Some(made), runtime_handler: handler };
        self.cri().run_pod_sandbox(asked).await.map(drop).map_err(|error| fail(error.status()))
    }

    /// Gives the pod users of its own, if the runtime can do that.
    async fn take_users(&self, handler: &str) -> Result<(), String> {
        let status = self.cri().status(v1::StatusRequest::default()).await.map_err(|error| error.status())?;
        if !is_supported(&status, handler) {
            return Err(unsupported(handler));
        }
        self.shared.users.take(&self.entry.uid).map(drop)
    }

    /// The runtime's handler that the pod's class names.
    async fn handler(&self, pod: &Pod) -> Result<String, String> {
        let Some(class) = spec::spec(pod).runtime_class_name.clone().filter(|name| !name.is_empty()) else {
            return Ok(String::new());
        };
        let api: Api<k8s_openapi::api::node::v1::RuntimeClass> = Api::all(self.shared.deps.connect.client());
        let found = api.get(&class).await.map_err(|error| format!("failed to get RuntimeClass {class:?}: {error}"))?;
        Ok(found.handler)
    }

    /// Starts what may be started. A failed init container holds back what comes after it; a sidecar doesn't.
    pub(super) async fn start_all(
        &mut self,
        wanted: &Wanted,
        runtime: &Runtime,
        sandbox: &Sandbox,
        starts: Vec<(Role, Container)>,
        volumes: &BTreeMap<String, HostVolume>,
    ) -> Next {
        let pod = &wanted.pod;
        let (mut started, mut until): (bool, Option<Timestamp>) = (false, None);
        let sandbox_config = match self.sandbox_config(pod, sandbox.attempt, false) {
            Ok(made) => made,
            Err(error) => {
                tracing::warn!(pod = shown(pod), error, "a pod's sandbox can't be described");
                return Next::Wait(self.now().checked_add(RETRY).ok());
            }
        };
        let round = Round { pod, runtime, sandbox, sandbox_config, volumes };
        for (role, container) in &starts {
            match self.start(&round, *role, container).await {
                Ok(()) => {
                    started = true;
                    self.entry.memory.send_modify(|memory| {
                        memory.hindrances.remove(&container.name);
                    });
                }
                Err(obstacle) => {
                    let again = obstacle.until.or_else(|| self.now().checked_add(RETRY).ok());
                    until = [until, again].into_iter().flatten().min();
                    self.entry.memory.send_modify(|memory| {
                        memory.hindrances.insert(container.name.clone(), obstacle.hindrance);
                    });
                    if *role == Role::Init && !is_sidecar(container) {
                        break;
                    }
                }
            }
        }
        if started {
            return Next::Again;
        }
        // What is in the way is told at once, and not at the next look.
        self.tell(wanted, runtime, false);
        Next::Wait(until)
    }

    async fn start(&self, round: &Round<'_>, role: Role, container: &Container) -> Result<(), Obstacle> {
        let (pod, name) = (round.pod, container.name.as_str());
        let newest = round.runtime.newest(name);
        if let Some(made) = newest.filter(|found| {
            found.state == State::Created && found.sandbox == round.sandbox.id && found.hash == labels::hash(container)
        }) {
            // Made by an earlier life of this actor, which didn't come to start it.
            return self.begin(round, container, &made.id.clone(), made.attempt).await;
        }
        if let Some(failed) = newest.filter(|found| found.state == State::Exited) {
            self.wait_after_crash(pod, container, failed.finished_at.unwrap_or(failed.created_at))?;
        }
        let image = self.image(pod, container).await?;
        let logged = files::log_attempts(&self.shared.config.logs, pod, name)
            .map_err(|error| Obstacle::new("CreateContainerError", error.to_string()))?;
        let attempt = newest.map_or(logged, |found| found.attempt + 1);
        let facts = self.facts(round, role, container, image, attempt).await.and_then(|facts| {
            let made = config(pod, container, &facts)?;
            Ok((made, facts.environment.skipped))
        });
        let (made, skipped) = facts.map_err(|error| {
            self.tell_about(pod, name, "Warning", "Failed", &format!("Error: {error}"));
            Obstacle::new("CreateContainerConfigError", error)
        })?;
        for text in skipped {
            self.tell_about(pod, name, "Warning", "InvalidEnvironmentVariableNames", &text);
        }
        let asked = v1::CreateContainerRequest {
            pod_sandbox_id: round.sandbox.id.clone(),
            config: Some(made),
            sandbox_config: Some(round.sandbox_config.clone()),
        };
        let id = match self.cri().create_container(asked).await {
            Ok(answer) => answer.container_id,
            Err(error) => {
                let error = error.message();
                self.tell_about(pod, name, "Warning", "Failed", &format!("Error: {error}"));
                return Err(Obstacle::new("CreateContainerError", error));
            }
        };
        self.tell_about(pod, name, "Normal", "Created", &format!("Created container: {name}"));
        self.begin(round, container, &id, attempt).await
    }

    /// Starts a container that was made, and runs its hook.
    async fn begin(&self, round: &Round<'_>, container: &Container, id: &str, attempt: u32) -> Result<(), Obstacle> {
        let (pod, name) = (round.pod, container.name.as_str());
        if let Err(error) = self.cri().start_container(v1::StartContainerRequest { container_id: id.to_owned() }).await
        {
            let error = error.message();
            self.tell_about(pod, name, "Warning", "Failed", &format!("Error: {error}"));
            return Err(Obstacle::new("RunContainerError", error));
        }
        self.tell_about(pod, name, "Normal", "Started", &format!("Started container {name}"));
        let config = &self.shared.config;
        let log = labels::log_path(name, attempt);
        if let Err(error) = files::link_log(&config.log_links, &config.logs, pod, name, id, &log) {
            tracing::warn!(pod = shown(pod), container = name, %error, "a log can't be linked");
        }
        let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref()) else {
            return Ok(());
        };
        let address = round.sandbox.addresses.first().cloned().unwrap_or_else(|| self.address().to_owned());
        let run = Hook { cri: self.cri(), clock: self.clock, pod, container, id, address: &address };
        if let Err(error) = run.run(hook).await {
            tracing::info!(pod = shown(pod), container = name, error, "a hook after the start failed");
            self.tell_about(pod, name, "Warning", "FailedPostStartHook", "PostStartHook failed");
            self.kill_started(pod, container, id).await;
            return Err(Obstacle::new("PostStartHookError", error));
        }
        Ok(())
    }

    /// Ends a container whose hook after the start failed.
    async fn kill_started(&self, pod: &Pod, container: &Container, id: &str) {
        let grace = spec::spec(pod).termination_grace_period_seconds.unwrap_or(30);
        self.tell_about(pod, &container.name, "Normal", "Killing", "FailedPostStartHook");
        let asked = v1::StopContainerRequest { container_id: id.to_owned(), timeout: grace };
        if let Err(error) = self.cri().stop_container(asked).await {
            tracing::warn!(pod = shown(pod), container = container.name, %error, "a container can't be stopped");
        }
    }

    /// A container that keeps ending waits longer and longer.
    fn wait_after_crash(&self, pod: &Pod, container: &Container, ended: Timestamp) -> Result<(), Obstacle> {
        let key = format!("{}/{}", container.name, labels::hash(container));
        let now = self.now();
        let waiting = self.entry.memory.borrow().backoffs.waiting(&key, ended, now);
        if let Some((wait, until)) = waiting {
            let text = format!("Back-off restarting failed container {} in pod {}", container.name, shown(pod));
            let told = self
                .entry
                .memory
                .borrow()
                .hindrances
                .get(&container.name)
                .is_some_and(|one| one.reason == "CrashLoopBackOff");
            if !told {
                self.tell_about(pod, &container.name, "Warning", "BackOff", &text);
            }
            let message = format!(
                "back-off {} restarting failed container={} pod={}",
                wait_shown(wait),
                container.name,
                shown(pod)
            );
            return Err(Obstacle { until: Some(until), ..Obstacle::new("CrashLoopBackOff", message) });
        }
        self.entry.memory.send_modify(|memory| memory.backoffs.next(&key, ended, now));
        Ok(())
    }

    async fn facts(
        &self,
        round: &Round<'_>,
        role: Role,
        container: &Container,
        image: crate::translate::container::Image,
        attempt: u32,
    ) -> Result<ContainerFacts, String> {
        let pod = round.pod;
        let grant = self.devices(pod, container).await?;
        let mut environment = self.environment(round, container).await?;
        let own = environment.by_name();
        let given = grant.variables.into_iter().filter(|(name, _)| !own.contains_key(name));
        environment.variables.extend(given);
        let mut mounts = self.mounts(round, container, &environment).await?;
        mounts.devices = grant.devices;
        mounts.device_mounts = grant.mounts;
        let target = match role {
            Role::Ephemeral => match spec::target(pod, &container.name) {
                Some(name) => {
                    let found = round.runtime.newest(name).filter(|found| found.state == State::Running);
                    Some(found.ok_or_else(|| format!("unable to find target container {name}"))?.id.clone())
                }
                None => None,
            },
            _ => None,
        };
        Ok(ContainerFacts {
            attempt,
            image,
            environment,
            mounts,
            security: self.security(),
            target,
            means: self.shared.config.means(),
            annotations: grant.annotations,
            named_devices: grant.named,
        })
    }

    /// Takes devices for all containers of a pod that comes to the node, before anything of it is made.
    pub(super) async fn all_devices(&self, pod: &Arc<Pod>) -> Result<(), String> {
        let asks = |container: &&Container| {
            // Devices have a vendor's name before theirs; the node's own resources have none.
            let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
            limits.is_some_and(|limits| limits.keys().any(|name| name.contains('/')))
        };
        for container in spec::init_containers(pod).iter().chain(spec::main_containers(pod)).filter(asks) {
            self.devices(pod, container).await?;
        }
        Ok(())
    }

    /// What device plugins give the container.
    async fn devices(&self, pod: &Arc<Pod>, container: &Container) -> Result<DeviceGrant, String> {
        let seat = self.shared.deps.devices.as_ref().and_then(|seat| seat.borrow().clone());
        match seat {
            Some(devices) => devices.allocate(pod, &self.entry.uid, &container.name).await,
            None => Ok(DeviceGrant::default()),
        }
    }

    async fn environment(&self, round: &Round<'_>, container: &Container) -> Result<Environment, String> {
        let pod = round.pod;
        let (maps, secrets) = needs(container);
        let references = self.references(spec::namespace(pod), maps, secrets).await?;
        let links = spec::spec(pod).enable_service_links.unwrap_or(true);
        let known = self.shared.deps.services.as_ref().and_then(k3sd_client::informer::Informer::snapshot);
        let services = known
            .map(|all| services::variables(spec::namespace(pod), links, all.iter().map(std::convert::AsRef::as_ref)));
        let here = Here {
            host_addresses: self.shared.deps.addresses.borrow().clone(),
            pod_addresses: if spec::is_host_network(pod) {
                self.shared.deps.addresses.borrow().clone()
            } else {
                round.sandbox.addresses.clone()
            },
            allocatable: self.shared.deps.allocatable.borrow().clone(),
        };
        environment(pod, container, services.unwrap_or_default(), &references, &here)
    }

    /// Fetches the objects that an environment refers to. Those that aren't there are left out.
    async fn references(
        &self,
        namespace: &str,
        maps: BTreeSet<String>,
        secrets: BTreeSet<String>,
    ) -> Result<References, String> {
        let mut found = References::default();
        if maps.is_empty() && secrets.is_empty() {
            return Ok(found);
        }
        let client = self.shared.deps.connect.client();
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        for name in maps {
            let map = api.get_opt(&name).await.map_err(|error| format!("failed to get configmap {name:?}: {error}"))?;
            found.config_maps.extend(map.map(|map| (name, map)));
        }
        let api: Api<Secret> = Api::namespaced(client, namespace);
        for name in secrets {
            let secret = api.get_opt(&name).await.map_err(|error| format!("failed to get secret {name:?}: {error}"))?;
            found.secrets.extend(secret.map(|secret| (name, secret)));
        }
        Ok(found)
    }

    async fn mounts(
        &self,
        round: &Round<'_>,
        container: &Container,
        environment: &Environment,
    ) -> Result<MountFacts, String> {
        let (pod, config) = (round.pod, &self.shared.config);
        let users = self.shared.users.of(&self.entry.uid);
        let mut facts = MountFacts { volumes: round.volumes.clone(), users, ..MountFacts::default() };
        let variables = environment.by_name();
        for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let (Some(path), Some(volume)) = (sub_path(mount, &variables)?, round.volumes.get(&mount.name)) else {
                continue;
            };
            let made = self.shared.deps.volumes.sub_path(pod, (&mount.name, volume), (&container.name, index), &path);
            let made = made.await.map_err(|error| {
                format!(
                    "failed to prepare subPath for volumeMount {:?} of container {:?}: {error}",
                    mount.name, container.name
                )
            })?;
            facts.sub_paths.insert(index, made);
        }
        let on_host = spec::is_host_network(pod);
        if !brings_hosts(container) && (on_host || !round.sandbox.addresses.is_empty()) {
            let aliases = spec::spec(pod).host_aliases.clone().unwrap_or_default();
            let text = if on_host {
                let hosts = fs::read_to_string(&config.hosts_file)
                    .map_err(|error| format!("can't read the host's file of hosts: {error}"))?;
                file_of_host(&hosts, &aliases)
            } else {
                let (host, domain) = host_and_domain(pod, &config.dns.domain);
                file(&round.sandbox.addresses, &host, &domain, &aliases)
            };
            let path = files::write_hosts(&config.root, &self.entry.uid, &text).map_err(|error| error.to_string())?;
            facts.etc_hosts = Some(path.to_string_lossy().into_owned());
        }
        if message_path(container).is_some() {
            let number = self.clock.rng(&self.entry.uid).next_u64();
            let made = files::message_file(&config.root, &self.entry.uid, &container.name, number);
            facts.message_file = Some(made.map_err(|error| error.to_string())?.to_string_lossy().into_owned());
        }
        Ok(facts)
    }
}
