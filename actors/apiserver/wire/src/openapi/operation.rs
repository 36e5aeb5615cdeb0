//! One operation of the API, and how either edition of OpenAPI writes it.

use k3sd_objects::schema::openapi::Edition;
use serde_json::{Map, Value, json};

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Number,
    Truth,
}

/// A parameter behind the question mark: name, type, what for.
pub(super) type Parameter = (&'static str, Type, &'static str);

/// What an operation reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// An object of a model.
    Model { name: String, required: bool },
    /// A patch of one of the kinds there are.
    Patch,
}

/// An operation: a method on a path.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    /// In lower case.
    pub(super) method: &'static str,
    pub(super) id: String,
    /// `x-kubernetes-action`.
    pub(super) action: &'static str,
    pub(super) description: String,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<Body>,
    /// HTTP status and model; a nameless one is text.
    pub(super) responses: Vec<(u16, String)>,
    /// Group, version and kind that it speaks.
    pub(super) kind: [String; 3],
    /// Whether it is of a built-in kind, which has messages and strategic merge patches.
    pub(super) builtin: bool,
    /// Whether it may answer with events.
    pub(super) streams: bool,
    pub(super) tag: String,
}

/// Where a parameter stands in a path: name, what for.
type Place = (&'static str, &'static str);

const NAMESPACE: Place = ("namespace", "the namespace of the objects");
const NAME: Place = ("name", "the name of the object");
const PATH: Place = ("path", "the path behind the proxy");
const PRETTY: Parameter = ("pretty", Type::Text, "whether the answer is indented");

/// The name of the model of a patch.
pub(super) const PATCH_MODEL: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// A path with its operations.
pub(super) fn item(path: &str, operations: &[Operation], edition: Edition) -> Value {
    let mut item = Map::new();
    for operation in operations {
        item.insert(operation.method.to_owned(), operation.value(edition));
    }
    let places = [NAME, NAMESPACE, PATH].into_iter().filter(|(name, _)| path.contains(&format!("{{{name}}}")));
    let places = places.map(|(name, description)| match edition {
        Edition::V2 => json!({ "name": name, "in": "path", "required": true, "description": description, "type": "string", "uniqueItems": true }),
        Edition::V3 => json!({ "name": name, "in": "path", "required": true, "description": description, "schema": { "type": "string", "uniqueItems": true } }),
    });
    let parameters: Vec<Value> = places.chain([parameter(PRETTY, edition)]).collect();
    item.insert("parameters".to_owned(), parameters.into());
    Value::Object(item)
}

fn parameter((name, of, description): Parameter, edition: Edition) -> Value {
    let of = match of {
        Type::Text => "string",
        Type::Number => "integer",
        Type::Truth => "boolean",
    };
    match edition {
        Edition::V2 => {
            json!({ "name": name, "in": "query", "description": description, "type": of, "uniqueItems": true })
        }
        Edition::V3 => {
            json!({ "name": name, "in": "query", "description": description, "schema": { "type": of, "uniqueItems": true } })
        }
    }
}

/// A reference to a model, or text.
fn schema(model: &str, edition: Edition) -> Value {
    match edition {
        _ if model.is_empty() => json!({ "type": "string" }),
        Edition::V2 => json!({ "$ref": format!("#/definitions/{model}") }),
        Edition::V3 => json!({ "$ref": format!("#/components/schemas/{model}") }),
    }
}

impl Operation {
    fn value(&self, edition: Edition) -> Value {
        let [group, version, kind] = &self.kind;
        let mut value = json!({
            "description": self.description,
            "operationId": self.id,
            "tags": [self.tag],
            "parameters": self.parameters.iter().map(|own| parameter(*own, edition)).collect::<Vec<_>>(),
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": { "group": group, "version": version, "kind": kind },
        });
        let mut responses = Map::new();
        for (code, model) in &self.responses {
            responses.insert(code.to_string(), self.response(*code, model, edition));
        }
        responses.insert("401".to_owned(), json!({ "description": "Unauthorized" }));
        value["responses"] = Value::Object(responses);
        match edition {
            Edition::V2 => self.put_body_v2(&mut value),
            Edition::V3 => {
                if let Some(content) = self.content_v3() {
                    value["requestBody"] = content;
                }
            }
        }
        value
    }

    /// The media types of objects.
    fn media(&self) -> Vec<&'static str> {
        let mut media = vec!["application/json", "application/yaml"];
        if self.builtin {
            media.push("application/vnd.kubernetes.protobuf");
        }
        media
    }

    /// What is answered: the media types.
    fn produces(&self) -> Vec<&'static str> {
        if self.responses.iter().all(|(_, model)| model.is_empty()) {
            return vec!["*/*"];
        }
        let mut media = self.media();
        if self.streams {
            media.push("application/json;stream=watch");
            if self.builtin {
                media.push("application/vnd.kubernetes.protobuf;stream=watch");
            }
        }
        media
    }

    /// The media types of what is read.
    fn consumes(&self) -> Vec<&'static str> {
        match &self.body {
            Some(Body::Patch) if self.builtin => vec![
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
                "application/apply-patch+yaml",
            ],
            Some(Body::Patch) => {
                vec!["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"]
            }
            Some(Body::Model { .. }) => self.media(),
            None => vec!["*/*"],
        }
    }

    fn response(&self, code: u16, model: &str, edition: Edition) -> Value {
        let description = match code {
            201 => "Created",
            202 => "Accepted",
            _ => "OK",
        };
        let schema = schema(model, edition);
        match edition {
            Edition::V2 => json!({ "description": description, "schema": schema }),
            Edition::V3 => {
                let media = if self.streams || code == 200 { self.produces() } else { self.media() };
                let content: Map<String, Value> =
                    media.into_iter().map(|media| (media.to_owned(), json!({ "schema": schema }))).collect();
                json!({ "description": description, "content": content })
            }
        }
    }

    fn put_body_v2(&self, value: &mut Value) {
        value["schemes"] = json!(["https"]);
        value["produces"] = json!(self.produces());
        value["consumes"] = json!(self.consumes());
        let (model, required) = match &self.body {
            Some(Body::Model { name, required }) => (name.as_str(), *required),
            Some(Body::Patch) => (PATCH_MODEL, true),
            None => return,
        };
        let mut body = json!({ "name": "body", "in": "body", "schema": schema(model, Edition::V2) });
        if required {
            body["required"] = json!(true);
        }
        if let Some(parameters) = value["parameters"].as_array_mut() {
            parameters.push(body);
        }
    }

    fn content_v3(&self) -> Option<Value> {
        let (model, required) = match self.body.as_ref()? {
            Body::Model { name, required } => (name.as_str(), *required),
            Body::Patch => (PATCH_MODEL, true),
        };
        let schema = json!({ "schema": schema(model, Edition::V3) });
        let content: Map<String, Value> =
            self.consumes().into_iter().map(|media| (media.to_owned(), schema.clone())).collect();
        let mut body = json!({ "content": content });
        if required {
            body["required"] = json!(true);
        }
        Some(body)
    }
}
