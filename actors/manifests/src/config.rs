//! What there is to deploy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use crate::error::ManifestsError;

/// The image of the jobs that run Helm, unless a chart or the flags name another.
pub const JOB_IMAGE: &str = "rancher/klipper-helm:v0.13.3-build20260727";

/// Settings of both controllers.
#[derive(Clone, Debug)]
pub struct ManifestsConfig {
    /// Where the files are: `server/manifests` below the data directory, an absolute path. Made if it isn't there.
    pub dir: PathBuf,
    /// Files that are written there at each start, over whatever somebody made of them.
    pub packaged: Vec<Packaged>,
    /// What takes the place of `%{NAME}%` in packaged files.
    pub variables: Variables,
    /// Names of files without their ending, or of directories: what they hold is deleted, and then the file.
    pub disabled: BTreeSet<String>,
    /// The same names, but these packaged files are only not written.
    pub skips: BTreeSet<String>,
    /// The name of this server's node, for Events.
    pub node_name: String,
    /// Settings about charts; none with `--disable-helm-controller`.
    pub helm: Option<HelmConfig>,
}

/// A file that comes with the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packaged {
    /// Its path below the directory of manifests.
    pub path: String,
    /// What it says, with variables.
    pub text: String,
}

/// Settings about charts.
#[derive(Clone, Debug)]
pub struct HelmConfig {
    /// The image of jobs for charts that name none.
    pub job_image: String,
    /// The port of the API on the node itself, for charts that are needed before the cluster has a network.
    pub api_port: u16,
    /// Variables about proxies that jobs get, by name: those of [`PROXY_VARIABLES`] that are set for this process.
    pub proxies: Vec<(String, String)>,
}

/// The variables about proxies that a job may get, in its order.
pub const PROXY_VARIABLES: [&str; 8] =
    ["all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"];

impl HelmConfig {
    /// With the image that K3s has. `registry` is `--system-default-registry`; `variable` looks into the environment.
    pub fn new(api_port: u16, registry: Option<&str>, variable: impl Fn(&str) -> Option<String>) -> Self {
        let registry = registry.map(|registry| registry.trim_end_matches('/')).filter(|registry| !registry.is_empty());
        let job_image = registry.map_or_else(|| JOB_IMAGE.to_owned(), |registry| format!("{registry}/{JOB_IMAGE}"));
        let set =
            |name: &&str| variable(name).filter(|value| !value.is_empty()).map(|value| ((*name).to_owned(), value));
        Self { job_image, api_port, proxies: PROXY_VARIABLES.iter().filter_map(set).collect() }
    }
}

/// What takes the place of `%{NAME}%`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<&'static str, String>);

/// What variables are made of.
#[derive(Clone, Debug, Default)]
pub struct VariableFacts<'a> {
    /// Addresses of the cluster's DNS, of which the first one counts most.
    pub cluster_dns: &'a [IpAddr],
    /// The cluster's domain.
    pub cluster_domain: &'a str,
    /// Where local volumes are.
    pub local_storage: &'a str,
    /// `--system-default-registry`, empty without one.
    pub registry: &'a str,
    /// Whether nodes are reached at their external addresses first.
    pub prefers_external: bool,
}

impl Variables {
    /// All that K3s has, but the one that is left for Helm's jobs.
    pub fn new(facts: &VariableFacts<'_>) -> Self {
        let first = facts.cluster_dns.first().map(ToString::to_string).unwrap_or_default();
        let all: Vec<String> = facts.cluster_dns.iter().map(ToString::to_string).collect();
        let families = if all.len() > 1 { "RequireDualStack" } else { "SingleStack" };
        let registry = facts.registry.trim_end_matches('/');
        let prefix = if registry.is_empty() { String::new() } else { format!("{registry}/") };
        let addresses = match facts.prefers_external {
            true => "ExternalIP,InternalIP,Hostname",
            false => "InternalIP,ExternalIP,Hostname",
        };
        Self(BTreeMap::from([
            ("%{CLUSTER_DNS}%", first),
            ("%{CLUSTER_DNS_LIST}%", format!("[{}]", all.join(","))),
            ("%{CLUSTER_DNS_IPFAMILYPOLICY}%", families.to_owned()),
            ("%{CLUSTER_DOMAIN}%", facts.cluster_domain.to_owned()),
            ("%{DEFAULT_LOCAL_STORAGE_PATH}%", facts.local_storage.to_owned()),
            ("%{SYSTEM_DEFAULT_REGISTRY}%", prefix),
            ("%{SYSTEM_DEFAULT_REGISTRY_RAW}%", registry.to_owned()),
            ("%{PREFERRED_ADDRESS_TYPES}%", addresses.to_owned()),
        ]))
    }

