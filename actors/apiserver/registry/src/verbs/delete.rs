//! delete and deletecollection.
//!
//! A deletion is a wish. An object that somebody has to agree about, or that gets time to end, is marked and stays; the
//! write that takes the last finalizer away, or the deletion without grace, removes it.

mod plan;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use k3sd_apiserver_admission::Operation;
use k3sd_apiserver_store::WriteError;
use k3sd_objects::object::Object;
use k3sd_objects::status::Status;
use k3sd_objects::{decode, protobuf};
use serde_json::Value;

use super::Scope;
use super::create::dry_reply;
use super::read::selected;
use super::write::Refusal;
use crate::allocate;
use crate::body::{Expected, Media, check_size};
use crate::call::{Reply, Shown};
use crate::options::{DeleteOptions, FieldValidation};

use self::plan::{Plan, Subject};

/// How often a deletion is tried again because the object changed meanwhile.
const ATTEMPTS: usize = 32;

/// Deletions of a collection that are under way at once: enough that the store commits many together, and no more than
/// the writes of a few clients.
const DELETIONS_AT_ONCE: usize = 16;

/// What a deletion came to.
struct Deleted {
    /// Whether the object is gone.
    gone: bool,
    reply: Reply,
}

/// Deletes the object that the call names, or asks it to go.
pub(crate) async fn delete(scope: &Scope<'_>, warnings: &mut Vec<String>) -> Result<Reply, Status> {
    let options = options(scope)?;
    let is_job = (&*scope.resource.group, &*scope.resource.plural) == ("batch", "jobs");
    if is_job && options.propagation.is_none() && options.orphan_dependents.is_none() {
        warnings.push(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them \
             or set propagationPolicy=Orphan to suppress this warning"
                .to_owned(),
        );
    }
    let current = scope.latest(scope.name()).await?;
    let Deleted { gone, mut reply } = delete_one(scope, scope.name(), current, &options, warnings).await?;
    if !gone
        && options.orphan_dependents == Some(false)
        && let Reply::Object { code, .. } = &mut reply
    {
        // Clients that know only the old option are told that the object lingers.
        *code = 202;
    }
    Ok(reply)
}

/// Deletes the objects that the call selects, some at a time, and answers with them. Begins no further one when one
/// can't be deleted.
pub(crate) async fn delete_collection(scope: &Scope<'_>, warnings: &mut Vec<String>) -> Result<Reply, Status> {
    let options = options(scope)?;
    let page = selected(scope).await?;
    let mut waiting = page.objects.iter();
    let (mut under_way, mut refusal) = (FuturesUnordered::new(), None);
    loop {
        while refusal.is_none() && under_way.len() < DELETIONS_AT_ONCE {
            let Some(object) = waiting.next() else { break };
            under_way.push(delete_selected(scope, object, &options));
        }
        // Those that have begun are waited for, whatever happened to others.
        let Some((said, outcome)) = under_way.next().await else { break };
        warnings.extend(said);
        refusal = refusal.or(outcome.err());
    }
    drop(under_way);
    refusal.map_or_else(|| Ok(Reply::List { resource: scope.resource.clone(), page }), Err)
}

/// Deletes one of a collection, if it is still there. Gives its warnings too.
async fn delete_selected(
    scope: &Scope<'_>,
    object: &Object,
    options: &DeleteOptions,
) -> (Vec<String>, Result<(), Status>) {
    let one = Scope { namespace: object.namespace(), ..scope.clone() };
    let mut warnings = Vec::new();
    let outcome = delete_one(&one, object.name(), Some(object.clone()), options, &mut warnings).await;
    let outcome = match outcome {
        Err(status) if status.code != 404 => Err(status),
        _ => Ok(()),
    };
    (warnings, outcome)
}

/// The options, which come in the body or in the query.
fn options(scope: &Scope<'_>) -> Result<DeleteOptions, Status> {
    let call = scope.call;
    if call.body.is_empty() {
        return DeleteOptions::from_query(&call.query);
    }
    check_size(&call.body)?;
    let media = Media::of(call.content_type.as_deref(), false)?;
    // Older clients send the options under the version of the resource.
    let api_version = match media {
        Media::Json => decode::json(&call.body, None).ok().map(|decoded| decoded.value),
        Media::Yaml => decode::yaml(&call.body, None).ok().map(|decoded| decoded.value),
        Media::Protobuf => protobuf::Envelope::read(&call.body)
            .ok()
            .map(|envelope| serde_json::json!({ "apiVersion": envelope.api_version })),
    };
    let api_version = api_version.as_ref().map_or("", |value| crate::meta::field(value, "apiVersion"));
    let api_version = if api_version.is_empty() { "meta.k8s.io/v1" } else { api_version };
    let expected = Expected::builtin(api_version, "DeleteOptions")?;
    let content_type = call.content_type.as_deref();
    let value = expected.read(&call.body, content_type, FieldValidation::Ignore, &mut Vec::new())?;
    DeleteOptions::from_value(&value)
}

