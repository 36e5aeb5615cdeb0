//! What a container wants done after its start and before its end.

use std::time::Duration;

use k3sd_cri::{Cri, v1};
use k3sd_runtime::Clock;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};

use crate::http::{Target, get};
use crate::spec::shown;

/// How hooks call themselves.
const AGENT: &str = "kube-lifecycle/1.34";
/// How long a request of a hook may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of a command's output that are told.
const OUTPUT_BYTES_MAX: usize = 1024;

/// A container's hook, and what it runs with.
#[derive(Clone, Copy, Debug)]
pub struct Hook<'a> {
    /// The runtime.
    pub cri: &'a Cri,
    /// The only source of time.
    pub clock: &'a Clock,
    /// Whose it is.
    pub pod: &'a Pod,
    /// Whose it is.
    pub container: &'a Container,
    /// The runtime's id of the container.
    pub id: &'a str,
    /// The pod's address.
    pub address: &'a str,
}

impl Hook<'_> {
    /// Does what the hook says. The caller limits the time.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn run(&self, hook: &LifecycleHandler) -> Result<(), String> {
        if let Some(exec) = &hook.exec {
            let command = exec.command.clone().unwrap_or_default();
            let shown_command = command.join(" ");
            let asked = v1::ExecSyncRequest { container_id: self.id.to_owned(), cmd: command, timeout: 0 };
            let answer = self.cri.exec_sync(asked).await.map_err(|error| error.message())?;
            if answer.exit_code == 0 {
                return Ok(());
            }
            let mut output = String::from_utf8_lossy(&[answer.stdout, answer.stderr].concat()).into_owned();
            output.truncate(output.floor_char_boundary(OUTPUT_BYTES_MAX));
            return Err(format!("command '{shown_command}' exited with {}: {output}", answer.exit_code));
        }
        if let Some(action) = &hook.http_get {
            let target = Target::of(action, self.container, self.address, AGENT)?;
            let limit = self.clock.sleep_until(self.clock.now() + REQUEST_LIMIT);
            let answer = tokio::select! {
                answer = get(&target) => answer?,
                () = limit => return Err("the request took too long".to_owned()),
            };
            return if answer.code < 400 { Ok(()) } else { Err(format!("HTTP status code {}", answer.code)) };
        }
        if let Some(sleep) = &hook.sleep {
            let time = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or_default());
            self.clock.sleep_until(self.clock.now() + time).await;
            return Ok(());
        }
        Err(format!("invalid handler of container {:?} in pod {:?}", self.container.name, shown(self.pod)))
    }
}
