//! Against what `kubectl` looks for.

use k3sd_apiserver_store::{CustomVersion, Schema, Subresource};
use k3sd_objects::object::Selectable;
use k3sd_objects::schema::openapi::Edition;
use k3sd_objects::schema::structural;
use serde_json::Value;

use super::*;
use crate::negotiate::Wish;

fn catalog() -> Catalog {
    Catalog::builtin(|resource| resource.served)
}

fn definition(generation: i64, schema: &Value) -> Object {
    let value = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "widgets.shop.example.com", "uid": "u", "generation": generation },
        "spec": { "versions": [{
            "name": "v1", "schema": { "openAPIV3Schema": schema }, "selectableFields": [{ "jsonPath": ".spec.size" }],
        }] },
    });
    Object::parse(Bytes::from(to_bytes(&value)), &Selectable::default()).unwrap()
}

fn schema() -> Value {
    json!({
        "type": "object", "description": "A thing.", "required": ["spec"],
        "properties": { "spec": { "type": "object", "properties": {
            "size": { "type": "integer", "format": "int32", "default": 3, "description": "How large." },
            "port": { "x-kubernetes-int-or-string": true, "anyOf": [{ "type": "integer" }, { "type": "string" }] },
            "maybe": { "type": "string", "nullable": true },
            "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            "inner": { "type": "object", "x-kubernetes-embedded-resource": true },
        } } },
    })
}

fn with_custom() -> Catalog {
    let catalog = catalog();
    let pods = catalog.resource("", "v1", "pods").unwrap();
    let status = pods.subresource("status").unwrap().clone();
    let widget = Resource {
        group: "shop.example.com".into(),
        version: "v1".into(),
        api_version: "shop.example.com/v1".into(),
        plural: "widgets".into(),
        singular: "widget".into(),
        kind: "Widget".into(),
        list_kind: "WidgetList".into(),
        namespaced: true,
        verbs: pods.verbs.clone(),
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: vec![Subresource {
            group: "shop.example.com".into(),
            version: "v1".into(),
            kind: "Widget".into(),
            ..status
        }],
        schema: Schema::Custom(Arc::new(structural(&schema()).unwrap())),
        generation: true,
        stored: None,
        custom: Some(Arc::new(CustomVersion::default())),
    };
    catalog.with_custom([Arc::new(widget)])
}

/// The document of an answer.
fn tree(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).expect("JSON")
}

fn none(_: &Resource) -> Option<Object> {
    None
}

fn get(catalog: &Catalog, path: &str) -> Reply {
    let ask = Ask { path, ..Ask::default() };
    OpenApi::new("v1.34.1").answer(catalog, &ask, &|_| Some(definition(1, &schema()))).expect(path)
}

/// All references of a document lead somewhere.
fn check_references(document: &Value, prefix: &str, models: &Value) {
    match document {
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::String(target) if name == "$ref" => {
                        let model = target.strip_prefix(prefix).unwrap_or_else(|| panic!("{target}"));
                        assert!(models.get(model).is_some(), "{target}");
                    }
                    value => check_references(value, prefix, models),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| check_references(item, prefix, models)),
        _ => {}
    }
}

#[test]
fn the_index_leads_to_documents_that_may_be_kept() {
    let catalog = catalog();
    let index = get(&catalog, "/openapi/v3");
    let index = tree(&index);
    let paths = index["paths"].as_object().unwrap();
    for path in ["api/v1", "apis/apps/v1", "apis/autoscaling/v2", "version"] {
        let url = paths[path]["serverRelativeURL"].as_str().unwrap();
        let (url, hash) = url.split_once("?hash=").unwrap();
        assert_eq!((url.strip_prefix("/openapi/v3/"), hash.len()), (Some(path), 128));
        let api = OpenApi::new("v1.34.1");
        let ask = Ask { path: url, hash: Some(hash), now: 1_704_164_645, ..Ask::default() };
        let reply = api.answer(&catalog, &ask, &none).unwrap();
        assert_eq!((reply.code, reply.header("cache-control")), (200, Some("public, immutable")));
        assert_eq!(reply.header("expires"), Some("Wed, 01 Jan 2025 03:04:05 GMT"));
        assert_eq!(reply.header("etag"), Some(&*format!("\"{hash}\"")));
        let known = format!("\"{hash}\"");
        let again = api.answer(&catalog, &Ask { if_none_match: &known, ..ask }, &none).unwrap();
        assert_eq!((again.code, again.body.len()), (304, 0));
        let stale = api.answer(&catalog, &Ask { hash: Some("00"), ..ask }, &none).unwrap();
        assert_eq!((stale.code, stale.header("location")), (301, Some(&*format!("{url}?hash={hash}"))));
    }
}

