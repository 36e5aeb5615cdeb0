//! update, and what patches and scales share with it: the new state is made from the old one, checked, and written if
//! nobody was quicker.

use k3sd_apiserver_access::Attributes as AccessAttributes;
use k3sd_apiserver_access::Decision;
use k3sd_apiserver_admission::Operation;
use k3sd_apiserver_store::{ReadAt, WriteError, parse_revision};
use k3sd_objects::default;
use k3sd_objects::object::Object;
use k3sd_objects::status::Status;
use k3sd_objects::status::field::{Error, Path};
use serde_json::Value;

use super::Scope;
use super::create::{create_object, dry_reply};
use super::write::{Refusal, settle_namespace, settle_owners, settle_times};
use crate::allocate::{self, is_unknown};
use crate::body::Expected;
use crate::call::{Reply, Shown};
use crate::options::WriteOptions;
use crate::strategy::Part;
use crate::{escalation, meta};

/// How often a write that depends on nothing but the newest state is tried. Somebody else's write came between each time,
/// so that the cluster gets on; a client that still loses is told to try again.
const ATTEMPTS: usize = 32;

/// Where a new state comes from.
pub(super) trait Change: Sync {
    /// The new state of `old`, in the version of the request, with whoever writes noted as manager. None if there is
    /// nothing to do.
    ///
    /// Fails with what the client is answered.
    fn apply(&self, scope: &Scope<'_>, old: &Value, warnings: &mut Vec<String>) -> Result<Value, Status>;

    /// The object to make if there is none, with its managers; none if this change makes none.
    fn make(&self, scope: &Scope<'_>, warnings: &mut Vec<String>) -> Result<Option<Value>, Status>;

    /// Whether the new state comes whole from the client, who must say what life of the object it is for.
    fn is_whole(&self) -> bool {
        false
    }
}

/// The object in the body of a PUT.
struct Put {
    object: Value,
    field_manager: String,
}

impl Change for Put {
    fn apply(&self, scope: &Scope<'_>, old: &Value, _: &mut Vec<String>) -> Result<Value, Status> {
        let mut new = self.object.clone();
        meta::remove(&mut new, "selfLink");
        if matches!(meta::text(&new, "resourceVersion"), "" | "0") && !scope.strategy().needs_version {
            meta::copy(&mut new, old, "resourceVersion");
        }
        Ok(scope.track(Some(old), new, &self.field_manager))
    }

    fn make(&self, scope: &Scope<'_>, _: &mut Vec<String>) -> Result<Option<Value>, Status> {
        if !scope.strategy().create_on_update || scope.part != Part::Main {
            return Ok(None);
        }
        let mut object = self.object.clone();
        if !meta::text(&object, "uid").is_empty() {
            return Err(uid_conflict(scope, meta::text(&object, "uid"), ""));
        }
        if !meta::text(&object, "resourceVersion").is_empty() {
            // It is for a state that is gone.
            return Ok(None);
        }
        meta::wipe(&mut object);
        Ok(Some(scope.track(None, object, &self.field_manager)))
    }

    fn is_whole(&self) -> bool {
        true
    }
}

/// Puts the object in the body in the place of another.
pub(crate) async fn update(scope: &Scope<'_>, warnings: &mut Vec<String>) -> Result<Reply, Status> {
    let call = scope.call;
    let options = WriteOptions::parse(&call.query, "UpdateOptions", false)?;
    let expected = Expected::of(scope.resource);
    let mut object = expected.read(&call.body, call.content_type.as_deref(), options.field_validation, warnings)?;
    default::apply(&mut object, scope.resource.schema.get());
    check_name(scope, &object)?;
    settle_namespace(&mut object, scope.namespace)?;
    let put = Put { object, field_manager: options.field_manager.clone() };
    change(scope, &put, &options, warnings).await
}

/// Refuses an object of another name than the path's.
pub(super) fn check_name(scope: &Scope<'_>, object: &Value) -> Result<(), Status> {
    let (found, wanted) = (meta::text(object, "name"), scope.name());
    if found == wanted {
        return Ok(());
    }
    if found.is_empty() {
        let text = "name must be provided";
        return Err(Status::bad_request(text));
    }
    Err(Status::bad_request(format!("the name of the object ({found}) does not match the name on the URL ({wanted})")))
}

/// Carries a change out.
pub(super) async fn change(
    scope: &Scope<'_>,
    change: &dyn Change,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Reply, Status> {
    // What the cache has is nearly always the newest state, and a write to it finds out. To wait until the cache is sure
    // costs more than all the rest, so that is for answers which no write has confirmed.
    let mut current = scope.store.get(scope.namespace, scope.name(), ReadAt::Any).await?;
    let mut is_latest = false;
    for _ in 0..ATTEMPTS {
        let Some(old) = current else {
            if is_latest {
                return make(scope, change, options, warnings).await;
            }
            (current, is_latest) = (scope.latest(scope.name()).await?, true);
            continue;
        };
        let mut said = Vec::new();
        let outcome = match attempt(scope, change, &old, options, &mut said).await {
            Err(Refusal::Lost(newer)) => {
                (current, is_latest) = (newer, true);
                continue;
            }
            Err(Refusal::Answer(status)) => Err(status),
            Ok(done) => Ok(done),
        };
        let is_final = match &outcome {
            Ok(done) => done.is_written,
            // It may have been written, and must not be twice.
            Err(status) => is_unknown(status),
        };
        if !is_latest && !is_final {
            let latest = scope.latest(scope.name()).await?;
            is_latest = true;
            if latest.as_ref().map(Object::resource_version) != Some(old.resource_version()) {
                current = latest;
                continue;
            }
        }
        warnings.append(&mut said);
        return outcome.map(|done| done.reply);
    }
    Err(Status::stale(scope.resource.qualified(), scope.name()))
}

/// What came of an attempt that nobody refused.
struct Done {
    reply: Reply,
    /// Whether something was written, which only happens to the newest state.
    is_written: bool,
}

async fn attempt(
    scope: &Scope<'_>,
    change: &dyn Change,
    old: &Object,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Done, Refusal> {
    let old_value = old.value();
    let converted = scope.converted(&old_value)?;
    let old_shown = converted.as_ref().unwrap_or(&old_value);
    let mut new = change.apply(scope, old_shown, warnings)?;
    check_version(scope, change, &new, old_shown)?;
    let shown_options = options.to_value();
    let attributes =
        scope.attributes(Operation::Update, scope.name(), Some(old_shown), &shown_options, options.dry_run);
    warnings.extend(scope.api.admission().mutate(&attributes, &mut new).await?);
    scope.renew_defaults(&mut new);
    settle_owners(&mut new, warnings);
    let new = settle_times(old_shown, new);
    let mut stored = scope.prepare_update(new, &old_value)?;
    let claim = allocate::claim(scope, &mut stored, Some(&old_value), options.dry_run).await?;
    let outcome = admit_and_write(scope, old, &old_value, stored, options, warnings).await;
    let written = match &outcome {
        Ok(_) => Ok(!options.dry_run),
        Err(Refusal::Answer(status)) => Err(status),
        Err(Refusal::Lost(_)) => Ok(false),
    };
    claim.settle(written).await;
    outcome
}

async fn admit_and_write(
    scope: &Scope<'_>,
    old: &Object,
    old_value: &Value,
    stored: Value,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Done, Refusal> {
    scope.validate(&stored, Some(old_value))?;
    escalation::check(scope, &stored, Some(old_value))?;
    if scope.part != Part::Status {
        scope.warn(&stored, Some(old_value), warnings);
    }
    let shown_options = options.to_value();
    let attributes =
        scope.attributes(Operation::Update, scope.name(), Some(old_value), &shown_options, options.dry_run);
    let admitted = scope.api.admission().validate(&attributes, Some(&stored)).await?;
    warnings.extend(admitted.warnings);
    if options.dry_run {
        return Ok(Done { reply: dry_reply(scope, 200, &stored)?, is_written: false });
    }
    let written = if is_gone(scope, &stored, old) {
        match scope.store.delete(old).await {
            Ok(last) => {
                allocate::released(scope, &last).await;
                return Ok(Done { reply: dry_reply(scope, 200, &stored)?, is_written: true });
            }
            Err(error) => Err(error),
        }
    } else {
        scope.store.update(old, stored, scope.ttl()).await
    };
    match written {
        Ok(object) => {
            let is_written = object.resource_version() != old.resource_version();
            Ok(Done { reply: scope.reply(200, Shown::Stored(object)), is_written })
        }
        Err(error) => {
            if let WriteError::Failed(status) = &error
                && is_unknown(status)
            {
                // What may be there is paid for.
                return Err(Refusal::Answer(status.clone()));
            }
            admitted.charge.refund().await;
            match error {
                WriteError::Conflict { current } => Err(Refusal::Lost(current)),
                other => Err(Refusal::Answer(scope.refused(scope.name(), other))),
            }
        }
    }
}

/// Whether nothing keeps an object any more whose deletion was asked for.
fn is_gone(scope: &Scope<'_>, new: &Value, old: &Object) -> bool {
    let is_namespace = scope.resource.group.is_empty() && &*scope.resource.plural == "namespaces";
    let is_kept = is_namespace
        && meta::at(new, &["spec", "finalizers"]).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    !is_kept
        && meta::finalizers(new).next().is_none()
        && old.deletion_timestamp().is_some()
        && old.deletion_grace_seconds().unwrap_or_default() == 0
}

/// Refuses a new state that was made for another one, or for another life of the object.
fn check_version(scope: &Scope<'_>, change: &dyn Change, new: &Value, old: &Value) -> Result<(), Status> {
    let (uid, found) = (meta::text(new, "uid"), meta::text(old, "uid"));
    if change.is_whole() && !uid.is_empty() && uid != found {
        return Err(uid_conflict(scope, uid, found));
    }
    let version = meta::text(new, "resourceVersion");
    if version == meta::text(old, "resourceVersion") {
        return Ok(());
    }
    if matches!(version, "" | "0") {
        let error =
            Error::invalid(&Path::new("metadata").child("resourceVersion"), 0, "must be specified for an update");
        return Err(Status::invalid(scope.resource.qualified_kind(), scope.name(), &[error]));
    }
    parse_revision(version)?;
    Err(Status::stale(scope.resource.qualified(), scope.name()))
}

fn uid_conflict(scope: &Scope<'_>, wanted: &str, found: &str) -> Status {
    let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}");
    Status::conflict(scope.resource.qualified(), scope.name(), why)
}

/// Makes the object that isn't there, where the change says so and the client may.
async fn make(
    scope: &Scope<'_>,
    change: &dyn Change,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Reply, Status> {
    let Some(object) = change.make(scope, warnings)? else { return Err(scope.not_found(scope.name())) };
    let mut request = scope.call.info.clone();
    request.verb = "create".to_owned();
    let attributes = AccessAttributes { user: &scope.call.user, request: &request };
    let reason = match scope.api.authorize()(&attributes) {
        Decision::Allow { .. } => None,
        Decision::Deny { reason } | Decision::NoOpinion { reason } => Some(reason),
    };
    if let Some(reason) = reason {
        return Err(attributes.forbidden(&reason));
    }
    create_object(scope, object, options, warnings).await
}
