//! The real binary as a user meets it: what it prints, its exit codes, and what it leaves on the disk.
//!
//! Everything runs in a directory of its own, with an environment that holds nothing but what the test puts there.

#[path = "cli/daemon.rs"]
mod daemon;
#[path = "cli/datastore.rs"]
mod datastore;
#[path = "cli/pki.rs"]
mod pki;
#[path = "support/ports.rs"]
mod ports;
#[path = "cli/process.rs"]
mod process;
#[path = "cli/server.rs"]
mod server;
#[path = "cli/web.rs"]
mod web;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The user and group that own nothing.
const NOBODY: u32 = 65534;

/// A directory to work in, and the variables to start with.
struct Shell {
    directory: tempfile::TempDir,
    variables: BTreeMap<String, String>,
}

/// What a command left behind.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Shell {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().display().to_string();
        Self { directory, variables: BTreeMap::from([("HOME".to_owned(), home)]) }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn file(&self, path: &str, text: &str) -> PathBuf {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// A program. It is put in its place by another process: were it open for writing here, a test that starts something
    /// on another thread just then would hold it open a moment longer, and running it would fail as "text file busy".
    fn program(&self, from: &Path, path: &str) -> PathBuf {
        let to = self.at(path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let status = Command::new("install").args(["-m", "755"]).args([from, &to]).status().unwrap();
        assert!(status.success());
        to
    }

    fn script(&self, path: &str, body: &str) -> PathBuf {
        let text = self.file(&format!("{path}.sh"), &format!("#!/bin/sh\n{body}\n"));
        let program = self.program(&text, path);
        fs::remove_file(text).unwrap();
        program
    }

    /// Only root may run a server with a node; the tests are about something else.
    fn node() -> &'static [&'static str] {
        if rustix::process::getuid().is_root() { &[] } else { &["--disable-agent"] }
    }

    fn set(&mut self, name: &str, value: impl ToString) {
        self.variables.insert(name.to_owned(), value.to_string());
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.run_as(Path::new(env!("CARGO_BIN_EXE_k3sd")), args)
    }

    fn run_as(&self, program: &Path, args: &[&str]) -> Ran {
        self.wait_for(&mut Command::new(program), args)
    }

    fn wait_for(&self, command: &mut Command, args: &[&str]) -> Ran {
        let command = command.args(args).env_clear().envs(&self.variables).current_dir(self.directory.path());
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: status.code().expect("it was not killed"), out: text(stdout), err: text(stderr) }
    }

    /// Everything below the directory, sorted.
    fn contents(&self) -> Vec<PathBuf> {
        fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    walk(&path, found);
                }
                found.push(path);
            }
        }
        let mut found = Vec::new();
        walk(self.directory.path(), &mut found);
        found.sort();
        found
    }

    /// Runs what has to fail with one line, and leave everything as it was. Returns the line.
    #[track_caller]
    fn refused(&self, args: &[&str]) -> String {
        let before = self.contents();
        let Ran { code, out, err } = self.run(args);
        assert_eq!((code, out.as_str()), (1, ""), "{args:?}: {err}");
        assert_eq!(err.lines().count(), 1, "{args:?}: {err}");
        assert_eq!(self.contents(), before, "{args:?} wrote something");
        err.strip_prefix("k3sd: ").unwrap_or_else(|| panic!("{err}")).trim_end().to_owned()
    }

    /// Like `refused`, for somebody who is not root, whoever runs the test.
    #[track_caller]
    fn refused_to_user(&self, args: &[&str]) -> String {
        // The build's directory may be closed to others; this one is not.
        let program = self.program(Path::new(env!("CARGO_BIN_EXE_k3sd")), "k3sd");
        fs::set_permissions(self.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(&program);
        if rustix::process::getuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let Ran { code, out, err } = self.wait_for(&mut command, args);
        assert_eq!((code, out.as_str(), err.lines().count()), (1, "", 1), "{args:?}: {err}");
        err.strip_prefix("k3sd: ").unwrap_or_else(|| panic!("{err}")).trim_end().to_owned()
    }

    /// Like `refused`, for `server` with this as its config file.
    #[track_caller]
    fn refused_config(&self, text: &str) -> String {
        let path = self.file("config.yaml", text);
        let data = self.at("data");
        let data_dir = format!("--data-dir={}", data.display());
        let line = self.refused(&[&["server", "--config=config.yaml", &data_dir], Self::node()].concat());
        assert!(!data.exists());
        line.replace(&path.display().to_string(), "FILE")
    }
}

