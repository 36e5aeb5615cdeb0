//! Which plugins run.

use std::collections::BTreeSet;

use crate::error::ConfigError;

/// What admission is set up with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionConfig {
    /// The plugins that run.
    pub plugins: Plugins,
    /// `--default-not-ready-toleration-seconds`: how long a pod stays on a node that isn't ready. Default 300.
    pub not_ready_toleration_seconds: i64,
    /// `--default-unreachable-toleration-seconds`: how long a pod stays on a node that can't be reached. Default 300.
    pub unreachable_toleration_seconds: i64,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self { plugins: Plugins::default(), not_ready_toleration_seconds: 300, unreachable_toleration_seconds: 300 }
    }
}

/// A plugin that is built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plugin {
    /// Nothing new in namespaces that are missing or going.
    NamespaceLifecycle,
    /// Defaults and bounds of what containers, pods and claims take.
    LimitRanger,
    /// Accounts and tokens of pods.
    ServiceAccount,
    /// Kubelets write about themselves only.
    NodeRestriction,
    /// A new node takes no pods until it is ready.
    TaintNodesByCondition,
    /// Numbers for the names of priorities.
    Priority,
    /// How long pods stay on a node that fails.
    DefaultTolerationSeconds,
    /// A class for claims that name none.
    DefaultStorageClass,
    /// Claims and volumes stay while they are in use.
    StorageObjectInUseProtection,
    /// Claims grow where their class allows it.
    PersistentVolumeClaimResize,
    /// What a runtime takes beside the containers, and where it is.
    RuntimeClass,
    /// Who approves for a signer.
    CertificateApproval,
    /// Who signs for a signer.
    CertificateSigning,
    /// No certificate for the group that may do everything.
    CertificateSubjectRestriction,
    /// A class for ingresses that name none.
    DefaultIngressClass,
    /// Images are asked for at each start.
    AlwaysPullImages,
    /// No addresses of others in Services.
    DenyServiceExternalIPs,
    /// Tolerations for what a pod asks for.
    ExtendedResourceToleration,
    /// What a namespace takes.
    ResourceQuota,
}

impl Plugin {
    /// How many there are.
    pub(crate) const COUNT: usize = Self::ResourceQuota as usize + 1;
    /// All of them, in the order of their places.
    pub(crate) const ALL: [Self; Self::COUNT] = [
        Self::NamespaceLifecycle,
        Self::LimitRanger,
        Self::ServiceAccount,
        Self::NodeRestriction,
        Self::TaintNodesByCondition,
        Self::Priority,
        Self::DefaultTolerationSeconds,
        Self::DefaultStorageClass,
        Self::StorageObjectInUseProtection,
        Self::PersistentVolumeClaimResize,
        Self::RuntimeClass,
        Self::CertificateApproval,
        Self::CertificateSigning,
        Self::CertificateSubjectRestriction,
        Self::DefaultIngressClass,
        Self::AlwaysPullImages,
        Self::DenyServiceExternalIPs,
        Self::ExtendedResourceToleration,
        Self::ResourceQuota,
    ];

    /// The name that Kubernetes has for it.
    pub(crate) fn name(self) -> &'static str {
        let is_it =
            |standing: &Standing| matches!(standing, Standing::On(found) | Standing::Off(found) if *found == self);
        NAMES.iter().find(|(_, standing)| is_it(standing)).map_or("", |(name, _)| name)
    }
}

/// How things stand with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Runs unless it is disabled.
    On(Plugin),
    /// Runs if it is enabled.
    Off(Plugin),
    /// Kubernetes runs it unless it is disabled, and here it is without effect: there is nothing that it could act on.
    Idle,
    /// Kubernetes has it, and here it can't be enabled.
    Absent,
}