#[test]
fn every_document_is_whole() {
    let catalog = with_custom();
    let index = tree(&get(&catalog, "/openapi/v3"));
    let mut bytes = 0;
    for path in index["paths"].as_object().unwrap().keys() {
        let reply = get(&catalog, &format!("/openapi/v3/{path}"));
        bytes += reply.body.len();
        let document = tree(&reply);
        assert_eq!((&document["openapi"], &document["info"]["version"]), (&json!("3.0.0"), &json!("v1.34.1")));
        check_references(&document, "#/components/schemas/", &document["components"]["schemas"]);
        let mut ids = std::collections::BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
                assert!(ids.insert(operation["operationId"].to_string()), "{method} {path}");
            }
        }
    }
    assert!(bytes > 2_000_000, "{bytes}");
}

#[test]
fn server_side_validation_is_announced() {
    // `kubectl` looks for the parameter on each PATCH of the kind.
    for (path, kind) in [("/openapi/v3/api/v1", "Namespace"), ("/openapi/v3/apis/shop.example.com/v1", "Widget")] {
        let document = tree(&get(&with_custom(), path));
        let mut found = 0;
        for item in document["paths"].as_object().unwrap().values() {
            let Some(patch) =
                item.get("patch").filter(|patch| patch["x-kubernetes-group-version-kind"]["kind"] == kind)
            else {
                continue;
            };
            let names: Vec<&Value> = patch["parameters"].as_array().unwrap().iter().map(|own| &own["name"]).collect();
            assert!(names.contains(&&json!("fieldValidation")) && names.contains(&&json!("dryRun")), "{names:?}");
            let content = patch["requestBody"]["content"].as_object().unwrap();
            assert!(content.contains_key("application/apply-patch+yaml"));
            assert_eq!(content.contains_key("application/strategic-merge-patch+json"), kind == "Namespace");
            found += 1;
        }
        assert_eq!(found, 2, "{kind}: the object and its status");
    }
}

#[test]
fn operations_are_named_as_upstream_names_them() {
    let core = tree(&get(&catalog(), "/openapi/v3/api/v1"));
    let id = |path: &str, method: &str| core["paths"][path][method]["operationId"].clone();
    let pod = "/api/v1/namespaces/{namespace}/pods/{name}";
    for (path, method, expected) in [
        ("/api/v1/pods", "get", "listCoreV1PodForAllNamespaces"),
        ("/api/v1/namespaces/{namespace}/pods", "get", "listCoreV1NamespacedPod"),
        ("/api/v1/namespaces/{namespace}/pods", "post", "createCoreV1NamespacedPod"),
        ("/api/v1/namespaces/{namespace}/pods", "delete", "deleteCoreV1CollectionNamespacedPod"),
        (pod, "get", "readCoreV1NamespacedPod"),
        (pod, "put", "replaceCoreV1NamespacedPod"),
        (pod, "patch", "patchCoreV1NamespacedPod"),
        (pod, "delete", "deleteCoreV1NamespacedPod"),
        (&format!("{pod}/status"), "put", "replaceCoreV1NamespacedPodStatus"),
        (&format!("{pod}/log"), "get", "readCoreV1NamespacedPodLog"),
        (&format!("{pod}/eviction"), "post", "createCoreV1NamespacedPodEviction"),
        (&format!("{pod}/exec"), "get", "connectCoreV1GetNamespacedPodExec"),
        (&format!("{pod}/proxy/{{path}}"), "delete", "connectCoreV1DeleteNamespacedPodProxyWithPath"),
        ("/api/v1/nodes/{name}", "get", "readCoreV1Node"),
    ] {
        assert_eq!(id(path, method), expected, "{method} {path}");
    }
    let rbac = tree(&get(&catalog(), "/openapi/v3/apis/rbac.authorization.k8s.io/v1"));
    let role = &rbac["paths"]["/apis/rbac.authorization.k8s.io/v1/clusterroles"]["get"];
    assert_eq!(
        (&role["operationId"], &role["tags"]),
        (&json!("listRbacAuthorizationV1ClusterRole"), &json!(["rbacAuthorization_v1"]))
    );
    assert_eq!(role["x-kubernetes-action"], "list");
}

