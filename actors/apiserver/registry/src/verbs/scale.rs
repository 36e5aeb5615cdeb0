//! The scale subresource: the number of replicas of anything that has one, as `autoscaling/v1` Scale.

use k3sd_apiserver_custom::scale as custom;
use k3sd_apiserver_validation as validation;
use k3sd_objects::default;
use k3sd_objects::schema::kind_schema;
use k3sd_objects::selector::LabelSelector;
use k3sd_objects::status::{Qualified, Status};
use serde_json::{Map, Value, json};

use super::Scope;
use super::patch::{Language, Patch};
use super::update::{Change, change, check_name};
use super::write::settle_namespace;
use crate::body::Expected;
use crate::call::{Reply, Shown};
use crate::meta;
use crate::options::WriteOptions;

/// Group and version of Scale.
const VERSION: &str = "autoscaling/v1";

/// Kind of Scale.
const KIND: &str = "Scale";

/// Reads or changes the number of replicas of the object that the call names.
pub(crate) async fn scale(scope: &Scope<'_>, verb: &str, warnings: &mut Vec<String>) -> Result<Reply, Status> {
    match verb {
        "get" => {
            let found = scope.latest(scope.name()).await?;
            let object = found.ok_or_else(|| scope.not_found(scope.name()))?;
            let scale = to_scale(scope, &scope.shown(&object)?)?;
            Ok(scope.reply(200, Shown::Value(scale)))
        }
        "update" => {
            let call = scope.call;
            let options = WriteOptions::parse(&call.query, "UpdateOptions", false)?;
            let expected = Expected::builtin(VERSION, KIND)?;
            let content_type = call.content_type.as_deref();
            let mut scale = expected.read(&call.body, content_type, options.field_validation, warnings)?;
            default::apply(&mut scale, expected.schema);
            check_name(scope, &scale)?;
            settle_namespace(&mut scale, scope.namespace)?;
            let put = Put { scale, field_manager: options.field_manager.clone() };
            shown(scope, change(scope, &put, &options, warnings).await?)
        }
        "patch" => {
            let patch = ScalePatch(Patch::read(scope)?);
            shown(scope, change(scope, &patch, &patch.0.options, warnings).await?)
        }
        other => Err(Status::method_not_allowed(scope.resource.qualified(), other)),
    }
}

/// The answer about the scaled object as one about its scale.
fn shown(scope: &Scope<'_>, reply: Reply) -> Result<Reply, Status> {
    let Reply::Object { code, object, .. } = reply else { return Ok(reply) };
    let value = match object {
        Shown::Stored(object) => scope.shown(&object)?,
        Shown::Value(value) => value,
    };
    Ok(scope.reply(code, Shown::Value(to_scale(scope, &value)?)))
}

struct Put {
    scale: Value,
    field_manager: String,
}

impl Change for Put {
    fn apply(&self, scope: &Scope<'_>, old: &Value, _: &mut Vec<String>) -> Result<Value, Status> {
        let new = scaled(scope, old, &self.scale)?;
        Ok(scope.track(Some(old), new, &self.field_manager))
    }

    fn make(&self, _: &Scope<'_>, _: &mut Vec<String>) -> Result<Option<Value>, Status> {
        Ok(None)
    }
}

struct ScalePatch(Patch);

impl Change for ScalePatch {
    fn apply(&self, scope: &Scope<'_>, old: &Value, warnings: &mut Vec<String>) -> Result<Value, Status> {
        let schema = kind_schema(VERSION, KIND).ok_or_else(|| Status::internal_error("no schema for Scale"))?;
        if self.0.language == Language::Apply {
            return self.applied(scope, old);
        }
        let before = for_update(scope, old)?;
        let patched = self.0.patched(&before, schema).map_err(|error| error.status())?;
        let scale = self.0.checked(patched, schema, warnings)?;
        check_name(scope, &scale)?;
        let new = scaled(scope, old, &scale)?;
        Ok(scope.track(Some(old), new, &self.0.options.field_manager))
    }

    fn make(&self, _: &Scope<'_>, _: &mut Vec<String>) -> Result<Option<Value>, Status> {
        Ok(None)
    }
}

