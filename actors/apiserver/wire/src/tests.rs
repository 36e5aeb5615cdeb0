//! What comes out, compared with what upstream sends.

use std::sync::Arc;

use bytes::Bytes;
use k3sd_apiserver_store::{Catalog, CustomVersion, Resource, Schema};
use k3sd_objects::object::{Object, Selectable};
use k3sd_objects::protobuf;
use k3sd_objects::schema::structural;
use k3sd_objects::status::{Qualified, Status};
use k3sd_objects::table::custom_columns;
use serde_json::{Value, json};

use crate::list::{ListMeta, list};
use crate::negotiate::{Format, IncludeObject, Media, Shape};
use crate::object::{Content, object, status};
use crate::watch::{self, EventKind};

/// 2024-01-02T03:05:05Z, a minute after all of the objects here were made.
const NOW: i64 = 1_704_164_705;

fn resource(group: &str, version: &str, plural: &str) -> Arc<Resource> {
    Catalog::builtin(|resource| resource.served).resource(group, version, plural).expect(plural).clone()
}

fn stored(value: &Value) -> Object {
    Object::parse(Bytes::from(serde_json::to_vec(value).unwrap()), &Selectable::default()).unwrap()
}

fn config_map(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": { "kind": "of", "text": "two\nlines\n" },
        "metadata": { "name": name, "namespace": "default", "resourceVersion": "7", "uid": "u",
            "creationTimestamp": "2024-01-02T03:04:05Z" },
    })
}

fn custom() -> Arc<Resource> {
    let schema = json!({ "type": "object", "properties": {
        "spec": { "type": "object", "properties": { "size": { "type": "integer", "default": 3 } } } } });
    let columns = json!([{ "name": "Size", "type": "integer", "jsonPath": ".spec.size" }]);
    let pods = resource("", "v1", "pods");
    Arc::new(Resource {
        group: "example.com".into(),
        version: "v1".into(),
        api_version: "example.com/v1".into(),
        plural: "widgets".into(),
        singular: "widget".into(),
        kind: "Widget".into(),
        list_kind: "WidgetList".into(),
        namespaced: true,
        verbs: pods.verbs.clone(),
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: Vec::new(),
        schema: Schema::Custom(Arc::new(structural(&schema).unwrap())),
        generation: true,
        stored: None,
        custom: Some(Arc::new(CustomVersion {
            columns: custom_columns(&columns).unwrap(),
            ..CustomVersion::default()
        })),
    })
}

const TABLE: Format = Format { shape: Shape::Table(IncludeObject::Metadata), ..Format::JSON };
const METADATA: Format = Format { shape: Shape::Metadata, ..Format::JSON };

fn as_media(media: Media, format: Format) -> Format {
    Format { media, ..format }
}

fn shown(format: Format, resource: &Resource, value: &Value) -> Bytes {
    object(format, resource, Content::Stored(&stored(value)), NOW).unwrap()
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}

fn listed(format: Format, resource: &Arc<Resource>, values: &[Value], meta: ListMeta) -> Vec<u8> {
    let objects = values.iter().map(stored).collect();
    list(format, resource.clone(), objects, meta, NOW).map(Result::unwrap).collect::<Vec<Bytes>>().concat()
}

fn meta() -> ListMeta {
    ListMeta { resource_version: 9, continue_token: None, remaining: None }
}

#[test]
fn stored_bytes_go_out_as_they_are() {
    let value = config_map("a");
    let maps = resource("", "v1", "configmaps");
    let mut expected = serde_json::to_vec(&value).unwrap();
    expected.push(b'\n');
    assert_eq!(shown(Format::JSON, &maps, &value), expected);
    let pretty = shown(Format { pretty: true, ..Format::JSON }, &maps, &value);
    assert_eq!(pretty, serde_json::to_vec_pretty(&value).unwrap());
    let yaml = shown(as_media(Media::Yaml, Format::JSON), &maps, &value);
    assert_eq!(k3sd_objects::decode::yaml(&yaml, None).unwrap().value, value);
    let message = shown(as_media(Media::Protobuf, Format::JSON), &maps, &value);
    assert_eq!(protobuf::decode(&message).unwrap(), value);
}

