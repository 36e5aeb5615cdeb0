//! Tokens of service accounts: giving them out, and telling who comes with one.

use k3sd_apiserver_access::authn::service_account::{Lookup, Objects, requested, sign};
use k3sd_objects::status::{Qualified, Status};
use serde_json::{Value, json};

use super::local::{self, Kind};
use super::read::{text, texts};
use super::{reviews, unnamed};
use crate::api::Api;

const ACCOUNTS: Kind = Kind::core("serviceaccounts");
const SECRETS: Kind = Kind::core("secrets");
const NODES: Kind = Kind::core("nodes");

/// `serviceaccounts/token`: the request with its token.
///
/// # Errors
/// 404 for an account that isn't there, or a server that makes no tokens; 400, 409 and 422 as the issuer says.
pub(super) async fn create(
    api: &Api,
    namespace: &str,
    name: &str,
    request: &Value,
    dry_run: bool,
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    let missing = || Status::not_found(Qualified::new("", "serviceaccounts"), name);
    let Some(source) = &api.special().tokens else { return Err(missing()) };
    let account = local::get(api, ACCOUNTS, namespace, name).await?.ok_or_else(missing)?;
    let (kind, place, bound) = match requested(request).map_err(|status| *status)? {
        Lookup::Nothing => (None, "", ""),
        Lookup::Pod(pod) => (Some(local::PODS), namespace, pod),
        Lookup::Secret(secret) => (Some(SECRETS), namespace, secret),
        Lookup::Node(node) => (Some(NODES), "", node),
    };
    let bound = match kind {
        Some(kind) => local::get(api, kind, place, bound).await?,
        None => None,
    };
    let node = match bound.as_ref().map(|bound| text(bound, "/spec/nodeName")) {
        Some(node) if kind == Some(local::PODS) && !node.is_empty() => local::get(api, NODES, "", node).await?,
        _ => None,
    };
    let objects = Objects { account: &account, bound: bound.as_ref(), node: node.as_ref() };
    let seconds = local::now(api).as_second();
    let id = crate::verbs::new_uid(api);
    let grant = source.issuer.issue(request, objects, &id, seconds).map_err(|status| *status)?;
    warnings.extend(grant.warning);
    let mut answer = grant.answer;
    if dry_run {
        return Ok(answer);
    }
    let key = (source.key)().ok_or_else(|| Status::service_unavailable("there is no key to sign tokens with yet"))?;
    let token = sign(&key, &grant.claims.to_json()).map_err(Status::internal_error)?;
    answer["status"]["token"] = token.into();
    Ok(answer)
}

/// A `TokenReview` with its answer.
///
/// # Errors
/// 400 for a review without a token.
pub(super) async fn review(api: &Api, mut review: Value) -> Result<Value, Status> {
    if !text(&review, "/metadata/namespace").is_empty() {
        let namespace = text(&review, "/metadata/namespace");
        return Err(Status::bad_request(format!("namespace is not allowed on this type: {namespace}")));
    }
    let token = text(&review, "/spec/token").to_owned();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let wanted: Vec<String> = texts(&review, "/spec/audiences").into_iter().map(str::to_owned).collect();
    let found = (api.special().authenticate)(token, wanted.clone()).await;
    review["status"] = match found {
        Ok(None) => json!({"user": {}}),
        Err(why) => json!({"user": {}, "error": why}),
        Ok(Some((user, audiences))) => {
            if !wanted.is_empty() && !audiences.iter().any(|audience| wanted.contains(audience)) {
                return Err(unnamed("the token is meant for others than those who were asked about"));
            }
            let mut status = json!({"authenticated": true, "user": reviews::user_info(&user)});
            if !audiences.is_empty() {
                status["audiences"] = json!(audiences);
            }
            status
        }
    };
    Ok(review)
}
