//! Flags that `server` and `agent` share word for word: configuration, logging, and our own.

use crate::cli::feature::Feature;
use crate::cli::flag::{Flag, Group, Heading};

const CONFIG: Group = Group(Heading::Data, Feature::Config);
const LOGGING: Group = Group(Heading::Logging, Feature::Logging);
const OWN_CONFIG: Group = Group(Heading::K3sd, Feature::Config);
const OWN_LOGGING: Group = Group(Heading::K3sd, Feature::Logging);
const INSPECTION: Group = Group(Heading::K3sd, Feature::Inspection);
const PROBES: Group = Group(Heading::K3sd, Feature::Probes);

/// Where the config file is unless somebody says otherwise.
pub(crate) const DEFAULT_CONFIG_FILE: &str = "/etc/rancher/k3s/config.yaml";

/// Where the inspection socket is unless somebody says otherwise.
pub(crate) const DEFAULT_INSPECT_SOCKET: &str = "/run/k3s/inspect.sock";

/// The environment variable that names the inspection socket, for the daemon and for `actors`.
pub(crate) const INSPECT_SOCKET_VAR: &str = "K3SD_INSPECT_SOCKET";

pub(super) static FLAGS: &[Flag] = &[
    CONFIG
        .text(
            "config",
            "Read flags from this YAML file or http(s) URL, then, beside a file, from *.yaml and *.yml in the directory \
             named after it with .d",
        )
        .short('c')
        .env(&["K3S_CONFIG_FILE"])
        .default(DEFAULT_CONFIG_FILE),
    LOGGING.switch("debug", "Log what each part is doing in detail").env(&["K3S_DEBUG"]),
    LOGGING.int("v", "Verbosity from 0 to 10, in the sense Kubernetes components give to it").short('v').default("0"),
    Group(Heading::Logging, Feature::LogPerModule)
        .text("vmodule", "Verbosity per source file, as comma-separated name=level pairs"),
    LOGGING.text("log", "Write the log to this file instead of standard error").short('l'),
    LOGGING.switch("alsologtostderr", "With --log, write to standard error as well"),
];

pub(super) static K3SD_FLAGS: &[Flag] = &[
    INSPECTION
        .text("inspect-socket", "Unix socket on which the actor tree can be inspected")
        .env(&[INSPECT_SOCKET_VAR])
        .default(DEFAULT_INSPECT_SOCKET),
    INSPECTION.switch("debug-actor-control", "Let the inspection socket kill, suspend and resume actors"),
    OWN_LOGGING
        .text("log-format", "How log lines are written: auto, text, json or journald; auto looks at where they go")
        .default("auto"),
    OWN_CONFIG.optional_text(
        "print-config",
        "Print each setting with its value and where it was set, then exit; =json for a machine",
    ),
    PROBES.int("probe-actors", "Start this many actors that do nothing, for chaos tests").default("0").hidden(),
    PROBES.switch("probe-load", "Keep the probe actors busy with messages").hidden(),
];
