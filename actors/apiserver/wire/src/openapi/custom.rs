//! The models of custom resources: the schema of their definition, with what every object has.

use k3sd_apiserver_store::Resource;
use k3sd_objects::object::Object;
use k3sd_objects::schema::openapi::Edition;
use k3sd_objects::schema::{Descriptions, builtin};
use serde_json::{Map, Value, json};

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";

/// Deepest nesting that is followed; definitions are no deeper.
const DEPTH_MAX: usize = 128;

/// `com.example.stable.v1.CronTab`: the group back to front, the version, the kind.
pub(super) fn name(resource: &Resource, kind: &str) -> String {
    let group: Vec<&str> = resource.group.rsplit('.').collect();
    format!("{}.{}.{kind}", group.join("."), resource.version)
}

/// What a definition says of the version of a resource.
fn version(resource: &Resource, definition: &Object) -> Option<Value> {
    let mut value = definition.value();
    let versions = value["spec"]["versions"].as_array_mut()?;
    let version = versions.iter_mut().find(|version| version["name"] == *resource.version)?;
    Some(version.take())
}

/// Its schema.
fn schema(version: &Value) -> Option<Value> {
    version.pointer("/schema/openAPIV3Schema").filter(|schema| schema.is_object()).cloned()
}

/// The fields by which its objects can be selected, without the dot before them.
fn selectable(version: &Value) -> Vec<Value> {
    let fields = version["selectableFields"].as_array().into_iter().flatten();
    let paths = fields.filter_map(|field| field["jsonPath"].as_str());
    paths.map(|path| json!({ "fieldPath": path.trim_start_matches('.') })).collect()
}

/// The model of a resource's objects and that of its lists, with their names. What every object has is described as it
/// is for pods.
pub(super) fn models(
    resource: &Resource,
    definition: Option<&Object>,
    descriptions: &Descriptions,
    edition: Edition,
) -> [(String, Value); 2] {
    let writer = Writer { descriptions, edition };
    let version = definition.and_then(|definition| version(resource, definition));
    let selectable = version.as_ref().map(selectable).unwrap_or_default();
    let schema = version.as_ref().and_then(schema);
    let preserves = |schema: &Value| schema[PRESERVE] == true;
    let mut model = match (schema, edition) {
        // Clients of the older edition refuse what isn't named, so that nothing is named then.
        (None, _) => json!({ "type": "object" }),
        (Some(schema), Edition::V2) if preserves(&schema) => json!({ "type": "object" }),
        (Some(schema), Edition::V2) => writer.whole(older(schema, 0)),
        (Some(schema), Edition::V3) => writer.whole(schema),
    };
    let kind = |kind: &str| json!([{ "group": *resource.group, "version": *resource.version, "kind": kind }]);
    model["x-kubernetes-group-version-kind"] = kind(&resource.kind);
    if !selectable.is_empty() {
        model["x-kubernetes-selectable-fields"] = selectable.into();
    }
    let own = name(resource, &resource.kind);
    let mut list = json!({
        "type": "object",
        "description": format!("A list of {}.", resource.kind),
        "required": ["items"],
        "properties": {
            "items": { "type": "array", "items": writer.reference(&own), "description": "The objects." },
        },
    });
    writer.put_type(&mut list, "core.v1.PodList", LIST_META);
    list["x-kubernetes-group-version-kind"] = kind(&resource.list_kind);
    [(own, model), (name(resource, &resource.list_kind), list)]
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

struct Writer<'d> {
    descriptions: &'d Descriptions,
    edition: Edition,
}

