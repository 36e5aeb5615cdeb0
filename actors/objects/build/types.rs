//! The definitions that the schemas are made from: every served kind, and what the generic machinery speaks.
//!
//! `k8s-openapi` gives them as JSON schemas. Lists it has only as a generic type, so they are put together here, as are
//! the few types that no OpenAPI document names.

use std::collections::BTreeMap;

use k8s_openapi::schemars::generate::SchemaSettings;
use serde_json::{Value, json};

/// Where `schemars` puts the types that others refer to.
const REFERENCE: &str = "#/$defs/";

/// A definition per type, by the short name of the type (see [`short_name`]).
pub(crate) type Definitions = BTreeMap<String, Value>;

/// Asks for the schema of each listed type, which brings in all types that it reaches.
macro_rules! subschemas {
    ($generator:ident: $($($path:ident)::+: $($kind:ident)+;)+) => {
        $({
            use k8s_openapi::$($path)::+ as package;
            $($generator.subschema_for::<package::$kind>();)+
        })+
    };
}

/// All definitions; `listed` are the types that come in lists too.
pub(crate) fn definitions(listed: &[String]) -> Definitions {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    subschemas! { generator:
        api::admissionregistration::v1: MutatingWebhookConfiguration ValidatingAdmissionPolicy
            ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration;
        api::admissionregistration::v1alpha1: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding;
        api::admissionregistration::v1beta1: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding;
        apiextensions_apiserver::pkg::apis::apiextensions::v1: CustomResourceDefinition;
        kube_aggregator::pkg::apis::apiregistration::v1: APIService;
        api::apiserverinternal::v1alpha1: StorageVersion;
        api::apps::v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet;
        api::authentication::v1: SelfSubjectReview TokenRequest TokenReview;
        api::authorization::v1: LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview
            SubjectAccessReview;
        api::autoscaling::v1: HorizontalPodAutoscaler Scale;
        api::autoscaling::v2: HorizontalPodAutoscaler;
        api::batch::v1: CronJob Job;
        api::certificates::v1: CertificateSigningRequest;
        api::certificates::v1alpha1: ClusterTrustBundle PodCertificateRequest;
        api::certificates::v1beta1: ClusterTrustBundle;
        api::coordination::v1: Lease;
        api::coordination::v1alpha2: LeaseCandidate;
        api::coordination::v1beta1: LeaseCandidate;
        api::core::v1: Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume
            PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount;
        api::discovery::v1: EndpointSlice;
        api::events::v1: Event;
        api::flowcontrol::v1: FlowSchema PriorityLevelConfiguration;
        api::networking::v1: IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR;
        api::networking::v1beta1: IPAddress ServiceCIDR;
        api::node::v1: RuntimeClass;
        api::policy::v1: Eviction PodDisruptionBudget;
        api::rbac::v1: ClusterRole ClusterRoleBinding Role RoleBinding;
        api::resource::v1: DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice;
        api::resource::v1alpha3: DeviceTaintRule;
        api::resource::v1beta1: DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice;
        api::resource::v1beta2: DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice;
        api::scheduling::v1: PriorityClass;
        api::storage::v1: CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass;
        api::storage::v1alpha1: VolumeAttributesClass;
        api::storage::v1beta1: VolumeAttributesClass;
        api::storagemigration::v1alpha1: StorageVersionMigration;
        apimachinery::pkg::apis::meta::v1: APIGroup APIGroupList APIResourceList APIVersions DeleteOptions ListMeta
            ObjectMeta Status;
        apimachinery::pkg::runtime: RawExtension;
        apimachinery::pkg::version: Info;
    }
    let found = generator.take_definitions(true);
    let mut definitions: Definitions = found.into_iter().map(|(name, schema)| (short_name(&name), schema)).collect();
    for kind in listed {
        let description = format!("A list of {}.", kind.rsplit('.').next().unwrap_or(kind));
        let items = definition_of_list(&description, reference(kind), &[("metadata", "meta.v1.ListMeta")]);
        definitions.insert(format!("{kind}List"), items);
    }
    definitions.extend(unpublished());
    definitions
}

/// Types that clients send or ask for, and that the OpenAPI document of Kubernetes leaves out or can't express.
fn unpublished() -> Vec<(String, Value)> {
    let list = |description, items| definition_of_list(description, items, &[("metadata", "meta.v1.ListMeta")]);
    vec![
        ("core.v1.List".to_owned(), list("A list of objects of any kind.", reference("runtime.RawExtension"))),
        (
            "meta.v1.PartialObjectMetadata".to_owned(),
            json!({
                "description": "The metadata of an object of any kind, without the rest.",
                "type": "object",
                "properties": {
                    "apiVersion": { "type": "string" },
                    "kind": { "type": "string" },
                    "metadata": reference("meta.v1.ObjectMeta"),
                },
            }),
        ),
        (
            "meta.v1.PartialObjectMetadataList".to_owned(),
            list("The metadata of several objects.", reference("meta.v1.PartialObjectMetadata")),
        ),
        (
            "meta.v1.WatchEvent".to_owned(),
            json!({
                "description": "One event of a watch.",
                "type": "object",
                "properties": { "type": { "type": "string" }, "object": reference("runtime.RawExtension") },
                "required": ["type", "object"],
            }),
        ),
    ]
}

fn definition_of_list(description: &str, items: Value, others: &[(&str, &str)]) -> Value {
    let mut definition = json!({
        "description": description,
        "type": "object",
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "items": { "type": "array", "items": items },
        },
        "required": ["items"],
    });
    for (field, target) in others {
        definition["properties"][*field] = reference(target);
    }
    definition
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("{REFERENCE}{name}") })
}

/// The short name that a `$ref` points at.
pub(crate) fn target(reference: &str) -> String {
    short_name(reference.strip_prefix(REFERENCE).unwrap_or(reference))
}

/// Shortens the names of OpenAPI to package, version and type: `core.v1.Pod`, `meta.v1.ObjectMeta`.
fn short_name(name: &str) -> String {
    const PREFIXES: &[&str] = &[
        "io.k8s.apimachinery.pkg.apis.",
        "io.k8s.apiextensions-apiserver.pkg.apis.",
        "io.k8s.kube-aggregator.pkg.apis.",
        "io.k8s.apimachinery.pkg.api.",
        "io.k8s.apimachinery.pkg.util.",
        "io.k8s.apimachinery.pkg.",
        "io.k8s.api.",
    ];
    let shortened = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix));
    shortened.unwrap_or(name).to_owned()
}
