//! Refusing what this build can't do.

use crate::cli::flag::TurnsOff;
use crate::config::error::ConfigError;
use crate::config::origin::Origin;
use crate::config::settings::{Setting, Settings};

/// Checks that somebody in this build carries each setting out.
///
/// Setting a flag to its default, or asking to leave out what does not exist, is always fine.
///
/// # Errors
/// On the first flag, in the order of `--help`, that asks for a part of the program that does not exist yet.
pub(crate) fn check(settings: &Settings) -> Result<(), ConfigError> {
    match settings.all.iter().find(|setting| is_unavailable(settings, setting)) {
        Some(setting) => Err(ConfigError::unavailable(setting.flag, setting.origin())),
        None => Ok(()),
    }
}

/// Whether the setting asks for something nobody carries out.
pub(crate) fn is_unavailable(settings: &Settings, setting: &Setting) -> bool {
    let turned_off = match setting.flag.turns_off {
        TurnsOff::Never => false,
        TurnsOff::Always => true,
        TurnsOff::With(value) => setting.text() == Some(value),
    };
    !setting.flag.feature.exists() && setting.differs_from_default() && !turned_off && !is_inert(settings, setting)
}

/// Whether the setting is a variable that means nothing unless some switch is on, and the switch is off.
fn is_inert(settings: &Settings, setting: &Setting) -> bool {
    let switch = setting.flag.env_only_with.filter(|_| matches!(setting.origin(), Origin::Variable(_)));
    switch.is_some_and(|switch| !settings.get(switch).differs_from_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cli::flags::Role;
    use crate::config::settings::{Occurrence, resolve};

    fn check_flags(role: Role, flags: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<(), String> {
        let occurrence =
            |(name, text): &(&str, &str)| Occurrence { flag: role.flag(name).unwrap(), text: (*text).to_owned() };
        let variables: BTreeMap<String, String> =
            variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let flags: Vec<_> = flags.iter().map(occurrence).collect();
        check(&resolve(role, &[], &flags, &variables).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn less_than_everything_is_fine() {
        let rows: [&[(&str, &str)]; 8] = [
            &[],
            &[("disable", "traefik"), ("disable", "coredns,servicelb")],
            &[("disable-agent", "true"), ("disable-scheduler", "true"), ("disable-network-policy", "true")],
            &[("flannel-backend", "none"), ("egress-selector-mode", "disabled")],
            &[("flannel-backend", "vxlan"), ("cluster-domain", "cluster.local"), ("docker", "false")],
            &[("etcd-disable-snapshots", "true"), ("etcd-s3-proxy", "none")],
            &[("debug", "true"), ("v", "5"), ("log", "/x"), ("data-dir", "/x"), ("log-format", "json")],
            &[("inspect-socket", "/x"), ("debug-actor-control", "true"), ("probe-actors", "5"), ("probe-load", "true")],
        ];
        for flags in rows {
            assert_eq!(check_flags(Role::Server, flags, &[]), Ok(()), "{flags:?}");
        }
    }

    #[test]
    fn more_than_there_is_gets_refused_by_name() {
        let rows = [
            ("flannel-backend", "host-gw", "the flannel actor"),
            ("server", "https://a:6443", "joining a cluster"),
            ("vmodule", "a=5", "logging per source file"),
            ("rootless", "true", "rootless operation"),
            ("lb-server-port", "7000", "the agent's load balancer"),
            ("flannel-iface", "eth1", "the flannel actor"),
        ];
        for (name, text, provider) in rows {
            let error = check_flags(Role::Server, &[(name, text)], &[]).unwrap_err();
            let expected = format!(
                "--{name} (set on the command line) is not available yet: {provider} is not part of this build"
            );
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn variables_are_refused_as_well() {
        let error = check_flags(Role::Agent, &[], &[("K3S_TOKEN", "secret")]).unwrap_err();
        assert!(error.starts_with("--token (set by the environment variable K3S_TOKEN)"), "{error}");
        assert!(!error.contains("secret"));
    }

    #[test]
    fn credentials_of_other_programs_are_no_request() {
        let aws = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "key")];
        assert_eq!(check_flags(Role::Server, &[], &aws), Ok(()));
        assert!(check_flags(Role::Server, &[("etcd-s3-access-key", "id")], &[]).is_err());
        let error = check_flags(Role::Server, &[("etcd-s3", "true")], &aws).unwrap_err();
        assert!(error.starts_with("--etcd-s3 "), "{error}");
    }
}
