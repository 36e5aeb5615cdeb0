//! The built-in schemas as OpenAPI says them, for `/openapi/v2`, `/openapi/v3` and whoever explains or diffs with them.
//!
//! Made on demand, and not kept: the documents are some megabytes, and clients ask for them once.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::schema::builtin::builtin;
use crate::schema::descriptions::Descriptions;
use crate::schema::node::{Kind, Presence};
use crate::schema::reference::{ListType, MapType, Property, SchemaRef};
use crate::schema::resource::{GroupVersionKind, resources};

/// Which edition of OpenAPI to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edition {
    /// Swagger 2.0, in which a reference stands alone and defaults are left out.
    V2,
    /// OpenAPI 3.0.
    V3,
}

impl Edition {
    fn reference(self, model: &str) -> Value {
        match self {
            Self::V2 => json!({ "$ref": format!("#/definitions/{model}") }),
            Self::V3 => json!({ "$ref": format!("#/components/schemas/{model}") }),
        }
    }
}

/// The name of a type in OpenAPI: `io.k8s.api.core.v1.Pod` for `core.v1.Pod`.
pub fn model_name(type_name: &str) -> String {
    let package = match type_name.split('.').next().unwrap_or_default() {
        "meta" => "io.k8s.apimachinery.pkg.apis.",
        "apiextensions" => "io.k8s.apiextensions-apiserver.pkg.apis.",
        "apiregistration" => "io.k8s.kube-aggregator.pkg.apis.",
        "version" => "io.k8s.apimachinery.pkg.",
        _ => "io.k8s.api.",
    };
    format!("{package}{type_name}")
}

/// The models of some types and of all that they reach, by name.
pub fn models<'n>(
    types: impl IntoIterator<Item = &'n str>,
    descriptions: &Descriptions,
    edition: Edition,
) -> BTreeMap<String, Value> {
    let mut writer = Writer { descriptions, edition, models: BTreeMap::new() };
    for name in types {
        if let Some(schema) = builtin().type_named(name) {
            writer.add(schema);
        }
    }
    writer.models
}

struct Writer<'d> {
    descriptions: &'d Descriptions,
    edition: Edition,
    models: BTreeMap<String, Value>,
}

