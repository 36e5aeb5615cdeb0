//! The `root-ca-certificate-publisher`: each namespace says whom its pods should believe when they speak to the API.

use std::collections::BTreeMap;

use k3sd_client::controller::setup::{Bundle, Setup};
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::informer::{Informer, InformerArgs, informer};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::namespaces::{is_active, namespace_of, quarantined};

/// The ConfigMap and its entry, where pods look for them.
const NAME: &str = "kube-root-ca.crt";
const ENTRY: &str = "ca.crt";
/// What the ConfigMap says of itself, as upstream's does.
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
     internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
     clusters.",
);

struct RootCa {
    client: Client,
    bundle: Bundle,
    namespaces: Informer<Namespace>,
    maps: Informer<ConfigMap>,
}

/// The loop, whose keys are names of namespaces, and the informer of these ConfigMaps alone.
pub(crate) fn root_ca(setup: &mut Setup<'_>) -> Vec<ChildSpec> {
    let connect = setup.connect("root-ca-cert-publisher");
    let namespaces = setup.informers.informer::<Namespace>();
    let named = InformerArgs::<ConfigMap>::all(setup.informers.connect()).fields(&format!("metadata.name={NAME}"));
    let (child, maps) = informer("root-ca-maps", named);
    let controller = RootCa {
        client: connect.client(),
        bundle: setup.config.root_ca.clone(),
        namespaces: namespaces.clone(),
        maps: maps.clone(),
    };
    let looper = Loop::new(controller, setup.leading.clone())
        .watch(&namespaces, |_, new, keys| keys.extend(new.and_then(|new| new.metadata.name.clone())))
        .watch(&maps, |old, new, keys| keys.extend(new.or(old).and_then(namespace_of)))
        .quarantine(setup.recorder.component("root-ca-cert-publisher"), quarantined)
        .child("root-ca-certificate-publisher");
    vec![child, looper]
}

/// What the ConfigMap should be, unless it is.
fn wanted(bundle: &str, found: Option<&ConfigMap>) -> Option<ConfigMap> {
    let data = BTreeMap::from([(ENTRY.to_owned(), bundle.to_owned())]);
    let mut map = found.cloned().unwrap_or_else(|| ConfigMap {
        metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
        ..ConfigMap::default()
    });
    let described = map.metadata.annotations.as_ref().and_then(|all| all.get(DESCRIPTION.0)).map(String::as_str);
    if found.is_some() && map.data.as_ref() == Some(&data) && described == Some(DESCRIPTION.1) {
        return None;
    }
    map.data = Some(data);
    map.binary_data = None;
    let annotations = map.metadata.annotations.get_or_insert_default();
    annotations.insert(DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned());
    Some(map)
}

impl Controller for RootCa {
    type Key = String;

    async fn reconcile(&self, key: &String, turn: &mut Turn) -> Result<(), Failure> {
        let bundle = self.bundle.pem();
        if bundle.is_empty() {
            return Err(Failure::other("there is no authority yet"));
        }
        if !is_active(&self.namespaces, key) {
            return Ok(());
        }
        let shown = self.maps.snapshot();
        let found = shown.as_ref().and_then(|maps| maps.get(key, NAME));
        let Some(map) = wanted(&bundle, found.map(AsRef::as_ref)) else { return Ok(()) };
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), key);
        let written = match found {
            Some(_) => api.replace(NAME, &PostParams::default(), &map).await?,
            None => api.create(&PostParams::default(), &map).await?,
        };
        turn.wrote(&self.maps, &written);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_mended_and_what_does_not_is_left() {
        let made = wanted("PEM", None).expect("there is none");
        assert_eq!(made.metadata.name.as_deref(), Some("kube-root-ca.crt"));
        assert_eq!(wanted("PEM", Some(&made)), None);
        let renewed = wanted("PEM2", Some(&made)).expect("the authority is another");
        assert_eq!(renewed.data.as_ref().map(|data| data["ca.crt"].as_str()), Some("PEM2"));
        let mut bare = made.clone();
        bare.metadata.annotations = None;
        bare.metadata.resource_version = Some("7".to_owned());
        let mended = wanted("PEM", Some(&bare)).expect("it has to be described");
        assert_eq!(mended.metadata.resource_version.as_deref(), Some("7"), "written over what was read");
        let mut more = made.clone();
        more.data.get_or_insert_default().insert("x".to_owned(), "y".to_owned());
        assert!(wanted("PEM", Some(&more)).is_some());
    }
}
