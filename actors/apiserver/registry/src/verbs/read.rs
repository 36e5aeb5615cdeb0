//! get, list and watch.

use std::time::Duration;

use k3sd_apiserver_store::{ListQuery, Page, ReadAt, Resource, WatchFrom, WatchQuery};
use k3sd_objects::selector::{FieldSelector, LabelSelector};
use k3sd_objects::status::{Status, go};

use super::Scope;
use crate::call::{Reply, Shown};
use crate::options::ListOptions;

/// The object that the call names.
pub(crate) async fn get(scope: &Scope<'_>) -> Result<Reply, Status> {
    let at = ReadAt::for_get(scope.call.query.first("resourceVersion").unwrap_or_default())?;
    let found = scope.store.get(scope.namespace, scope.name(), at).await?;
    let object = found.ok_or_else(|| scope.not_found(scope.name()))?;
    Ok(scope.reply(200, Shown::Stored(object)))
}

/// The objects that the call selects.
pub(crate) async fn list(scope: &Scope<'_>) -> Result<Reply, Status> {
    let page = selected(scope).await?;
    Ok(Reply::List { resource: scope.resource.clone(), page })
}

/// The same, for those who do something with them.
pub(crate) async fn selected(scope: &Scope<'_>) -> Result<Page, Status> {
    let options = ListOptions::parse(&scope.call.query)?;
    let (labels, fields) = selectors(scope)?;
    let query = ListQuery {
        namespace: namespace(scope),
        name: None,
        labels,
        fields,
        at: ReadAt::for_list(options.versions)?,
        limit: options.limit,
        continue_token: options.continue_token.map(str::to_owned),
    };
    scope.store.list(&query).await
}

/// Changes of the objects that the call selects.
pub(crate) async fn watch(scope: &Scope<'_>) -> Result<Reply, Status> {
    let options = ListOptions::parse(&scope.call.query)?;
    let (labels, fields) = selectors(scope)?;
    let from = WatchFrom::for_watch(options.versions)?;
    let least = scope.api.config().watch_timeout_min;
    let timeout = options.timeout.unwrap_or_else(|| {
        // Spread, so that the clients of a server that restarted don't come back all at once.
        let span = u64::try_from(least.as_millis()).unwrap_or(u64::MAX);
        least + Duration::from_millis(scope.api.rng().below(span))
    });
    let query = WatchQuery {
        namespace: namespace(scope),
        name: (!scope.name().is_empty()).then(|| scope.name().to_owned()),
        labels,
        fields,
        from,
        bookmarks: options.bookmarks,
        initial_events: options.versions.send_initial_events,
        timeout: Some(timeout),
    };
    let watch = scope.store.watch(&query).await?;
    Ok(Reply::Watch { resource: scope.resource.clone(), watch })
}

fn namespace(scope: &Scope<'_>) -> Option<String> {
    (!scope.namespace.is_empty()).then(|| scope.namespace.to_owned())
}

/// The selectors of the call, with fields that the resource has, named as in the stored version.
fn selectors(scope: &Scope<'_>) -> Result<(LabelSelector, FieldSelector), Status> {
    let query = &scope.call.query;
    let (labels, fields) = (query.first("labelSelector"), query.first("fieldSelector"));
    let parsed: LabelSelector = match labels.filter(|text| !text.is_empty()) {
        Some(text) => {
            text.parse().map_err(|error| Status::bad_request(format!("unable to parse requirement: {error}")))?
        }
        None => LabelSelector::everything(),
    };
    let Some(text) = fields.filter(|text| !text.is_empty()) else { return Ok((parsed, FieldSelector::default())) };
    let fields: FieldSelector = text
        .parse()
        .map_err(|error: k3sd_objects::selector::FieldSelectorError| Status::bad_request(error.to_string()))?;
    let (stored, resource) = (scope.store.stored(), scope.resource);
    // kubectl says in front of this what it looked for.
    let known = |field: &str| known_field(field, resource, &stored.selectable);
    let fields = fields.rename(known).map_err(Status::bad_request)?;
    Ok((parsed, fields))
}

/// The name under which the stored version selects by a field, or why it can't.
fn known_field(
    field: &str,
    resource: &Resource,
    selectable: &k3sd_objects::object::Selectable,
) -> Result<String, String> {
    if matches!(field, "metadata.name" | "metadata.namespace") {
        return Ok(field.to_owned());
    }
    if (&*resource.plural, field) == ("pods", "spec.host") {
        return Ok("spec.nodeName".to_owned());
    }
    if (&*resource.group, &*resource.plural) == ("events.k8s.io", "events")
        && let Some(core) = core_event_field(field)
    {
        return Ok(core);
    }
    if selectable.labels().any(|label| label == field) {
        return Ok(field.to_owned());
    }
    if selectable.labels().len() > 0 || resource.custom.is_some() {
        return Err(format!("field label not supported: {field}"));
    }
    Err(format!("{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"", go::quote(field)))
}

/// Events of their own group are stored as those of core, which name two fields otherwise.
fn core_event_field(field: &str) -> Option<String> {
    if field == "reportingController" {
        return Some("reportingComponent".to_owned());
    }
    field.strip_prefix("regarding.").map(|rest| format!("involvedObject.{rest}"))
}