impl ScalePatch {
    /// To apply a scale is to apply an object that says nothing but its number of replicas.
    fn applied(&self, scope: &Scope<'_>, old: &Value) -> Result<Value, Status> {
        let scale = &self.0.document;
        if meta::field(scale, "apiVersion") != VERSION || meta::field(scale, "kind") != KIND {
            return Err(Status::bad_request(format!("expected a configuration of kind {KIND} in {VERSION}")));
        }
        let mut config = json!({
            "apiVersion": &*scope.resource.api_version,
            "kind": &*scope.resource.kind,
            "metadata": { "name": scope.name() },
        });
        if meta::at(scale, &["spec", "replicas"]).is_some() {
            check_scale(scale)?;
            put_replicas(scope, &mut config, scale)?;
        }
        let ignored = scope.ignored(old);
        let (manager, force) = (&self.0.options.field_manager, self.0.options.force.unwrap_or_default());
        let applied = scope.tracker(&ignored, |tracker| tracker.apply(old, &config, manager, force, scope.call.now));
        applied.map_err(|error| error.status())
    }
}

/// The object with the replicas of a scale. A version in the scale is one of the object.
fn scaled(scope: &Scope<'_>, old: &Value, scale: &Value) -> Result<Value, Status> {
    check_scale(scale)?;
    let uid = meta::text(scale, "uid");
    if !uid.is_empty() && uid != meta::text(old, "uid") {
        let found = meta::text(old, "uid");
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}");
        return Err(Status::conflict(scope.resource.qualified(), scope.name(), why));
    }
    let mut new = old.clone();
    put_replicas(scope, &mut new, scale)?;
    let version = meta::text(scale, "resourceVersion");
    if !version.is_empty() {
        meta::set(&mut new, "resourceVersion", version);
    }
    Ok(new)
}

fn check_scale(scale: &Value) -> Result<(), Status> {
    let errors = validation::update(("autoscaling", KIND), scale, scale, &validation::Context::default());
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(Qualified::new("autoscaling", KIND), meta::text(scale, "name"), &errors))
}

fn put_replicas(scope: &Scope<'_>, object: &mut Value, scale: &Value) -> Result<(), Status> {
    if scope.resource.custom.is_some() {
        return custom::from_scale(object, scale, scope.resource);
    }
    let replicas = meta::at(scale, &["spec", "replicas"]).and_then(Value::as_i64).unwrap_or_default();
    if let Some(spec) = meta::part(object, "spec") {
        spec.insert("replicas".to_owned(), json!(replicas));
    }
    Ok(())
}

/// The scale that a patch is applied to.
fn for_update(scope: &Scope<'_>, object: &Value) -> Result<Value, Status> {
    if scope.resource.custom.is_some() {
        return custom::for_update(object, scope.resource);
    }
    to_scale(scope, object)
}

/// The scale of an object in the version of the request.
fn to_scale(scope: &Scope<'_>, object: &Value) -> Result<Value, Status> {
    if scope.resource.custom.is_some() {
        return custom::to_scale(object, scope.resource);
    }
    let number = |path: &[&str]| meta::at(object, path).and_then(Value::as_i64).unwrap_or_default();
    let mut metadata = Map::new();
    for name in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = meta::get(object, name) {
            metadata.insert(name.to_owned(), value.clone());
        }
    }
    let mut spec = Map::new();
    let wanted = number(&["spec", "replicas"]);
    if wanted != 0 {
        spec.insert("replicas".to_owned(), json!(wanted));
    }
    let mut status = json!({ "replicas": number(&["status", "replicas"]) });
    let selector = selector(object).map_err(Status::internal_error)?;
    if !selector.is_empty() {
        status["selector"] = json!(selector);
    }
    Ok(json!({ "apiVersion": VERSION, "kind": KIND, "metadata": metadata, "spec": spec, "status": status }))
}

/// The selector of the object's pods as text.
fn selector(object: &Value) -> Result<String, k3sd_objects::selector::ObjectSelectorError> {
    let selector = meta::at(object, &["spec", "selector"]);
    // A replication controller has labels where others have a selector object.
    let is_object = meta::field(object, "kind") != "ReplicationController";
    let wrapped = selector.map(|selector| match is_object {
        true => selector.clone(),
        false => json!({ "matchLabels": selector }),
    });
    let Some(wrapped) = wrapped else { return Ok(String::new()) };
    LabelSelector::from_object(Some(&wrapped)).map(|selector| selector.to_string())
}
