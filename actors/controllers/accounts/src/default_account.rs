//! The `serviceaccount` controller: each namespace has the account `default`, which pods run as that name none.

use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::informer::Informer;
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::namespaces::{is_active, namespace_of, quarantined};

/// The account.
const DEFAULT: &str = "default";

struct DefaultAccount {
    client: Client,
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
}

/// The loop; its keys are names of namespaces.
pub(crate) fn default_account(setup: &mut Setup<'_>) -> ChildSpec {
    let connect = setup.connect("service-account-controller");
    let namespaces = setup.informers.informer::<Namespace>();
    let accounts = setup.informers.informer::<ServiceAccount>();
    let (client, recorder) = (connect.client(), setup.recorder.component("service-account-controller"));
    let controller = DefaultAccount { client, namespaces: namespaces.clone(), accounts: accounts.clone() };
    Loop::new(controller, setup.leading.clone())
        .watch(&namespaces, |_, new, keys| keys.extend(new.and_then(|new| new.metadata.name.clone())))
        .watch(&accounts, |old, new, keys| {
            let is_default = |account: &&ServiceAccount| account.metadata.name.as_deref() == Some(DEFAULT);
            // Only one that is gone leaves something to do.
            keys.extend(old.filter(|_| new.is_none()).filter(is_default).and_then(namespace_of));
        })
        .quarantine(recorder, quarantined)
        .child("serviceaccount")
}

impl Controller for DefaultAccount {
    type Key = String;

    async fn reconcile(&self, key: &String, turn: &mut Turn) -> Result<(), Failure> {
        let exists = |accounts: &Informer<ServiceAccount>| {
            accounts.snapshot().is_some_and(|accounts| accounts.get(key, DEFAULT).is_some())
        };
        if !is_active(&self.namespaces, key) || exists(&self.accounts) {
            return Ok(());
        }
        let account = ServiceAccount {
            metadata: ObjectMeta { name: Some(DEFAULT.to_owned()), ..ObjectMeta::default() },
            ..ServiceAccount::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), key);
        match api.create(&PostParams::default(), &account).await.map_err(Failure::from) {
            Ok(written) => turn.wrote(&self.accounts, &written),
            // Somebody else was faster.
            Err(failure) if failure.code() == Some(409) => {}
            Err(failure) => return Err(failure),
        }
        Ok(())
    }
}
