//! What the cgroups of pods are called. Pure.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::CgroupError;

/// How well a pod is served when there is too little: by what it asks for. See [`crate::qos_class`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QosClass {
    /// Every container limits CPU and memory to what it requests.
    Guaranteed,
    /// Some container asks for something.
    Burstable,
    /// Nobody asks for anything.
    BestEffort,
}

impl QosClass {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Guaranteed, Self::Burstable, Self::BestEffort];

    /// As `status.qosClass` has it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }

    /// The part of the path between `kubepods` and the pod; Guaranteed pods have none.
    fn part(self) -> Option<&'static str> {
        match self {
            Self::Guaranteed => None,
            Self::Burstable => Some("burstable"),
            Self::BestEffort => Some("besteffort"),
        }
    }
}

impl fmt::Display for QosClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Who names cgroups: the runtime and the kubelet have to agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Driver {
    /// Plain directories.
    #[default]
    Cgroupfs,
    /// Slices and scopes.
    Systemd,
}

impl Driver {
    /// As `cgroupDriver` of the kubelet's configuration has it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Cgroupfs => "cgroupfs",
            Self::Systemd => "systemd",
        }
    }
}

/// Where pods are, below the root that the node was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    driver: Driver,
    /// Path parts of `--cgroup-root`, empty as a rule.
    root: Vec<String>,
}

const KUBEPODS: &str = "kubepods";

impl Names {
    pub(crate) fn new(driver: Driver, root: &str) -> Result<Self, CgroupError> {
        let parts: Vec<String> = root.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        if parts.iter().any(|part| part == "." || part == "..") {
            return Err(CgroupError::Name { name: root.to_owned() });
        }
        Ok(Self { driver, root: parts })
    }

    pub(crate) fn driver(&self) -> Driver {
        self.driver
    }

    /// The cgroup of all pods, relative to the hierarchies.
    pub(crate) fn node(&self) -> PathBuf {
        self.path(&[KUBEPODS])
    }

    /// The cgroup of a class; that of Guaranteed pods is the one of all.
    pub(crate) fn class(&self, class: QosClass) -> PathBuf {
        class.part().map_or_else(|| self.node(), |part| self.path(&[KUBEPODS, part]))
    }

    /// A pod's cgroup.
    pub(crate) fn pod(&self, uid: &str, class: QosClass) -> Result<PathBuf, CgroupError> {
        let pod = pod_part(uid)?;
        Ok(match class.part() {
            None => self.path(&[KUBEPODS, &pod]),
            Some(part) => self.path(&[KUBEPODS, part, &pod]),
        })
    }

    /// A pod's cgroup as the CRI wants it: the path from the root, or the name of the last slice.
    pub(crate) fn for_cri(&self, uid: &str, class: QosClass) -> Result<String, CgroupError> {
        let path = self.pod(uid, class)?;
        Ok(match self.driver {
            Driver::Cgroupfs => format!("/{}", path.display()),
            Driver::Systemd => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        })
    }

    /// The uid in the last part of a pod's cgroup; `None` for another's.
    pub(crate) fn uid(&self, name: &str) -> Option<String> {
        let uid = match self.driver {
            Driver::Cgroupfs => name.strip_prefix("pod")?.to_owned(),
            Driver::Systemd => {
                let (_, pod) = name.strip_suffix(".slice")?.rsplit_once('-')?;
                pod.strip_prefix("pod")?.replace('_', "-")
            }
        };
        pod_part(&uid).ok().map(|_| uid)
    }

    fn path(&self, parts: &[&str]) -> PathBuf {
        let all = self.root.iter().map(String::as_str).chain(parts.iter().copied());
        match self.driver {
            Driver::Cgroupfs => all.collect(),
            Driver::Systemd => slices(all),
        }
    }
}

/// `a.slice/a-b.slice/a-b-c.slice`: a slice's name holds those of its parents, so dashes within a part become `_`.
fn slices<'a>(parts: impl Iterator<Item = &'a str>) -> PathBuf {
    let mut path = PathBuf::new();
    let mut name = String::new();
    for part in parts {
        if !name.is_empty() {
            name.push('-');
        }
        name.push_str(&part.trim_end_matches(".slice").replace('-', "_"));
        path.push(Path::new(&format!("{name}.slice")));
    }
    path
}

/// `pod<uid>`; the uid comes from outside and must not lead anywhere else.
fn pod_part(uid: &str) -> Result<String, CgroupError> {
    let fits =
        !uid.is_empty() && uid.len() <= 128 && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fits { Ok(format!("pod{uid}")) } else { Err(CgroupError::Name { name: uid.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "3f5d8a1c-0b2e-4c55-9d7a-6b1f00c0ffee";

    #[test]
    fn names_are_the_kubelets() {
        use Driver::{Cgroupfs, Systemd};
        use QosClass::{BestEffort, Burstable, Guaranteed};
        for (driver, root, class, path, cri) in [
            (Cgroupfs, "", Guaranteed, "kubepods/pod{}", "/kubepods/pod{}"),
            (Cgroupfs, "/", Burstable, "kubepods/burstable/pod{}", "/kubepods/burstable/pod{}"),
            (Cgroupfs, "/a/b", BestEffort, "a/b/kubepods/besteffort/pod{}", "/a/b/kubepods/besteffort/pod{}"),
            (Systemd, "", Guaranteed, "kubepods.slice/kubepods-pod{_}.slice", "kubepods-pod{_}.slice"),
            (
                Systemd,
                "",
                Burstable,
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{_}.slice",
                "kubepods-burstable-pod{_}.slice",
            ),
        ] {
            let fill = |text: &str| text.replace("{}", UID).replace("{_}", &UID.replace('-', "_"));
            let names = Names::new(driver, root).unwrap();
            let found = names.pod(UID, class).unwrap();
            assert_eq!(found, Path::new(&fill(path)));
            assert_eq!(names.for_cri(UID, class).unwrap(), fill(cri));
            assert_eq!(names.uid(found.file_name().unwrap().to_str().unwrap()).as_deref(), Some(UID));
        }
    }

    #[test]
    fn nobody_is_led_out_of_the_tree() {
        let names = Names::new(Driver::Cgroupfs, "").unwrap();
        for uid in ["", "..", "a/b", "../../etc", "a\0b", "ä", &"a".repeat(129)] {
            assert!(names.pod(uid, QosClass::Burstable).is_err(), "{uid:?}");
        }
        assert!(Names::new(Driver::Cgroupfs, "/a/../b").is_err());
        for name in ["burstable", "pod", "besteffort", "podx/y", "system.slice"] {
            assert_eq!(names.uid(name), None, "{name}");
        }
    }
}
