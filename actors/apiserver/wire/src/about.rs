//! What the server says of itself: its version, and where its paths begin.

use std::collections::BTreeSet;

use k3sd_apiserver_store::Catalog;
use serde_json::{Value, json};

/// The version that is told at `/version`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionInfo {
    /// Such as `v1.34.1+k3sd1`; what follows the first two numbers is ours.
    pub git_version: String,
    /// The commit that was built, or empty.
    pub git_commit: String,
    /// `clean`, `dirty`, or empty.
    pub git_tree_state: String,
    /// When it was built, RFC 3339, or empty.
    pub build_date: String,
    /// Compiler with version, or empty.
    pub compiler: String,
}

impl VersionInfo {
    /// The first two numbers of the version; clients read them as numbers, so that nothing else is in them.
    fn numbers(&self) -> (u32, u32) {
        let mut numbers = self.git_version.trim_start_matches('v').split('.').map(|part| part.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// The body of `/version`.
    #[must_use]
    pub fn value(&self) -> Value {
        let (major, minor) = self.numbers();
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        json!({
            "major": major.to_string(),
            "minor": minor.to_string(),
            "emulationMajor": major.to_string(),
            "emulationMinor": minor.to_string(),
            "minCompatibilityMajor": major.to_string(),
            "minCompatibilityMinor": minor.saturating_sub(1).to_string(),
            "gitVersion": self.git_version,
            "gitCommit": self.git_commit,
            "gitTreeState": self.git_tree_state,
            "buildDate": self.build_date,
            // There is no Go in here; the field is required.
            "goVersion": "",
            "compiler": self.compiler,
            "platform": format!("{}/{architecture}", std::env::consts::OS),
        })
    }
}

/// The body of `/`: all paths that somebody may try, sorted. `others` are those that stand for no group.
#[must_use]
pub fn root<'p>(catalog: &Catalog, others: impl IntoIterator<Item = &'p str>) -> Value {
    let mut paths: BTreeSet<String> = ["/api", "/apis", "/apis/"].map(str::to_owned).into();
    paths.extend(others.into_iter().map(str::to_owned));
    for group in catalog.groups() {
        let base = if group.name.is_empty() { "/api".to_owned() } else { format!("/apis/{}", group.name) };
        paths.extend(group.versions.iter().map(|version| format!("{base}/{}", version.name)));
        paths.insert(base);
    }
    json!({ "paths": paths })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_plain() {
        let info = VersionInfo {
            git_version: "v1.34.1+k3sd1".to_owned(),
            git_commit: String::new(),
            git_tree_state: "clean".to_owned(),
            build_date: "2026-01-02T03:04:05Z".to_owned(),
            compiler: "rustc".to_owned(),
        };
        let value = info.value();
        assert_eq!((&value["major"], &value["minor"]), (&json!("1"), &json!("34")));
        assert_eq!((&value["emulationMinor"], &value["minCompatibilityMinor"]), (&json!("34"), &json!("33")));
        assert_eq!(value["gitVersion"], "v1.34.1+k3sd1");
    }

    #[test]
    fn all_groups_and_versions_are_found_from_the_root() {
        let catalog = Catalog::builtin(|resource| resource.served);
        let value = root(&catalog, ["/healthz", "/version"]);
        let paths: Vec<&str> = value["paths"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
        assert!(paths.is_sorted());
        for path in ["/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/apis/autoscaling/v2", "/healthz"] {
            assert!(paths.contains(&path), "{path}");
        }
    }
}
