//! What the built-in schemas and a custom one say at places that everybody knows.

use serde_json::json;

use super::*;

fn at(type_name: &str, path: &str) -> SchemaRef<'static> {
    let mut schema = builtin().type_named(type_name).unwrap();
    for step in path.split('.').filter(|step| !step.is_empty()) {
        schema = if step == "[]" { schema.item() } else { schema.field(step) }
            .unwrap_or_else(|| panic!("{type_name} {path}: {step}"));
    }
    schema
}

#[test]
fn built_in_values_have_the_kinds_of_kubernetes() {
    for (type_name, path, kind) in [
        ("core.v1.Pod", "", Kind::Object),
        ("core.v1.Pod", "metadata.creationTimestamp", Kind::Time),
        ("core.v1.Pod", "metadata.labels", Kind::Map),
        ("core.v1.Pod", "metadata.labels.anything", Kind::String),
        ("core.v1.Pod", "metadata.managedFields.[].fieldsV1", Kind::Fields),
        ("core.v1.Pod", "spec.containers.[].ports.[].containerPort", Kind::Int32),
        ("core.v1.Pod", "spec.containers.[].resources.limits.cpu", Kind::Quantity),
        ("core.v1.Pod", "spec.activeDeadlineSeconds", Kind::Int64),
        ("core.v1.Pod", "spec.containers.[].livenessProbe.httpGet.port", Kind::IntOrString),
        ("core.v1.Secret", "data.key", Kind::Bytes),
        ("core.v1.PodList", "items.[].spec.hostNetwork", Kind::Bool),
        ("core.v1.List", "items.[]", Kind::RawExtension),
        ("core.v1.Event", "eventTime", Kind::MicroTime),
        ("coordination.v1.Lease", "spec.renewTime", Kind::MicroTime),
        ("apps.v1.ControllerRevision", "data", Kind::RawExtension),
        ("apiextensions.v1.JSONSchemaProps", "items", Kind::SchemaOrArray),
        ("apiextensions.v1.JSONSchemaProps", "additionalProperties", Kind::SchemaOrBool),
        ("apiextensions.v1.JSONSchemaProps", "properties.a.properties.b.maximum", Kind::Number),
        ("apiextensions.v1.JSONSchemaProps", "default", Kind::Json),
        ("apiextensions.v1.CustomResourceSubresources", "status", Kind::Any),
        ("authentication.v1.UserInfo", "extra.key.[]", Kind::String),
        ("meta.v1.Status", "details.causes.[].field", Kind::String),
        ("meta.v1.WatchEvent", "object", Kind::RawExtension),
    ] {
        assert_eq!(at(type_name, path).kind(), kind, "{type_name} {path}");
    }
}

#[test]
fn lists_merge_as_in_kubernetes() {
    for (type_name, path, list_type, keys, merge_key) in [
        ("core.v1.PodSpec", "containers", ListType::Map, vec!["name"], Some("name")),
        ("core.v1.PodSpec", "tolerations", ListType::Atomic, vec![], None),
        ("core.v1.Container", "ports", ListType::Map, vec!["containerPort", "protocol"], Some("containerPort")),
        ("core.v1.Container", "args", ListType::Atomic, vec![], None),
        ("core.v1.ServiceSpec", "ports", ListType::Map, vec!["port", "protocol"], Some("port")),
        ("meta.v1.ObjectMeta", "finalizers", ListType::Set, vec![], None),
        ("meta.v1.ObjectMeta", "ownerReferences", ListType::Map, vec!["uid"], Some("uid")),
        ("core.v1.PodStatus", "hostIPs", ListType::Atomic, vec![], Some("ip")),
    ] {
        let schema = at(type_name, path);
        assert_eq!(schema.list_type(), list_type, "{type_name}.{path}");
        assert_eq!(schema.list_keys().collect::<Vec<_>>(), keys, "{type_name}.{path}");
        assert_eq!(schema.merge_key(), merge_key, "{type_name}.{path}");
    }
    assert!(at("core.v1.PodSpec", "volumes").patch_strategy().retain_keys);
    assert!(at("core.v1.PodSpec", "volumes").patch_strategy().merge);
    assert!(at("apps.v1.DeploymentSpec", "strategy").patch_strategy().retain_keys);
    assert!(at("policy.v1.PodDisruptionBudgetSpec", "selector").patch_strategy().replace);
    assert!(at("meta.v1.ObjectMeta", "finalizers").patch_strategy().merge);
}