/// All names, in the order in which they run.
const NAMES: &[(&str, Standing)] = &[
    ("AlwaysAdmit", Standing::Absent),
    ("NamespaceAutoProvision", Standing::Absent),
    ("NamespaceLifecycle", Standing::On(Plugin::NamespaceLifecycle)),
    ("NamespaceExists", Standing::Absent),
    ("LimitPodHardAntiAffinityTopology", Standing::Absent),
    ("LimitRanger", Standing::On(Plugin::LimitRanger)),
    ("ServiceAccount", Standing::On(Plugin::ServiceAccount)),
    // K3s enables it, and so do we.
    ("NodeRestriction", Standing::On(Plugin::NodeRestriction)),
    ("TaintNodesByCondition", Standing::On(Plugin::TaintNodesByCondition)),
    ("AlwaysPullImages", Standing::Off(Plugin::AlwaysPullImages)),
    ("ImagePolicyWebhook", Standing::Absent),
    ("PodSecurity", Standing::Idle),
    ("PodNodeSelector", Standing::Absent),
    ("Priority", Standing::On(Plugin::Priority)),
    ("DefaultTolerationSeconds", Standing::On(Plugin::DefaultTolerationSeconds)),
    ("PodTolerationRestriction", Standing::Absent),
    ("EventRateLimit", Standing::Absent),
    ("ExtendedResourceToleration", Standing::Off(Plugin::ExtendedResourceToleration)),
    ("DefaultStorageClass", Standing::On(Plugin::DefaultStorageClass)),
    ("StorageObjectInUseProtection", Standing::On(Plugin::StorageObjectInUseProtection)),
    ("OwnerReferencesPermissionEnforcement", Standing::Absent),
    ("PersistentVolumeClaimResize", Standing::On(Plugin::PersistentVolumeClaimResize)),
    ("RuntimeClass", Standing::On(Plugin::RuntimeClass)),
    ("CertificateApproval", Standing::On(Plugin::CertificateApproval)),
    ("CertificateSigning", Standing::On(Plugin::CertificateSigning)),
    ("ClusterTrustBundleAttest", Standing::Idle),
    ("CertificateSubjectRestriction", Standing::On(Plugin::CertificateSubjectRestriction)),
    ("DefaultIngressClass", Standing::On(Plugin::DefaultIngressClass)),
    ("DenyServiceExternalIPs", Standing::Off(Plugin::DenyServiceExternalIPs)),
    ("PodTopologyLabels", Standing::Idle),
    ("MutatingAdmissionPolicy", Standing::Idle),
    ("MutatingAdmissionWebhook", Standing::Idle),
    ("ValidatingAdmissionPolicy", Standing::Idle),
    ("ValidatingAdmissionWebhook", Standing::Idle),
    ("ResourceQuota", Standing::On(Plugin::ResourceQuota)),
    ("AlwaysDeny", Standing::Absent),
];

/// A set of plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plugins(u32);

impl Default for Plugins {
    /// What runs if nobody says otherwise.
    fn default() -> Self {
        let on = NAMES.iter().filter_map(|(_, standing)| match standing {
            Standing::On(plugin) => Some(*plugin),
            _ => None,
        });
        on.fold(Self(0), Self::with)
    }
}

impl Plugins {
    /// The default set changed by `--enable-admission-plugins` and `--disable-admission-plugins`.
    ///
    /// # Errors
    ///
    /// Fails for names that there aren't, that can't be enabled here, or that are in both lists.
    pub fn resolve<'a>(
        enable: impl IntoIterator<Item = &'a str>,
        disable: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, ConfigError> {
        let (enable, disable): (BTreeSet<_>, BTreeSet<_>) =
            (enable.into_iter().collect(), disable.into_iter().collect());
        if let Some(name) = enable.intersection(&disable).next() {
            return Err(ConfigError::Both { name: (*name).to_owned() });
        }
        let mut plugins = Self::default();
        for name in enable {
            match standing("enable-admission-plugins", name)? {
                Standing::On(plugin) | Standing::Off(plugin) => plugins = plugins.with(plugin),
                Standing::Idle => {}
                Standing::Absent => return Err(ConfigError::Absent { name: name.to_owned() }),
            }
        }
        for name in disable {
            if let Standing::On(plugin) | Standing::Off(plugin) = standing("disable-admission-plugins", name)? {
                plugins = plugins.without(plugin);
            }
        }
        Ok(plugins)
    }

    /// Whether a plugin runs.
    #[must_use]
    pub fn has(self, plugin: Plugin) -> bool {
        self.0 & (1 << plugin as u32) != 0
    }

    /// The set with one more.
    #[must_use]
    pub fn with(self, plugin: Plugin) -> Self {
        Self(self.0 | 1 << plugin as u32)
    }

    /// The set with one less.
    #[must_use]
    pub fn without(self, plugin: Plugin) -> Self {
        Self(self.0 & !(1 << plugin as u32))
    }
}

fn standing(flag: &'static str, name: &str) -> Result<Standing, ConfigError> {
    let found = NAMES.iter().find(|(known, _)| *known == name);
    found.map(|(_, standing)| *standing).ok_or_else(|| ConfigError::Unknown { flag, name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let resolve = |enable: &[&'static str], disable: &[&'static str]| {
            Plugins::resolve(enable.iter().copied(), disable.iter().copied())
        };
        assert_eq!(resolve(&[], &[]), Ok(Plugins::default()));
        assert!(Plugins::default().has(Plugin::NodeRestriction) && !Plugins::default().has(Plugin::AlwaysPullImages));
        let changed = resolve(&["AlwaysPullImages", "PodSecurity"], &["ResourceQuota", "EventRateLimit"]).unwrap();
        assert!(changed.has(Plugin::AlwaysPullImages) && !changed.has(Plugin::ResourceQuota));
        assert!(changed.has(Plugin::LimitRanger));
        for (enable, disable, message) in [
            (&["Foo"][..], &[][..], r#"enable-admission-plugins plugin "Foo" is unknown"#),
            (&[][..], &["Foo"][..], r#"disable-admission-plugins plugin "Foo" is unknown"#),
            (&["EventRateLimit"][..], &[][..], r#"admission plugin "EventRateLimit" is not part of this server"#),
            (
                &["Priority"][..],
                &["Priority"][..],
                r#"admission plugin "Priority" is both in enable-admission-plugins and in disable-admission-plugins"#,
            ),
        ] {
            assert_eq!(resolve(enable, disable).unwrap_err().to_string(), message);
        }
    }
}
