//! The documents, written part by part: never a tree of the whole, which would take ten times its size.

use std::collections::BTreeSet;

use k3sd_apiserver_store::{Catalog, Resource, Version};
use k3sd_objects::decode::to_bytes;
use k3sd_objects::object::Object;
use k3sd_objects::schema::Descriptions;
use k3sd_objects::schema::openapi::{self, Edition};
use serde_json::{Value, json};

use crate::openapi::operation::{self, PATCH_MODEL};
use crate::openapi::{TOKEN, custom, gnostic, gnostic3, paths};

/// Finds the definition of a custom resource.
pub(super) type Definition<'a> = &'a dyn Fn(&Resource) -> Option<Object>;

/// A JSON object that is being written.
struct Fields {
    out: Vec<u8>,
}

impl Fields {
    fn new() -> Self {
        Self { out: b"{".to_vec() }
    }

    fn put(&mut self, name: &str, value: &Value) {
        self.put_json(name, &to_bytes(value));
    }

    fn put_json(&mut self, name: &str, json: &[u8]) {
        if self.out.len() > 1 {
            self.out.push(b',');
        }
        self.out.extend_from_slice(&to_bytes(&Value::from(name)));
        self.out.push(b':');
        self.out.extend_from_slice(json);
    }

    fn end(mut self) -> Vec<u8> {
        self.out.push(b'}');
        self.out
    }
}

fn info(version: &str) -> Value {
    json!({ "title": "Kubernetes", "version": version })
}

fn security() -> Value {
    json!({ "BearerToken": { "type": "apiKey", "name": "authorization", "in": "header", "description": TOKEN } })
}

fn patch_model() -> Value {
    json!({ "type": "object", "description": "A patch, in one of the forms there are." })
}

/// What a document of the newer edition is about.
#[derive(Clone, Copy)]
pub(super) enum About<'a> {
    /// A version of a group.
    Version(&'a str, &'a Version, Definition<'a>),
    /// `/version`.
    Server,
}

fn v3(about: About<'_>, sink: &mut dyn Sink) {
    match about {
        About::Version(group, version, definition) => v3_of_group(group, version, definition, sink),
        About::Server => v3_of_server(sink),
    }
}

fn v3_of_group(group: &str, version: &Version, definition: Definition<'_>, sink: &mut dyn Sink) {
    for (path, operations) in paths::of(group, version) {
        sink.path(&path, &operation::item(&path, &operations, Edition::V3));
    }
    let types = paths::types(version);
    let descriptions = Descriptions::load();
    for (name, model) in openapi::models(types.iter().map(String::as_str), &descriptions, Edition::V3) {
        sink.model(&name, &model);
    }
    sink.model(PATCH_MODEL, &patch_model());
    for resource in version.resources.iter().filter(|resource| resource.custom.is_some()) {
        for (name, model) in custom::models(resource, definition(resource).as_ref(), &descriptions, Edition::V3) {
            sink.model(&name, &model);
        }
    }
}

fn v3_of_server(sink: &mut dyn Sink) {
    const MODEL: &str = "version.Info";
    let name = openapi::model_name(MODEL);
    let content = json!({ "schema": { "$ref": format!("#/components/schemas/{name}") } });
    let get = json!({
        "description": "get the version of the server", "operationId": "getCodeVersion", "tags": ["version"],
        "responses": {
            "200": { "description": "OK", "content": { "application/json": content } },
            "401": { "description": "Unauthorized" },
        },
    });
    sink.path("/version/", &json!({ "get": get }));
    for (name, model) in openapi::models([MODEL], &Descriptions::load(), Edition::V3) {
        sink.model(&name, &model);
    }
}

