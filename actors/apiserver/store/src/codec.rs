//! From the bytes of a store to objects, and back.

use k3sd_client::storage::Revision;
use k3sd_objects::convert::{ConvertError, convert};
use k3sd_objects::decode::{DecodeError, to_bytes};
use k3sd_objects::object::{Object, ObjectError};
use k3sd_objects::protobuf;
use serde_json::Value;
use thiserror::Error;

use crate::catalog::Stored;
use crate::map::relative_key;

/// What a store written by upstream begins its protobuf with.
const PROTOBUF_MAGIC: &[u8] = b"k8s\0";

/// Why stored bytes are no object of their resource. Ours always are; these come from a store that somebody else wrote.
#[derive(Debug, Error)]
pub(crate) enum CodecError {
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error("stored bytes are no protobuf of ours: {0}")]
    Protobuf(#[from] DecodeError),
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// Names are no secret; values are.
    #[error("the object calls itself {found:?}, which is not its key")]
    Key { found: String },
}

/// Reads what lies under a key: ours, upstream's protobuf, and what was stored in another version. Gives the object in
/// the stored version.
pub(crate) fn decode(stored: &Stored, key: &[u8], value: &[u8], revision: Revision) -> Result<Object, CodecError> {
    let object = if is_ours(stored, value) {
        Object::from_stored(value, revision.get(), &stored.selectable)?
    } else {
        let value = to_bytes(&in_stored_version(stored, value)?);
        Object::from_stored(&value, revision.get(), &stored.selectable)?
    };
    let own = relative_key(object.namespace(), object.name());
    if key.strip_prefix(stored.prefix.as_bytes()) != Some(&own) || object.namespace().is_empty() == stored.namespaced {
        return Err(CodecError::Key { found: String::from_utf8_lossy(&own).into_owned() });
    }
    Ok(object)
}

/// Whether it begins as we write objects of the stored version: `{"apiVersion":"v1",`.
fn is_ours(stored: &Stored, value: &[u8]) -> bool {
    let version = value.strip_prefix(br#"{"apiVersion":""#);
    let rest = version.and_then(|version| version.strip_prefix(stored.api_version.as_bytes()));
    rest.is_some_and(|rest| rest.starts_with(b"\""))
}

fn in_stored_version(stored: &Stored, bytes: &[u8]) -> Result<Value, CodecError> {
    if bytes.starts_with(PROTOBUF_MAGIC) {
        return Ok(convert(protobuf::decode(bytes)?, &stored.api_version)?);
    }
    let mut value: Value = serde_json::from_slice(bytes).map_err(|_| ObjectError::Malformed { at: 0 })?;
    if !value.is_object() {
        return Err(ObjectError::Malformed { at: 0 }.into());
    }
    let version = value.get("apiVersion").and_then(Value::as_str);
    if version == Some(&*stored.api_version) {
        return Ok(value);
    }
    if stored.definition_uid.is_some() {
        // Versions of a custom resource differ by name only, unless a webhook converts them, which happened before.
        value["apiVersion"] = Value::from(&*stored.api_version);
        return Ok(value);
    }
    Ok(convert(value, &stored.api_version)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::catalog::Catalog;

    fn stored(group: &str, plural: &str) -> std::sync::Arc<Stored> {
        let catalog = Catalog::builtin(|resource| resource.served);
        catalog.preferred(group, plural).and_then(|resource| resource.stored.clone()).expect("it is stored")
    }

    #[test]
    fn objects_are_read_in_their_stored_version_whoever_wrote_them() {
        let pods = stored("", "pods");
        let pod =
            json!({"kind":"Pod","apiVersion":"v1","metadata":{"namespace":"a","name":"x"},"spec":{"nodeName":"n"}});
        let protobuf = protobuf::encode(&pod).unwrap();
        for bytes in [to_bytes(&pod), serde_json::to_vec(&pod).unwrap(), protobuf] {
            let object = decode(&pods, b"/registry/pods/a/x", &bytes, Revision::new(7)).unwrap();
            assert_eq!((object.name(), object.resource_version()), ("x", 7));
            assert_eq!(object.selected("spec.nodeName", &pods.selectable), Some("n"));
            assert!(object.bytes().starts_with(br#"{"apiVersion":"v1","kind":"Pod","#));
        }
        let scalers = stored("autoscaling", "horizontalpodautoscalers");
        let old = json!({"apiVersion":"autoscaling/v1","kind":"HorizontalPodAutoscaler",
            "metadata":{"namespace":"a","name":"x"},"spec":{"maxReplicas":3,"targetCPUUtilizationPercentage":50}});
        let key = b"/registry/horizontalpodautoscalers/a/x";
        let object = decode(&scalers, key, &to_bytes(&old), Revision::new(7)).unwrap();
        assert_eq!(object.value()["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
    }

    #[test]
    fn what_is_no_object_of_its_key_is_refused() {
        let pods = stored("", "pods");
        let key = b"/registry/pods/a/x";
        for bytes in [
            &b""[..],
            b"k8s\0",
            b"k8s\0garbage",
            b"{",
            b"null",
            br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"y","namespace":"a"}}"#,
            br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","namespace":"b"}}"#,
            br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a/x"}}"#,
            br#"{"apiVersion":"v7","kind":"Pod","metadata":{"name":"x","namespace":"a"}}"#,
        ] {
            assert!(decode(&pods, key, bytes, Revision::new(1)).is_err(), "{:?}", bytes.escape_ascii().to_string());
        }
    }
}
