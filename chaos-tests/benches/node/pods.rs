//! Pods through the API, and when somebody who watches saw that they run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use futures_util::{StreamExt as _, TryStreamExt as _};
use k3sd_client::api::Connect;
use k3sd_cri::{Cri, v1};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::Failure;
use crate::bare::{COMMAND, IMAGE};

/// How long pods may take to run or to go.
const LIMIT: Duration = Duration::from_secs(240);
/// How often something is looked for that tells nobody when it comes.
const LOOK: Duration = Duration::from_millis(20);

/// The pods of the default namespace.
pub(crate) struct Pods {
    api: Api<Pod>,
    accounts: Api<ServiceAccount>,
    cri: Cri,
}

/// What `kubectl run` would make of a name, an image and a command.
fn pod(name: &str) -> Pod {
    let container = json!({"name": name, "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": COMMAND});
    let metadata = json!({"name": name, "labels": {"run": name}});
    serde_json::from_value(
        json!({"metadata": metadata, "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}}),
    )
    .expect("a pod")
}

async fn within<T>(what: &str, done: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(LIMIT, done).await.map_err(|_| format!("{what}: not within {LIMIT:?}"))?
}

impl Pods {
    pub(crate) fn new(connect: &Connect, cri: Cri) -> Self {
        let client = connect.client();
        Self { api: Api::default_namespaced(client.clone()), accounts: Api::default_namespaced(client), cri }
    }

    /// Waits until a pod can be started without waiting for anything else.
    pub(crate) async fn possible(&self) -> Result<(), Failure> {
        let image = v1::ImageSpec { image: IMAGE.to_owned(), ..v1::ImageSpec::default() };
        let request = v1::ImageStatusRequest { image: Some(image), verbose: false };
        within("the image and the service account", async {
            loop {
                let found = self.cri.image_status(request.clone()).await;
                let account = self.accounts.get_opt("default").await?;
                if account.is_some() && found.is_ok_and(|found| found.image.is_some()) {
                    return Ok(());
                }
                tokio::time::sleep(LOOK).await;
            }
        })
        .await
    }

    /// Makes pods at once. How long each took from the first request until an event said that it runs.
    pub(crate) async fn start(&self, names: &[String]) -> Result<Vec<Duration>, Failure> {
        let version = self.api.list_metadata(&ListParams::default()).await?.metadata.resource_version;
        let version = version.ok_or("a list has a version")?;
        let mut events = self.api.watch(&WatchParams::default(), &version).await?.boxed();
        let begun = Instant::now();
        let creating = try_join_all(names.iter().map(|name| async {
            self.api.create(&PostParams::default(), &pod(name)).await.map(drop).map_err(Failure::from)
        }));
        let watching = async {
            let mut running = BTreeMap::new();
            while running.len() < names.len() {
                let event = events.try_next().await?.ok_or("the watch ended")?;
                let now = begun.elapsed();
                let WatchEvent::Modified(pod) = event else { continue };
                if pod.status.is_some_and(|status| status.phase.as_deref() == Some("Running")) {
                    running.entry(pod.metadata.name).or_insert(now);
                }
            }
            Ok(running.into_values().collect())
        };
        let both = async { tokio::try_join!(creating, watching) };
        within("pods that run", both).await.map(|(_, times)| times)
    }

    /// Removes pods, and waits until nothing is left in the runtime.
    pub(crate) async fn remove(&self, names: &[String]) -> Result<(), Failure> {
        let now = DeleteParams::default().grace_period(0);
        try_join_all(names.iter().map(|name| self.api.delete(name, &now))).await?;
        self.gone().await
    }

    /// Waits until the runtime has no sandbox.
    pub(crate) async fn gone(&self) -> Result<(), Failure> {
        within("pods that are gone", async {
            while !self.cri.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await?.items.is_empty() {
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        })
        .await
    }
}
