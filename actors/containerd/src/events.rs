//! Noticing that something ended or went in the engine, without asking it over and over.

use std::sync::Arc;
use std::time::Duration;

use containerd_client::events::TaskExit;
use containerd_client::services::v1::SubscribeRequest;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::types::Envelope;
use k3sd_cri::channel;
use k3sd_runtime::{ChildSpec, task};
use prost::Message;
use tokio::sync::watch;
use tonic::Status;
use tonic::transport::Channel;

use crate::config::ContainerdConfig;

/// A process ended: that of a container, or one that was started in it.
const EXIT: &str = "/tasks/exit";
/// A container was removed.
const DELETE: &str = "/containers/delete";
/// How long after the stream's end it is opened again.
const PAUSE: Duration = Duration::from_secs(1);

/// Follows the engine's own events, as CRI has such only since containerd 1.7. Tells `changes` of each that ends or removes
/// a container, and once a second while there is no stream, since anything may happen meanwhile.
pub(crate) fn events(config: Arc<ContainerdConfig>, changes: Arc<watch::Sender<()>>) -> ChildSpec {
    task("events", move |handle| {
        let (config, changes) = (config.clone(), changes.clone());
        let clock = handle.system().clock().clone();
        async move {
            let channel = channel(config.socket());
            loop {
                changes.send_replace(());
                if let Err(error) = follow(channel.clone(), &changes).await {
                    tracing::debug!(%error, "the engine tells nothing");
                }
                clock.sleep_until(clock.now() + PAUSE).await;
            }
        }
    })
}

async fn follow(channel: Channel, changes: &watch::Sender<()>) -> Result<(), Status> {
    let of = |topic| format!(r#"namespace=="k8s.io",topic=="{topic}""#);
    let request = SubscribeRequest { filters: vec![of(EXIT), of(DELETE)] };
    let mut stream = EventsClient::new(channel).subscribe(request).await?.into_inner();
    while let Some(envelope) = stream.message().await? {
        if concerns_containers(&envelope) {
            changes.send_replace(());
        }
    }
    Ok(())
}

/// Probes start processes all the time; their ends change no container.
fn concerns_containers(envelope: &Envelope) -> bool {
    let exit = envelope.event.as_ref().filter(|_| envelope.topic == EXIT);
    let exit = exit.and_then(|event| TaskExit::decode(event.value.as_slice()).ok());
    exit.is_none_or(|exit| exit.id == exit.container_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_probe_is_no_change() {
        let exit = |container_id: &str, id: &str| {
            let exit = TaskExit { container_id: container_id.into(), id: id.into(), ..TaskExit::default() };
            let event = prost_types::Any { type_url: "containerd.events.TaskExit".into(), value: exit.encode_to_vec() };
            Envelope { topic: EXIT.into(), event: Some(event), ..Envelope::default() }
        };
        assert!(concerns_containers(&exit("c", "c")));
        assert!(!concerns_containers(&exit("c", "probe")));
        assert!(concerns_containers(&Envelope { topic: DELETE.into(), ..Envelope::default() }));
    }
}
