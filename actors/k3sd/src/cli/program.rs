//! Which program this is, judging by the name it was started under.

use std::path::Path;

/// A program that is not ours, but that we find and start with the right settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// The Kubernetes client.
    Kubectl,
    /// The client of the container runtime interface.
    Crictl,
    /// containerd's own client.
    Ctr,
}

impl Tool {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Kubectl, Self::Crictl, Self::Ctr];

    /// The name of the program, and of our sub-command.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kubectl => "kubectl",
            Self::Crictl => "crictl",
            Self::Ctr => "ctr",
        }
    }

    /// The tool of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.name() == name)
    }
}

/// What the name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alias {
    /// The whole command line follows, under this program name.
    Program(&'static str),
    /// The arguments of this sub-command follow.
    SubCommand(&'static str),
    /// The arguments of this tool follow.
    Tool(Tool),
}

/// The names under which K3s links a sub-command.
const SUB_COMMANDS: [(&str, &str); 7] = [
    ("k3s-server", "server"),
    ("k3s-agent", "agent"),
    ("k3s-token", "token"),
    ("k3s-etcd-snapshot", "etcd-snapshot"),
    ("k3s-secrets-encrypt", "secrets-encrypt"),
    ("k3s-certificate", "certificate"),
    ("k3s-completion", "completion"),
];

impl Alias {
    /// Judges the name, with or without a directory. Unknown names are `k3sd`.
    #[must_use]
    pub fn of(argv0: &str) -> Self {
        let name = Path::new(argv0).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(tool) = Tool::named(name) {
            return Self::Tool(tool);
        }
        if let Some((_, command)) = SUB_COMMANDS.iter().find(|(link, _)| *link == name) {
            return Self::SubCommand(command);
        }
        Self::Program(if name == "k3s" { "k3s" } else { "k3sd" })
    }

    /// The program's name in help, version and errors.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Program(name) => name,
            // Only K3s makes such links.
            Self::SubCommand(_) => "k3s",
            Self::Tool(_) => "k3sd",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide() {
        let rows = [
            ("k3sd", Alias::Program("k3sd")),
            ("/usr/local/bin/k3s", Alias::Program("k3s")),
            ("./k3sd-0.1-test", Alias::Program("k3sd")),
            ("", Alias::Program("k3sd")),
            ("/bin/kubectl", Alias::Tool(Tool::Kubectl)),
            ("crictl", Alias::Tool(Tool::Crictl)),
            ("ctr", Alias::Tool(Tool::Ctr)),
            ("k3s-server", Alias::SubCommand("server")),
            ("/x/k3s-etcd-snapshot", Alias::SubCommand("etcd-snapshot")),
            ("k3s-kubectl", Alias::Program("k3sd")),
        ];
        for (argv0, alias) in rows {
            assert_eq!(Alias::of(argv0), alias, "{argv0}");
        }
        assert_eq!(Alias::of("k3s-agent").program(), "k3s");
    }
}
