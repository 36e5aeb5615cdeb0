//! Bodies: from bytes of some media type to an object of the kind that the path is about.

use k3sd_apiserver_store::Resource;
use k3sd_objects::decode::{self, DecodeError, Decoded, StrictError, strict_message};
use k3sd_objects::protobuf;
use k3sd_objects::schema::{SchemaRef, kind_schema};
use k3sd_objects::status::{Status, go};
use serde_json::Value;

use crate::options::FieldValidation;

/// Largest body that is read; larger ones are 413.
pub const BODY_BYTES_MAX: usize = 3 << 20;

/// Bytes of a body that an error shows.
const SUMMARY_BYTES: usize = 30;

/// What bodies come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    Json,
    Yaml,
    Protobuf,
}

const MEDIA: &[(&str, Media)] = &[
    ("application/json", Media::Json),
    ("application/yaml", Media::Yaml),
    ("application/vnd.kubernetes.protobuf", Media::Protobuf),
];

impl Media {
    /// Reads a `Content-Type`; none is JSON. Custom resources have no protobuf form.
    pub(crate) fn of(content_type: Option<&str>, is_custom: bool) -> Result<Self, Status> {
        let offered = || MEDIA.iter().filter(|(_, media)| !is_custom || *media != Self::Protobuf);
        let Some(wanted) = content_type.map(media_type).filter(|wanted| !wanted.is_empty()) else {
            return Ok(Self::Json);
        };
        let found = offered().find(|(name, _)| wanted.eq_ignore_ascii_case(name));
        found.map(|(_, media)| *media).ok_or_else(|| {
            let names: Vec<&str> = offered().map(|(name, _)| *name).collect();
            Status::unsupported_media_type(&names)
        })
    }
}

/// A media type without its parameters.
pub(crate) fn media_type(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// Refuses what is larger than any object can be.
pub(crate) fn check_size(body: &[u8]) -> Result<(), Status> {
    if body.len() <= BODY_BYTES_MAX {
        return Ok(());
    }
    Err(Status::request_entity_too_large(format!("limit is {BODY_BYTES_MAX}")))
}

/// The kind that a path takes.
pub(crate) struct Expected<'a> {
    pub(crate) api_version: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) schema: SchemaRef<'a>,
    pub(crate) is_custom: bool,
}

impl<'a> Expected<'a> {
    /// Objects of a resource.
    pub(crate) fn of(resource: &'a Resource) -> Self {
        Self {
            api_version: &resource.api_version,
            kind: &resource.kind,
            schema: resource.schema.get(),
            is_custom: resource.custom.is_some(),
        }
    }

    /// A built-in kind, such as a subresource speaks.
    ///
    /// # Errors
    ///
    /// Fails if there is no such kind, which is a fault of the catalog.
    pub(crate) fn builtin(api_version: &'a str, kind: &'a str) -> Result<Self, Status> {
        let schema = kind_schema(api_version, kind)
            .ok_or_else(|| Status::internal_error(format!("no schema for {kind} in {api_version}")))?;
        Ok(Self { api_version, kind, schema, is_custom: false })
    }

    fn version(&self) -> &str {
        self.api_version.rsplit('/').next().unwrap_or_default()
    }

    /// Reads a body. Warnings go to `warnings`.
    pub(crate) fn read(
        &self,
        body: &[u8],
        content_type: Option<&str>,
        validation: FieldValidation,
        warnings: &mut Vec<String>,
    ) -> Result<Value, Status> {
        let media = Media::of(content_type, self.is_custom)?;
        check_size(body)?;
        let decoded = match media {
            Media::Json => decode::json(body, Some(self.schema)),
            Media::Yaml => decode::yaml(body, Some(self.schema)),
            Media::Protobuf => return self.read_protobuf(body),
        };
        let Decoded { mut value, strict } = decoded.map_err(|error| self.malformed(&error, body, media))?;
        self.check_kind(&mut value, body)?;
        settle_strict(&strict, validation, warnings).map_err(|text| self.unfit(self.kind, self.version(), &text))?;
        Ok(value)
    }

