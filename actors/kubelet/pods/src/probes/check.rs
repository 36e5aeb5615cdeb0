//! One try of a probe.

use k3sd_cri::{Cri, v1};
use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::net::TcpStream;

use super::machine::{Pace, Try};
use crate::http::{Target, bracketed, get, plain};
use crate::spec;

/// How probes call themselves.
const AGENT: &str = "kube-probe/1.34";
/// Bytes of a command's output that are told.
const OUTPUT_BYTES_MAX: usize = 10 << 10;

/// What is tried, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Check<'a> {
    pub(crate) cri: &'a Cri,
    pub(crate) clock: &'a k3sd_runtime::Clock,
    pub(crate) container: &'a Container,
    pub(crate) id: &'a str,
    pub(crate) address: &'a str,
}

impl Check<'_> {
    /// Tries once, within the probe's limit.
    pub(crate) async fn run(&self, probe: &Probe) -> Try {
        let limit = Pace::of(probe).limit;
        if probe.exec.is_some() {
            return self.exec(probe, limit).await;
        }
        let late = self.clock.sleep_until(self.clock.now() + limit);
        tokio::select! {
            biased;
            tried = self.over_network(probe) => tried,
            () = late => Try::Bad(self.late(probe, limit)),
        }
    }

    fn late(&self, probe: &Probe, limit: std::time::Duration) -> String {
        let seconds = limit.as_secs();
        match &probe.grpc {
            Some(grpc) => format!(
                "timeout: failed to connect service {:?} within {seconds}s: context deadline exceeded",
                format!("{}:{}", bracketed(self.address), grpc.port)
            ),
            None => "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned(),
        }
    }

    async fn over_network(&self, probe: &Probe) -> Try {
        if let Some(action) = &probe.http_get {
            let target = match Target::of(action, self.container, self.address, AGENT) {
                Ok(target) => target,
                Err(error) => return Try::Error(error),
            };
            return match get(&target).await {
                Ok(answer) if answer.away => {
                    Try::Good(Some(format!("Probe terminated redirects, Response body: {}", answer.body)))
                }
                Ok(answer) if (200..400).contains(&answer.code) => Try::Good(None),
                Ok(answer) => Try::Bad(format!("HTTP probe failed with statuscode: {}", answer.code)),
                Err(error) => Try::Bad(error),
            };
        }
        if let Some(action) = &probe.tcp_socket {
            let Some(port) = spec::port(&action.port, self.container) else {
                return Try::Error("couldn't find the probe's port".to_owned());
            };
            let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(self.address);
            return match TcpStream::connect((host, port)).await {
                Ok(_) => Try::Good(None),
                Err(error) => Try::Bad(format!("dial tcp {}:{port}: connect: {}", bracketed(host), plain(&error))),
            };
        }
        if let Some(action) = &probe.grpc {
            let Ok(port) = u16::try_from(action.port) else { return Try::Error("the probe's port is none".to_owned()) };
            return super::grpc::check(self.address, port, action.service.as_deref().unwrap_or_default()).await;
        }
        Try::Error("missing probe handler".to_owned())
    }

    async fn exec(&self, probe: &Probe, limit: std::time::Duration) -> Try {
        let command = probe.exec.as_ref().and_then(|exec| exec.command.clone()).unwrap_or_default();
        let timeout = i64::try_from(limit.as_secs()).unwrap_or(1).max(1);
        let shown = command.join(" ");
        let asked = v1::ExecSyncRequest { container_id: self.id.to_owned(), cmd: command, timeout };
        match self.cri.exec_sync(asked).await {
            Ok(answer) if answer.exit_code == 0 => Try::Good(None),
            Ok(answer) => {
                let mut output = String::from_utf8_lossy(&[answer.stdout, answer.stderr].concat()).into_owned();
                output.truncate(output.floor_char_boundary(OUTPUT_BYTES_MAX));
                Try::Bad(output)
            }
            Err(error) if error.message().contains("timeout") || error.message().contains("deadline") => {
                Try::Bad(format!("command timed out: {shown:?} timed out after {timeout}s"))
            }
            Err(error) => Try::Error(error.status()),
        }
    }
}