impl Writer<'_> {
    fn reference(&self, model: &str) -> Value {
        match self.edition {
            Edition::V2 => json!({ "$ref": format!("#/definitions/{model}") }),
            Edition::V3 => json!({ "$ref": format!("#/components/schemas/{model}") }),
        }
    }

    /// Adds `apiVersion`, `kind` and `metadata`, described as they are for a built-in type.
    fn put_type(&self, model: &mut Value, like: &str, metadata: &str) {
        // What somebody else stored may be malformed.
        if !model["properties"].is_object() {
            model["properties"] = json!({});
        }
        let like = builtin().type_named(like);
        let described = |name: &str| like.map_or("", |like| self.descriptions.of_field(like, name));
        for name in ["apiVersion", "kind"] {
            model["properties"][name] = json!({ "type": "string", "description": described(name) });
        }
        // In the newer edition nothing may stand beside a reference.
        let mut value = match self.edition {
            Edition::V2 => self.reference(metadata),
            Edition::V3 => json!({ "allOf": [self.reference(metadata)] }),
        };
        value["description"] = json!(described("metadata"));
        model["properties"]["metadata"] = value;
    }

    /// The schema of a definition with what every object has, at its root and wherever a whole object stands within.
    fn whole(&self, mut schema: Value) -> Value {
        self.embed(&mut schema, 0);
        self.put_type(&mut schema, "core.v1.Pod", OBJECT_META);
        schema
    }

    fn embed(&self, schema: &mut Value, depth: usize) {
        let Value::Object(map) = schema else { return };
        if depth > DEPTH_MAX {
            return;
        }
        if let Some(Value::Object(properties)) = map.get_mut("properties") {
            properties.values_mut().for_each(|property| self.embed(property, depth + 1));
        }
        for below in ["items", "additionalProperties"] {
            if let Some(below) = map.get_mut(below) {
                self.embed(below, depth + 1);
            }
        }
        let has = |name: &str| map.get(name) == Some(&Value::Bool(true));
        // Where anything is allowed, clients of the older edition would refuse what isn't named.
        if !has(EMBEDDED) || (has(PRESERVE) && self.edition == Edition::V2) {
            return;
        }
        let mut required = map.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        for name in ["kind", "apiVersion"] {
            if !required.iter().any(|other| other == name) {
                required.push(json!(name));
            }
        }
        map.insert("required".to_owned(), required.into());
        self.put_type(schema, "core.v1.Pod", OBJECT_META);
    }
}

/// Fields that the older edition has too; others go.
const OLDER: &[&str] = &[
    "description",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "title",
    "type",
    "uniqueItems",
    EMBEDDED,
    INT_OR_STRING,
    PRESERVE,
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
];

/// A schema in the words of the older edition, which knows neither alternatives nor null: where it can't say what is
/// allowed, it says nothing of it.
fn older(schema: Value, depth: usize) -> Value {
    let Value::Object(mut schema) = schema else { return schema };
    if depth > DEPTH_MAX {
        return json!({});
    }
    let has = |schema: &Value, name: &str| schema[name] == true;
    let is = |name: &str| schema.get(name) == Some(&Value::Bool(true));
    let (nullable, preserves) = (is("nullable"), is(PRESERVE));
    let mut out = Map::new();
    let mut required = schema.remove("required");
    if let Some(Value::Object(properties)) = schema.remove("properties").filter(|_| !nullable && !preserves) {
        // A field that may be null may as well be missing, to clients that don't know null.
        if let Some(Value::Array(names)) = &mut required {
            names.retain(|name| {
                !name.as_str().and_then(|name| properties.get(name)).is_some_and(|below| has(below, "nullable"))
            });
        }
        let properties: Map<String, Value> =
            properties.into_iter().map(|(name, below)| (name, older(below, depth + 1))).collect();
        out.insert("properties".to_owned(), properties.into());
    }
    if let Some(items) = schema.remove("items").filter(|items| items.is_object() && !nullable && !preserves) {
        out.insert("items".to_owned(), older(items, depth + 1));
    }
    match schema.remove("additionalProperties") {
        Some(values) if has(&values, "nullable") => {
            required = None;
            out.insert("additionalProperties".to_owned(), older(values, depth + 1));
        }
        Some(values) => _ = out.insert("additionalProperties".to_owned(), older(values, depth + 1)),
        None => {}
    }
    if let Some(required) = required.filter(|required| required.as_array().is_some_and(|names| !names.is_empty())) {
        out.insert("required".to_owned(), required);
    }
    let untyped = nullable
        || (preserves && schema.get("type").is_some_and(|of| of == "object"))
        || (schema.get("type").is_some_and(|of| of == "array") && !out.contains_key("items"));
    for name in OLDER.iter().filter(|name| !(untyped && **name == "type")) {
        if let Some(value) = schema.remove(*name) {
            out.insert((*name).to_owned(), value);
        }
    }
    Value::Object(out)
}
