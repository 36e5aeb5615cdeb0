//! `kubectl`, `crictl` and `ctr`: finding the real program and becoming it, set up for this node.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use thiserror::Error;

use crate::cli::{Environment, Tool};
use crate::config::early_data_dir;

/// The administrator's kubeconfig of a daemon that runs as root.
const KUBECONFIG_GLOBAL: &str = "/etc/rancher/k3s/k3s.yaml";
/// That of a daemon that does not, below the home directory.
const KUBECONFIG_HOME: &str = ".kube/k3s.yaml";
/// containerd's socket.
const CONTAINERD_SOCKET: &str = "/run/k3s/containerd/containerd.sock";
/// The namespace of containerd in which Kubernetes keeps its containers.
const CONTAINERD_NAMESPACE: &str = "k8s.io";
/// Set to our process id before becoming a tool. `exec` keeps the id, so meeting our own id again means that what was
/// found was this program under another name.
const GUARD_VAR: &str = "K3SD_TOOL_PID";

/// Why a tool was not started.
#[derive(Debug, Error)]
pub enum ExternalError {
    /// There is no such program, or nothing but copies of this one.
    #[error("{tool} is neither in {directory} nor in PATH; install {tool}, or put it into one of these directories")]
    NotFound {
        /// The program.
        tool: &'static str,
        /// The directory of bundled programs.
        directory: PathBuf,
    },
    /// The program is there and does not start.
    #[error("{path} can't be started")]
    Exec {
        /// The program.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    program: PathBuf,
    variables: BTreeMap<&'static str, OsString>,
    warning: Option<String>,
}

/// Becomes the tool. Returns only if that fails.
pub fn run(environment: &Environment, tool: Tool, args: &[OsString], data_dir: Option<&str>) -> ExternalError {
    let plan = match plan(environment, tool, args, data_dir) {
        Ok(plan) => plan,
        Err(error) => return error,
    };
    if let Some(warning) = plan.warning {
        eprintln!("warning: {warning}");
    }
    let source = Command::new(&plan.program).args(args).envs(plan.variables).exec();
    ExternalError::Exec { path: plan.program, source }
}

fn plan(
    environment: &Environment,
    tool: Tool,
    args: &[OsString],
    data_dir: Option<&str>,
) -> Result<Plan, ExternalError> {
    let data_dir = early_data_dir(environment, data_dir);
    let directory = data_dir.join("data/current/bin");
    let guard = environment.pid.to_string();
    let met_ourselves = environment.var(GUARD_VAR) == Some(guard.as_str());
    let found = if met_ourselves { None } else { find(environment, tool, &directory) };
    let program = found.ok_or(ExternalError::NotFound { tool: tool.name(), directory })?;
    let mut plan = Plan { program, variables: BTreeMap::from([(GUARD_VAR, guard.into())]), warning: None };
    match tool {
        Tool::Kubectl => kubectl(environment, args, &mut plan),
        Tool::Crictl => crictl(environment, &data_dir, &mut plan),
        Tool::Ctr => {
            let defaults = [("CONTAINERD_ADDRESS", CONTAINERD_SOCKET), ("CONTAINERD_NAMESPACE", CONTAINERD_NAMESPACE)];
            let unset = defaults.into_iter().filter(|(name, _)| environment.var(name).is_none());
            plan.variables.extend(unset.map(|(name, value)| (name, value.into())));
        }
    }
    Ok(plan)
}

/// The program among the bundled ones, else along `PATH`; never this program under the tool's name.
fn find(environment: &Environment, tool: Tool, directory: &Path) -> Option<PathBuf> {
    let path = environment.var("PATH").unwrap_or_default();
    let directories = std::iter::once(directory.to_owned()).chain(std::env::split_paths(path));
    let candidates = directories.map(|directory| environment.absolute(directory).join(tool.name()));
    candidates.into_iter().find(|candidate| is_program(candidate) && !is_ourselves(environment, candidate))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn is_ourselves(environment: &Environment, path: &Path) -> bool {
    match (&environment.exe, fs::canonicalize(path)) {
        (Some(exe), Ok(path)) => *exe == path,
        _ => false,
    }
}

/// Points kubectl at this cluster, unless the user points it elsewhere.
fn kubectl(environment: &Environment, args: &[OsString], plan: &mut Plan) {
    // Behind `--` are arguments of some command in a pod.
    let own_args = args.iter().take_while(|arg| *arg != "--").filter_map(|arg| arg.to_str());
    let named = own_args.into_iter().any(|arg| arg == "--kubeconfig" || arg.starts_with("--kubeconfig="));
    if named || environment.var("KUBECONFIG").is_some() {
        return;
    }
    let global = environment.well_known(KUBECONFIG_GLOBAL);
    let home = environment.home.as_ref().map(|home| home.join(KUBECONFIG_HOME));
    let Some(file) = std::iter::once(global).chain(home).find(|file| file.exists()) else { return };
    if fs::File::open(&file).is_err() {
        plan.warning = Some(format!(
            "{} can't be read; run as root, or start the server with --write-kubeconfig-mode or \
             --write-kubeconfig-group",
            file.display()
        ));
    }
    plan.variables.insert("KUBECONFIG", file.into());
}

/// Points crictl at the first configuration there is, unless the user points it elsewhere.
fn crictl(environment: &Environment, data_dir: &Path, plan: &mut Plan) {
    if environment.var("CRI_CONFIG_FILE").is_some() {
        return;
    }
    let below = |directory: &Path| directory.join("agent/etc/crictl.yaml");
    let home = environment.home.as_ref().map(|home| below(&home.join(".rancher/k3s")));
    let candidates = [below(data_dir)]
        .into_iter()
        .chain(home)
        .chain([below(&environment.well_known("/var/lib/rancher/k3s")), environment.well_known("/etc/crictl.yaml")]);
    if let Some(file) = candidates.into_iter().find(|file| file.exists()) {
        plan.variables.insert("CRI_CONFIG_FILE", file.into());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::SystemTime;

    use super::*;

    /// A file system of its own, with this program in `/bin/k3sd`.
    struct Machine {
        root: tempfile::TempDir,
        environment: Environment,
    }

    impl Machine {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let mut environment = Environment::empty(SystemTime::UNIX_EPOCH);
            let base = fs::canonicalize(root.path()).unwrap();
            environment.root = base.clone();
            environment.home = Some(base.join("home/me"));
            environment.exe = Some(base.join("bin/k3sd"));
            let path = format!("{0}/bin:{0}/usr/bin", base.display());
            environment.vars.insert("PATH".to_owned(), path);
            let machine = Self { root, environment };
            machine.program("bin/k3sd");
            machine
        }

        fn at(&self, path: &str) -> PathBuf {
            self.environment.root.join(path)
        }

        fn file(&self, path: &str) -> PathBuf {
            let path = self.at(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            path
        }

        fn program(&self, path: &str) -> PathBuf {
            let path = self.file(path);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        }

        fn set(&mut self, name: &str, value: &str) {
            self.environment.vars.insert(name.to_owned(), value.to_owned());
        }

        fn plan(&self, tool: Tool, args: &[&str]) -> Result<Plan, ExternalError> {
            assert!(self.root.path().exists());
            plan(&self.environment, tool, &args.iter().map(OsString::from).collect::<Vec<_>>(), None)
        }

        fn variable(&self, tool: Tool, args: &[&str], name: &str) -> Option<OsString> {
            self.plan(tool, args).unwrap().variables.get(name).cloned()
        }
    }

    #[test]
    fn bundled_programs_come_first_and_we_never_do() {
        let machine = Machine::new();
        let error = machine.plan(Tool::Kubectl, &[]).unwrap_err().to_string();
        assert!(error.starts_with("kubectl is neither in"), "{error}");
        symlink(machine.at("bin/k3sd"), machine.at("bin/kubectl")).unwrap();
        assert!(machine.plan(Tool::Kubectl, &[]).is_err(), "a link to ourselves is not the program");
        machine.file("usr/bin/crictl");
        assert!(machine.plan(Tool::Crictl, &[]).is_err(), "a file nobody may run is not the program");
        let installed = machine.program("usr/bin/kubectl");
        assert_eq!(machine.plan(Tool::Kubectl, &[]).unwrap().program, installed);
        let bundled = machine.program("var/lib/rancher/k3s/data/current/bin/kubectl");
        assert_eq!(machine.plan(Tool::Kubectl, &[]).unwrap().program, bundled);
    }

    #[test]
    fn a_copy_of_ourselves_is_noticed() {
        let mut machine = Machine::new();
        machine.program("usr/bin/ctr");
        assert!(machine.plan(Tool::Ctr, &[]).is_ok());
        machine.set(GUARD_VAR, "1");
        assert!(machine.plan(Tool::Ctr, &[]).is_err());
        machine.set(GUARD_VAR, "2");
        assert!(machine.plan(Tool::Ctr, &[]).is_ok(), "started by another process that became a tool");
    }

    #[test]
    fn kubectl_gets_the_kubeconfig_unless_it_has_one() {
        let mut machine = Machine::new();
        machine.program("usr/bin/kubectl");
        let variable = |machine: &Machine, args: &[&str]| machine.variable(Tool::Kubectl, args, "KUBECONFIG");
        assert_eq!(variable(&machine, &[]), None);
        let home = machine.file("home/me/.kube/k3s.yaml");
        assert_eq!(variable(&machine, &[]), Some(home.into()));
        let global = machine.file("etc/rancher/k3s/k3s.yaml");
        assert_eq!(variable(&machine, &[]), Some(global.clone().into()));
        assert_eq!(variable(&machine, &["--kubeconfig", "/x", "get"]), None);
        assert_eq!(variable(&machine, &["get", "--kubeconfig=/x"]), None);
        assert_eq!(variable(&machine, &["exec", "p", "--", "x", "--kubeconfig"]), Some(global.into()));
        machine.set("KUBECONFIG", "/mine");
        assert_eq!(variable(&machine, &[]), None);
    }

    #[test]
    fn crictl_gets_the_first_configuration() {
        let mut machine = Machine::new();
        machine.program("usr/bin/crictl");
        let variable = |machine: &Machine| machine.variable(Tool::Crictl, &[], "CRI_CONFIG_FILE");
        assert_eq!(variable(&machine), None);
        let files = [
            "etc/crictl.yaml",
            "var/lib/rancher/k3s/agent/etc/crictl.yaml",
            "home/me/.rancher/k3s/agent/etc/crictl.yaml",
            "data/agent/etc/crictl.yaml",
        ];
        machine.set("K3S_DATA_DIR", &machine.at("data").display().to_string());
        for file in files {
            let file = machine.file(file);
            assert_eq!(variable(&machine), Some(file.into()));
        }
        machine.set("CRI_CONFIG_FILE", "/mine");
        assert_eq!(variable(&machine), None);
    }

    #[test]
    fn ctr_gets_address_and_namespace() {
        let mut machine = Machine::new();
        machine.program("usr/bin/ctr");
        let variable = |machine: &Machine, name| machine.variable(Tool::Ctr, &[], name);
        assert_eq!(variable(&machine, "CONTAINERD_ADDRESS"), Some(CONTAINERD_SOCKET.into()));
        assert_eq!(variable(&machine, "CONTAINERD_NAMESPACE"), Some("k8s.io".into()));
        machine.set("CONTAINERD_NAMESPACE", "moby");
        assert_eq!(variable(&machine, "CONTAINERD_NAMESPACE"), None);
    }
}
