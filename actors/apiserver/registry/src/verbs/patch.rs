//! patch: changes to an object in one of four languages.

use k3sd_objects::apply::ApplyError;
use k3sd_objects::decode::{self, Decoded, StrictError};
use k3sd_objects::patch::{PatchError, apply_json_patch, apply_merge_patch, apply_strategic_patch};
use k3sd_objects::status::field::{Error, Path};
use k3sd_objects::status::{Qualified, Status};
use k3sd_objects::{default, status};
use serde_json::Value;

use super::Scope;
use super::update::{Change, change, check_name};
use super::write::settle_namespace;
use crate::body::{check_size, media_type, settle_strict};
use crate::call::Reply;
use crate::meta;
use crate::options::{FieldValidation, WriteOptions};
use crate::strategy::Part;

/// The language of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Json,
    Merge,
    Strategic,
    Apply,
}

const LANGUAGES: &[(&str, Language)] = &[
    ("application/json-patch+json", Language::Json),
    ("application/merge-patch+json", Language::Merge),
    ("application/strategic-merge-patch+json", Language::Strategic),
    ("application/apply-patch+yaml", Language::Apply),
];

impl Language {
    /// Reads a `Content-Type`. Custom resources have no merge keys, so there is nothing strategic about them.
    pub(super) fn of(content_type: Option<&str>, is_custom: bool) -> Result<Self, Status> {
        let offered = || LANGUAGES.iter().filter(|(_, language)| !is_custom || *language != Self::Strategic);
        let wanted = content_type.map(media_type).unwrap_or_default();
        let found = offered().find(|(name, _)| *name == wanted).map(|(_, language)| *language);
        found.ok_or_else(|| {
            let names: Vec<&str> = offered().map(|(name, _)| *name).collect();
            Status::unsupported_media_type(&names)
        })
    }
}

/// A patch that was read.
pub(super) struct Patch {
    pub(super) language: Language,
    pub(super) document: Value,
    /// Unknown and duplicate fields of an apply's configuration, which is an object itself.
    pub(super) strict: Vec<StrictError>,
    pub(super) options: WriteOptions,
}

/// Changes the object that the call names.
pub(crate) async fn patch(scope: &Scope<'_>, warnings: &mut Vec<String>) -> Result<Reply, Status> {
    let patch = Patch::read(scope)?;
    change(scope, &patch, &patch.options, warnings).await
}

impl Patch {
    /// Reads the body.
    pub(super) fn read(scope: &Scope<'_>) -> Result<Self, Status> {
        let call = scope.call;
        let language = Language::of(call.content_type.as_deref(), scope.resource.custom.is_some())?;
        check_size(&call.body)?;
        let options = WriteOptions::parse(&call.query, "PatchOptions", language == Language::Apply)?;
        let bad = |error: decode::DecodeError| match language {
            Language::Apply => Status::bad_request(format!("error decoding YAML: {error}")),
            _ => Status::bad_request(format!("error decoding patch: {error}")),
        };
        let Decoded { value: document, strict } = match language {
            Language::Apply => decode::yaml(&call.body, None),
            _ => decode::json(&call.body, None),
        }
        .map_err(bad)?;
        let strict = if language == Language::Apply { strict } else { Vec::new() };
        Ok(Self { language, document, strict, options })
    }

    /// The patched object before anybody looks at it.
    pub(super) fn patched(
        &self,
        old: &Value,
        schema: k3sd_objects::schema::SchemaRef<'_>,
    ) -> Result<Value, PatchError> {
        match self.language {
            Language::Json => apply_json_patch(old.clone(), &self.document),
            Language::Merge => apply_merge_patch(old.clone(), self.document.clone()),
            Language::Strategic => apply_strategic_patch(old.clone(), self.document.clone(), schema),
            Language::Apply => Ok(self.document.clone()),
        }
    }

    fn validation(&self) -> FieldValidation {
        self.options.field_validation
    }

