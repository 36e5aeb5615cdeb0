//! Runtimes beside runc that a node may have.

use std::path::PathBuf;

use crate::config::ContainerdConfig;
use crate::error::ContainerdError;
use crate::program::find_runtime;

/// The shim that runs runc and everything with its command line.
const RUNC_SHIM: &str = "io.containerd.runc.v2";

/// A kind of runtime: its name for containerd, the program to look for, its shim.
struct Row {
    name: &'static str,
    program: &'static str,
    shim: &'static str,
}

const fn like_runc(name: &'static str, program: &'static str) -> Row {
    Row { name, program, shim: RUNC_SHIM }
}

/// What is looked for, in the order of the rendered configuration.
const ROWS: [Row; 11] = [
    like_runc("crun", "crun"),
    Row { name: "lunatic", program: "containerd-shim-lunatic-v1", shim: "io.containerd.lunatic.v1" },
    like_runc("nvidia", "nvidia-container-runtime"),
    like_runc("nvidia-cdi", "nvidia-container-runtime.cdi"),
    like_runc("nvidia-experimental", "nvidia-container-runtime-experimental"),
    Row { name: "slight", program: "containerd-shim-slight-v1", shim: "io.containerd.slight.v1" },
    Row { name: "spin", program: "containerd-shim-spin-v2", shim: "io.containerd.spin.v2" },
    Row { name: "wasmedge", program: "containerd-shim-wasmedge-v1", shim: "io.containerd.wasmedge.v1" },
    Row { name: "wasmer", program: "containerd-shim-wasmer-v1", shim: "io.containerd.wasmer.v1" },
    Row { name: "wasmtime", program: "containerd-shim-wasmtime-v1", shim: "io.containerd.wasmtime.v1" },
    Row { name: "wws", program: "containerd-shim-wws-v1", shim: "io.containerd.wws.v1" },
];

/// The names for which a cluster has a RuntimeClass, whose handler is that same name, whatever its nodes have.
pub const RUNTIME_CLASSES: [&str; 11] = [
    "crun",
    "lunatic",
    "nvidia",
    "nvidia-cdi",
    "nvidia-experimental",
    "slight",
    "spin",
    "wasmedge",
    "wasmer",
    "wasmtime",
    "wws",
];

/// A runtime that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Its name: the handler of a RuntimeClass.
    pub name: String,
    /// containerd's name of its shim.
    pub shim: String,
    /// Its program.
    pub program: PathBuf,
}

/// The extra runtimes that this node has.
pub fn find_runtimes(config: &ContainerdConfig) -> Vec<Runtime> {
    let found = |row: &Row| {
        let program = find_runtime(row.program, config)?;
        Some(Runtime { name: row.name.to_owned(), shim: row.shim.to_owned(), program })
    };
    ROWS.iter().filter_map(found).collect()
}

/// The runtime of pods that name none.
///
/// # Errors
/// The one that is wanted was not found.
pub(crate) fn default_runtime(config: &ContainerdConfig, found: &[Runtime]) -> Result<Option<String>, ContainerdError> {
    match &config.default_runtime {
        Some(wanted) if !wanted.is_empty() => {
            let names = || found.iter().map(|runtime| runtime.name.clone()).collect();
            let known = found.iter().any(|runtime| runtime.name == *wanted);
            let error = || ContainerdError::DefaultRuntime { wanted: wanted.clone(), found: names() };
            known.then(|| Some(wanted.clone())).ok_or_else(error)
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_classes_are_those_that_are_looked_for() {
        let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names, RUNTIME_CLASSES);
    }

    #[test]
    fn only_a_found_runtime_can_be_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = ContainerdConfig::new(dir.path(), dir.path().join("run"));
        let file = dir.path().join("crun");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        config.environment = vec![("PATH".into(), dir.path().into())];
        let found = find_runtimes(&config);
        let crun = found.iter().find(|runtime| runtime.name == "crun").expect("it is there");
        assert_eq!((crun.shim.as_str(), &crun.program), (RUNC_SHIM, &file));
        assert_eq!(default_runtime(&config, &found).unwrap(), None);
        config.default_runtime = Some("crun".to_owned());
        assert_eq!(default_runtime(&config, &found).unwrap().as_deref(), Some("crun"));
        config.default_runtime = Some("runc".to_owned());
        assert!(default_runtime(&config, &found).unwrap_err().to_string().contains("\"runc\""));
    }
}