    fn read_protobuf(&self, body: &[u8]) -> Result<Value, Status> {
        let envelope = protobuf::Envelope::read(body).map_err(|error| self.unrecognized(&error.to_string(), body))?;
        let mut named = serde_json::json!({ "apiVersion": envelope.api_version, "kind": envelope.kind });
        if envelope.kind.is_empty() || envelope.api_version.is_empty() {
            // Clients that leave the type out mean the one of the path.
            let message = protobuf::decode_message(envelope.raw, self.schema);
            let mut value = message.map_err(|error| self.unfit(self.kind, self.version(), &error.to_string()))?;
            self.check_kind(&mut value, body)?;
            return Ok(value);
        }
        self.check_kind(&mut named, body)?;
        protobuf::decode(body).map_err(|error| self.unfit(self.kind, self.version(), &error.to_string()))
    }

    /// Fills in what kind it is, or says that it is another one.
    fn check_kind(&self, value: &mut Value, body: &[u8]) -> Result<(), Status> {
        let Some(fields) = value.as_object_mut() else {
            return Err(self.unrecognized("couldn't get version/kind; json parse error: not an object", body));
        };
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if self.is_custom && kind.is_empty() {
            let shown = go::quote(&summary(body));
            return Err(self.unrecognized(&format!("Object 'Kind' is missing in {shown}"), body));
        }
        if !kind.is_empty() && kind != self.kind && !self.is_custom {
            return Err(self.wrong_kind(&api_version, &kind));
        }
        if !api_version.is_empty() && api_version != self.api_version {
            if !self.is_custom && kind_schema(&api_version, self.kind).is_none() {
                return Err(self.wrong_kind(&api_version, self.kind));
            }
            return Err(Status::bad_request(format!(
                "the API version in the data ({api_version}) does not match the expected API version ({})",
                self.api_version
            )));
        }
        if api_version.is_empty() {
            fields.insert("apiVersion".to_owned(), Value::from(self.api_version));
        }
        if kind.is_empty() {
            fields.insert("kind".to_owned(), Value::from(self.kind));
        }
        Ok(())
    }

    fn wrong_kind(&self, api_version: &str, kind: &str) -> Status {
        let api_version = if api_version.is_empty() { self.api_version } else { api_version };
        let version = api_version.rsplit('/').next().unwrap_or_default();
        if kind_schema(api_version, kind).is_none() {
            let why = format!(
                "no kind {} is registered for version {} in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
                go::quote(kind),
                go::quote(api_version)
            );
            return self.unfit(kind, version, &why);
        }
        let package = |api_version: &str| {
            let group = api_version.rsplit_once('/').map_or("core", |(group, _)| group);
            group.split('.').next().unwrap_or_default().to_owned()
        };
        let (theirs, ours) = (version, package(self.api_version));
        self.unfit(
            kind,
            version,
            &format!("converting ({theirs}.{kind}) to ({ours}.{}): unknown conversion", self.kind),
        )
    }

    /// A body whose kind could be read, but not the rest.
    fn unfit(&self, kind: &str, version: &str, why: &str) -> Status {
        let version = go::quote(version);
        Status::bad_request(format!("{kind} in version {version} cannot be handled as a {}: {why}", self.kind))
    }

    /// A body of which nothing could be read.
    fn unrecognized(&self, why: &str, body: &[u8]) -> Status {
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): {why} ({})",
            self.kind,
            summary(body)
        ))
    }

    fn malformed(&self, error: &DecodeError, body: &[u8], media: Media) -> Status {
        match error {
            DecodeError::Json(text) => {
                self.unrecognized(&format!("couldn't get version/kind; json parse error: {text}"), body)
            }
            DecodeError::Yaml(_) => self.unrecognized(&error.to_string(), body),
            DecodeError::Type(_) | DecodeError::TooDeep | DecodeError::Protobuf(_) => {
                // A body of another kind is told so before its fields are.
                let whole = match media {
                    Media::Json => decode::json(body, None),
                    _ => decode::yaml(body, None),
                };
                let mut value = whole.map_or(Value::Null, |decoded| decoded.value);
                match value.is_object().then(|| self.check_kind(&mut value, body)) {
                    Some(Err(status)) => status,
                    _ => self.unfit(self.kind, self.version(), &error.to_string()),
                }
            }
        }
    }
}

/// Turns unknown and duplicate fields into warnings or, under strict validation, into the text of a refusal.
pub(crate) fn settle_strict(
    strict: &[StrictError],
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<(), String> {
    match validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => warnings.extend(strict.iter().map(ToString::to_string)),
        FieldValidation::Strict => return strict_message(strict).map_or(Ok(()), Err),
    }
    Ok(())
}