    /// The object that a patch made, as its schema has it.
    pub(super) fn checked(
        &self,
        patched: Value,
        schema: k3sd_objects::schema::SchemaRef<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Value, Status> {
        let unfit = |why: &str, shown: String| {
            let error = Error::invalid(&Path::new("patch"), shown, why);
            Status::invalid(Qualified::new("", ""), "", &[error])
        };
        if !patched.is_object() {
            return Err(unfit("couldn't get version/kind; json parse error: not an object", patched.to_string()));
        }
        let shown = match self.language {
            Language::Strategic => self.document.to_string(),
            _ => String::new(),
        };
        let copy = if shown.is_empty() { Some(patched.clone()) } else { None };
        let shown = || copy.map_or(shown, |copy| copy.to_string());
        match decode::check(patched, schema) {
            Ok(Decoded { value, strict }) => match settle_strict(&strict, self.validation(), warnings) {
                Ok(()) => Ok(value),
                Err(why) => Err(unfit(&why, shown())),
            },
            Err(error) => Err(unfit(&error.to_string(), shown())),
        }
    }

    fn applied(&self, scope: &Scope<'_>, live: &Value, warnings: &mut Vec<String>) -> Result<Value, Status> {
        settle_strict(&self.strict, self.validation(), warnings)
            .map_err(|text| Status::bad_request(format!("error strict decoding YAML: {text}")))?;
        let mut config = self.document.clone();
        if !config.is_object() {
            return Err(Status::bad_request("error decoding YAML: the configuration is not an object"));
        }
        let (kind, wanted) = (meta::field(&config, "kind"), &*scope.resource.kind);
        if !kind.is_empty() && kind != wanted {
            let why = format!("the kind in the data ({kind}) does not match the expected kind ({wanted})");
            return Err(Status::bad_request(why));
        }
        check_apply_name(scope, &config)?;
        settle_namespace(&mut config, scope.namespace)?;
        let ignored = scope.ignored(live);
        let force = self.options.force.unwrap_or_default();
        let manager = &self.options.field_manager;
        let applied = scope.tracker(&ignored, |tracker| tracker.apply(live, &config, manager, force, scope.call.now));
        applied.map_err(|error: ApplyError| error.status())
    }
}

fn check_apply_name(scope: &Scope<'_>, config: &Value) -> Result<(), Status> {
    if meta::text(config, "name").is_empty() {
        // The path says it; what is merged says it too.
        return Ok(());
    }
    check_name(scope, config)
}

impl Change for Patch {
    fn apply(&self, scope: &Scope<'_>, old: &Value, warnings: &mut Vec<String>) -> Result<Value, Status> {
        let schema = scope.resource.schema.get();
        let mut new = if self.language == Language::Apply {
            let applied = self.applied(scope, old, warnings)?;
            self.checked(applied, schema, warnings)?
        } else {
            let patched = self.patched(old, schema).map_err(|error| error.status())?;
            self.checked(patched, schema, warnings)?
        };
        default::apply(&mut new, schema);
        check_name(scope, &new)?;
        settle_namespace(&mut new, scope.namespace)?;
        check_type(scope, &new)?;
        if self.language == Language::Apply {
            return Ok(new);
        }
        Ok(scope.track(Some(old), new, &self.options.field_manager))
    }

    fn make(&self, scope: &Scope<'_>, warnings: &mut Vec<String>) -> Result<Option<Value>, Status> {
        if self.language != Language::Apply || scope.part != Part::Main {
            return Ok(None);
        }
        let (uid, version) = (meta::text(&self.document, "uid"), meta::text(&self.document, "resourceVersion"));
        if !uid.is_empty() {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(Status::conflict(scope.resource.qualified(), scope.name(), why));
        }
        if !version.is_empty() {
            return Ok(None);
        }
        let blank = serde_json::json!({
            "apiVersion": &*scope.resource.api_version,
            "kind": &*scope.resource.kind,
            "metadata": {},
        });
        let applied = self.applied(scope, &blank, warnings)?;
        let schema = scope.resource.schema.get();
        let mut new = self.checked(applied, schema, warnings)?;
        default::apply(&mut new, schema);
        meta::set(&mut new, "name", scope.name());
        settle_namespace(&mut new, scope.namespace)?;
        meta::wipe(&mut new);
        Ok(Some(new))
    }
}

/// Refuses a patch that made another kind of the object.
fn check_type(scope: &Scope<'_>, new: &Value) -> Result<(), Status> {
    let (version, kind) = (meta::field(new, "apiVersion"), meta::field(new, "kind"));
    if version == &*scope.resource.api_version && kind == &*scope.resource.kind {
        return Ok(());
    }
    let wanted = format!("{}, Kind={}", scope.resource.api_version, scope.resource.kind);
    let found = format!("{version}, Kind={kind}");
    let (found, wanted) = (status::go::quote(&found), status::go::quote(&wanted));
    Err(Status::bad_request(format!("the patch made {found} of an object that is {wanted}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_come_in_four_languages_and_custom_resources_speak_three() {
        for (content_type, is_custom, language) in [
            ("application/json-patch+json", true, Some(Language::Json)),
            ("application/merge-patch+json; charset=utf-8", true, Some(Language::Merge)),
            ("application/strategic-merge-patch+json", false, Some(Language::Strategic)),
            ("application/strategic-merge-patch+json", true, None),
            ("application/apply-patch+yaml", true, Some(Language::Apply)),
            ("application/json", false, None),
            ("", false, None),
        ] {
            let read = Language::of(Some(content_type), is_custom);
            assert_eq!(read.ok(), language, "{content_type}");
        }
        let error = Language::of(None, true).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (
                415,
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
            )
        );
    }
}