#[test]
fn other_versions_are_made_on_the_way_out() {
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "message": "hello", "reason": "Because", "type": "Normal",
        "involvedObject": { "kind": "Pod", "name": "p", "namespace": "default" }, "metadata": { "name": "e", "namespace": "default" },
    });
    let events = resource("events.k8s.io", "v1", "events");
    let value = parsed(&shown(Format::JSON, &events, &event));
    assert_eq!((&value["apiVersion"], &value["note"]), (&json!("events.k8s.io/v1"), &json!("hello")));
    let list = parsed(&listed(Format::JSON, &events, &[event], meta()));
    assert_eq!(
        (&list["apiVersion"], &list["items"][0]["regarding"]["name"]),
        (&json!("events.k8s.io/v1"), &json!("p"))
    );
}

#[test]
fn lists_are_those_of_upstream() {
    let maps = resource("", "v1", "configmaps");
    let empty = listed(Format::JSON, &maps, &[], meta());
    assert_eq!(
        empty,
        b"{\"kind\":\"ConfigMapList\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"9\"},\"items\":[]}\n"
    );
    let more = ListMeta { resource_version: 9, continue_token: Some("abc".to_owned()), remaining: Some(4) };
    let list = parsed(&listed(Format::JSON, &maps, &[config_map("a"), config_map("b")], more.clone()));
    assert_eq!(list["metadata"], json!({ "resourceVersion": "9", "continue": "abc", "remainingItemCount": 4 }));
    let mut expected = config_map("b");
    expected.as_object_mut().unwrap().retain(|key, _| key != "apiVersion" && key != "kind");
    assert_eq!(list["items"][1], expected);
    for media in [Media::Yaml, Media::Protobuf] {
        let bytes = listed(as_media(media, Format::JSON), &maps, &[config_map("a"), config_map("b")], more.clone());
        let read = if media == Media::Yaml {
            k3sd_objects::decode::yaml(&bytes, None).unwrap().value
        } else {
            protobuf::decode(&bytes).unwrap()
        };
        assert_eq!(read, list, "{media:?}");
    }
    let none = listed(as_media(Media::Yaml, Format::JSON), &maps, &[], meta());
    assert_eq!(k3sd_objects::decode::yaml(&none, None).unwrap().value["items"], json!([]));
    let none = listed(as_media(Media::Protobuf, Format::JSON), &maps, &[], meta());
    assert_eq!(protobuf::decode(&none).unwrap()["metadata"]["resourceVersion"], "9");
}

#[test]
fn large_lists_come_in_pieces() {
    let maps = resource("", "v1", "configmaps");
    let values: Vec<Value> = (0..2_000).map(|number| config_map(&format!("map-{number}"))).collect();
    for media in [Media::Json, Media::Yaml, Media::Protobuf] {
        let objects: Vec<Object> = values.iter().map(stored).collect();
        let pieces: Vec<Bytes> =
            list(as_media(media, Format::JSON), maps.clone(), objects, meta(), NOW).map(Result::unwrap).collect();
        assert!(pieces.len() > 3 && pieces.iter().all(|piece| piece.len() < 100_000 && !piece.is_empty()), "{media:?}");
        let whole = pieces.concat();
        let read = match media {
            Media::Json => parsed(&whole),
            Media::Yaml => continue,
            Media::Protobuf => protobuf::decode(&whole).unwrap(),
        };
        assert_eq!(read["items"].as_array().unwrap().len(), 2_000);
    }
    let pretty = listed(Format { pretty: true, ..Format::JSON }, &maps, &values, meta());
    let compact = listed(Format::JSON, &maps, &values, meta());
    assert_eq!(parsed(&pretty), parsed(&compact));
    assert_eq!(pretty, crate::pretty::indent(&compact));
}

