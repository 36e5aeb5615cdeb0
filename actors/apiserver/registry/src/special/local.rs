//! The server as its own client: what it writes on its own behalf takes the way of every request.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use k3sd_apiserver_access::{Query, RequestInfo, SYSTEM_MASTERS, User};
use k3sd_apiserver_store::{ListQuery, ObjectStore, ReadAt, Snapshot};
use k3sd_client::storage::BoxFuture;
use k3sd_objects::object::Object;
use k3sd_objects::status::{Reason, Status};
use serde_json::{Value, json};

use crate::api::Api;
use crate::call::{Call, Reply};

/// The name under which the server acts.
const USER: &str = "system:apiserver";
/// What stands in managed fields, up to the slash.
const USER_AGENT: &str = "kube-apiserver/k3sd";

/// A resource in the version that the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Group, empty for core.
    pub(crate) group: &'static str,
    /// Version.
    pub(crate) version: &'static str,
    /// Name in paths.
    pub(crate) plural: &'static str,
}

impl Kind {
    /// A resource of the core group.
    pub(crate) const fn core(plural: &'static str) -> Self {
        Self { group: "", version: "v1", plural }
    }

    /// A resource in version `v1` of a group.
    pub(crate) const fn v1(group: &'static str, plural: &'static str) -> Self {
        Self { group, version: "v1", plural }
    }
}

pub(crate) const CONFIG_MAPS: Kind = Kind::core("configmaps");
pub(crate) const ENDPOINTS: Kind = Kind::core("endpoints");
pub(crate) const ENDPOINT_SLICES: Kind = Kind::v1("discovery.k8s.io", "endpointslices");
pub(crate) const EVENTS: Kind = Kind::v1("events.k8s.io", "events");
pub(crate) const IP_ADDRESSES: Kind = Kind::v1("networking.k8s.io", "ipaddresses");
pub(crate) const LEASES: Kind = Kind::v1("coordination.k8s.io", "leases");
pub(crate) const NAMESPACES: Kind = Kind::core("namespaces");
pub(crate) const BUDGETS: Kind = Kind::v1("policy", "poddisruptionbudgets");
pub(crate) const PODS: Kind = Kind::core("pods");
pub(crate) const PRIORITY_CLASSES: Kind = Kind::v1("scheduling.k8s.io", "priorityclasses");
pub(crate) const SERVICES: Kind = Kind::core("services");
pub(crate) const SERVICE_CIDRS: Kind = Kind::v1("networking.k8s.io", "servicecidrs");

/// Something to be done to an object.
struct Wish<'a> {
    verb: &'static str,
    kind: Kind,
    namespace: &'a str,
    name: &'a str,
    subresource: &'a str,
    body: Option<&'a Value>,
}

/// The objects of a resource.
pub(crate) fn store(api: &Api, kind: Kind) -> Result<Arc<ObjectStore>, Status> {
    api.stores()
        .get(kind.group, kind.plural)
        .ok_or_else(|| Status::service_unavailable(format!("{} are not served yet", kind.plural)))
}

/// All objects of a resource as they are stored now.
pub(crate) async fn list(api: &Api, kind: Kind) -> Result<Vec<Value>, Status> {
    let page = store(api, kind)?.list(&ListQuery::default()).await?;
    Ok(page.objects.iter().map(Object::value).collect())
}

/// What is cached of a resource; nothing before the cache is filled.
pub(crate) fn snapshot(api: &Api, kind: Kind) -> Arc<Snapshot> {
    store(api, kind).map(|store| store.snapshot()).unwrap_or_default()
}

/// An object as it is stored now.
pub(crate) async fn get(api: &Api, kind: Kind, namespace: &str, name: &str) -> Result<Option<Value>, Status> {
    let found = store(api, kind)?.get(namespace, name, ReadAt::Latest).await?;
    Ok(found.map(|object| object.value()))
}

/// Creates an object; its name and namespace are its own.
pub(crate) async fn create(api: &Api, kind: Kind, object: &Value) -> Result<Value, Status> {
    let namespace = super::read::text(object, "/metadata/namespace");
    act(api, &Wish { verb: "create", kind, namespace, name: "", subresource: "", body: Some(object) }).await
}

/// Writes an object in place of the one that it was made from.
pub(crate) async fn update(api: &Api, kind: Kind, object: &Value) -> Result<Value, Status> {
    update_part(api, kind, object, "").await
}

/// Writes a subresource of an object.
pub(crate) async fn update_part(api: &Api, kind: Kind, object: &Value, subresource: &str) -> Result<Value, Status> {
    let (namespace, name) =
        (super::read::text(object, "/metadata/namespace"), super::read::text(object, "/metadata/name"));
    act(api, &Wish { verb: "update", kind, namespace, name, subresource, body: Some(object) }).await
}

/// Deletes an object, with these `DeleteOptions` if any.
pub(crate) async fn delete(
    api: &Api,
    kind: Kind,
    namespace: &str,
    name: &str,
    options: Option<&Value>,
) -> Result<(), Status> {
    act(api, &Wish { verb: "delete", kind, namespace, name, subresource: "", body: options }).await.map(drop)
}

/// Whether it failed because there is no such object.
pub(crate) fn is_missing(status: &Status) -> bool {
    status.reason == Reason::NotFound
}

fn act<'a>(api: &'a Api, wish: &Wish<'_>) -> BoxFuture<'a, Result<Value, Status>> {
    let call = call(wish, now(api));
    // Boxed, for what is done here may be part of what a request does.
    Box::pin(async move {
        match api.handle(call).await.result? {
            Reply::Object { object, .. } => Ok(object.value()),
            Reply::Status(status) if status.outcome == "Failure" => Err(status),
            Reply::Status(status) => Ok(status.to_value()),
            _ => Err(Status::internal_error("the server answered itself with something else than an object")),
        }
    })
}

/// The present time.
pub(crate) fn now(api: &Api) -> Timestamp {
    let wall = api.clock().wall();
    let nanos = i128::try_from(wall.as_nanos()).unwrap_or_default();
    Timestamp::from_nanosecond(nanos).unwrap_or(Timestamp::MAX)
}

fn call(wish: &Wish<'_>, now: Timestamp) -> Call {
    let Kind { group, version, plural } = wish.kind;
    let prefix = if group.is_empty() { "api" } else { "apis" };
    let parts = [plural, wish.name, wish.subresource];
    let parts = parts.iter().filter(|part| !part.is_empty()).map(|part| (*part).to_owned()).collect();
    let info = RequestInfo {
        is_resource: true,
        verb: wish.verb.to_owned(),
        prefix: prefix.to_owned(),
        group: group.to_owned(),
        version: version.to_owned(),
        namespace: wish.namespace.to_owned(),
        resource: plural.to_owned(),
        subresource: wish.subresource.to_owned(),
        name: wish.name.to_owned(),
        parts,
        ..RequestInfo::default()
    };
    let body = wish.body.map(k3sd_objects::decode::to_bytes).map(Bytes::from).unwrap_or_default();
    Call {
        user: Arc::new(User::new(USER, &[SYSTEM_MASTERS])),
        info,
        query: Query::default(),
        body,
        content_type: Some("application/json".to_owned()),
        user_agent: USER_AGENT.to_owned(),
        now,
    }
}

/// `DeleteOptions` that delete only this very state of an object.
pub(crate) fn only(object: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {
        "uid": object["metadata"]["uid"], "resourceVersion": object["metadata"]["resourceVersion"]}})
}