#[test]
fn custom_resources_are_described_by_their_definition() {
    let catalog = with_custom();
    let document = tree(&get(&catalog, "/openapi/v3/apis/shop.example.com/v1"));
    let widget = &document["components"]["schemas"]["com.example.shop.v1.Widget"];
    assert_eq!((&widget["description"], &widget["required"]), (&json!("A thing."), &json!(["spec"])));
    assert_eq!(
        widget["x-kubernetes-group-version-kind"],
        json!([{ "group": "shop.example.com", "version": "v1", "kind": "Widget" }])
    );
    assert_eq!(widget["properties"]["spec"]["properties"]["size"]["default"], 3);
    assert_eq!(widget["x-kubernetes-selectable-fields"], json!([{ "fieldPath": "spec.size" }]));
    let metadata = json!("#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    assert_eq!(widget["properties"]["metadata"]["allOf"][0]["$ref"], metadata);
    assert_eq!(
        widget["properties"]["spec"]["properties"]["inner"]["properties"]["metadata"]["allOf"][0]["$ref"],
        metadata
    );
    let list = &document["components"]["schemas"]["com.example.shop.v1.WidgetList"];
    assert_eq!(list["properties"]["items"]["items"]["$ref"], "#/components/schemas/com.example.shop.v1.Widget");
    let older = tree(&get(&catalog, "/openapi/v2"));
    let spec = &older["definitions"]["com.example.shop.v1.Widget"]["properties"]["spec"]["properties"];
    assert_eq!(spec["size"], json!({ "type": "integer", "format": "int32", "description": "How large." }));
    assert_eq!(spec["port"], json!({ "x-kubernetes-int-or-string": true }));
    assert_eq!(spec["maybe"], json!({}));
    assert_eq!(spec["free"], json!({ "x-kubernetes-preserve-unknown-fields": true }));
    let described = |field: &str| widget["properties"][field]["description"].as_str().unwrap().to_owned();
    assert!(described("apiVersion").starts_with("APIVersion defines"));
    assert!(described("metadata").starts_with("Standard object's metadata"));
}

#[test]
fn what_the_conformance_suite_compares_is_published_as_it_came() {
    // The suite drops what every object has from the published schema, and compares the rest with what it declared.
    let declared = json!({
        "description": "Foo CRD for Testing", "type": "object",
        "properties": {
            "spec": { "type": "object", "description": "Specification of Foo", "properties": {
                "bars": { "description": "List of Bars and their specs.", "type": "array", "items": {
                    "type": "object", "required": ["name"], "properties": {
                        "name": { "description": "Name of Bar.", "type": "string" },
                        "feeling": { "description": "Whether Bar is feeling great.", "type": "string", "enum": ["Great", "Down"] },
                        "bazs": { "description": "List of Bazs.", "items": { "type": "string" }, "type": "array" },
                    } } },
            } },
        },
    });
    let definition = definition(1, &declared);
    let ask = Ask { path: "/openapi/v2", ..Ask::default() };
    let reply = OpenApi::new("v1.34.1").answer(&with_custom(), &ask, &|_| Some(definition.clone())).unwrap();
    let mut published = tree(&reply)["definitions"]["com.example.shop.v1.Widget"].take();
    for extension in ["x-kubernetes-group-version-kind", "x-kubernetes-selectable-fields"] {
        published.as_object_mut().unwrap().remove(extension);
    }
    for field in ["apiVersion", "kind", "metadata"] {
        assert!(published["properties"].as_object_mut().unwrap().remove(field).is_some(), "{field}");
    }
    assert_eq!(published, declared);
    let anything = json!({ "type": "object", "description": "x", "x-kubernetes-preserve-unknown-fields": true });
    let anything = super::tests::definition(2, &anything);
    let reply = OpenApi::new("v1.34.1").answer(&with_custom(), &ask, &|_| Some(anything.clone())).unwrap();
    let mut published = tree(&reply)["definitions"]["com.example.shop.v1.Widget"].take();
    for extension in ["x-kubernetes-group-version-kind", "x-kubernetes-selectable-fields"] {
        published.as_object_mut().unwrap().remove(extension);
    }
    assert_eq!(published, json!({ "type": "object" }));
}

/// All places in a value.
fn places(value: &Value, prefix: &str, found: &mut Vec<String>) {
    found.push(prefix.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| places(value, &format!("{prefix}/{key}"), found)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| places(value, &format!("{prefix}/{index}"), found));
        }
        _ => {}
    }
}