#[test]
fn only_metadata_is_cut_out() {
    let maps = resource("", "v1", "configmaps");
    let value = config_map("a");
    let expected =
        json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": value["metadata"] });
    assert_eq!(parsed(&shown(METADATA, &maps, &value)), expected);
    let message = shown(as_media(Media::Protobuf, METADATA), &maps, &value);
    assert_eq!(protobuf::decode(&message).unwrap(), expected);
    let list = parsed(&listed(METADATA, &maps, std::slice::from_ref(&value), meta()));
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("PartialObjectMetadataList"), &json!("meta.k8s.io/v1")));
    assert_eq!(list["items"][0], expected);
    // Custom resources have no messages, but their metadata has.
    let widget = json!({ "apiVersion": "example.com/v1", "kind": "Widget", "metadata": value["metadata"], "spec": {} });
    let message = listed(as_media(Media::Protobuf, METADATA), &custom(), &[widget], meta());
    let read = protobuf::decode(&message).unwrap();
    assert_eq!(
        (&read["kind"], &read["items"][0]["metadata"]),
        (&json!("PartialObjectMetadataList"), &value["metadata"])
    );
}

#[test]
fn tables_have_columns_and_rows() {
    let maps = resource("", "v1", "configmaps");
    let table = parsed(&shown(TABLE, &maps, &config_map("a")));
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(table["metadata"], json!({ "resourceVersion": "7" }));
    assert_eq!(
        table["columnDefinitions"][0],
        json!({ "name": "Name", "type": "string", "format": "name", "description": "", "priority": 0 })
    );
    assert_eq!(table["rows"][0]["cells"], json!(["a", 2, "60s"]));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let list = parsed(&listed(TABLE, &maps, &[config_map("a"), config_map("b")], meta()));
    assert_eq!(list["columnDefinitions"], table["columnDefinitions"]);
    assert_eq!((&list["metadata"], list["rows"].as_array().unwrap().len()), (&json!({ "resourceVersion": "9" }), 2));
    let whole = Format { shape: Shape::Table(IncludeObject::Object), ..Format::JSON };
    assert_eq!(parsed(&listed(whole, &maps, &[config_map("a")], meta()))["rows"][0]["object"], config_map("a"));
    let none = Format { shape: Shape::Table(IncludeObject::None), ..Format::JSON };
    assert_eq!(parsed(&listed(none, &maps, &[config_map("a")], meta()))["rows"][0]["object"], Value::Null);
    let yaml = listed(as_media(Media::Yaml, TABLE), &maps, &[config_map("a")], meta());
    assert_eq!(k3sd_objects::decode::yaml(&yaml, None).unwrap().value["kind"], "Table");
    assert_eq!(parsed(&listed(TABLE, &maps, &[], meta()))["rows"], json!([]));
}

#[test]
fn custom_resources_have_their_own_columns_and_defaults() {
    let widget = json!({ "apiVersion": "example.com/v1", "kind": "Widget", "metadata": { "name": "w", "namespace": "default" }, "spec": {} });
    let table = parsed(&shown(TABLE, &custom(), &widget));
    assert_eq!(table["columnDefinitions"][1]["name"], "Size");
    assert_eq!(table["rows"][0]["cells"][0], "w");
    // An object that is older than the default of its schema is read with it.
    assert_eq!(parsed(&shown(Format::JSON, &custom(), &widget))["spec"]["size"], 3);
    let list = parsed(&listed(Format::JSON, &custom(), &[widget], meta()));
    assert_eq!((&list["items"][0]["kind"], &list["items"][0]["spec"]["size"]), (&json!("Widget"), &json!(3)));
}

#[test]
fn subresources_speak_their_own_kind() {
    let deployments = resource("apps", "v1", "deployments");
    let scale = json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": { "name": "d", "namespace": "default" },
        "spec": { "replicas": 2 }, "status": { "replicas": 1 },
    });
    let message = object(as_media(Media::Protobuf, Format::JSON), &deployments, Content::Value(&scale), NOW).unwrap();
    assert_eq!(protobuf::decode(&message).unwrap()["spec"], json!({ "replicas": 2 }));
    let table = parsed(&object(TABLE, &deployments, Content::Value(&scale), NOW).unwrap());
    assert_eq!(table["rows"][0]["cells"][0], "d");
}