#[test]
fn help_of_each_command() {
    let shell = Shell::new();
    let commands = [
        "",
        "server",
        "agent",
        "check-config",
        "token",
        "token create",
        "token delete",
        "token generate",
        "token list",
        "token rotate",
        "certificate",
        "certificate check",
        "certificate rotate",
        "certificate rotate-ca",
        "secrets-encrypt",
        "secrets-encrypt status",
        "secrets-encrypt reencrypt",
        "etcd-snapshot",
        "etcd-snapshot save",
        "etcd-snapshot delete",
        "etcd-snapshot ls",
        "etcd-snapshot prune",
        "completion",
        "kine",
        "actors",
        "actors tree",
        "actors top",
        "actors show",
        "actors trace",
        "actors events",
        "actors kill",
        "actors suspend",
        "actors resume",
    ];
    for command in commands {
        let args: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let Ran { code, out, err } = shell.run(&args);
        assert_eq!((code, err.as_str()), (0, ""), "{command}");
        assert!(out.contains(format!("Usage: k3sd {command}").trim_end()), "{command}: {out}");
    }
}

#[test]
fn help_and_version_look_at_no_config_file() {
    let mut shell = Shell::new();
    shell.set("K3S_CONFIG_FILE", "/nowhere/config.yaml");
    assert_eq!(shell.run(&["server", "--help"]).code, 0);
    let version = shell.run(&["server", "--version"]);
    assert_eq!(version.code, 0);
    assert!(version.out.starts_with("k3sd version v1.34."), "{}", version.out);
    assert!(version.out.contains("\nrustc version 1."), "{}", version.out);
    assert!(shell.refused(&["server"]).contains("/nowhere/config.yaml does not exist"));
}

#[test]
fn mistakes_in_the_config_file_are_one_line_with_place_and_key() {
    let shell = Shell::new();
    let rows = [
        ("debug: true\nb: [1, 2\n", "FILE:2:4: unclosed bracket"),
        ("- debug\n", "FILE:1:1: the file must hold a mapping"),
        ("debug: true\n\ndata-dir: {a: b}\n", "FILE:3: data-dir: is a mapping; --data-dir takes text"),
        ("debug: perhaps\n", "FILE:1: debug: \"perhaps\" is not a boolean; write true or false"),
        ("https-listen-port: many\n", "FILE:1: https-listen-port: \"many\" is not a whole number"),
        ("https-listen-port: 70000\n", "FILE:1: https-listen-port: \"70000\" is not a port"),
        ("etcd-s3-timeout: soon\n", "FILE:1: etcd-s3-timeout: \"soon\" is not a duration"),
        ("write-kubeconfig-mode: rw\n", "FILE:1: write-kubeconfig-mode: \"rw\" is not an octal file mode"),
        ("#\ncluster-cidr: 10.42.0.0/99\n", "FILE:2: cluster-cidr: \"10.42.0.0/99\" is not a network"),
        ("service-cidr: fd00::/112\n", "FILE:1: service-cidr: pods (10.42.0.0/16) and services (fd00::/112) must"),
        ("node-ip: 192.0.2.1\ncluster-cidr: fd00::/56\nservice-cidr: fd01::/112\n", "FILE:2: cluster-cidr: the pod"),
        ("no-deploy: traefik\n", "FILE:1: no-deploy was removed; use --disable"),
        ("flannel-backend: host-gw\n", "--flannel-backend (set in FILE:1) is not available yet: the flannel actor"),
    ];
    for (text, start) in rows {
        let line = shell.refused_config(text);
        assert!(line.starts_with(start), "{text:?}: {line}");
    }
}