#[test]
fn odd_schemas_make_odd_documents_and_nothing_worse() {
    let mut schema = schema();
    schema["required"] = json!(["spec", "ghost"]);
    let (catalog, mut found) = (with_custom(), Vec::new());
    let custom = catalog.resource("shop.example.com", "v1", "widgets").unwrap();
    let descriptions = k3sd_objects::schema::Descriptions::load();
    places(&schema, "", &mut found);
    for place in found {
        for odd in
            [json!(null), json!(true), json!(1), json!("x"), json!([]), json!([null, "a", {}]), json!({ "": null })]
        {
            let mut changed = schema.clone();
            *changed.pointer_mut(&place).unwrap() = odd;
            let definition = definition(1, &changed);
            for edition in [Edition::V2, Edition::V3] {
                for (name, model) in custom::models(custom, Some(&definition), &descriptions, edition) {
                    assert!(model.is_object(), "{name}");
                    gnostic::put_definition(&mut Vec::new(), &name, &model);
                    gnostic3::put_model(&mut Vec::new(), &name, &model);
                }
            }
        }
    }
}

#[test]
fn a_changed_definition_is_seen_at_once() {
    let catalog = with_custom();
    let api = OpenApi::new("v1.34.1");
    let ask = Ask { path: "/openapi/v3/apis/shop.example.com/v1", ..Ask::default() };
    let first = api.answer(&catalog, &ask, &|_| Some(definition(1, &schema()))).unwrap();
    let mut changed = schema();
    changed["description"] = json!("Another thing.");
    let second = api.answer(&catalog, &ask, &|_| Some(definition(2, &changed))).unwrap();
    assert_ne!(first.header("etag"), second.header("etag"));
    let model =
        |reply: &Reply| tree(reply)["components"]["schemas"]["com.example.shop.v1.Widget"]["description"].clone();
    assert_eq!((model(&first), model(&second)), (json!("A thing."), json!("Another thing.")));
    // Without the resource there is no document.
    assert_eq!(api.answer(&super::tests::catalog(), &ask, &none), None);
}

#[test]
fn the_older_edition_is_one_document() {
    let catalog = with_custom();
    let reply = get(&catalog, "/openapi/v2");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let document = tree(&reply);
    assert_eq!(document["swagger"], "2.0");
    check_references(&document, "#/definitions/", &document["definitions"]);
    for definition in ["io.k8s.api.core.v1.Pod", "io.k8s.api.apps.v1.Deployment", "com.example.shop.v1.Widget"] {
        assert!(document["definitions"].get(definition).is_some(), "{definition}");
    }
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    let names: Vec<&Value> = patch["parameters"].as_array().unwrap().iter().map(|own| &own["name"]).collect();
    assert!(names.contains(&&json!("fieldValidation")) && names.contains(&&json!("body")));
}

