//! From the bytes of a file to objects.
//!
//! A document that is no good is told with its line and column, and the others of its file are used. Nothing here asks
//! the API, so whether a kind exists shows later.

mod split;

use k3sd_objects::decode;
use k3sd_objects::read::{field, items, text};
use serde_json::Value;

use self::split::{Document, documents};
use crate::api::{Gvk, Key};

/// Objects of one file; more are a mistake, and would be one request each.
const OBJECTS_MAX: usize = 100_000;

/// An object as its file has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Manifest {
    pub gvk: Gvk,
    /// The namespace is empty if the file names none.
    pub key: Key,
    pub object: Value,
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Parsed {
    /// In the order of the file.
    pub objects: Vec<Manifest>,
    /// What is wrong with its other documents, each with line and column where they are known.
    pub broken: Vec<String>,
}

impl Parsed {
    /// The kinds of its objects, each once, in the order of the file.
    pub(crate) fn gvks(&self) -> Vec<Gvk> {
        let mut gvks: Vec<Gvk> = Vec::new();
        for manifest in &self.objects {
            if !gvks.contains(&manifest.gvk) {
                gvks.push(manifest.gvk.clone());
            }
        }
        gvks
    }
}

/// Reads a file in YAML or JSON.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    let text = match std::str::from_utf8(bytes) {
        // A byte order mark is no part of the first document.
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            parsed.broken.push(format!("line {line} is not UTF-8"));
            return parsed;
        }
    };
    for document in documents(text) {
        let read = read(document).and_then(|value| expand(value, document.lines_before, &mut parsed.objects));
        if let Err(error) = read {
            parsed.broken.push(error);
        }
        if parsed.objects.len() > OBJECTS_MAX {
            parsed.broken.push(format!("the file has more than {OBJECTS_MAX} objects"));
            parsed.objects.truncate(OBJECTS_MAX);
            break;
        }
    }
    parsed
}

/// One document as a value.
fn read(document: Document<'_>) -> Result<Value, String> {
    let Document { text, lines_before } = document;
    // JSON may be indented with tabs, which is no YAML.
    if text.trim_start().starts_with(['{', '['])
        && let Ok(decoded) = decode::json(text.as_bytes(), None)
    {
        return Ok(decoded.value);
    }
    let error = match decode::yaml(text.as_bytes(), None) {
        Ok(decoded) => return Ok(decoded.value),
        Err(error) => error,
    };
    // Once more with as many lines before it as there are in the file, so that the error counts those too.
    let shifted = "\n".repeat(lines_before) + text;
    let error = decode::yaml(shifted.as_bytes(), None).err().unwrap_or(error);
    Err(error.to_string())
}

/// Takes an object in, or those of a list.
fn expand(value: Value, lines_before: usize, objects: &mut Vec<Manifest>) -> Result<(), String> {
    let place = |what: &str| format!("the document that begins in line {}: {what}", lines_before + 1);
    if value.is_null() {
        return Ok(());
    }
    if !value.is_object() {
        return Err(place("it is no object"));
    }
    let (api_version, kind) = (text(&value, "apiVersion"), text(&value, "kind"));
    if kind.is_empty() {
        return Err(place("Object 'Kind' is missing"));
    }
    if field(&value, "items").is_array() && kind.ends_with("List") {
        // Items of a list of one kind needn't say what they are.
        let (of_kind, of_version) = (kind.trim_end_matches("List").to_owned(), api_version.to_owned());
        for (number, item) in items(&value, "items").iter().enumerate() {
            let mut item = item.clone();
            if let Some(fields) = item.as_object_mut()
                && !of_kind.is_empty()
            {
                fields.entry("kind").or_insert_with(|| of_kind.as_str().into());
                fields.entry("apiVersion").or_insert_with(|| of_version.as_str().into());
            }
            let manifest = manifest(item).map_err(|what| place(&format!("item {number} of the list: {what}")))?;
            objects.push(manifest);
        }
        return Ok(());
    }
    objects.push(manifest(value).map_err(|what| place(&what))?);
    Ok(())
}