/// A document of the newer edition, in JSON.
pub(super) fn v3_json(git_version: &str, about: About<'_>) -> Vec<u8> {
    let mut sink = Json { paths: Fields::new(), models: Fields::new() };
    v3(about, &mut sink);
    let mut components = Fields::new();
    components.put_json("schemas", &sink.models.end());
    components.put("securitySchemes", &security());
    let mut document = Fields::new();
    document.put("openapi", &json!("3.0.0"));
    document.put("info", &info(git_version));
    document.put_json("paths", &sink.paths.end());
    document.put_json("components", &components.end());
    document.end()
}

/// The same in protobuf.
pub(super) fn v3_protobuf(git_version: &str, about: About<'_>) -> Vec<u8> {
    let mut sink = ProtobufV3::default();
    v3(about, &mut sink);
    gnostic3::document(git_version, &sink.paths, &sink.models)
}

/// The parts of a document, each written as it comes.
trait Sink {
    fn path(&mut self, path: &str, item: &Value);
    fn model(&mut self, name: &str, model: &Value);
}

struct Json {
    paths: Fields,
    models: Fields,
}

impl Sink for Json {
    fn path(&mut self, path: &str, item: &Value) {
        self.paths.put(path, item);
    }

    fn model(&mut self, name: &str, model: &Value) {
        self.models.put(name, model);
    }
}

#[derive(Default)]
struct Protobuf {
    paths: Vec<u8>,
    models: Vec<u8>,
}

impl Sink for Protobuf {
    fn path(&mut self, path: &str, item: &Value) {
        gnostic::put_path(&mut self.paths, path, item);
    }

    fn model(&mut self, name: &str, model: &Value) {
        gnostic::put_definition(&mut self.models, name, model);
    }
}

#[derive(Default)]
struct ProtobufV3 {
    paths: Vec<u8>,
    models: Vec<u8>,
}

impl Sink for ProtobufV3 {
    fn path(&mut self, path: &str, item: &Value) {
        gnostic3::put_path(&mut self.paths, path, item);
    }

    fn model(&mut self, name: &str, model: &Value) {
        gnostic3::put_model(&mut self.models, name, model);
    }
}

/// The one document of the older edition, in JSON.
pub(super) fn v2_json(git_version: &str, catalog: &Catalog, definition: Definition<'_>) -> Vec<u8> {
    let mut sink = Json { paths: Fields::new(), models: Fields::new() };
    v2(catalog, definition, &mut sink);
    let mut document = Fields::new();
    document.put("swagger", &json!("2.0"));
    document.put("info", &info(git_version));
    document.put_json("paths", &sink.paths.end());
    document.put_json("definitions", &sink.models.end());
    document.put("securityDefinitions", &security());
    document.put("security", &json!([{ "BearerToken": [] }]));
    document.end()
}

/// The same in protobuf.
pub(super) fn v2_protobuf(git_version: &str, catalog: &Catalog, definition: Definition<'_>) -> Vec<u8> {
    let mut sink = Protobuf::default();
    v2(catalog, definition, &mut sink);
    gnostic::document(git_version, &sink.paths, &sink.models)
}

fn v2(catalog: &Catalog, definition: Definition<'_>, sink: &mut dyn Sink) {
    let descriptions = Descriptions::load();
    let mut written = BTreeSet::new();
    for group in catalog.groups() {
        for version in &group.versions {
            for (path, operations) in paths::of(&group.name, version) {
                sink.path(&path, &operation::item(&path, &operations, Edition::V2));
            }
            // Version by version, so that no more than the models of one are in memory as trees.
            let types = paths::types(version);
            let new = types.iter().map(String::as_str).filter(|name| !written.contains(&openapi::model_name(name)));
            for (name, model) in openapi::models(new, &descriptions, Edition::V2) {
                if !written.contains(&name) {
                    sink.model(&name, &model);
                    written.insert(name);
                }
            }
            for resource in version.resources.iter().filter(|resource| resource.custom.is_some()) {
                for (name, model) in custom::models(resource, definition(resource).as_ref(), &descriptions, Edition::V2)
                {
                    sink.model(&name, &model);
                }
            }
        }
    }
    sink.model(PATCH_MODEL, &patch_model());
}
