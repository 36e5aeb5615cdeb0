//! Which of the special things a call is about, and its answer.

use std::sync::Arc;

use k3sd_apiserver_access::{Attributes, Decision};
use k3sd_apiserver_store::{Page, Resource, WriteError};
use k3sd_client::storage::Revision;
use k3sd_objects::object::{Object, Selectable};
use k3sd_objects::selector::{FieldSelector, LabelSelector};
use k3sd_objects::status::{Qualified, Status};
use serde_json::{Value, json};

use super::pods::{binding, eviction};
use super::read::text;
use super::reviews::About;
use super::{components, local, reviews, tokens};
use crate::api::Api;
use crate::body::Expected;
use crate::call::{Call, Reply, Shown};
use crate::options::WriteOptions;

/// How often a binding that somebody crossed is tried.
const BINDING_ATTEMPTS: u32 = 20;

/// Answers a call about something special; `None` for everything else.
pub async fn answer(
    api: &Api,
    call: &Call,
    resource: &Arc<Resource>,
    warnings: &mut Vec<String>,
) -> Option<Result<Reply, Status>> {
    let info = &call.info;
    let request = Request { api, call, resource };
    Some(match (&*resource.group, &*resource.plural, info.subresource.as_str(), info.verb.as_str()) {
        ("", "componentstatuses", "", "get" | "list") => component_statuses(api, call, resource),
        ("", "bindings", "", "create") | ("", "pods", "binding", "create") => bind(&request, warnings).await,
        ("", "pods", "eviction", "create") => evict(&request, warnings).await,
        ("", "serviceaccounts", "token", "create") => token(&request, warnings).await,
        ("authentication.k8s.io" | "authorization.k8s.io", _, "", "create") if resource.stored.is_none() => {
            review(&request, warnings).await
        }
        _ => return None,
    })
}

/// The answer to what was done and has no object.
fn done() -> Reply {
    let mut status = Status::success(Qualified::new("", ""), "", "");
    status.details = None;
    status.code = 201;
    Reply::Status(status)
}

/// Something special that is asked for.
struct Request<'a> {
    api: &'a Api,
    call: &'a Call,
    resource: &'a Arc<Resource>,
}

impl Request<'_> {
    /// Reads the body and passes it through admission. Answers it, and whether this is a trial.
    async fn read(&self, expected: &Expected<'_>, warnings: &mut Vec<String>) -> Result<(Value, bool), Status> {
        let call = self.call;
        let options = WriteOptions::parse(&call.query, "CreateOptions", false)?;
        let mut value = expected.read(&call.body, call.content_type.as_deref(), options.field_validation, warnings)?;
        k3sd_objects::default::apply(&mut value, expected.schema);
        let shown = options.to_value();
        let name =
            if call.info.name.is_empty() { text(&value, "/metadata/name").to_owned() } else { call.info.name.clone() };
        let attributes = k3sd_apiserver_admission::Attributes {
            user: &call.user,
            operation: k3sd_apiserver_admission::Operation::Create,
            resource: self.resource,
            subresource: &call.info.subresource,
            namespace: &call.info.namespace,
            name: &name,
            old: None,
            options: &shown,
            dry_run: options.dry_run,
        };
        let admission = self.api.admission();
        warnings.extend(admission.mutate(&attributes, &mut value).await?);
        warnings.extend(admission.validate(&attributes, Some(&value)).await?.warnings);
        Ok((value, options.dry_run))
    }

    fn created(&self, value: Value) -> Reply {
        let (resource, subresource) = (self.resource.clone(), self.call.info.subresource.clone());
        Reply::Object { resource, subresource, code: 201, object: Shown::Value(value) }
    }
}

async fn review(request: &Request<'_>, warnings: &mut Vec<String>) -> Result<Reply, Status> {
    let Request { api, call, resource } = *request;
    let (mut review, _) = request.read(&Expected::of(resource), warnings).await?;
    let namespace = call.info.namespace.as_str();
    if !namespace.is_empty() && text(&review, "/metadata/namespace").is_empty() {
        review["metadata"]["namespace"] = namespace.into();
    }
    if !review["metadata"].is_object() {
        review["metadata"] = json!({});
    }
    if review["metadata"].get("creationTimestamp").is_none() {
        review["metadata"]["creationTimestamp"] = Value::Null;
    }
    let answered = match &*resource.kind {
        "TokenReview" => tokens::review(api, review).await?,
        "SelfSubjectReview" => {
            review["status"] = json!({"userInfo": reviews::user_info(&call.user)});
            review
        }
        "SelfSubjectRulesReview" => {
            let namespace = text(&review, "/spec/namespace").to_owned();
            if namespace.is_empty() {
                return Err(Status::bad_request("no namespace on request"));
            }
            let rbac = (api.special().rbac)();
            review["status"] = k3sd_apiserver_access::rules_review_status(&rbac, &call.user, &namespace);
            review
        }
        kind => {
            let about = if kind == "SelfSubjectAccessReview" { About::Sender(&call.user) } else { About::Named };
            let question = reviews::question(&review, about, namespace)?;
            let attributes = Attributes { user: &question.user, request: &question.request };
            let decision: Decision = (api.authorize())(&attributes);
            reviews::answered(review, &decision)
        }
    };
    Ok(request.created(answered))
}