#[test]
fn errors_are_told_in_every_media_type() {
    let gone = Status::not_found(Qualified::new("", "pods"), "x");
    assert_eq!(parsed(&status(Format::JSON, &gone)), gone.to_value());
    let read = protobuf::decode(&status(as_media(Media::Protobuf, Format::JSON), &gone)).unwrap();
    assert_eq!((&read["kind"], &read["reason"], &read["code"]), (&json!("Status"), &json!("NotFound"), &json!(404)));
    let yaml = status(as_media(Media::Yaml, Format::JSON), &gone);
    assert_eq!(k3sd_objects::decode::yaml(&yaml, None).unwrap().value, gone.to_value());
    // A deletion that answers with a status is no table.
    let maps = resource("", "v1", "configmaps");
    let value = gone.to_value();
    assert_eq!(parsed(&object(TABLE, &maps, Content::Value(&value), NOW).unwrap()), value);
}

#[test]
fn events_are_framed_as_upstream_does() {
    let maps = resource("", "v1", "configmaps");
    let value = config_map("a");
    let frame = |format, kind, columns| watch::event(format, &maps, kind, &stored(&value), columns, NOW).unwrap();
    let json = frame(Format { pretty: true, ..Format::JSON }, EventKind::Added, true);
    assert_eq!(json, format!("{{\"type\":\"ADDED\",\"object\":{value}}}\n"));
    let message = frame(as_media(Media::Protobuf, Format::JSON), EventKind::Deleted, true);
    let (length, rest) = message.split_first_chunk::<4>().unwrap();
    assert_eq!(u32::from_be_bytes(*length) as usize, rest.len());
    // type = 1: "DELETED", object = 2: { raw = 1: the object in its envelope }.
    assert!(rest.starts_with(b"\x0a\x07DELETED\x12"));
    let start = rest.windows(4).position(|window| window == protobuf::MAGIC).unwrap();
    assert_eq!(protobuf::decode(&rest[start..]).unwrap(), value);
    let first = parsed(&frame(TABLE, EventKind::Modified, true));
    let next = parsed(&frame(TABLE, EventKind::Modified, false));
    assert_eq!((&first["type"], &first["object"]["kind"]), (&json!("MODIFIED"), &json!("Table")));
    assert_eq!(first["object"]["columnDefinitions"].as_array().unwrap().len(), 3);
    assert_eq!(next["object"]["columnDefinitions"], Value::Null);
    assert_eq!(first["object"]["rows"], next["object"]["rows"]);
    let partial = parsed(&frame(METADATA, EventKind::Added, true));
    assert_eq!(partial["object"]["kind"], "PartialObjectMetadata");
}

#[test]
fn a_stream_ends_with_what_went_wrong() {
    let expired = Status::expired("too old resource version: 1 (5)");
    let json = watch::error(TABLE, &expired);
    assert_eq!(parsed(&json), json!({ "type": "ERROR", "object": expired.to_value() }));
    let message = watch::error(as_media(Media::Protobuf, Format::JSON), &expired);
    assert!(message[4..].starts_with(b"\x0a\x05ERROR\x12"));
    let start = message.windows(4).position(|window| window == protobuf::MAGIC).unwrap();
    assert_eq!(protobuf::decode(&message[start..]).unwrap()["code"], 410);
}

#[test]
fn every_kind_can_be_shown_in_every_form() {
    let catalog = Catalog::builtin(|resource| resource.served);
    for resource in catalog.resources().filter(|resource| resource.stored.is_some()) {
        let stored_version = &resource.stored.as_ref().unwrap().api_version;
        let value = json!({ "apiVersion": **stored_version, "kind": *resource.kind, "metadata": { "name": "x" } });
        for shape in [Shape::Whole, Shape::Metadata, TABLE.shape] {
            for media in [Media::Json, Media::Yaml, Media::Protobuf] {
                if media == Media::Protobuf && shape == TABLE.shape {
                    continue;
                }
                let format = Format { media, shape, pretty: false };
                let shown = object(format, resource, Content::Stored(&stored(&value)), NOW);
                assert!(shown.is_ok_and(|bytes| !bytes.is_empty()), "{} {format:?}", resource.kind);
                let bytes = listed(format, resource, std::slice::from_ref(&value), meta());
                if (media, shape) == (Media::Protobuf, Shape::Whole) {
                    let read = protobuf::decode(&bytes).unwrap();
                    assert_eq!(
                        (&read["kind"], &read["items"][0]["metadata"]["name"]),
                        (&json!(*resource.list_kind), &json!("x"))
                    );
                }
            }
        }
    }
}