/// The beginning of a body, as errors show it: text if it looks like JSON, hexadecimal digits otherwise.
fn summary(body: &[u8]) -> String {
    use std::fmt::Write as _;

    let (shown, more) = match body.get(..SUMMARY_BYTES) {
        Some(start) if body.len() > SUMMARY_BYTES => (start, " ..."),
        _ => (body, ""),
    };
    match shown.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(shown)),
        Some(_) => {
            let mut text = String::new();
            for byte in shown {
                write!(text, "{byte:02x}").expect("strings grow");
            }
            text + more
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(
        body: &str,
        content_type: Option<&str>,
        validation: FieldValidation,
    ) -> (Result<Value, String>, Vec<String>) {
        let mut warnings = Vec::new();
        let expected = Expected::builtin("v1", "Pod").unwrap();
        let read = expected.read(body.as_bytes(), content_type, validation, &mut warnings);
        (read.map_err(|status| format!("{} {}", status.code, status.message)), warnings)
    }

    #[test]
    fn what_is_wrong_with_a_body_is_said_in_upstreams_words() {
        for (body, error) in [
            (
                "",
                "400 the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse \
                 error: unexpected end of JSON input (<empty>)",
            ),
            (
                r#"{"kind":"Service","apiVersion":"v1"}"#,
                "400 Service in version \"v1\" cannot be handled as a Pod: converting (v1.Service) to (core.Pod): \
                 unknown conversion",
            ),
            (
                r#"{"kind":"Service","apiVersion":"v1","spec":{"ports":7,"containers":8}}"#,
                "400 Service in version \"v1\" cannot be handled as a Pod: converting (v1.Service) to (core.Pod): \
                 unknown conversion",
            ),
            (
                r#"{"kind":"Foo","apiVersion":"v1"}"#,
                "400 Foo in version \"v1\" cannot be handled as a Pod: no kind \"Foo\" is registered for version \"v1\" \
                 in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
            ),
        ] {
            assert_eq!(read(body, None, FieldValidation::Warn).0.unwrap_err(), error, "{body}");
        }
    }

    #[test]
    fn unknown_fields_are_dropped_warned_of_or_refused() {
        let body = r#"{"spec":{"foo":1,"hostname":"a","hostname":"b"}}"#;
        let told = ["unknown field \"spec.foo\"", "duplicate field \"spec.hostname\""];
        let (value, warnings) = read(body, None, FieldValidation::Warn);
        assert_eq!(warnings, told);
        let value = value.unwrap();
        assert_eq!(value["spec"], json!({ "hostname": "b" }));
        assert_eq!((&value["apiVersion"], &value["kind"]), (&json!("v1"), &json!("Pod")));
        assert_eq!(read(body, None, FieldValidation::Ignore).1, Vec::<String>::new());
        assert_eq!(
            read(body, None, FieldValidation::Strict).0.unwrap_err(),
            format!(
                "400 Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: {}, {}",
                told[0], told[1]
            )
        );
    }

    #[test]
    fn bodies_come_in_three_media_types() {
        let (value, _) = read("metadata: {name: a}\n", Some("application/yaml; charset=utf-8"), FieldValidation::Warn);
        assert_eq!(value.unwrap()["metadata"]["name"], "a");
        let error = read("", Some("text/plain"), FieldValidation::Warn).0.unwrap_err();
        assert_eq!(
            error,
            "415 the body of the request was in an unknown format - accepted media types include: application/json, \
             application/yaml, application/vnd.kubernetes.protobuf"
        );
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a" } });
        let bytes = protobuf::encode(&pod).unwrap();
        let mut warnings = Vec::new();
        let read = |expected: Expected<'_>, warnings: &mut Vec<String>| {
            expected.read(&bytes, Some("application/vnd.kubernetes.protobuf"), FieldValidation::Warn, warnings)
        };
        let decoded = read(Expected::builtin("v1", "Pod").unwrap(), &mut warnings).unwrap();
        assert_eq!(decoded["metadata"]["name"], "a");
        let other = read(Expected::builtin("v1", "Service").unwrap(), &mut warnings).unwrap_err();
        assert_eq!(other.code, 400);
    }

    #[test]
    fn nothing_larger_than_any_object_is_read() {
        let body = vec![b' '; BODY_BYTES_MAX + 1];
        let expected = Expected::builtin("v1", "Pod").unwrap();
        let error = expected.read(&body, None, FieldValidation::Warn, &mut Vec::new()).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (413, "Request entity too large: limit is 3145728"));
    }
}
