use super::*;
use crate::render::tidy;
use std::path::PathBuf;

/// What a node of the tests wants.
pub(crate) fn settings() -> Settings {
    Settings {
        root: "/r".into(),
        state: "/s".into(),
        socket: "/s/containerd.sock".into(),
        etc: "/e".into(),
        stream_port: 10010,
        selinux: false,
        nonroot_devices: false,
        snapshotter: "overlayfs".to_owned(),
        sandbox_image: "docker.io/rancher/mirrored-pause:3.10.2".to_owned(),
        cni: Some(CniDirs { bin: "/b".into(), conf: "/c".into() }),
        default_runtime: Some("crun".to_owned()),
        runtimes: vec![Runtime {
            name: "crun".to_owned(),
            shim: "io.containerd.runc.v2".to_owned(),
            program: PathBuf::from("/usr/bin/crun"),
        }],
        registries: Registries::parse(b"configs: {r.example: {auth: {username: u, password: 'p\"'}}}").unwrap(),
        host: Host { unprivileged: true, oom_score_is_restricted: true, ..Host::default() },
        no_default_endpoint: false,
        blockio_file: None,
        rdt_file: None,
    }
}

/// The lines of a table.
fn table<'a>(text: &'a str, header: &str) -> Vec<&'a str> {
    let mut lines = text.lines().skip_while(|line| *line != header);
    assert!(lines.next().is_some(), "{header} is not in\n{text}");
    lines.take_while(|line| !line.is_empty()).collect()
}

#[test]
fn the_older_form_keeps_everything_in_one_plugin() {
    let text = base(&settings(), Format::V2);
    assert!(text.starts_with("version = 2\nimports = [\"/e/config.toml.d/*.toml\"]\nroot = \"/r\"\nstate = \"/s\"\n"));
    let cri = table(&text, "[plugins.\"io.containerd.grpc.v1.cri\"]");
    for line in [
        "stream_server_port = \"10010\"",
        "enable_unprivileged_ports = true",
        "restrict_oom_score_adj = true",
        "sandbox_image = \"docker.io/rancher/mirrored-pause:3.10.2\"",
    ] {
        assert!(cri.contains(&line), "{line} is not in {cri:?}");
    }
    assert!(!text.contains("disable_apparmor") && !text.contains("disable_cgroup"));
    let containerd = table(&text, "[plugins.\"io.containerd.grpc.v1.cri\".containerd]");
    assert!(containerd.contains(&"default_runtime_name = \"crun\""), "{containerd:?}");
    let crun = table(&text, "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.crun.options]");
    assert_eq!(crun, ["BinaryName = \"/usr/bin/crun\"", "SystemdCgroup = false"]);
    let auth = table(&text, "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"r.example\".auth]");
    assert_eq!(auth, ["username = \"u\"", "password = \"p\\\"\""]);
    let cni = table(&text, "[plugins.\"io.containerd.grpc.v1.cri\".cni]");
    assert_eq!(cni, ["bin_dir = \"/b\"", "conf_dir = \"/c\""]);
}

#[test]
fn the_newer_form_has_a_plugin_for_each_purpose() {
    let mut settings = settings();
    settings.snapshotter = "nix".to_owned();
    settings.host.user_namespace = true;
    settings.host.no_cgroups = true;
    let text = base(&settings, Format::V3);
    assert!(text.starts_with("version = 3\nimports = [\"/e/config-v3.toml.d/*.toml\"]\n"));
    let runtime = table(&text, "[plugins.\"io.containerd.cri.v1.runtime\"]");
    for line in ["disable_cgroup = true", "disable_apparmor = true", "restrict_oom_score_adj = true"] {
        assert!(runtime.contains(&line), "{line} is not in {runtime:?}");
    }
    let images = table(&text, "[plugins.\"io.containerd.cri.v1.images\"]");
    assert_eq!(
        images,
        ["snapshotter = \"nix\"", "disable_snapshot_annotations = false", "use_local_image_pull = true"]
    );
    let pinned = table(&text, "[plugins.\"io.containerd.cri.v1.images\".pinned_images]");
    assert_eq!(pinned, ["sandbox = \"docker.io/rancher/mirrored-pause:3.10.2\""]);
    let cni = table(&text, "[plugins.\"io.containerd.cri.v1.runtime\".cni]");
    assert_eq!(cni, ["bin_dirs = [\"/b\"]", "conf_dir = \"/c\""]);
    assert_eq!(table(&text, "[plugins.\"io.containerd.nri.v1.nri\"]"), ["disable = true"]);
    assert_eq!(text.matches("[[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]").count(), 2);
}

#[test]
fn tidied_text_has_a_blank_line_before_each_table_and_nowhere_else() {
    assert_eq!(tidy("\n\na = 1\n\n\n[b]  \nc = 2\n  [b.c]\n"), "a = 1\n\n[b]\nc = 2\n\n  [b.c]\n");
}