    /// A text with all of them replaced.
    pub fn replace(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}

impl ManifestsConfig {
    /// Whether it can be used.
    ///
    /// # Errors
    /// See [`ManifestsError`].
    pub fn check(&self) -> Result<(), ManifestsError> {
        if !self.dir.is_absolute() {
            return Err(ManifestsError::Relative { dir: self.dir.clone() });
        }
        let mut seen = BTreeSet::new();
        for Packaged { path, .. } in &self.packaged {
            let mut parts = Path::new(path).components();
            if path.is_empty() || !parts.all(|part| matches!(part, Component::Normal(_))) {
                return Err(ManifestsError::Outside { path: path.clone() });
            }
            if !seen.insert(path) {
                return Err(ManifestsError::Twice { path: path.clone() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(paths: &[&str]) -> ManifestsConfig {
        let packaged = paths.iter().map(|path| Packaged { path: (*path).to_owned(), text: String::new() });
        ManifestsConfig {
            dir: "/d".into(),
            packaged: packaged.collect(),
            variables: Variables::default(),
            disabled: BTreeSet::new(),
            skips: BTreeSet::new(),
            node_name: "n".to_owned(),
            helm: None,
        }
    }

    #[test]
    fn packaged_files_stay_below_the_directory() {
        assert!(config(&["a.yaml", "metrics-server/a.yaml"]).check().is_ok());
        for path in ["../a.yaml", "/a.yaml", "a/../../b.yaml", ""] {
            assert!(matches!(config(&[path]).check(), Err(ManifestsError::Outside { .. })), "{path}");
        }
        assert!(matches!(config(&["a", "a"]).check(), Err(ManifestsError::Twice { .. })));
        let relative = ManifestsConfig { dir: "d".into(), ..config(&[]) };
        assert!(matches!(relative.check(), Err(ManifestsError::Relative { .. })));
    }

    #[test]
    fn variables_are_replaced_and_others_left() {
        let dns: [IpAddr; 2] = ["10.43.0.10".parse().unwrap(), "fd00::a".parse().unwrap()];
        let facts = VariableFacts {
            cluster_dns: &dns,
            cluster_domain: "cluster.local",
            local_storage: "/opt/local",
            registry: "registry.example/",
            prefers_external: false,
        };
        let variables = Variables::new(&facts);
        for (text, wanted) in [
            ("a: %{CLUSTER_DNS}% %{CLUSTER_DNS}%", "a: 10.43.0.10 10.43.0.10"),
            ("%{CLUSTER_DNS_LIST}%", "[10.43.0.10,fd00::a]"),
            ("%{CLUSTER_DNS_IPFAMILYPOLICY}%", "RequireDualStack"),
            ("%{CLUSTER_DOMAIN}%%{DEFAULT_LOCAL_STORAGE_PATH}%", "cluster.local/opt/local"),
            ("%{SYSTEM_DEFAULT_REGISTRY}%a %{SYSTEM_DEFAULT_REGISTRY_RAW}%", "registry.example/a registry.example"),
            ("%{PREFERRED_ADDRESS_TYPES}%", "InternalIP,ExternalIP,Hostname"),
            ("https://%{KUBERNETES_API}%/static", "https://%{KUBERNETES_API}%/static"),
        ] {
            assert_eq!(variables.replace(text), wanted);
        }
        let alone = Variables::new(&VariableFacts { cluster_dns: &dns[..1], ..VariableFacts::default() });
        assert_eq!(alone.replace("%{SYSTEM_DEFAULT_REGISTRY}%x %{CLUSTER_DNS_IPFAMILYPOLICY}%"), "x SingleStack");
    }

    #[test]
    fn jobs_have_an_image_of_the_registry_and_the_proxies() {
        let variable = |name: &str| (name == "NO_PROXY").then(|| "a".to_owned());
        let config = HelmConfig::new(6443, Some("r.example/"), variable);
        assert_eq!(config.job_image, format!("r.example/{JOB_IMAGE}"));
        assert_eq!(config.proxies, [("NO_PROXY".to_owned(), "a".to_owned())]);
        assert_eq!(HelmConfig::new(6443, Some(""), |_| None).job_image, JOB_IMAGE);
    }
}
