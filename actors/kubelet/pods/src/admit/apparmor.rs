//! Whether the node can confine containers by AppArmor, for pods that want that.

use std::path::Path;

use k3sd_cri::v1::security_profile::ProfileType;
use k8s_openapi::api::core::v1::Pod;

use super::{Refusal, refusal};
use crate::spec::{init_containers, main_containers};
use crate::translate::security::apparmor_of;

/// Whether the kernel below this `/sys` confines by AppArmor.
#[must_use]
pub fn is_enabled(sys: &Path) -> bool {
    let switch = std::fs::read_to_string(sys.join("module/apparmor/parameters/enabled"));
    sys.join("kernel/security/apparmor").exists() && switch.is_ok_and(|switch| switch.starts_with('Y'))
}

/// Refuses a pod with a profile that nobody would enforce. Whether a profile is loaded, the runtime says.
pub(super) fn check(pod: &Pod, is_enabled: bool) -> Result<(), Refusal> {
    let all = init_containers(pod).iter().chain(main_containers(pod));
    let profiles: Vec<_> = all.filter_map(|container| apparmor_of(pod, container)).collect();
    let refused = |why: &str| Err(refusal("AppArmor", format!("Cannot enforce AppArmor: {why}")));
    if profiles.iter().all(|profile| profile.profile_type == ProfileType::Unconfined as i32) {
        return Ok(());
    }
    if !is_enabled {
        return refused("AppArmor is not enabled on the host");
    }
    let is_nameless = profiles.iter().any(|profile| {
        profile.profile_type == ProfileType::Localhost as i32 && profile.localhost_ref.trim().is_empty()
    });
    if is_nameless { refused("invalid empty AppArmor profile name: \"\"") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn profiles_need_somebody_who_enforces_them() {
        let off = Some("Cannot enforce AppArmor: AppArmor is not enabled on the host");
        let nameless = Some("Cannot enforce AppArmor: invalid empty AppArmor profile name: \"\"");
        for (of_pod, own, when_off, when_on) in [
            ("{}", "{}", None, None),
            ("{}", "{appArmorProfile: {type: Unconfined}}", None, None),
            ("{}", "{appArmorProfile: {type: RuntimeDefault}}", off, None),
            ("{appArmorProfile: {type: RuntimeDefault}}", "{}", off, None),
            ("{appArmorProfile: {type: RuntimeDefault}}", "{appArmorProfile: {type: Unconfined}}", None, None),
            ("{}", "{appArmorProfile: {type: Localhost, localhostProfile: mine}}", off, None),
            ("{}", "{appArmorProfile: {type: Localhost, localhostProfile: ' '}}", off, nameless),
        ] {
            let container = format!("{{name: c, securityContext: {own}}}");
            let pod = pod(&format!("{{spec: {{securityContext: {of_pod}, containers: [{container}]}}}}"));
            for (is_on, expected) in [(false, when_off), (true, when_on)] {
                let found = check(&pod, is_on).err();
                assert_eq!(found.as_ref().map(|(_, why)| why.as_str()), expected, "{of_pod} {own}");
                assert!(found.is_none_or(|(reason, _)| reason == "AppArmor"));
            }
        }
    }

    #[test]
    fn the_kernel_says_whether_it_is_on() {
        let sys = tempfile::tempdir().unwrap();
        assert!(!is_enabled(sys.path()));
        std::fs::create_dir_all(sys.path().join("module/apparmor/parameters")).unwrap();
        std::fs::write(sys.path().join("module/apparmor/parameters/enabled"), "Y\n").unwrap();
        assert!(!is_enabled(sys.path()), "its file system is not there");
        std::fs::create_dir_all(sys.path().join("kernel/security/apparmor")).unwrap();
        assert!(is_enabled(sys.path()));
        std::fs::write(sys.path().join("module/apparmor/parameters/enabled"), "N\n").unwrap();
        assert!(!is_enabled(sys.path()));
    }
}
