//! Kinds that nobody compiled in: a definition, and objects without a type.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{self, Scope};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::{World, refused, soon};

/// A definition with status and scale.
fn definition() -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.test.example.com"},
        "spec": {
            "group": "test.example.com", "scope": "Namespaced",
            "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "shortNames": ["gd"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "required": ["spec"],
                    "properties": {
                        "spec": {
                            "type": "object",
                            "properties": {
                                "size": {"type": "integer", "minimum": 1, "default": 2},
                                "color": {"type": "string"},
                            },
                            "x-kubernetes-validations": [
                                {"rule": "self.size < 100 || has(self.color)", "message": "large ones need a color"},
                            ],
                        },
                        "status": {
                            "type": "object",
                            "properties": {"size": {"type": "integer"}, "phase": {"type": "string"}},
                        },
                    },
                }},
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"},
                },
            }],
        },
    }))
    .expect("a definition")
}

/// Makes the definition, and says how its objects are reached.
pub(crate) async fn define(client: &Client) -> (ApiResource, Api<DynamicObject>) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.create(&PostParams::default(), &definition()).await.expect("it can be defined");
    let name = "gadgets.test.example.com";
    soon(await_condition(definitions, name, conditions::is_crd_established())).await.expect("it is established");
    let kind = GroupVersionKind::gvk("test.example.com", "v1", "Gadget");
    let (resource, capabilities) = discovery::pinned_kind(client, &kind).await.expect("it is discovered");
    assert_eq!((resource.plural.as_str(), &capabilities.scope), ("gadgets", &Scope::Namespaced));
    let gadgets = Api::default_namespaced_with(client.clone(), &resource);
    (resource, gadgets)
}

#[tokio::test]
async fn objects_of_a_defined_kind_behave_like_all_others() {
    let world = World::start().await;
    let (resource, gadgets) = define(&world.client).await;
    let made = DynamicObject::new("a", &resource).data(json!({"spec": {"color": "red", "shape": "round"}}));
    let made = gadgets.create(&PostParams::default(), &made).await.expect("it can be made");
    // Defaulted, and pruned.
    assert_eq!(made.data["spec"], json!({"color": "red", "size": 2}));
    assert_eq!(made.metadata.generation, Some(1));

    let invalid = DynamicObject::new("b", &resource).data(json!({"spec": {"size": 0}}));
    let invalid = refused(gadgets.create(&PostParams::default(), &invalid).await);
    let causes = invalid.details.expect("details").causes;
    assert_eq!((invalid.code, causes[0].field.as_str()), (422, "spec.size"));
    let ruled = DynamicObject::new("b", &resource).data(json!({"spec": {"size": 100}}));
    let ruled = refused(gadgets.create(&PostParams::default(), &ruled).await);
    assert!(ruled.message.contains("large ones need a color"), "{ruled:?}");

    let status = json!({"spec": {"size": 50}, "status": {"phase": "Done", "size": 2}});
    let patched = gadgets.patch_status("a", &PatchParams::default(), &Patch::Merge(status)).await.expect("it has one");
    assert_eq!((&patched.data["spec"]["size"], &patched.data["status"]["phase"]), (&json!(2), &json!("Done")));
    assert_eq!(patched.metadata.generation, Some(1), "a status is no other generation");
    let patched = gadgets.patch("a", &PatchParams::default(), &Patch::Merge(json!({"status": {"phase": "No"}}))).await;
    assert_eq!(patched.expect("it fits").data["status"]["phase"], "Done");

    let scale =
        gadgets.patch_scale("a", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 7}}))).await;
    let scale = scale.expect("it has one");
    assert_eq!((scale.spec.unwrap_or_default().replicas, scale.status.unwrap_or_default().replicas), (Some(7), 2));
    assert_eq!(gadgets.get("a").await.expect("it is there").data["spec"]["size"], 7);

    let apply = Patch::Apply(json!({"apiVersion": "test.example.com/v1", "kind": "Gadget", "spec": {"size": 9}}));
    let conflict = refused(gadgets.patch("a", &PatchParams::apply("me"), &apply).await);
    assert!(conflict.is_conflict(), "{conflict:?}");
    let applied = gadgets.patch("a", &PatchParams::apply("me").force(), &apply).await.expect("it was forced");
    assert_eq!((&applied.data["spec"]["size"], applied.metadata.generation), (&json!(9), Some(3)));
    let strategic = refused(gadgets.patch("a", &PatchParams::default(), &Patch::Strategic(json!({}))).await);
    assert_eq!(strategic.code, 415, "{strategic:?}");

    let uid = applied.uid().expect("one");
    gadgets.delete("a", &DeleteParams::default()).await.expect("it can be deleted");
    soon(await_condition(gadgets, "a", conditions::is_deleted(&uid))).await.expect("it goes");
}