impl Writer<'_> {
    /// Adds the model of a structure and of what it reaches.
    fn add(&mut self, schema: SchemaRef<'static>) {
        let Some(name) = schema.type_name() else { return };
        let model = model_name(name);
        if self.models.contains_key(&model) {
            return;
        }
        // Taken before its fields are written, because types go in circles.
        self.models.insert(model.clone(), Value::Null);
        let mut value = json!({ "type": "object", "description": self.descriptions.of_type(name) });
        let mut properties = Map::new();
        let mut required = Vec::new();
        for property in schema.properties() {
            properties.insert(property.name.to_owned(), self.property(schema, property));
            // An object without metadata is refused for its name, not for its form; upstream's schemas say so too.
            if property.required && property.name != "metadata" {
                required.push(property.name);
            }
        }
        value["properties"] = Value::Object(properties);
        if !required.is_empty() {
            value["required"] = required.into();
        }
        // The type itself, not one of the places where it merges differently.
        let own = builtin().type_named(name).unwrap_or(schema);
        if own.map_type() == MapType::Atomic {
            value["x-kubernetes-map-type"] = json!("atomic");
        }
        let kinds = kinds_of(name);
        if !kinds.is_empty() {
            value["x-kubernetes-group-version-kind"] = kinds.into();
        }
        self.models.insert(model, value);
    }

    fn property(&mut self, owner: SchemaRef<'static>, property: Property<'static>) -> Value {
        let schema = property.schema;
        let mut value = self.value(schema);
        let always = property.presence == Presence::Always;
        if let Some(default) = schema.default().cloned().or_else(|| zero(schema).filter(|_| always)) {
            self.put_default(&mut value, default);
        }
        let description = self.descriptions.of_field(owner, property.name);
        if !description.is_empty() {
            self.beside(&mut value, "description", json!(description));
        }
        for (name, extension) in extensions(schema) {
            self.beside(&mut value, name, extension);
        }
        value
    }

    /// A value wherever it stands.
    fn value(&mut self, schema: SchemaRef<'static>) -> Value {
        let typed = |of: &str, format: &str| match format {
            "" => json!({ "type": of }),
            format => json!({ "type": of, "format": format }),
        };
        match schema.kind() {
            Kind::Object => {
                self.add(schema);
                let name = schema.type_name().unwrap_or_default();
                self.edition.reference(&model_name(name))
            }
            Kind::Array => {
                let items = schema.item().map_or(json!({}), |item| self.element(item));
                json!({ "type": "array", "items": items })
            }
            Kind::Map => {
                let values = schema.values().map_or(json!({}), |values| self.element(values));
                json!({ "type": "object", "additionalProperties": values })
            }
            Kind::String => typed("string", ""),
            Kind::Int32 => typed("integer", "int32"),
            Kind::Int64 => typed("integer", "int64"),
            Kind::Number => typed("number", "double"),
            Kind::Bool => typed("boolean", ""),
            Kind::Bytes => typed("string", "byte"),
            Kind::Any => json!({ "type": "object" }),
            special => self.special(special, schema),
        }
    }

    /// An item of a list or a value of a map; there, too, zero is what an absent one is.
    fn element(&mut self, schema: SchemaRef<'static>) -> Value {
        let mut value = self.value(schema);
        if let Some(zero) = zero(schema) {
            self.put_default(&mut value, zero);
        }
        value
    }

    /// Types with a form of their own are models too.
    fn special(&mut self, kind: Kind, schema: SchemaRef<'static>) -> Value {
        let v3 = self.edition == Edition::V3;
        let either = |format: Option<&str>, types: [&str; 2]| {
            let mut value = if v3 {
                json!({ "oneOf": types.map(|of| json!({ "type": of })) })
            } else {
                json!({ "type": "string" })
            };
            if let Some(format) = format {
                value["format"] = json!(format);
            }
            value
        };
        let time = json!({ "type": "string", "format": "date-time" });
        let (name, mut model, description) = match kind {
            Kind::Time => {
                ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", time, "A moment to the second, as RFC 3339 writes it.")
            }
            Kind::MicroTime => (
                "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
                time,
                "A moment to the microsecond, as RFC 3339 writes it.",
            ),
            Kind::Quantity => (
                "io.k8s.apimachinery.pkg.api.resource.Quantity",
                either(None, ["string", "number"]),
                "An amount: a decimal number with a decimal or binary suffix, such as 500m or 2Gi.",
            ),
            Kind::IntOrString => (
                "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
                either(Some("int-or-string"), ["integer", "string"]),
                "A whole number, or text such as a name or a percentage.",
            ),
            Kind::RawExtension => (
                "io.k8s.apimachinery.pkg.runtime.RawExtension",
                json!({ "type": "object" }),
                "An object of a kind that it names itself.",
            ),
            Kind::Fields => (
                "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
                json!({ "type": "object" }),
                "A set of fields, as a tree of their names.",
            ),
            Kind::SchemaOrArray => (
                "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray",
                json!({}),
                "A JSON schema, or a list of them.",
            ),
            Kind::SchemaOrBool => (
                "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool",
                json!({}),
                "A JSON schema, or whether there may be anything.",
            ),
            Kind::SchemaOrStrings => (
                "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
                json!({}),
                "A JSON schema, or a list of names.",
            ),
            _ => ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON", json!({}), "Any JSON value."),
        };
        model["description"] = json!(description);
        self.models.entry(name.to_owned()).or_insert(model);
        if let Some(nested) = schema.nested_schema() {
            self.add(nested);
        }
        self.edition.reference(name)
    }

    /// Puts something beside a value. In the newer edition nothing may stand beside a reference, so that it is wrapped.
    fn beside(&self, value: &mut Value, name: &str, what: Value) {
        if self.edition == Edition::V3 && value.get("$ref").is_some() {
            let reference = value.take();
            *value = json!({ "allOf": [reference] });
        }
        value[name] = what;
    }

    fn put_default(&self, value: &mut Value, default: Value) {
        if self.edition == Edition::V3 {
            self.beside(value, "default", default);
        }
    }
}