/// Reads a message as far as its fields: numbers with their bytes, or numbers.
fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let bytes = match key & 7 {
            0 => {
                let before = message;
                varint(&mut message);
                &before[..before.len() - message.len()]
            }
            1 => message.split_off(..8).unwrap(),
            2 => {
                let length = usize::try_from(varint(&mut message)).unwrap();
                message.split_off(..length).unwrap()
            }
            other => panic!("wire type {other}"),
        };
        found.push((key >> 3, bytes));
    }
    found
}

fn one(message: &[u8], number: u64) -> &[u8] {
    fields(message).into_iter().find(|(found, _)| *found == number).unwrap_or_else(|| panic!("field {number}")).1
}

/// The value of an entry of a map, by its name.
fn named<'m>(entries: &'m [u8], number: u64, name: &str) -> &'m [u8] {
    let entries = fields(entries).into_iter().filter(|(found, _)| *found == number);
    let mut same = entries.filter(|(_, entry)| one(entry, 1) == name.as_bytes());
    one(same.next().unwrap_or_else(|| panic!("{name}")).1, 2)
}

#[test]
fn clients_of_go_read_the_older_edition_as_messages() {
    let catalog = catalog();
    let accept = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let ask = Ask { path: "/openapi/v2", wish: Wish { accept, ..Wish::default() }, ..Ask::default() };
    let reply = OpenApi::new("v1.34.1").answer(&catalog, &ask, &none).unwrap();
    assert_eq!(reply.header("content-type"), Some(V2_PROTOBUF));
    let document = &reply.body;
    assert_eq!((one(document, 1), one(one(document, 2), 2)), (&b"2.0"[..], &b"v1.34.1"[..]));
    let pod = named(one(document, 9), 1, "io.k8s.api.core.v1.Pod");
    let spec = named(one(pod, 25), 1, "spec");
    assert_eq!(one(spec, 1), b"#/definitions/io.k8s.api.core.v1.PodSpec");
    let kinds = named(pod, 31, "x-kubernetes-group-version-kind");
    let kinds: Value = serde_json::from_slice(one(kinds, 2)).unwrap();
    assert_eq!(kinds, json!([{ "group": "", "kind": "Pod", "version": "v1" }]));
    let path = named(one(document, 8), 2, "/api/v1/namespaces/{namespace}/pods/{name}");
    let patch = one(path, 8);
    assert_eq!(one(patch, 5), b"patchCoreV1NamespacedPod");
    // ParametersItem.parameter.non_body_parameter.query_parameter_sub_schema.name
    let queries = fields(patch).into_iter().filter(|(number, _)| *number == 8).map(|(_, item)| one(item, 1));
    let queries = queries.filter_map(|parameter| fields(parameter).into_iter().find(|(number, _)| *number == 2));
    let names: Vec<&[u8]> = queries.map(|(_, other)| one(one(other, 3), 4)).collect();
    assert!(names.contains(&&b"fieldValidation"[..]), "{names:?}");
}

