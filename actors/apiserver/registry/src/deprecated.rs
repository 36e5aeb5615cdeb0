//! Resources that clients are asked to leave.

use k3sd_apiserver_store::Resource;

/// Built-in resources: group, version, plural, text.
const DEPRECATED: &[(&str, &str, &str, &str)] = &[
    ("", "v1", "componentstatuses", "v1 ComponentStatus is deprecated in v1.19+"),
    ("", "v1", "endpoints", "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
];

/// What a client of a resource is warned of.
pub(crate) fn warning(resource: &Resource) -> Option<String> {
    if let Some(custom) = &resource.custom {
        return custom.deprecation_warning.clone();
    }
    let row = |(group, version, plural, _): &&(&str, &str, &str, &str)| {
        (*group, *version, *plural) == (&*resource.group, &*resource.version, &*resource.plural)
    };
    DEPRECATED.iter().find(row).map(|(.., text)| (*text).to_owned())
}