/// What an absent value is to Go, where it is a value.
fn zero(schema: SchemaRef<'_>) -> Option<Value> {
    match schema.kind() {
        Kind::String => Some(json!("")),
        Kind::Int32 | Kind::Int64 | Kind::Number => Some(json!(0)),
        Kind::Bool => Some(json!(false)),
        Kind::Object => Some(json!({})),
        _ => None,
    }
}

/// How a value merges.
fn extensions(schema: SchemaRef<'_>) -> Vec<(&'static str, Value)> {
    let mut found = Vec::new();
    match schema.kind() {
        Kind::Array => {
            let of = match schema.list_type() {
                ListType::Atomic => "atomic",
                ListType::Set => "set",
                ListType::Map => "map",
            };
            found.push(("x-kubernetes-list-type", json!(of)));
            let keys: Vec<&str> = schema.list_keys().collect();
            if !keys.is_empty() {
                found.push(("x-kubernetes-list-map-keys", keys.into()));
            }
        }
        Kind::Map if schema.map_type() == MapType::Atomic => found.push(("x-kubernetes-map-type", json!("atomic"))),
        Kind::Object => {
            let own = schema.type_name().and_then(|name| builtin().type_named(name));
            if own.is_some_and(|own| own.map_type() == MapType::Atomic) && schema.map_type() == MapType::Granular {
                found.push(("x-kubernetes-map-type", json!("granular")));
            }
        }
        _ => {}
    }
    let strategy = schema.patch_strategy();
    let words = [(strategy.merge, "merge"), (strategy.replace, "replace"), (strategy.retain_keys, "retainKeys")];
    let words: Vec<&str> = words.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect();
    if !words.is_empty() {
        found.push(("x-kubernetes-patch-strategy", json!(words.join(","))));
    }
    if let Some(key) = schema.merge_key() {
        found.push(("x-kubernetes-patch-merge-key", json!(key)));
    }
    found
}

/// The kinds that objects of a type may name themselves by.
fn kinds_of(type_name: &str) -> Vec<Value> {
    let value = |kind: GroupVersionKind<'_>| json!({ "group": kind.group, "kind": kind.kind, "version": kind.version });
    let mut found = Vec::new();
    for resource in resources() {
        if resource.type_name == type_name {
            found.push(value(resource.group_version_kind()));
        } else if type_name.strip_suffix("List") == Some(resource.type_name) {
            let kind = format!("{}List", resource.kind);
            found.push(value(GroupVersionKind { kind: &kind, ..resource.group_version_kind() }));
        }
        for subresource in resource.subresources {
            let kind = subresource.kind;
            let named = crate::schema::kind_schema(&api_version(kind), kind.kind).and_then(SchemaRef::type_name);
            if named == Some(type_name) && !found.contains(&value(kind)) {
                found.push(value(kind));
            }
        }
    }
    // What every group version knows.
    if let "meta.v1.DeleteOptions" | "meta.v1.WatchEvent" = type_name {
        let kind = type_name.rsplit('.').next().unwrap_or_default();
        for resource in resources() {
            let everywhere = value(GroupVersionKind { kind, ..resource.group_version_kind() });
            if !found.contains(&everywhere) {
                found.push(everywhere);
            }
        }
    }
    if type_name == "meta.v1.Status" {
        found.push(value(GroupVersionKind { group: "", version: "v1", kind: "Status" }));
    }
    found
}

