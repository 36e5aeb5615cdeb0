//! create.

use k3sd_apiserver_admission::Operation;
use k3sd_apiserver_store::{ReadAt, WriteError};
use k3sd_objects::decode::to_bytes;
use k3sd_objects::object::Object;
use k3sd_objects::status::{Reason, Status};
use k3sd_objects::{default, names};
use serde_json::Value;

use super::Scope;
use super::write::{new_uid, settle_namespace, settle_owners};
use crate::allocate::{self, is_unknown};
use crate::body::Expected;
use crate::call::{Reply, Shown};
use crate::options::WriteOptions;
use crate::{escalation, meta};

/// Names that are tried for an object with `generateName`.
const GENERATE_ATTEMPTS: usize = 8;

/// Makes the object in the body.
pub(crate) async fn create(scope: &Scope<'_>, warnings: &mut Vec<String>) -> Result<Reply, Status> {
    let call = scope.call;
    let options = WriteOptions::parse(&call.query, "CreateOptions", false)?;
    let expected = Expected::of(scope.resource);
    let mut object = expected.read(&call.body, call.content_type.as_deref(), options.field_validation, warnings)?;
    default::apply(&mut object, scope.resource.schema.get());
    meta::wipe(&mut object);
    settle_namespace(&mut object, scope.namespace)?;
    let object = scope.track(None, object, &options.field_manager);
    create_object(scope, object, &options, warnings).await
}

/// Makes an object that is in the version of the request, with managers. PUT and apply come here too.
pub(super) async fn create_object(
    scope: &Scope<'_>,
    mut object: Value,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Reply, Status> {
    let shown_options = options.to_value();
    let name = meta::text(&object, "name").to_owned();
    let attributes = scope.attributes(Operation::Create, &name, None, &shown_options, options.dry_run);
    warnings.extend(scope.api.admission().mutate(&attributes, &mut object).await?);
    scope.renew_defaults(&mut object);
    settle_owners(&mut object, warnings);
    if !meta::text(&object, "resourceVersion").is_empty() {
        let text = "resourceVersion should not be set on objects to be created";
        return Err(Status::failure(500, Reason::Unknown, text));
    }
    let base = meta::text(&object, "generateName").to_owned();
    if !meta::text(&object, "name").is_empty() || base.is_empty() {
        let name = meta::text(&object, "name").to_owned();
        let created = try_create(scope, object, options, &shown_options, warnings).await?;
        return created.ok_or_else(|| Status::already_exists(scope.resource.qualified(), &name));
    }
    let mut name = String::new();
    for _ in 0..GENERATE_ATTEMPTS {
        name = names::generate(&base, scope.api.rng().next_u64());
        let mut named = object.clone();
        meta::set(&mut named, "name", name.as_str());
        if let Some(reply) = try_create(scope, named, options, &shown_options, warnings).await? {
            return Ok(reply);
        }
    }
    Err(Status::generate_name_conflict(scope.resource.qualified(), &name, 1))
}

/// One try under one name; none if the name is taken.
async fn try_create(
    scope: &Scope<'_>,
    mut object: Value,
    options: &WriteOptions,
    shown_options: &Value,
    warnings: &mut Vec<String>,
) -> Result<Option<Reply>, Status> {
    meta::set(&mut object, "uid", new_uid(scope.api));
    meta::set(&mut object, "creationTimestamp", scope.now_text());
    let mut stored = scope.prepare_create(object)?;
    let claim = allocate::claim(scope, &mut stored, None, options.dry_run).await?;
    let outcome = admit_and_create(scope, stored, options, shown_options, warnings).await;
    let written = outcome.as_ref().map(|reply| reply.is_some() && !options.dry_run);
    claim.settle(written).await;
    outcome
}

async fn admit_and_create(
    scope: &Scope<'_>,
    stored: Value,
    options: &WriteOptions,
    shown_options: &Value,
    warnings: &mut Vec<String>,
) -> Result<Option<Reply>, Status> {
    scope.validate(&stored, None)?;
    escalation::check(scope, &stored, None)?;
    scope.warn(&stored, None, warnings);
    let name = meta::text(&stored, "name").to_owned();
    let attributes = scope.attributes(Operation::Create, &name, None, shown_options, options.dry_run);
    let admitted = scope.api.admission().validate(&attributes, Some(&stored)).await?;
    warnings.extend(admitted.warnings);
    if options.dry_run {
        if scope.store.get(scope.namespace, &name, ReadAt::Latest).await?.is_some() {
            return Ok(None);
        }
        return dry_reply(scope, 201, &stored).map(Some);
    }
    match scope.store.create(scope.namespace, &name, stored, scope.ttl()).await {
        Ok(object) => Ok(Some(scope.reply(201, Shown::Stored(object)))),
        Err(error) => {
            if let WriteError::Failed(status) = &error
                && is_unknown(status)
            {
                // What may be there is paid for.
                return Err(status.clone());
            }
            admitted.charge.refund().await;
            match error {
                WriteError::Exists => Ok(None),
                other => Err(scope.refused(&name, other)),
            }
        }
    }
}

/// The answer to a write that was only tried.
pub(super) fn dry_reply(scope: &Scope<'_>, code: u16, stored: &Value) -> Result<Reply, Status> {
    let selectable = &scope.store.stored().selectable;
    let object = Object::parse(to_bytes(stored).into(), selectable).map_err(Status::internal_error)?;
    Ok(scope.reply(code, Shown::Stored(object)))
}
