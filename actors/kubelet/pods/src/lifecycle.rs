//! What a container wants done after its start and before its end.

use std::time::Duration;

use k3sd_cri::{Cri, v1};
use k3sd_runtime::Clock;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod};

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
    /// Why it failed, as the container's status says it.
    pub async fn run(&self, hook: &LifecycleHandler) -> Result<(), String> {
        let of = || format!("for Container {:?} in Pod {:?} failed", self.container.name, shown(self.pod));
        if let Some(exec) = &hook.exec {
            let command = exec.command.clone().unwrap_or_default();
            let words = command.join(" ");
            return self.exec(command).await.map_err(|(error, output)| {
                format!("Exec lifecycle hook ([{words}]) {} - error: {error}, message: {output:?}", of())
            });
        }
        if let Some(action) = &hook.http_get {
            let path = action.path.as_deref().unwrap_or_default();
            return self
                .request(action)
                .await
                .map_err(|error| format!("HTTP lifecycle hook ({path}) {} - error: {error}", of()));
        }
        if let Some(sleep) = &hook.sleep {
            let time = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or_default());
            self.clock.sleep_until(self.clock.now() + time).await;
            return Ok(());
        }
        Err(format!("invalid handler of container {:?} in pod {:?}", self.container.name, shown(self.pod)))
    }

    /// Runs a command. Says why it failed, and the beginning of what it wrote.
    async fn exec(&self, command: Vec<String>) -> Result<(), (String, String)> {
        let words = command.join(" ");
        let asked = v1::ExecSyncRequest { container_id: self.id.to_owned(), cmd: command, timeout: 0 };
        let answer = self.cri.exec_sync(asked).await.map_err(|error| (error.status(), String::new()))?;
        if answer.exit_code == 0 {
            return Ok(());
        }
        let text = |bytes: &[u8]| {
            let mut text = String::from_utf8_lossy(bytes).into_owned();
            text.truncate(text.floor_char_boundary(OUTPUT_BYTES_MAX));
            text
        };
        let error = format!("command '{words}' exited with {}: {}", answer.exit_code, text(&answer.stderr));
        Err((error, text(&[answer.stdout, answer.stderr].concat())))
    }

    async fn request(&self, action: &HTTPGetAction) -> Result<(), String> {
        let target = Target::of(action, self.container, self.address, AGENT)?;
        let limit = self.clock.sleep_until(self.clock.now() + REQUEST_LIMIT);
        let answer = tokio::select! {
            answer = get(&target) => answer?,
            () = limit => return Err("the request took too long".to_owned()),
        };
        if answer.code < 400 { Ok(()) } else { Err(format!("HTTP status code {}", answer.code)) }
    }
}
