//! A cluster with controllers that a test chooses.

use k3sd_client::api::Connect;
use k3sd_client::controller::setup::{ControllerConfig, Setup};
use k3sd_client::election::Leading;
use k3sd_client::events::recorder;
use k3sd_client::informer::Shared;
use k3sd_runtime::{ChildSpec, subtree};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Cluster, Plane};

impl Plane {
    /// The API as one sees it who may do everything; what informers read with, and fake nodes.
    pub fn manager(&self) -> Connect {
        self.identities().user("system:kube-controller-manager", &["system:masters"])
    }

    /// Starts it with the loops that `make` puts together, the informers that they read, somebody who writes their
    /// Events, and `others` behind them.
    pub async fn start_controllers(
        self,
        config: ControllerConfig,
        others: Vec<ChildSpec>,
        make: impl FnOnce(&mut Setup<'_>) -> Vec<ChildSpec>,
    ) -> Cluster {
        let (identities, clock) = (self.identities(), self.clock().clone());
        let (events, recorder) = recorder("events", self.manager());
        let mut informers = Shared::new(self.manager());
        let mut loops = make(&mut Setup {
            identities: &identities,
            informers: &mut informers,
            recorder: &recorder,
            leading: &Leading::always(),
            clock: &clock,
            config: &config,
        });
        loops.insert(0, subtree("informers", informers.spec()));
        loops.push(events);
        loops.extend(others);
        self.start(loops).await
    }
}

impl Cluster {
    /// The objects of a kind in the namespace `default`.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.admin(), "default")
    }

    /// Makes an object in the namespace `default`.
    ///
    /// # Panics
    /// When that isn't such an object, or the API refuses it.
    pub async fn make<K>(&self, object: Value) -> K
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: DeserializeOwned + Serialize + Clone + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).expect("such an object");
        self.api().create(&PostParams::default(), &object).await.expect("it may be made")
    }
}
