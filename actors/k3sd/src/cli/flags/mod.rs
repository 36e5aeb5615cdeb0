//! The flag tables of `server` and `agent`, and how to look a flag up.

mod common;
mod etcd;
mod node;
mod server;

use crate::cli::flag::Flag;

pub(crate) use common::{DEFAULT_CONFIG_FILE, DEFAULT_INSPECT_SOCKET, INSPECT_SOCKET_VAR};

/// Which of the two long-running commands is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// `server`: the control plane, and by default the node below it.
    Server,
    /// `agent`: a node only.
    Agent,
}

impl Role {
    /// The sub-command's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Agent => "agent",
        }
    }

    /// All flags of the command, in the order of the tables.
    pub fn flags(self) -> impl Iterator<Item = &'static Flag> {
        let (own, etcd): (&[Flag], &[Flag]) = match self {
            Self::Server => (server::FLAGS, etcd::FLAGS),
            Self::Agent => (node::AGENT_FLAGS, &[]),
        };
        [common::FLAGS, own, etcd, node::FLAGS, common::K3SD_FLAGS].into_iter().flatten()
    }

    /// All flags of the command, in the order `--help` and `--print-config` show them: group by group.
    #[must_use]
    pub fn flags_by_heading(self) -> Vec<&'static Flag> {
        let mut flags: Vec<_> = self.flags().collect();
        flags.sort_by_key(|flag| flag.heading);
        flags
    }

    /// The flag with this long name or alias; a single letter also finds short names.
    #[must_use]
    pub fn flag(self, name: &str) -> Option<&'static Flag> {
        let mut letters = name.chars();
        let letter = letters.next().filter(|_| letters.next().is_none());
        self.flags().find(|flag| {
            flag.name == name || flag.aliases.contains(&name) || (letter.is_some() && flag.short == letter)
        })
    }
}

/// A flag that K3s once had, and what to write today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemovedFlag {
    /// The long name, without dashes.
    pub name: &'static str,
    /// What to do instead; completes "was removed: ...".
    pub instead: &'static str,
}

/// Flags that old K3s releases accepted. Naming the successor saves a search through release notes.
pub static REMOVED: &[RemovedFlag] = &[
    RemovedFlag { name: "no-deploy", instead: "use --disable with the same names" },
    RemovedFlag { name: "no-flannel", instead: "use --flannel-backend=none" },
    RemovedFlag { name: "cluster-secret", instead: "use --token" },
    RemovedFlag {
        name: "disable-selinux",
        instead: "leave it out, SELinux support is off unless --selinux asks for it",
    },
];

/// The removed flag of this name.
pub(crate) fn removed(name: &str) -> Option<&'static RemovedFlag> {
    REMOVED.iter().find(|flag| flag.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cli::flag::{DefaultValue, Kind, TurnsOff};
    use crate::config::scalar;

    #[test]
    fn names_are_unique_within_a_command() {
        for role in [Role::Server, Role::Agent] {
            let mut seen = BTreeSet::new();
            for flag in role.flags() {
                let names = [flag.name].into_iter().chain(flag.aliases.iter().copied()).map(str::to_owned);
                for name in names.chain(flag.short.map(String::from).filter(|short| short != flag.name)) {
                    assert!(seen.insert(name.clone()), "{name} appears twice in {}", role.name());
                }
            }
        }
    }

    #[test]
    fn defaults_are_values_of_their_kind() {
        for flag in [Role::Server, Role::Agent].into_iter().flat_map(Role::flags) {
            for usual in flag.usual {
                assert!(scalar::check(flag.kind, usual).is_ok(), "--{} usually is {usual:?}", flag.name);
                assert!(matches!(flag.default, DefaultValue::Derived(_)), "--{}", flag.name);
            }
            if let DefaultValue::Text(text) = flag.default {
                assert!(scalar::check(flag.kind, text).is_ok(), "--{} has the default {text:?}", flag.name);
            }
        }
    }

    #[test]
    fn rows_are_written_consistently() {
        for flag in [Role::Server, Role::Agent].into_iter().flat_map(Role::flags) {
            assert!(!flag.meaning.ends_with('.'), "--{}: no full stop", flag.name);
            assert!(!flag.meaning.contains("K3s"), "--{}: help speaks about this program", flag.name);
            assert!(removed(flag.name).is_none(), "--{} is both there and removed", flag.name);
            if flag.name.starts_with("disable") {
                assert_eq!(flag.turns_off, TurnsOff::Always, "--{} asks for less", flag.name);
            }
            if let Some(switch) = flag.env_only_with {
                assert!(Role::Server.flag(switch).is_some_and(|flag| flag.kind == Kind::Bool), "--{switch}");
            }
        }
    }

    #[test]
    fn letters_and_aliases_are_found() {
        assert_eq!(Role::Server.flag("d").map(|flag| flag.name), Some("data-dir"));
        assert_eq!(Role::Server.flag("v").map(|flag| flag.name), Some("v"));
        assert_eq!(Role::Server.flag("kube-controller-arg").map(|flag| flag.name), Some("kube-controller-manager-arg"));
        assert_eq!(Role::Agent.flag("cluster-cidr"), None);
        assert_eq!(Role::Agent.flag(""), None);
    }
}