#[test]
fn a_node_that_makes_no_sense_is_refused_before_anything_is_opened() {
    if !rustix::process::getuid().is_root() {
        println!("ignored: a server with a node has to be root");
        return;
    }
    let shell = Shell::new();
    let rows = [
        ("kubelet-arg: [nonsense=1]\n", "--kubelet-arg: kubelet has no flag --nonsense"),
        ("kubelet-arg: [max-pods=many]\n", "--kubelet-arg: --max-pods: \"many\" is not a number in its range"),
        ("node-label: [bare]\n", "--node-label \"bare\": write name=value"),
        ("node-taint: [\"a=b:Never\"]\n", "--node-taint \"a=b:Never\": write key=value:effect"),
        ("node-ip: 203.0.113.77\n", "--node-ip: node IP: \"203.0.113.77\" not found in the host's network interfaces"),
    ];
    for (text, start) in rows {
        let line = shell.refused_config(text);
        assert!(line.starts_with(start), "{text:?}: {line}");
    }
    // Without a node nobody asks.
    let out = shell.run(&["server", "--disable-agent", "--node-label=bare", "--print-config"]);
    assert_eq!((out.code, out.err.as_str()), (0, ""));
}

#[test]
fn files_that_cannot_be_read() {
    let shell = Shell::new();
    fs::create_dir(shell.at("folder.yaml")).unwrap();
    let line = shell.refused(&["server", "-c", "folder.yaml"]);
    assert!(line.contains("folder.yaml can't be read; check its type and permissions: "), "{line}");
    assert!(shell.refused(&["server", "-c", "absent.yaml"]).contains("absent.yaml does not exist (set by --config)"));
    fs::write(shell.at("latin.yaml"), b"token: \xe4\n").unwrap();
    assert!(shell.refused(&["server", "-c", "latin.yaml"]).contains("latin.yaml:1:8: the file is not UTF-8 text"));
}

#[test]
fn secrets_come_from_files_as_well() {
    let mut shell = Shell::new();
    let token = shell.file("token", "hush\n");
    let line = shell.refused(&["server", "--disable-agent", "--token-file=absent"]);
    let absent = shell.at("absent");
    assert_eq!(
        line,
        format!("--token-file: the file {} does not exist; create it, or correct the path", absent.display())
    );
    shell.set("K3S_AGENT_TOKEN_FILE", shell.file("two", "hush hush").display());
    let line = shell.refused(&["server", "--disable-agent", "--token-file=token"]);
    let start = "environment variable K3S_AGENT_TOKEN_FILE (--agent-token-file): the file ";
    assert!(line.starts_with(start) && line.ends_with("leave nothing but the token in it"), "{line}");
    shell.set("K3S_AGENT_TOKEN_FILE", token.display());
    let line = shell.refused(&["server", "--disable-agent", "--token-file=token", "--server=https://a:6443"]);
    assert!(line.contains("is not available yet: joining a cluster") && !line.contains("hush"), "{line}");
}

#[test]
fn ordinary_users() {
    let shell = Shell::new();
    let line = shell.refused_to_user(&["server"]);
    assert!(line.starts_with("a server with a node must run as root; "), "{line}");
    let path = shell.file("secret.yaml", "debug: true");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o200)).unwrap();
    let line = shell.refused_to_user(&["server", "-c", "secret.yaml"]);
    assert!(line.contains("secret.yaml can't be read; check its type and permissions: Permission denied"), "{line}");
}

#[test]
fn mistakes_on_the_command_line_and_in_variables() {
    let mut shell = Shell::new();
    assert!(shell.refused(&["server", "--nonsense"]).contains("'--nonsense' found; "));
    assert!(shell.refused(&["server", "--log-format=xml"]).starts_with("--log-format: \"xml\" is not one of"));
    assert!(shell.refused(&["server", "--no-flannel"]).contains("--flannel-backend=none"));
    assert!(
        shell
            .refused(&[&["server", "--lb-server-port=7000"], Shell::node()].concat())
            .contains("--lb-server-port (set on the command line) is not")
    );
    assert!(shell.refused(&["agent"]).starts_with("an agent "));
    shell.set("K3S_LB_SERVER_PORT", "many");
    let line = shell.refused(&["server"]);
    assert!(line.starts_with("environment variable K3S_LB_SERVER_PORT (--lb-server-port): \"many\" is not"), "{line}");
}

#[test]
fn unknown_keys_stop_an_agent_and_warn_a_server() {
    let shell = Shell::new();
    let path = shell.file("config.yaml", "debug: true\nclustr-cidr: 1\n");
    let place = format!("{}:2: clustr-cidr: ", path.display());
    assert!(shell.refused(&["agent", "-c", "config.yaml"]).starts_with(&format!("{place}`agent` has no such flag")));
    let printed = shell.run(&["server", "-c", "config.yaml", "--disable-agent", "--print-config"]);
    assert_eq!(printed.code, 0, "{}", printed.err);
    assert!(printed.out.contains(&format!("# warning: {place}`server` has no such flag, ignored")), "{}", printed.out);
}

