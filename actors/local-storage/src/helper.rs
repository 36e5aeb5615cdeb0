//! What an operator wants done to directories beside what is done here: the scripts and commands of the ConfigMap, and
//! the pod that runs them, as local-path-provisioner makes it. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k3sd_objects::decode;
use k3sd_objects::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, EnvVar, HostPathVolumeSource, KeyToPath, PersistentVolume, Pod, PodSpec,
    Toleration, Volume, VolumeMount,
};
use serde::Deserialize;

use crate::{CONFIG, NAMESPACE, SERVICE_ACCOUNT};

/// The keys of the ConfigMap with the settings, and with the pod.
const SETTINGS: &str = "config.json";
const TEMPLATE: &str = "helperPod.yaml";
/// How long a helper may take unless the settings say otherwise.
const LIMIT: Duration = Duration::from_secs(120);
/// The names of the volumes of the pod, and where scripts are in it.
const DATA: &str = "data";
const SCRIPT: &str = "script";
const SCRIPT_DIR: &str = "/script";
/// Longer names are cut.
const NAME_BYTES_MAX: usize = 128;
/// Why a container waits whose image can't be had.
const NO_IMAGE: [&str; 6] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
];

/// What is done to a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It is made for a new volume.
    Create,
    /// It is removed with its volume.
    Delete,
}

impl Action {
    /// How it is called in names and errors.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
        }
    }

    /// The key of the ConfigMap with its script.
    fn key(self) -> &'static str {
        match self {
            Self::Create => "setup",
            Self::Delete => "teardown",
        }
    }

    /// The commands of a script that does what is done here without one, each in all ways to write it. The scripts of K3s
    /// are such.
    fn usual(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Create => &[
                &[
                    "mkdir -m 0777 -p $VOL_DIR",
                    "mkdir -p -m 0777 $VOL_DIR",
                    "mkdir -m 777 -p $VOL_DIR",
                    "mkdir -p -m 777 $VOL_DIR",
                ],
                &[
                    "chmod 700 $VOL_DIR/..",
                    "chmod 0700 $VOL_DIR/..",
                    "chmod 700 $(dirname $VOL_DIR)",
                    "chmod 0700 $(dirname $VOL_DIR)",
                ],
            ],
            Self::Delete => &[&["rm -rf $VOL_DIR", "rm -fr $VOL_DIR", "rm -r -f $VOL_DIR", "rm -f -r $VOL_DIR"]],
        }
    }

    /// Whether a script does nothing but that.
    fn is_usual(self, script: &str) -> bool {
        let lines = script.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with("set -"));
        let plain = |line: &str| {
            let line = line.replace(['"', '\''], "").replace("${VOL_DIR}", "$VOL_DIR");
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let found: Vec<String> = lines.map(plain).collect();
        let usual = self.usual();
        found.len() == usual.len() && found.iter().zip(usual).all(|(line, ways)| ways.contains(&line.as_str()))
    }
}

/// What `config.json` says about helpers.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Settings {
    setup_command: String,
    teardown_command: String,
    cmd_timeout_seconds: u64,
}

/// A pod that does something to a directory, but for which one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Helper {
    template: Pod,
    action: Action,
    /// The program in its image; a script of the ConfigMap if there is none.
    command: Option<String>,
    /// Keys of the ConfigMap that the pod finds as files.
    scripts: Vec<&'static str>,
    /// How long it may take.
    pub(crate) limit: Duration,
}

/// The directory that a helper works on.
#[derive(Clone, Debug)]
pub(crate) struct Work<'a> {
    pub(crate) volume: &'a str,
    pub(crate) path: PathBuf,
    /// Where it is; `None` for a file system that all nodes share.
    pub(crate) node: Option<&'a str>,
    mode: &'a str,
    bytes: i64,
}

impl<'a> Work<'a> {
    /// The directory at `path` of a volume.
    pub(crate) fn new(volume: &'a PersistentVolume, path: PathBuf, node: &'a str) -> Self {
        let spec = volume.spec.as_ref();
        let size = spec.and_then(|spec| spec.capacity.as_ref()?.get("storage"));
        Self {
            volume: volume.metadata.name.as_deref().unwrap_or_default(),
            path,
            node: spec.is_some_and(|spec| spec.node_affinity.is_some()).then_some(node),
            mode: spec.and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem"),
            bytes: size.and_then(|size| size.0.parse::<Quantity>().ok()).map_or(0, Quantity::value),
        }
    }
}

