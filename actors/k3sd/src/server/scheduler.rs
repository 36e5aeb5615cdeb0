//! The scheduler, as the flags ask for it.

use std::path::{Path, PathBuf};

use k3sd_client::api::Identities;
use k3sd_client::arguments::Rule::{Only, Refused, Sets};
use k3sd_client::arguments::{self, Rule, leader_elect, lease_time, text};
use k3sd_client::election::{Election, ElectionArgs, Leading, elector};
use k3sd_client::informer::Shared;
use k3sd_runtime::{Spec, Strategy, subtree};
use k3sd_scheduler::{SchedulerArgs, SchedulerConfig};

use super::ServerError;
use crate::config::yaml;

/// The user that the scheduler is, and where its lease lies.
const USER: &str = "system:kube-scheduler";
const LEASE: (&str, &str) = ("kube-system", "kube-scheduler");
/// What upstream's flags are called in errors.
const PROGRAM: &str = "kube-scheduler";

const PROCESS: &str = "k3sd is one process, and its own flags decide about files, logs and profiles";
const IN_PROCESS: &str = "the scheduler reaches the API without a socket";

/// What the flags say.
#[derive(Debug)]
struct Settings {
    file: Option<PathBuf>,
    election: Option<Election>,
}

/// All flags that mean something, or are worth a reason.
const FLAGS: &[(&str, Rule<Settings>)] = &[
    ("authentication-kubeconfig", Refused(IN_PROCESS)),
    ("authorization-kubeconfig", Refused(IN_PROCESS)),
    ("bind-address", Refused(PROCESS)),
    ("cert-dir", Refused(PROCESS)),
    ("config", Sets(|settings, value| text(value).map(|path| settings.file = Some(path.into())))),
    ("contention-profiling", Refused(PROCESS)),
    ("feature-gates", Refused("features are as they are in Kubernetes v1.34 by default")),
    ("kube-api-burst", Refused(IN_PROCESS)),
    ("kube-api-content-type", Refused(IN_PROCESS)),
    ("kube-api-qps", Refused(IN_PROCESS)),
    ("kubeconfig", Refused(IN_PROCESS)),
    ("leader-elect", Sets(|settings, value| leader_elect(&mut settings.election, value))),
    (
        "leader-elect-lease-duration",
        Sets(|settings, value| lease_time(&mut settings.election, value, |terms| &mut terms.lease_duration)),
    ),
    (
        "leader-elect-renew-deadline",
        Sets(|settings, value| lease_time(&mut settings.election, value, |terms| &mut terms.renew_deadline)),
    ),
    ("leader-elect-resource-lock", Only(&["leases"])),
    (
        "leader-elect-retry-period",
        Sets(|settings, value| lease_time(&mut settings.election, value, |terms| &mut terms.retry_period)),
    ),
    ("pod-max-in-unschedulable-pods-duration", Only(&["5m", "5m0s"])),
    ("profiling", Only(&["false"])),
    ("secure-port", Refused(PROCESS)),
    ("v", Refused(PROCESS)),
    ("vmodule", Refused(PROCESS)),
];

/// Puts the scheduler together; where several servers can run, behind a lease.
pub(super) fn scheduler(
    arguments: &[String],
    election: Option<Election>,
    host: &str,
    identities: &Identities,
    informers: &mut Shared,
) -> Result<Spec, ServerError> {
    let mut settings = Settings { file: None, election };
    for argument in arguments {
        arguments::apply(PROGRAM, FLAGS, &mut settings, argument).map_err(ServerError::SchedulerArgument)?;
    }
    let config = settings.file.as_deref().map_or_else(|| Ok(SchedulerConfig::default()), read)?;
    let (lease, leading) = match settings.election {
        None => (None, Leading::always()),
        Some(election) => {
            let mut args = ElectionArgs::new(identities.user(USER, &[]), LEASE.0, LEASE.1, &election.identity);
            args.terms = election.terms;
            let (child, leading) = elector("lease", args);
            (Some(child), leading)
        }
    };
    let args = SchedulerArgs { identities: identities.clone(), config, leading, host: host.to_owned() };
    let spec = k3sd_scheduler::tree(args, informers).map_err(ServerError::Scheduler)?;
    let whole = lease.into_iter().fold(Spec::new(Strategy::RestForOne), Spec::child);
    Ok(whole.child(subtree("decisions", spec)))
}

/// Reads a `KubeSchedulerConfiguration`.
fn read(path: &Path) -> Result<SchedulerConfig, ServerError> {
    let wrong = |why: String| ServerError::SchedulerConfig { path: path.to_owned(), why };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let document = yaml::document(&text).map_err(|error| wrong(error.to_string()))?;
    SchedulerConfig::from_value(&document).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_each_flag_once() {
        assert!(FLAGS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn a_configuration_is_read_or_refused_with_its_place() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("config.yaml");
        let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
        std::fs::write(&path, format!("{head}profiles:\n- schedulerName: mine\n")).expect("it is written");
        assert!(read(&path).expect("it is one").profile("mine").is_some());
        for (text, part) in [("profiles: [{schedulerNam: x}]", "schedulerNam"), ("profiles: {", "config.yaml")] {
            std::fs::write(&path, format!("{head}{text}\n")).expect("it is written");
            let error = read(&path).expect_err(text).to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(read(Path::new("/does/not/exist")).is_err());
    }
}