async fn delete_one(
    scope: &Scope<'_>,
    name: &str,
    mut current: Option<Object>,
    options: &DeleteOptions,
    warnings: &mut Vec<String>,
) -> Result<Deleted, Status> {
    for _ in 0..ATTEMPTS {
        let Some(old) = current else { return Err(scope.not_found(name)) };
        match attempt(scope, name, &old, options, warnings).await {
            Ok(deleted) => return Ok(deleted),
            Err(Refusal::Lost(newer)) => current = newer,
            Err(Refusal::Answer(status)) => return Err(status),
        }
    }
    Err(Status::stale(scope.resource.qualified(), name))
}

async fn attempt(
    scope: &Scope<'_>,
    name: &str,
    old: &Object,
    options: &DeleteOptions,
    warnings: &mut Vec<String>,
) -> Result<Deleted, Refusal> {
    check_preconditions(scope, name, old, options)?;
    let value = old.value();
    let converted = scope.converted(&value)?;
    let shown = converted.as_ref().unwrap_or(&value);
    let shown_options = options.to_value();
    let attributes = scope.attributes(Operation::Delete, name, Some(shown), &shown_options, options.dry_run);
    let admission = scope.api.admission();
    warnings.extend(admission.mutate(&attributes, &mut Value::Null).await?);
    warnings.extend(admission.validate(&attributes, None).await?.warnings);
    let subject = Subject::of(scope.resource, scope.strategy());
    match plan::plan(value, &subject, options, scope.call.now) {
        Plan::Pending => Ok(Deleted { gone: false, reply: scope.reply(200, Shown::Stored(old.clone())) }),
        Plan::Remove => remove(scope, name, old, options).await,
        Plan::Mark { object, then_remove } if options.dry_run => {
            let reply = dry_reply(scope, 200, &object)?;
            Ok(Deleted { gone: then_remove, reply })
        }
        Plan::Mark { object, then_remove } => match scope.store.update(old, object, scope.ttl()).await {
            Ok(marked) if then_remove => match remove(scope, name, &marked, options).await {
                // Who watches for the mark was quicker, as a kubelet is with a pod that has ended.
                Err(Refusal::Lost(current)) if current.as_ref().is_none_or(|found| found.uid() != marked.uid()) => {
                    Ok(Deleted { gone: true, reply: farewell(scope, name, marked) })
                }
                outcome => outcome,
            },
            Ok(marked) => Ok(Deleted { gone: false, reply: scope.reply(200, Shown::Stored(marked)) }),
            Err(WriteError::Conflict { current }) => Err(Refusal::Lost(current)),
            Err(error) => Err(scope.refused(name, error).into()),
        },
    }
}

async fn remove(scope: &Scope<'_>, name: &str, old: &Object, options: &DeleteOptions) -> Result<Deleted, Refusal> {
    let last = if options.dry_run {
        old.clone()
    } else {
        match scope.store.delete(old).await {
            Ok(last) => last,
            Err(WriteError::Conflict { current }) => return Err(Refusal::Lost(current)),
            Err(error) => return Err(scope.refused(name, error).into()),
        }
    };
    if !options.dry_run {
        allocate::released(scope, &last).await;
    }
    Ok(Deleted { gone: true, reply: farewell(scope, name, last) })
}

/// What is answered when an object is gone, which was last like this.
fn farewell(scope: &Scope<'_>, name: &str, last: Object) -> Reply {
    if scope.strategy().returns_deleted {
        scope.reply(200, Shown::Stored(last))
    } else {
        Reply::Status(Status::success(scope.resource.qualified(), name, last.uid()))
    }
}

fn check_preconditions(scope: &Scope<'_>, name: &str, old: &Object, options: &DeleteOptions) -> Result<(), Status> {
    let version = old.resource_version().to_string();
    for (field, wanted, found, what) in [
        ("UID", &options.uid, old.uid(), "deleted and then recreated"),
        ("ResourceVersion", &options.resource_version, version.as_str(), "modified"),
    ] {
        let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != found) else { continue };
        let why = format!(
            "the {field} in the precondition ({wanted}) does not match the {field} in record ({found}). The object might \
             have been {what}"
        );
        // Upstream names the kind here, not the resource.
        return Err(Status::conflict(scope.resource.qualified_kind(), name, why));
    }
    Ok(())
}