impl Helper {
    /// The helper that the data of the ConfigMap want for this; `None` if what is done here without one is all they want.
    ///
    /// # Errors
    /// One is wanted, and there is no pod in the ConfigMap that it could be.
    pub(crate) fn of(data: &BTreeMap<String, String>, action: Action) -> Result<Option<Self>, String> {
        // What is wrong with the settings is told by whoever looks for directories in them.
        let settings = data.get(SETTINGS).and_then(|text| serde_json::from_str::<Settings>(text).ok());
        let Settings { setup_command, teardown_command, cmd_timeout_seconds } = settings.unwrap_or_default();
        let of_action = match action {
            Action::Create => &setup_command,
            Action::Delete => &teardown_command,
        };
        let command = Some(of_action.clone()).filter(|command| !command.is_empty());
        if command.is_none() && data.get(action.key()).is_none_or(|script| action.is_usual(script)) {
            return Ok(None);
        }
        let wrong = |what: &str| format!("{TEMPLATE} of {CONFIG} is no pod: {what}");
        let text = data.get(TEMPLATE).ok_or_else(|| wrong("there is none"))?;
        let value = decode::yaml(text.as_bytes(), None).map_err(|error| wrong(&error.to_string()))?.value;
        let template: Pod = serde_json::from_value(value).map_err(|error| wrong(&error.to_string()))?;
        if template.spec.as_ref().is_none_or(|spec| spec.containers.is_empty()) {
            return Err(wrong("it has no container"));
        }
        let scripts = [(&setup_command, Action::Create.key()), (&teardown_command, Action::Delete.key())];
        let scripts = scripts.into_iter().filter(|(command, _)| command.is_empty()).map(|(_, key)| key).collect();
        let limit = if cmd_timeout_seconds == 0 { LIMIT } else { Duration::from_secs(cmd_timeout_seconds) };
        Ok(Some(Self { template, action, command, scripts, limit }))
    }

    /// The pod for a directory.
    ///
    /// # Errors
    /// The directory has no parent that could be given to the pod.
    pub(crate) fn pod(&self, work: &Work<'_>) -> Result<Pod, String> {
        let (parent, name) = (work.path.parent(), work.path.file_name());
        let place = parent.zip(name).filter(|(parent, _)| parent.is_absolute() && *parent != Path::new("/"));
        let (parent, name) = place.ok_or_else(|| {
            let (word, path) = (self.action.word(), work.path.display());
            format!("invalid path {word} for {path}: cannot find parent dir or volume dir or parent dir is relative")
        })?;
        let mut pod = self.template.clone();
        let base = pod.metadata.name.take().unwrap_or_default();
        let mut full = format!("{base}-{}-{}", self.action.word(), work.volume);
        full.truncate(full.floor_char_boundary(NAME_BYTES_MAX));
        pod.metadata.name = Some(full);
        pod.metadata.namespace = Some(NAMESPACE.to_owned());
        let spec = pod.spec.get_or_insert_default();
        self.fill(spec, parent, work);
        if let Some(container) = spec.containers.first_mut() {
            self.equip(container, (parent, Path::new(name)), work);
        }
        Ok(pod)
    }