#[test]
fn secrets_are_never_repeated() {
    let mut shell = Shell::new();
    shell.set("K3S_TOKEN", "hush-variable");
    let text = "agent-token: hush-file\ndatastore-endpoint: postgres://me:hush-dsn@h/k\nvpn-auth: hush-vpn\n";
    shell.file("config.yaml", text);
    let flags = ["server", "-c", "config.yaml", "--etcd-s3-secret-key=hush-flag", "--disable-agent"];
    let refused = shell.refused(&flags);
    assert!(refused.contains("is not available yet"), "{refused}");
    for format in ["--print-config", "--print-config=json"] {
        let printed = shell.run(&[&flags[..], &[format]].concat());
        assert_eq!(printed.code, 0, "{}", printed.err);
        assert!(printed.out.contains("(not shown)"));
        assert!(!format!("{refused}{}{}", printed.out, printed.err).contains("hush"), "{}", printed.out);
    }
    shell.file("broken.yaml", "token: [hush\n");
    assert!(!shell.refused(&["server", "-c", "broken.yaml"]).contains("hush"));
    shell.file("wrong.yaml", "token: {hush: 1}\n");
    assert!(!shell.refused(&["server", "-c", "wrong.yaml"]).contains("hush"));
}

#[test]
fn print_config_shows_values_and_origins() {
    let mut shell = Shell::new();
    let main = shell.file("config.yaml", "debug: true\ntls-san:\n- a\n- b\nflannel-backend: host-gw\n");
    let drop_in = shell.file("config.yaml.d/10.yaml", "tls-san+: c\nflannel-backend: none\n");
    shell.set("K3S_CONFIG_FILE", main.display());
    shell.set("K3S_LB_SERVER_PORT", "6555");
    let printed = shell.run(&["server", "--tls-san=d", "-v=2", "--disable-agent", "--print-config"]);
    assert_eq!((printed.code, printed.err.as_str()), (0, ""));
    let squeezed = printed.out.split_whitespace().collect::<Vec<_>>().join(" ");
    let (main, drop_in) = (main.display(), drop_in.display());
    let parts = [
        format!("# config files: {main}, {drop_in}"),
        format!("config: {main} # env K3S_CONFIG_FILE"),
        format!("debug: true # {main}:1"),
        "v: 2 # command line".to_owned(),
        format!("- a # {main}:3 - b # {main}:4 - c # {drop_in}:1"),
        "- d # command line".to_owned(),
        format!("flannel-backend: none # {drop_in}:2"),
        "lb-server-port: 6555 # env K3S_LB_SERVER_PORT, not available yet".to_owned(),
        "cluster-domain: cluster.local # default".to_owned(),
    ];
    for part in parts {
        assert!(squeezed.contains(&part), "{part}\n{}", printed.out);
    }
    // What was printed is itself a config file with the same meaning.
    let again = shell.file("again.yaml", &printed.out);
    shell.variables.retain(|name, _| name == "HOME");
    let reprinted = shell.run(&["server", "-c", "again.yaml", "--disable-agent", "--print-config"]);
    assert_eq!(reprinted.code, 0, "{}", reprinted.err);
    let values = |text: &str| -> Vec<String> {
        let line = |line: &str| line.split(" # ").next().unwrap_or_default().trim_end().to_owned();
        text.lines().filter(|line| !line.starts_with('#') && !line.starts_with("config:")).map(line).collect()
    };
    assert_eq!(values(&reprinted.out), values(&printed.out), "{}", again.display());
}

#[test]
fn commands_whose_part_is_missing_say_so() {
    let shell = Shell::new();
    let rows: [(&[&str], &str); 5] = [
        (&["token", "create"], "`token create` is not available yet: joining a cluster is not part of this build"),
        (&["certificate", "check"], "`certificate check` is not available yet: the set of certificate commands"),
        (&["secrets-encrypt", "status"], "`secrets-encrypt status` is not available yet: secrets encryption"),
        (&["etcd-snapshot", "ls"], "`etcd-snapshot ls` is not available yet: the etcd snapshot actor"),
        (&["etcd-snapshot", "delete", "x"], "`etcd-snapshot delete` is not available yet"),
    ];
    for (args, start) in rows {
        let line = shell.refused(args);
        assert!(line.starts_with(start), "{line}");
    }
}

