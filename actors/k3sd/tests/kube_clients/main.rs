//! kube-rs as others use it, over TLS and with the kubeconfig that the server writes, against `k3sd server
//! --disable-agent`. Each test has a server of its own.
#![expect(
    clippy::disallowed_methods,
    reason = "clients wait for a server in another process, whose clock is the machine's"
)]

#[path = "../support/ports.rs"]
mod ports;
#[path = "../clients/server.rs"]
mod server;

mod custom;
mod finding;
mod objects;
mod pods;
mod watches;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use kube::{Api, Client, Config};

use self::server::Server;

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A server and its administrator.
struct World {
    client: Client,
    _server: Server,
}

impl World {
    async fn start() -> Self {
        let server = Server::start(&[]);
        let (code, text) = server.run("cat admin.yaml");
        assert_eq!(code, 0, "{text}");
        let kubeconfig = Kubeconfig::from_yaml(&text).expect("a kubeconfig");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let mut config = config.expect("it names a server");
        // It would ask again for a minute whether a pod may be evicted now.
        config.default_retry = false;
        let client = Client::try_from(config).expect("its certificates are good");
        Self { client, _server: server }
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Makes ConfigMaps `m0`, `m1` and so on.
    async fn make_config_maps(&self, count: usize) {
        for number in 0..count {
            let map = config_map(&format!("m{number}"), "one");
            self.config_maps().create(&PostParams::default(), &map).await.expect("it can be made");
        }
    }
}

/// A ConfigMap labelled `test=yes`.
fn config_map(name: &str, text: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([("test".to_owned(), "yes".to_owned())])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([("text".to_owned(), text.to_owned())])),
        ..ConfigMap::default()
    }
}

/// What the server said when it refused.
#[track_caller]
fn refused<T: Debug>(answer: kube::Result<T>) -> Box<Status> {
    match answer {
        Err(kube::Error::Api(status)) => status,
        other => panic!("not refused: {other:?}"),
    }
}

/// Waits for something that has to come.
#[track_caller]
fn soon<F: Future>(what: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move { tokio::time::timeout(LIMIT, what).await.unwrap_or_else(|_| panic!("not in time: {caller}")) }
}