fn manifest(object: Value) -> Result<Manifest, String> {
    let (api_version, kind) = (text(&object, "apiVersion"), text(&object, "kind"));
    if kind.is_empty() {
        return Err("Object 'Kind' is missing".to_owned());
    }
    if api_version.is_empty() {
        return Err(format!("the {kind} has no apiVersion"));
    }
    let metadata = field(&object, "metadata");
    for part in ["name", "namespace"] {
        // `n` and `on` are no names in YAML, but truth values.
        let value = field(metadata, part);
        if !value.is_null() && !value.is_string() {
            return Err(format!("the {kind}'s {part} {value} is no text; put it in quotes"));
        }
    }
    let name = text(metadata, "name");
    if name.is_empty() {
        return Err(format!("the {kind} has no name"));
    }
    let key = Key { namespace: text(metadata, "namespace").to_owned(), name: name.to_owned() };
    for part in [&key.namespace, &key.name] {
        // It becomes part of a path.
        if part.contains(['/', '%', '?', '#']) || matches!(part.as_str(), "." | "..") || part.contains(char::is_control)
        {
            return Err(format!("the {kind} has the name {part:?}, which no object may have"));
        }
    }
    Ok(Manifest { gvk: Gvk::new(api_version, kind), key, object })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(parsed: &Parsed) -> Vec<String> {
        parsed.objects.iter().map(|it| format!("{} {}", it.gvk, it.key)).collect()
    }

    #[test]
    fn objects_of_every_form_are_read() {
        let map = |name: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n");
        let core = |name: &str| format!("/v1, Kind=ConfigMap {name}");
        for (text, wanted) in [
            (map("a"), vec![core("a")]),
            (format!("\u{feff}{}---\n{}", map("a"), map("b")), vec![core("a"), core("b")]),
            ("{\"apiVersion\":\"v1\",\n\t\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"j\"}}".to_owned(), vec![core("j")]),
            (
                "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: apps/v1, kind: Deployment, metadata: {name: d, namespace: ns}}\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: c}}\n".to_owned(),
                vec!["apps/v1, Kind=Deployment ns/d".to_owned(), core("c")],
            ),
            ("apiVersion: v1\nkind: ConfigMapList\nitems:\n- {metadata: {name: x}}\n".to_owned(), vec![core("x")]),
            ("null\n---\n~\n".to_owned(), vec![]),
        ] {
            let parsed = parse(text.as_bytes());
            assert_eq!((names(&parsed), parsed.broken), (wanted, Vec::<String>::new()), "{text}");
        }
    }

    #[test]
    fn what_is_broken_is_told_with_its_place_and_the_rest_is_used() {
        let good = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\n";
        for (bad, told) in [
            ("a: [1\nb: 2\n", "line 6"),
            ("a: b: c\n", "line 5, column 5"),
            (
                "kind: ConfigMap\nmetadata: {name: x}\n",
                "the document that begins in line 5: the ConfigMap has no apiVersion",
            ),
            ("apiVersion: v1\nmetadata: {name: x}\n", "line 5: Object 'Kind' is missing"),
            ("apiVersion: v1\nkind: Pod\nmetadata: {generateName: x}\n", "line 5: the Pod has no name"),
            ("apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: n}\n", "the Pod's namespace false is no text"),
            ("apiVersion: v1\nkind: Pod\nmetadata: {name: ../x}\n", "which no object may have"),
            ("- a\n", "line 5: it is no object"),
            ("just words\n", "line 5: it is no object"),
        ] {
            let parsed = parse(format!("{good}---\n{bad}---\n{}", good.replace("good", "last")).as_bytes());
            assert_eq!(names(&parsed), ["/v1, Kind=ConfigMap good", "/v1, Kind=ConfigMap last"], "{bad}");
            assert!(parsed.broken.len() == 1 && parsed.broken[0].contains(told), "{bad}: {:?}", parsed.broken);
        }
        let parsed = parse(b"a: 1\n\xff\xfe\n");
        assert_eq!(parsed.broken, ["line 2 is not UTF-8"]);
    }

    #[test]
    fn kinds_are_listed_once_in_their_order() {
        let text = "apiVersion: v1\nkind: B\nmetadata: {name: a}\n---\napiVersion: v1\nkind: A\nmetadata: {name: a}\n---\napiVersion: v1\nkind: B\nmetadata: {name: b}\n";
        let kinds: Vec<String> = parse(text.as_bytes()).gvks().iter().map(ToString::to_string).collect();
        assert_eq!(kinds, ["/v1, Kind=B", "/v1, Kind=A"]);
    }
}