async fn token(request: &Request<'_>, warnings: &mut Vec<String>) -> Result<Reply, Status> {
    let Request { api, call, .. } = *request;
    let expected = Expected::builtin("authentication.k8s.io/v1", "TokenRequest")?;
    let (wish, dry_run) = request.read(&expected, warnings).await?;
    let (namespace, name) = (call.info.namespace.as_str(), call.info.name.as_str());
    let answer = tokens::create(api, namespace, name, &wish, dry_run, warnings).await?;
    Ok(request.created(answer))
}

async fn evict(request: &Request<'_>, warnings: &mut Vec<String>) -> Result<Reply, Status> {
    let Request { api, call, .. } = *request;
    let expected = Expected::builtin("policy/v1", "Eviction")?;
    let (body, dry_run) = request.read(&expected, warnings).await?;
    let eviction = eviction::Eviction::read(&body, &call.info.namespace, &call.info.name, dry_run)?;
    eviction::evict(api, &eviction).await.map(|()| done())
}

async fn bind(request: &Request<'_>, warnings: &mut Vec<String>) -> Result<Reply, Status> {
    let Request { api, call, resource } = *request;
    let expected = Expected::builtin("v1", "Binding")?;
    let (body, dry_run) = request.read(&expected, warnings).await?;
    binding::check(&body, &call.info.name)?;
    let place = text(&body, "/metadata/namespace");
    if !place.is_empty() && place != call.info.namespace {
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(why));
    }
    let name = text(&body, "/metadata/name");
    let (store, namespace) = (local::store(api, local::PODS)?, call.info.namespace.as_str());
    let key = store.stored().key(namespace, name);
    for _ in 0..BINDING_ATTEMPTS {
        let found = store.get(namespace, name, k3sd_apiserver_store::ReadAt::Latest).await?;
        let object = found.ok_or_else(|| Status::not_found(Qualified::new("", "pods"), name))?;
        let pod = binding::bind(&object.value(), &body, &key, call.now)?;
        if dry_run {
            return Ok(done());
        }
        match store.update(&object, pod, None).await {
            Ok(_) => return Ok(done()),
            Err(WriteError::Failed(status)) => return Err(status),
            Err(_) => {}
        }
    }
    Err(Status::stale(resource.qualified(), name))
}

fn component_statuses(api: &Api, call: &Call, resource: &Arc<Resource>) -> Result<Reply, Status> {
    let info = &call.info;
    if info.verb == "get" {
        let object = Shown::Value(components::get(api, &info.name)?);
        let (resource, subresource) = (resource.clone(), String::new());
        return Ok(Reply::Object { resource, subresource, code: 200, object });
    }
    let labels: LabelSelector = parse(&info.label_selector)?;
    let fields: FieldSelector = parse(&info.field_selector)?;
    let known = |field: &str| ["metadata.name", "name"].contains(&field);
    if let Some(unknown) = fields.requirements().iter().find(|one| !known(&one.field)) {
        let why = format!("field label not supported: {}", unknown.field);
        return Err(Status::bad_request(why));
    }
    let matches = |name: &str| labels.matches(|_| None) && fields.matches(|_| Some(name));
    let objects = components::list(api, matches).iter().map(encode).collect::<Result<Vec<_>, _>>()?;
    let page = Page { objects, revision: Revision::ZERO, continue_token: None, remaining: None };
    Ok(Reply::List { resource: resource.clone(), page })
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(selector: &str) -> Result<T, Status> {
    selector.parse().map_err(|error: T::Err| Status::bad_request(error.to_string()))
}

fn encode(value: &Value) -> Result<Object, Status> {
    let bytes = k3sd_objects::decode::to_bytes(value).into();
    Object::parse(bytes, &Selectable::default()).map_err(Status::internal_error)
}