fn api_version(kind: GroupVersionKind<'_>) -> String {
    if kind.group.is_empty() { kind.version.to_owned() } else { format!("{}/{}", kind.group, kind.version) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(edition: Edition) -> BTreeMap<String, Value> {
        models(
            ["core.v1.Pod", "core.v1.PodList", "core.v1.Service", "apps.v1.Deployment"],
            &Descriptions::load(),
            edition,
        )
    }

    #[test]
    fn the_newer_edition_wraps_references_and_says_defaults() {
        let models = pods(Edition::V3);
        let pod = &models["io.k8s.api.core.v1.Pod"];
        assert_eq!(pod["x-kubernetes-group-version-kind"], json!([{ "group": "", "kind": "Pod", "version": "v1" }]));
        let spec = &pod["properties"]["spec"];
        assert_eq!(spec["allOf"], json!([{ "$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec" }]));
        assert_eq!(spec["default"], json!({}));
        assert!(spec["description"].as_str().unwrap().contains("desired behavior"));
        let ports = &models["io.k8s.api.core.v1.Container"]["properties"]["ports"];
        assert_eq!(ports["x-kubernetes-list-type"], "map");
        assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["containerPort", "protocol"]));
        assert_eq!(
            (&ports["x-kubernetes-patch-strategy"], &ports["x-kubernetes-patch-merge-key"]),
            (&json!("merge"), &json!("containerPort"))
        );
        let port = &models["io.k8s.api.core.v1.ContainerPort"];
        assert_eq!(port["required"], json!(["containerPort"]));
        assert_eq!(port["properties"]["protocol"]["default"], "TCP");
        assert_eq!(port["properties"]["containerPort"]["default"], 0);
        let quantity = &models["io.k8s.apimachinery.pkg.api.resource.Quantity"];
        assert_eq!(quantity["oneOf"], json!([{ "type": "string" }, { "type": "number" }]));
        let list = &models["io.k8s.api.core.v1.PodList"];
        assert_eq!((pod.get("required"), &list["required"]), (None, &json!(["items"])));
        assert_eq!(list["x-kubernetes-group-version-kind"][0]["kind"], "PodList");
        let selector = &models["io.k8s.api.core.v1.ServiceSpec"]["properties"]["selector"];
        assert_eq!(selector["x-kubernetes-map-type"], "atomic");
        assert_eq!(models["io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"]["x-kubernetes-map-type"], "atomic");
        let strategy = &models["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"];
        assert_eq!(strategy["x-kubernetes-patch-strategy"], "retainKeys");
    }

    #[test]
    fn the_older_edition_has_bare_references_and_no_defaults() {
        let models = pods(Edition::V2);
        let spec = &models["io.k8s.api.core.v1.Pod"]["properties"]["spec"];
        assert_eq!(spec["$ref"], "#/definitions/io.k8s.api.core.v1.PodSpec");
        assert!(spec.get("allOf").is_none() && spec.get("default").is_none());
        assert_eq!(models["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"], "int-or-string");
    }

    #[test]
    fn every_reference_of_every_kind_leads_to_a_model() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => map.iter().for_each(|(key, value)| match value {
                    Value::String(target) if key == "$ref" => found.push(target.rsplit('/').next().unwrap().to_owned()),
                    value => references(value, found),
                }),
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        for edition in [Edition::V2, Edition::V3] {
            let models = models(builtin().types().map(|(name, _)| name), &Descriptions::load(), edition);
            assert!(models.len() > 600, "{}", models.len());
            for (name, model) in &models {
                let mut found = Vec::new();
                references(model, &mut found);
                assert!(found.iter().all(|target| models.contains_key(target)), "{name}: {found:?}");
                assert_ne!(*model, Value::Null, "{name}");
            }
        }
    }

    #[test]
    fn what_every_group_version_knows_says_so() {
        let models = models(
            ["meta.v1.DeleteOptions", "autoscaling.v1.Scale", "policy.v1.Eviction"],
            &Descriptions::load(),
            Edition::V3,
        );
        let kinds = models["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"]["x-kubernetes-group-version-kind"]
            .as_array()
            .unwrap();
        assert!(kinds.contains(&json!({ "group": "apps", "kind": "DeleteOptions", "version": "v1" })));
        let scale = &models["io.k8s.api.autoscaling.v1.Scale"]["x-kubernetes-group-version-kind"];
        assert_eq!(*scale, json!([{ "group": "autoscaling", "kind": "Scale", "version": "v1" }]));
        let eviction = &models["io.k8s.api.policy.v1.Eviction"]["x-kubernetes-group-version-kind"];
        assert_eq!(*eviction, json!([{ "group": "policy", "kind": "Eviction", "version": "v1" }]));
    }
}