#[test]
fn tokens_are_generated() {
    let Ran { code, out, .. } = Shell::new().run(&["token", "generate"]);
    let (id, secret) = out.trim_end().split_once('.').unwrap();
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    assert!(code == 0 && id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret), "{out}");
}

#[test]
fn kernels_are_checked() {
    let shell = Shell::new();
    shell.file("kernel", "CONFIG_NAMESPACES=y\nCONFIG_VETH=m\n");
    let Ran { code, out, .. } = shell.run(&["check-config", "kernel"]);
    let last = out.lines().last().unwrap();
    assert!(code > 1, "{out}");
    assert_eq!(last, format!("STATUS: {code} (fail)"));
    assert!(shell.refused(&["check-config", "absent"]).contains("absent can't be read: "));
}

#[test]
fn completions_load_in_bash_and_install_once() {
    let shell = Shell::new();
    let script = shell.run(&["completion", "bash"]).out;
    shell.file("script", &script);
    let bash = Command::new("bash").args(["-n", "script"]).current_dir(shell.directory.path()).output().unwrap();
    assert!(bash.status.success(), "{}", String::from_utf8_lossy(&bash.stderr));
    for _ in 0..2 {
        assert_eq!(shell.run(&["completion", "bash", "-i"]).code, 0);
    }
    let installed = fs::read_to_string(shell.at(".bashrc")).unwrap();
    assert_eq!(installed.lines().count(), 3, "{installed}");
}

#[test]
fn tools_are_found_set_up_and_become_this_process() {
    let mut shell = Shell::new();
    let data = shell.at("data");
    shell.set("K3S_DATA_DIR", data.display());
    shell.set("PATH", shell.at("bin").display());
    let missing = shell.refused(&["kubectl", "get", "pods"]);
    assert!(missing.starts_with("kubectl is neither in") && missing.contains("install kubectl"), "{missing}");

    shell.script("bin/kubectl", "echo kubectl \"$@\"; exit 7");
    let Ran { code, out, .. } = shell.run(&["--debug", "kubectl", "get", "-A", "--help"]);
    assert_eq!((code, out.as_str()), (7, "kubectl get -A --help\n"));

    shell.script("data/data/current/bin/ctr", "echo $CONTAINERD_ADDRESS $CONTAINERD_NAMESPACE");
    assert_eq!(shell.run(&["ctr"]).out, "/run/k3s/containerd/containerd.sock k8s.io\n");

    let config = shell.file("data/agent/etc/crictl.yaml", "");
    shell.script("bin/crictl", "echo $CRI_CONFIG_FILE");
    assert_eq!(shell.run(&["crictl", "ps"]).out, format!("{}\n", config.display()));
}

#[test]
fn the_name_it_is_started_under_decides() {
    let mut shell = Shell::new();
    let link = |shell: &Shell, name: &str| {
        let path = shell.at(name);
        symlink(env!("CARGO_BIN_EXE_k3sd"), &path).unwrap();
        path
    };
    let k3s = link(&shell, "k3s");
    assert!(shell.run_as(&k3s, &["--version"]).out.starts_with("k3s version v1.34."));
    assert!(shell.run_as(&k3s, &["server", "--help"]).out.contains("Usage: k3s server"));
    assert!(shell.run_as(&k3s, &["token", "create"]).err.starts_with("k3s: `token create`"));
    let token = link(&shell, "k3s-token");
    assert_eq!(shell.run_as(&token, &["generate"]).code, 0);
    // The link to ourselves comes first in PATH and is passed over.
    let kubectl = link(&shell, "kubectl");
    shell.script("bin/kubectl", "echo real \"$@\"");
    shell.set("PATH", format!("{}:{}", shell.directory.path().display(), shell.at("bin").display()));
    assert_eq!(shell.run_as(&kubectl, &["version"]).out, "real version\n");
    // A copy is not a link, but it meets itself and gives up instead of going round for ever.
    fs::remove_file(&kubectl).unwrap();
    shell.program(Path::new(env!("CARGO_BIN_EXE_k3sd")), "kubectl");
    let path = shell.directory.path().display().to_string();
    shell.set("PATH", path);
    let Ran { code, err, .. } = shell.run(&["kubectl", "version"]);
    assert!(code == 1 && err.contains("kubectl is neither in"), "{err}");
}