#[test]
fn maps_and_structures_merge_as_in_kubernetes() {
    for (type_name, path, map_type) in [
        ("core.v1.ServiceSpec", "selector", MapType::Atomic),
        ("core.v1.PodSpec", "nodeSelector", MapType::Atomic),
        ("meta.v1.ObjectMeta", "labels", MapType::Granular),
        ("core.v1.Container", "resources", MapType::Granular),
        ("apps.v1.DeploymentSpec", "selector", MapType::Atomic),
        ("core.v1.EndpointAddress", "targetRef", MapType::Atomic),
        ("core.v1.PersistentVolumeSpec", "claimRef", MapType::Granular),
    ] {
        assert_eq!(at(type_name, path).map_type(), map_type, "{type_name}.{path}");
    }
    // A copy that merges differently has the same fields.
    assert_eq!(at("core.v1.PersistentVolumeSpec", "claimRef.namespace").kind(), Kind::String);
    assert_eq!(at("core.v1.PersistentVolumeSpec", "claimRef").type_name(), Some("core.v1.ObjectReference"));
}

#[test]
fn keys_of_map_lists_have_their_defaults() {
    assert_eq!(at("core.v1.Container", "ports.[].protocol").default(), Some(&json!("TCP")));
    assert_eq!(at("core.v1.EphemeralContainer", "ports.[].protocol").default(), Some(&json!("TCP")));
    assert_eq!(at("core.v1.ServiceSpec", "ports.[].protocol").default(), Some(&json!("TCP")));
    assert_eq!(at("core.v1.ServiceSpec", "ports.[].name").default(), None);
}

#[test]
fn required_fields_are_known() {
    let container = at("core.v1.Container", "");
    assert!(container.property("name").unwrap().required);
    assert!(!container.property("image").unwrap().required);
    assert!(container.property("nmae").is_none());
}

#[test]
fn each_resource_has_its_type_and_list() {
    for resource in resources() {
        let object = builtin().type_named(resource.type_name).unwrap();
        for field in ["apiVersion", "kind", "metadata"] {
            assert!(object.property(field).is_some(), "{}: {field}", resource.type_name);
        }
        let list = builtin().type_named(&format!("{}List", resource.type_name));
        assert_eq!(list.is_some(), resource.verbs.contains(&"list"), "{}", resource.type_name);
        for subresource in resource.subresources {
            let kind = subresource.kind;
            let options = kind.kind.ends_with("Options");
            let known = builtin().types().any(|(name, _)| name.ends_with(&format!(".{}.{}", kind.version, kind.kind)));
            assert!(known != options, "{kind:?}");
        }
    }
}

#[test]
fn kinds_are_found_by_what_objects_say_of_themselves() {
    for (api_version, kind, name) in [
        ("v1", "Pod", Some("core.v1.Pod")),
        ("v1", "PodList", Some("core.v1.PodList")),
        ("apps/v1", "Deployment", Some("apps.v1.Deployment")),
        ("rbac.authorization.k8s.io/v1", "Role", Some("rbac.v1.Role")),
        ("internal.apiserver.k8s.io/v1alpha1", "StorageVersion", Some("apiserverinternal.v1alpha1.StorageVersion")),
        ("policy/v1", "Eviction", Some("policy.v1.Eviction")),
        ("apps/v1", "DeleteOptions", Some("meta.v1.DeleteOptions")),
        ("v1", "Status", Some("meta.v1.Status")),
        ("meta.k8s.io/v1", "PartialObjectMetadataList", Some("meta.v1.PartialObjectMetadataList")),
        ("v1", "ObjectReference", None),
        ("v1", "PodSpec", None),
        ("core/v1", "Pod", None),
        ("rbac.example.org/v1", "Role", None),
        ("v2", "Pod", None),
        ("", "", None),
    ] {
        assert_eq!(kind_schema(api_version, kind).and_then(SchemaRef::type_name), name, "{api_version} {kind}");
    }
}

#[test]
fn the_table_of_resources_answers_the_questions_of_discovery() {
    let pod = resources().iter().find(|resource| resource.kind == "Pod").unwrap();
    assert_eq!((pod.api_version().as_str(), pod.plural, pod.singular), ("v1", "pods", "pod"));
    assert_eq!((pod.short_names, pod.categories, pod.namespaced), (&["po"][..], &["all"][..], true));
    assert_eq!(pod.verbs.len(), 8);
    assert!(pod.selectors.contains(&"spec.nodeName") && pod.generation && pod.served);
    let eviction = pod.subresource("eviction").unwrap();
    assert_eq!(eviction.kind, GroupVersionKind { group: "policy", version: "v1", kind: "Eviction" });
    assert_eq!(pod.subresource("status").unwrap().verbs, ["get", "patch", "update"]);
    let event = resources().iter().find(|resource| resource.group == "events.k8s.io").unwrap();
    assert_eq!((event.api_version().as_str(), event.storage_version), ("events.k8s.io/v1", Some("v1")));
    assert_eq!(resources().iter().filter(|resource| resource.served).count(), 66);
    let review = resources().iter().find(|resource| resource.kind == "TokenReview").unwrap();
    assert_eq!((review.verbs, review.storage_version), (&["create"][..], None));
}