#[test]
fn clients_of_go_read_the_newer_edition_as_messages() {
    let catalog = with_custom();
    let read = |path: &str, accept: &str| {
        let ask = Ask { path, wish: Wish { accept, ..Wish::default() }, ..Ask::default() };
        let reply = OpenApi::new("v1.34.1").answer(&catalog, &ask, &|_| Some(definition(1, &schema()))).unwrap();
        assert_eq!(reply.header("content-type"), Some(V3_PROTOBUF), "{path}");
        reply
    };
    let core = read("/openapi/v3/api/v1", V3_PROTOBUF_OLD);
    let document = &core.body;
    assert_eq!((one(document, 1), one(one(document, 2), 6)), (&b"3.0.0"[..], &b"v1.34.1"[..]));
    let plain = get(&catalog, "/openapi/v3/api/v1");
    assert_eq!(core.header("etag"), plain.header("etag"), "one hash for both forms, as in the index");
    let models = |document: &'static [u8]| one(one(document, 5), 1);
    let document: &'static [u8] = Vec::from(&document[..]).leak();
    // SchemaOrReference.schema
    let pod = one(named(models(document), 1, "io.k8s.api.core.v1.Pod"), 1);
    assert_eq!(one(pod, 25), b"object");
    let spec = one(named(one(pod, 31), 1, "spec"), 1);
    // What stands beside a reference wraps it: Schema.all_of.reference._ref
    assert_eq!(one(one(one(spec, 26), 2), 1), b"#/components/schemas/io.k8s.api.core.v1.PodSpec");
    assert_eq!(one(spec, 33), b"", "an empty object as default is one without a value");
    let kinds: Value =
        serde_json::from_slice(one(named(pod, 36, "x-kubernetes-group-version-kind"), 2)).expect("YAML that is JSON");
    assert_eq!(kinds, json!([{ "group": "", "kind": "Pod", "version": "v1" }]));
    let path = named(one(document, 4), 1, "/api/v1/namespaces/{namespace}/pods/{name}");
    let patch = one(path, 10);
    assert_eq!(one(patch, 5), b"patchCoreV1NamespacedPod");
    let names = fields(patch).into_iter().filter(|(number, _)| *number == 6).map(|(_, item)| one(one(item, 1), 1));
    assert!(names.collect::<Vec<_>>().contains(&&b"fieldValidation"[..]));
    // RequestBodyOrReference.request_body.content["…"].schema.reference._ref
    let content = one(one(one(patch, 7), 1), 2);
    let applied = named(content, 1, "application/apply-patch+yaml");
    assert_eq!(one(one(one(applied, 1), 2), 1), format!("#/components/schemas/{}", operation::PATCH_MODEL).as_bytes());
    // Responses.response_or_reference["200"].response.description
    assert_eq!(one(one(named(one(patch, 8), 2, "200"), 1), 1), b"OK");

    let own = read("/openapi/v3/apis/shop.example.com/v1", V3_PROTOBUF);
    let own: &'static [u8] = Vec::from(&own.body[..]).leak();
    let widget = one(named(models(own), 1, "com.example.shop.v1.Widget"), 1);
    let spec = one(named(one(widget, 31), 1, "spec"), 1);
    let size = one(named(one(spec, 31), 1, "size"), 1);
    assert_eq!(one(one(size, 33), 1), 3f64.to_le_bytes(), "a default that is a number");
    let port = one(named(one(spec, 31), 1, "port"), 1);
    assert_eq!(fields(port).iter().filter(|(number, _)| *number == 28).count(), 2, "any_of");
    read("/openapi/v3/version", V3_PROTOBUF);
}

#[test]
fn documents_come_compressed_and_a_few_are_kept() {
    let catalog = catalog();
    let api = OpenApi::new("v1.34.1");
    let ask = Ask { path: "/openapi/v2", gzip: true, ..Ask::default() };
    let packed = api.answer(&catalog, &ask, &none).unwrap();
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    let plain = api.answer(&catalog, &Ask { gzip: false, ..ask }, &none).unwrap();
    let mut unpacked = Vec::new();
    GzDecoder::new(&*packed.body).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
    for path in tree(&get(&catalog, "/openapi/v3"))["paths"].as_object().unwrap().keys() {
        let path = format!("/openapi/v3/{path}");
        assert_eq!(api.answer(&catalog, &Ask { path: &path, ..ask }, &none).unwrap().code, 200);
    }
    let kept: usize = api.kept.borrow().iter().map(|kept| kept.gzip.len()).sum();
    assert!(kept <= KEPT_BYTES_MAX && kept > KEPT_BYTES_MAX / 4, "{kept}");
}

#[test]
fn what_is_not_there_or_not_accepted_is_refused() {
    let catalog = catalog();
    let api = OpenApi::new("v1.34.1");
    for path in ["/openapi/v3/apis/none/v1", "/openapi/v3/apis", "/openapi/v4", "/openapi", "/openapi/v3/api/v1/pods"] {
        assert_eq!(api.answer(&catalog, &Ask { path, ..Ask::default() }, &none), None, "{path}");
    }
    for path in ["/openapi/v2", "/openapi/v3/api/v1"] {
        let wish = Wish { accept: "text/html", ..Wish::default() };
        assert_eq!(api.answer(&catalog, &Ask { path, wish, ..Ask::default() }, &none).unwrap().code, 406);
    }
}