    fn fill(&self, spec: &mut PodSpec, parent: &Path, work: &Work<'_>) {
        if spec.node_name.as_deref().unwrap_or_default().is_empty() {
            spec.node_name = work.node.map(str::to_owned);
        }
        spec.service_account_name = Some(SERVICE_ACCOUNT.to_owned());
        spec.restart_policy = Some("Never".to_owned());
        let anything = || vec![Toleration { operator: Some("Exists".to_owned()), ..Toleration::default() }];
        spec.tolerations.get_or_insert_with(anything);
        let volumes = spec.volumes.get_or_insert_default();
        let source = HostPathVolumeSource {
            path: parent.to_string_lossy().into_owned(),
            type_: Some("DirectoryOrCreate".to_owned()),
        };
        volumes.push(Volume { name: DATA.to_owned(), host_path: Some(source), ..Volume::default() });
        if !self.scripts.is_empty() {
            let item = |key: &&str| KeyToPath { key: (*key).to_owned(), path: (*key).to_owned(), mode: None };
            let source = ConfigMapVolumeSource {
                name: CONFIG.to_owned(),
                items: Some(self.scripts.iter().map(item).collect()),
                ..ConfigMapVolumeSource::default()
            };
            volumes.push(Volume { name: SCRIPT.to_owned(), config_map: Some(source), ..Volume::default() });
        }
    }

    fn equip(&self, container: &mut Container, (parent, name): (&Path, &Path), work: &Work<'_>) {
        let mounts = container.volume_mounts.get_or_insert_default();
        if !self.scripts.is_empty() {
            mount(mounts, SCRIPT, SCRIPT_DIR).mount_path = SCRIPT_DIR.to_owned();
        }
        let inside = mount(mounts, DATA, &parent.to_string_lossy()).mount_path.clone();
        let directory = Path::new(&inside).join(name).to_string_lossy().into_owned();
        let script = || vec!["/bin/sh".to_owned(), format!("{SCRIPT_DIR}/{}", self.action.key())];
        container.command = Some(self.command.clone().map_or_else(script, |command| vec![command]));
        let variables = [
            ("VOL_DIR", directory.clone()),
            ("VOL_MODE", work.mode.to_owned()),
            ("VOL_SIZE_BYTES", work.bytes.to_string()),
        ];
        let variables =
            variables.map(|(name, value)| EnvVar { name: name.to_owned(), value: Some(value), value_from: None });
        container.env.get_or_insert_default().extend(variables);
        let arguments = ["-p", &directory, "-s", &work.bytes.to_string(), "-m", work.mode, "-a", self.action.word()];
        container.args = Some(arguments.map(str::to_owned).to_vec());
    }
}

/// The mount of a volume: the template's own, or a new one.
fn mount<'a>(mounts: &'a mut Vec<VolumeMount>, volume: &str, path: &str) -> &'a mut VolumeMount {
    let at = mounts.iter().position(|mount| mount.name == volume).unwrap_or_else(|| {
        mounts.push(VolumeMount { name: volume.to_owned(), ..VolumeMount::default() });
        mounts.len() - 1
    });
    let found = &mut mounts[at];
    if found.mount_path.is_empty() {
        path.clone_into(&mut found.mount_path);
    }
    found
}

/// How far a helper is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Running,
    Done,
    /// It won't come to an end; why.
    Failed(String),
}

