//! The models of custom resources: the schema of their definition, with what every object has.

use k3sd_apiserver_store::Resource;
use k3sd_objects::object::Object;
use k3sd_objects::schema::openapi::Edition;
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

/// The schema that a definition has for the version of a resource.
fn schema(resource: &Resource, definition: &Object) -> Option<Value> {
    let mut value = definition.value();
    let versions = value["spec"]["versions"].as_array_mut()?;
    let version = versions.iter_mut().find(|version| version["name"] == *resource.version)?;
    Some(version["schema"]["openAPIV3Schema"].take()).filter(Value::is_object)
}

/// The model of a resource's objects and that of its lists, with their names.
pub(super) fn models(resource: &Resource, definition: Option<&Object>, edition: Edition) -> [(String, Value); 2] {
    let schema = definition.and_then(|definition| schema(resource, definition));
    let preserves = |schema: &Value| schema[PRESERVE] == true;
    let mut model = match (schema, edition) {
        // Clients of the older edition refuse what isn't named, so that nothing is named then.
        (Some(schema), Edition::V2) if preserves(&schema) => json!({ "type": "object" }),
        (Some(schema), Edition::V2) => older(schema, 0),
        (Some(schema), Edition::V3) => schema,
        (None, _) => json!({ "type": "object" }),
    };
    if model.get("properties").is_some() || edition == Edition::V3 {
        embed(&mut model, edition, true, 0);
    }
    let kind = |kind: &str| json!([{ "group": *resource.group, "version": *resource.version, "kind": kind }]);
    model["x-kubernetes-group-version-kind"] = kind(&resource.kind);
    let own = name(resource, &resource.kind);
    let mut list = json!({
        "type": "object",
        "description": format!("A list of {}.", resource.kind),
        "required": ["items"],
        "properties": {
            "items": { "type": "array", "items": reference(&own, edition), "description": "The objects." },
            "metadata": described("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta", LIST_METADATA, edition),
        },
    });
    put_type(&mut list);
    list["x-kubernetes-group-version-kind"] = kind(&resource.list_kind);
    [(own, model), (name(resource, &resource.list_kind), list)]
}

const METADATA: &str = "What every object has: name, labels, owners and more.";
const LIST_METADATA: &str = "What every list has: its version, and how to go on.";

fn reference(model: &str, edition: Edition) -> Value {
    match edition {
        Edition::V2 => json!({ "$ref": format!("#/definitions/{model}") }),
        Edition::V3 => json!({ "$ref": format!("#/components/schemas/{model}") }),
    }
}

/// A reference with something beside it, which the newer edition only allows around it.
fn described(model: &str, description: &str, edition: Edition) -> Value {
    let reference = reference(model, edition);
    match edition {
        Edition::V2 => {
            let mut value = reference;
            value["description"] = json!(description);
            value
        }
        Edition::V3 => json!({ "allOf": [reference], "description": description }),
    }
}

fn put_type(model: &mut Value) {
    let text = |description: &str| json!({ "type": "string", "description": description });
    model["properties"]["apiVersion"] = text("The group and version that the object is written in.");
    model["properties"]["kind"] = text("The kind of the object.");
}

/// Adds what whole objects have, at the root and wherever one stands within.
fn embed(schema: &mut Value, edition: Edition, root: bool, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    let Value::Object(map) = schema else { return };
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(|property| embed(property, edition, false, depth + 1));
    }
    for below in ["items", "additionalProperties"] {
        if let Some(below) = map.get_mut(below) {
            embed(below, edition, false, depth + 1);
        }
    }
    if !root && map.get(EMBEDDED) != Some(&Value::Bool(true)) {
        return;
    }
    if !map.get("properties").is_some_and(Value::is_object) {
        map.insert("properties".to_owned(), json!({}));
    }
    schema["properties"]["metadata"] = described("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", METADATA, edition);
    put_type(schema);
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
    "required",
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
    let has = |name: &str| schema.get(name) == Some(&Value::Bool(true));
    let anything = has("nullable") || has(PRESERVE);
    let untyped = anything || has(INT_OR_STRING);
    let mut out = Map::new();
    if !anything {
        if let Some(Value::Object(properties)) = schema.remove("properties") {
            let properties: Map<String, Value> =
                properties.into_iter().map(|(name, below)| (name, older(below, depth + 1))).collect();
            out.insert("properties".to_owned(), properties.into());
        }
        for below in ["items", "additionalProperties"] {
            if let Some(value) = schema.remove(below).filter(Value::is_object) {
                out.insert(below.to_owned(), older(value, depth + 1));
            }
        }
    }
    for name in OLDER {
        let kept = match *name {
            "type" | "format" | "enum" => !untyped,
            "required" => !anything,
            _ => true,
        };
        if let Some(value) = schema.remove(*name).filter(|_| kept) {
            out.insert((*name).to_owned(), value);
        }
    }
    Value::Object(out)
}