#[test]
fn descriptions_are_found_by_type_and_field() {
    let descriptions = Descriptions::load();
    assert!(descriptions.of_type("core.v1.Pod").starts_with("Pod is a collection of containers"));
    let pod = at("core.v1.PodSpec", "");
    assert!(descriptions.of_field(pod, "nodeName").contains("node"));
    assert!(descriptions.of_field(pod, "hostNetwork").to_lowercase().contains("host networking"));
    assert_eq!(descriptions.of_field(pod, "nothing"), "");
    assert_eq!(descriptions.of_type("core.v1.Nothing"), "");
    // Every field of a real kind is described, so a shifted table would show.
    for property in pod.properties() {
        assert!(!descriptions.of_field(pod, property.name).is_empty(), "{}", property.name);
    }
}

#[test]
fn the_built_in_schemas_take_hardly_any_memory() {
    // The constants are part of the program, and only what is used of them is ever read from disk.
    assert!(builtin().node_count() * size_of::<super::node::Node>() < 256 * 1024, "{}", builtin().node_count());
    assert!(builtin().heap_bytes() < 4096, "{}", builtin().heap_bytes());
}

fn widget() -> serde_json::Value {
    json!({
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["size"],
                "properties": {
                    "size": { "type": "integer", "format": "int32", "minimum": 1, "default": 3 },
                    "port": { "x-kubernetes-int-or-string": true },
                    "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                    "tags": { "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "string" } },
                    "parts": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name", "side"],
                        "items": {
                            "type": "object",
                            "properties": { "name": { "type": "string" }, "side": { "type": "string", "default": "left" } },
                        },
                    },
                    "labels": { "type": "object", "additionalProperties": { "type": "string" } },
                    "gone": { "type": "string", "nullable": true, "pattern": "^a+$" },
                    "whole": { "type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-map-type": "atomic" },
                },
            },
        },
    })
}

#[test]
fn a_custom_schema_answers_like_a_built_in_one() {
    let arena = structural(&widget()).unwrap();
    let root = arena.root();
    let spec = root.field("spec").unwrap();
    assert_eq!(spec.field("size").unwrap().kind(), Kind::Int32);
    assert_eq!(spec.field("size").unwrap().default(), Some(&json!(3)));
    assert!(spec.property("size").unwrap().required);
    assert_eq!(spec.field("port").unwrap().kind(), Kind::IntOrString);
    assert!(spec.field("free").unwrap().preserves_unknown());
    assert_eq!(spec.field("tags").unwrap().list_type(), ListType::Set);
    let parts = spec.field("parts").unwrap();
    assert_eq!(parts.list_type(), ListType::Map);
    assert_eq!(parts.list_keys().collect::<Vec<_>>(), ["name", "side"]);
    assert_eq!(parts.item().unwrap().field("side").unwrap().default(), Some(&json!("left")));
    assert_eq!(spec.field("labels").unwrap().field("any").unwrap().kind(), Kind::String);
    assert!(spec.field("gone").unwrap().is_nullable());
    assert!(spec.field("gone").unwrap().rules().unwrap().pattern.as_ref().unwrap().matches("aaa"));
    assert_eq!(spec.field("whole").unwrap().map_type(), MapType::Atomic);
}

#[test]
fn whole_objects_have_the_metadata_of_kubernetes() {
    let arena = structural(&widget()).unwrap();
    for object in [arena.root(), arena.root().field("spec").unwrap().field("whole").unwrap()] {
        assert_eq!(object.field("kind").unwrap().kind(), Kind::String);
        let references = object.field("metadata").unwrap().field("ownerReferences").unwrap();
        assert_eq!(references.list_keys().collect::<Vec<_>>(), ["uid"]);
    }
}

#[test]
fn a_schema_that_could_hurt_is_refused() {
    let pattern = json!({ "type": "object", "properties": { "a": { "type": "string", "pattern": "(" } } });
    assert!(matches!(structural(&pattern), Err(SchemaError::Pattern { .. })));
    let bomb = json!({ "type": "string", "pattern": "((a{1000}){1000}){1000}" });
    assert!(matches!(structural(&bomb), Err(SchemaError::Pattern { .. })));
    let deep = (0..500).fold(json!({ "type": "string" }), |inner, _| json!({ "type": "array", "items": inner }));
    assert!(matches!(structural(&deep), Err(SchemaError::TooDeep)));
}