/// How far a pod is.
pub(crate) fn progress(pod: &Pod) -> Progress {
    let status = pod.status.as_ref();
    let containers = || status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default().iter();
    match status.and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => Progress::Done,
        Some("Failed") => {
            let ended = containers().find_map(|one| one.state.as_ref()?.terminated.as_ref());
            let code = ended.map(|ended| format!("with exit code {}", ended.exit_code));
            let said = ended.and_then(|ended| ended.message.clone());
            let said =
                said.or_else(|| status.and_then(|status| status.message.clone())).filter(|said| !said.is_empty());
            let words =
                [Some("the helper pod failed".to_owned()), code].into_iter().flatten().collect::<Vec<_>>().join(" ");
            Progress::Failed(said.map_or_else(|| words.clone(), |said| format!("{words}: {said}")))
        }
        _ => {
            let waits = containers().find_map(|one| Some((one, one.state.as_ref()?.waiting.as_ref()?)));
            let is_missing = |reason: Option<&String>| reason.is_some_and(|reason| NO_IMAGE.contains(&reason.as_str()));
            match waits.filter(|(_, waiting)| is_missing(waiting.reason.as_ref())) {
                None => Progress::Running,
                Some((container, waiting)) => {
                    let (image, reason) = (&container.image, waiting.reason.as_deref().unwrap_or_default());
                    let said = waiting.message.as_deref().unwrap_or_default();
                    Progress::Failed(format!("the image {image} of the helper pod can't be had: {reason}: {said}"))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: helper-pod}\nspec:\n  containers:\n  - {name: helper-pod, image: busybox}\n";

    fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
    }

    fn work(node: Option<&'static str>) -> Work<'static> {
        Work { volume: "pvc-1", path: "/opt/s/pvc-1_n_c".into(), node, mode: "Filesystem", bytes: 1 << 30 }
    }

    #[test]
    fn the_scripts_of_k3s_need_no_pod() {
        let none = |action, script: &str| {
            let key = if action == Action::Create { "setup" } else { "teardown" };
            Helper::of(&data(&[(key, script), (TEMPLATE, POD)]), action).expect("it is understood").is_none()
        };
        for usual in [
            "#!/bin/sh\nset -eu\nmkdir -m 0777 -p \"${VOL_DIR}\"\nchmod 700 \"${VOL_DIR}/..\"",
            "#!/bin/sh -eu\n\n  mkdir -p -m 777 $VOL_DIR\n# for its owner\nchmod 0700 \"$(dirname \"$VOL_DIR\")\"\n",
        ] {
            assert!(none(Action::Create, usual), "{usual}");
        }
        for other in [
            "",
            "mkdir -m 0777 -p $VOL_DIR",
            "mkdir -m 0777 -p $VOL_DIR\nchmod 755 $VOL_DIR/..",
            "mkdir -m 0777 -p $VOL_DIR\nchmod 700 $VOL_DIR/..\nchown 1000 $VOL_DIR",
            "mkdir -m 0777 -p $VOL_DIR && xfs_quota\nchmod 700 $VOL_DIR/..",
        ] {
            assert!(!none(Action::Create, other), "{other}");
        }
        assert!(none(Action::Delete, "#!/bin/sh\nset -eu\nrm -rf \"${VOL_DIR}\""));
        assert!(!none(Action::Delete, "shred $VOL_DIR/*\nrm -rf $VOL_DIR"));
        assert_eq!(Helper::of(&data(&[]), Action::Create), Ok(None));
        let packaged = crate::MANIFEST.split("\n---\n").find(|text| text.contains("setup: |-")).expect("the ConfigMap");
        let packaged = decode::yaml(packaged.as_bytes(), None).expect("YAML").value;
        let packaged: BTreeMap<String, String> = serde_json::from_value(packaged["data"].clone()).expect("texts");
        for action in [Action::Create, Action::Delete] {
            assert_eq!(Helper::of(&packaged, action), Ok(None));
        }
    }

    #[test]
    fn others_run_in_the_pod_of_the_configuration() {
        let map = data(&[("setup", "special"), ("teardown", "rm -rf $VOL_DIR"), (TEMPLATE, POD)]);
        assert_eq!(Helper::of(&map, Action::Delete), Ok(None));
        let helper = Helper::of(&map, Action::Create).expect("it is understood").expect("one is wanted");
        assert_eq!(helper.limit, LIMIT);
        let pod = serde_json::to_value(helper.pod(&work(Some("a"))).expect("a pod")).expect("JSON");
        assert_eq!(
            pod,
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": "helper-pod-create-pvc-1", "namespace": "kube-system" },
                "spec": {
                    "nodeName": "a", "restartPolicy": "Never", "serviceAccountName": SERVICE_ACCOUNT,
                    "tolerations": [{ "operator": "Exists" }],
                    "containers": [{
                        "name": "helper-pod", "image": "busybox", "command": ["/bin/sh", "/script/setup"],
                        "args": ["-p", "/opt/s/pvc-1_n_c", "-s", "1073741824", "-m", "Filesystem", "-a", "create"],
                        "env": [
                            { "name": "VOL_DIR", "value": "/opt/s/pvc-1_n_c" },
                            { "name": "VOL_MODE", "value": "Filesystem" },
                            { "name": "VOL_SIZE_BYTES", "value": "1073741824" },
                        ],
                        "volumeMounts": [
                            { "name": "script", "mountPath": "/script" }, { "name": "data", "mountPath": "/opt/s" },
                        ],
                    }],
                    "volumes": [
                        { "name": "data", "hostPath": { "path": "/opt/s", "type": "DirectoryOrCreate" } },
                        { "name": "script", "configMap": { "name": CONFIG, "items": [
                            { "key": "setup", "path": "setup" }, { "key": "teardown", "path": "teardown" },
                        ] } },
                    ],
                },
            })
        );
        let shared = helper.pod(&work(None)).expect("a pod").spec.expect("set");
        assert_eq!(shared.node_name, None);
        let root = Work { path: "/pvc-1".into(), ..work(None) };
        assert!(helper.pod(&root).expect_err("no parent").contains("cannot find parent dir"));
    }

    #[test]
    fn commands_and_templates_have_their_say() {
        let pod = "kind: Pod\nmetadata: {name: h, labels: {a: b}}\nspec:\n  nodeName: z\n  tolerations: [{key: t, operator: Exists}]\n  containers:\n  - name: h\n    image: i\n    env: [{name: X, value: v}]\n    volumeMounts: [{name: data, mountPath: /data}]\n";
        let settings =
            r#"{"nodePathMap":[],"setupCommand":"/manager","teardownCommand":"/manager","cmdTimeoutSeconds":30}"#;
        let map = data(&[(SETTINGS, settings), ("setup", "special"), (TEMPLATE, pod)]);
        let helper = Helper::of(&map, Action::Delete).expect("it is understood").expect("one is wanted");
        assert_eq!(helper.limit, Duration::from_secs(30));
        let pod = serde_json::to_value(helper.pod(&work(Some("a"))).expect("a pod")).expect("JSON");
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["command"], json!(["/manager"]));
        assert_eq!(container["env"][0]["name"], "X");
        assert_eq!(container["env"][1], json!({ "name": "VOL_DIR", "value": "/data/pvc-1_n_c" }));
        assert_eq!(container["volumeMounts"], json!([{ "name": "data", "mountPath": "/data" }]));
        assert_eq!((&pod["spec"]["nodeName"], &pod["metadata"]["labels"]), (&json!("z"), &json!({ "a": "b" })));
        assert_eq!(pod["spec"]["tolerations"][0]["key"], "t");
        assert_eq!(pod["spec"]["volumes"].as_array().map(Vec::len), Some(1), "scripts aren't needed");
        for (template, why) in
            [("", "no container"), ("{", "is no pod"), ("a", "is no pod"), ("kind: Pod", "no container")]
        {
            let told = Helper::of(&data(&[("setup", "x"), (TEMPLATE, template)]), Action::Create).expect_err(template);
            assert!(told.contains(why) || told.contains("is no pod"), "{told}");
        }
        assert!(Helper::of(&data(&[("setup", "x")]), Action::Create).expect_err("none").contains("there is none"));
    }

    #[test]
    fn a_pod_says_how_far_it_is() {
        let of = |status: Value| progress(&serde_json::from_value(json!({ "status": status })).expect("a pod"));
        let container = |state: Value| json!([{ "name": "h", "image": "example/h:1", "imageID": "", "ready": false, "restartCount": 0, "state": state }]);
        let failed = |why: &str| Progress::Failed(why.to_owned());
        for (status, expected) in [
            (json!({}), Progress::Running),
            (json!({ "phase": "Running" }), Progress::Running),
            (json!({ "phase": "Succeeded" }), Progress::Done),
            (
                json!({ "phase": "Failed", "containerStatuses": container(json!({ "terminated": { "exitCode": 3, "message": "no" } })) }),
                failed("the helper pod failed with exit code 3: no"),
            ),
            (json!({ "phase": "Failed", "message": "evicted" }), failed("the helper pod failed: evicted")),
            (
                json!({ "phase": "Pending", "containerStatuses": container(json!({ "waiting": { "reason": "ContainerCreating" } })) }),
                Progress::Running,
            ),
            (
                json!({ "phase": "Pending", "containerStatuses": container(json!({ "waiting": { "reason": "ErrImagePull", "message": "no route" } })) }),
                failed("the image example/h:1 of the helper pod can't be had: ErrImagePull: no route"),
            ),
        ] {
            assert_eq!(of(status.clone()), expected, "{status}");
        }
    }
}
