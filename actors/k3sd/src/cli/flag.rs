//! One row of the flag tables: what a flag is called, what it takes and what it means.
//!
//! The tables are data. The command line, `--help`, the config file, the environment variables, `--print-config` and
//! the refusal of what is not built yet are all derived from them, so they cannot disagree.

use crate::cli::feature::Feature;

/// What a flag's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// On or off. The bare flag means on; a value is attached with `=`.
    Bool,
    /// Any text; the last one given wins.
    Text,
    /// A whole number.
    Int,
    /// A length of time as Go writes it, such as `1h30m`.
    Duration,
    /// A file mode in octal.
    Mode,
    /// Text that adds up over all places it is given. Commas split it only where the table's reader says so.
    List,
    /// Text that may be left out: the bare flag means `true`. A value is attached with `=`.
    OptionalText,
}

/// What holds when nobody sets the flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultValue {
    /// Nothing.
    Unset,
    /// This text, as if it had been given.
    Text(&'static str),
    /// Something worked out from other settings or the machine; the words describe it to the reader of `--help`.
    Derived(&'static str),
}

/// How much of a value may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrecy {
    /// All of it.
    Open,
    /// Nothing of it.
    Secret,
    /// Nothing of it but a URL's scheme and what follows its user and password.
    Credentials,
}

/// Whether setting the flag asks for less rather than more. Asking to leave out what does not exist is always granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnsOff {
    /// Never.
    Never,
    /// With any value.
    Always,
    /// With this value only.
    With(&'static str),
}

/// The groups of `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the variants are the titles that `title` spells out")]
pub enum Heading {
    Cluster,
    Listener,
    Data,
    Networking,
    Client,
    Node,
    Runtime,
    Database,
    EtcdSnapshots,
    Components,
    ComponentArguments,
    PackagedComponents,
    Security,
    Logging,
    Experimental,
    K3sd,
}

impl Heading {
    /// The group's title in `--help`.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Listener => "Listener",
            Self::Data => "Data",
            Self::Networking => "Networking",
            Self::Client => "Client",
            Self::Node => "Node",
            Self::Runtime => "Runtime",
            Self::Database => "Database",
            Self::EtcdSnapshots => "Etcd snapshots",
            Self::Components => "Components",
            Self::ComponentArguments => "Component arguments",
            Self::PackagedComponents => "Packaged components",
            Self::Security => "Security",
            Self::Logging => "Logging",
            Self::Experimental => "Experimental",
            Self::K3sd => "k3sd",
        }
    }
}

/// One flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag {
    /// The long name, without dashes; also the key in the config file. `v` is the only one of a single letter.
    pub name: &'static str,
    /// The one-letter name.
    pub short: Option<char>,
    /// Other long names, never shown.
    pub aliases: &'static [&'static str],
    /// Environment variables that set it, first one set wins.
    pub env: &'static [&'static str],
    /// What its value is.
    pub kind: Kind,
    /// What holds when nobody sets it.
    pub default: DefaultValue,
    /// Values that come to the same as leaving the flag out, where the default is worked out.
    pub usual: &'static [&'static str],
    /// Its group in `--help`.
    pub heading: Heading,
    /// Left out of `--help`.
    pub hidden: bool,
    /// What to use instead, when its days are counted.
    pub deprecated: Option<&'static str>,
    /// Must be equal on all servers of a cluster; checked when one joins.
    pub must_match: bool,
    /// The part of the program that carries it out.
    pub feature: Feature,
    /// How much of its value may be shown.
    pub secrecy: Secrecy,
    /// Whether it asks for less rather than more.
    pub turns_off: TurnsOff,
    /// A switch without which its environment variables mean nothing. Keeps variables that other programs share, such
    /// as the AWS ones, from being taken for a request.
    pub env_only_with: Option<&'static str>,
    /// What it means, in a sentence without full stop.
    pub meaning: &'static str,
}

/// The tables are written with these; each takes a row and returns it with one thing more.
impl Flag {
    const fn new(kind: Kind, heading: Heading, feature: Feature, name: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            short: None,
            aliases: &[],
            env: &[],
            kind,
            default: DefaultValue::Unset,
            usual: &[],
            heading,
            hidden: false,
            deprecated: None,
            must_match: false,
            feature,
            secrecy: Secrecy::Open,
            turns_off: TurnsOff::Never,
            env_only_with: None,
            meaning,
        }
    }

    pub(crate) const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    pub(crate) const fn aliases(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    pub(crate) const fn env(self, env: &'static [&'static str]) -> Self {
        Self { env, ..self }
    }

    pub(crate) const fn default(self, text: &'static str) -> Self {
        Self { default: DefaultValue::Text(text), ..self }
    }

    pub(crate) const fn derived(self, description: &'static str) -> Self {
        Self { default: DefaultValue::Derived(description), ..self }
    }

    pub(crate) const fn usual(self, usual: &'static [&'static str]) -> Self {
        Self { usual, ..self }
    }

    pub(crate) const fn hidden(self) -> Self {
        Self { hidden: true, ..self }
    }

    pub(crate) const fn deprecated(self, instead: &'static str) -> Self {
        Self { deprecated: Some(instead), ..self }
    }

    pub(crate) const fn must_match(self) -> Self {
        Self { must_match: true, ..self }
    }

    pub(crate) const fn secret(self) -> Self {
        Self { secrecy: Secrecy::Secret, ..self }
    }

    pub(crate) const fn credentials(self) -> Self {
        Self { secrecy: Secrecy::Credentials, ..self }
    }

    pub(crate) const fn turns_off(self) -> Self {
        Self { turns_off: TurnsOff::Always, ..self }
    }

    pub(crate) const fn turns_off_with(self, value: &'static str) -> Self {
        Self { turns_off: TurnsOff::With(value), ..self }
    }

    pub(crate) const fn env_only_with(self, switch: &'static str) -> Self {
        Self { env_only_with: Some(switch), ..self }
    }
}

/// A heading and a feature, from which rows of the tables start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group(pub(crate) Heading, pub(crate) Feature);

impl Group {
    /// An on/off flag, off by default.
    pub(crate) const fn switch(self, name: &'static str, meaning: &'static str) -> Flag {
        Flag::new(Kind::Bool, self.0, self.1, name, meaning).default("false")
    }

    pub(crate) const fn text(self, name: &'static str, meaning: &'static str) -> Flag {
        Flag::new(Kind::Text, self.0, self.1, name, meaning)
    }

    pub(crate) const fn int(self, name: &'static str, meaning: &'static str) -> Flag {
        Flag::new(Kind::Int, self.0, self.1, name, meaning)
    }

    pub(crate) const fn duration(self, name: &'static str, meaning: &'static str) -> Flag {
        Flag::new(Kind::Duration, self.0, self.1, name, meaning)
    }

    pub(crate) const fn mode(self, name: &'static str, meaning: &'static str) -> Flag {
        Flag::new(Kind::Mode, self.0, self.1, name, meaning)
    }

    pub(crate) const fn list(self, name: &'static str, meaning: &'static str) -> Flag {
        Flag::new(Kind::List, self.0, self.1, name, meaning)
    }

    pub(crate) const fn optional_text(self, name: &'static str, meaning: &'static str) -> Flag {
        Flag::new(Kind::OptionalText, self.0, self.1, name, meaning)
    }
}
