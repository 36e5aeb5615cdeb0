//! The scale of anything that has one, whatever kind it is.

use k3sd_client::controller::Failure;
use k8s_openapi::api::autoscaling::v1::Scale;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use serde::Deserialize;

use crate::support::unless_gone;

/// What is scaled.
pub(crate) struct Target<'a> {
    pub(crate) api_version: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) name: &'a str,
}

/// The parts of a discovery answer that say how a kind is reached.
#[derive(Deserialize)]
struct Resources {
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    kind: String,
    #[serde(default)]
    namespaced: bool,
}

/// How a kind of objects in namespaces is called in URLs: what discovery says now, because kinds come and go. `None`:
/// there is no such kind.
pub(crate) async fn plural(client: &Client, target: &Target<'_>) -> Result<Option<String>, Failure> {
    let root = if target.api_version.contains('/') { "/apis" } else { "/api" };
    let request = http::Request::get(format!("{root}/{}", target.api_version)).body(Vec::new());
    let request = request.map_err(|_| Failure::other(format!("\"{}\" is no version of an API", target.api_version)))?;
    let Some(found) = unless_gone(client.request::<Resources>(request).await)? else { return Ok(None) };
    let mut of_kind = found.resources.into_iter().filter(|known| known.kind == target.kind && known.namespaced);
    Ok(of_kind.find(|known| !known.name.contains('/')).map(|known| known.name))
}

/// The way to a kind's objects in a namespace. `None`: there is no such kind.
async fn resource(
    client: &Client,
    namespace: &str,
    target: &Target<'_>,
) -> Result<Option<Api<DynamicObject>>, Failure> {
    let Some(plural) = plural(client, target).await? else { return Ok(None) };
    let (group, version) = target.api_version.split_once('/').unwrap_or(("", target.api_version));
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: target.api_version.to_owned(),
        kind: target.kind.to_owned(),
        plural,
    };
    Ok(Some(Api::namespaced_with(client.clone(), namespace, &resource)))
}

/// The scale of an object, and the way to it. `None`: the object isn't there, or has none.
pub(crate) async fn find(
    client: &Client,
    namespace: &str,
    target: &Target<'_>,
) -> Result<Option<(Api<DynamicObject>, Scale)>, Failure> {
    let Some(api) = resource(client, namespace, target).await? else { return Ok(None) };
    let request = kube::core::Request::new(api.resource_url()).get_subresource("scale", target.name);
    let request = request.map_err(|error| Failure::other(format!("ask for a scale: {error}")))?;
    let scale = unless_gone(client.request::<Scale>(request).await)?;
    Ok(scale.map(|scale| (api, scale)))
}

/// Writes a scale.
pub(crate) async fn replace(client: &Client, api: &Api<DynamicObject>, scale: &Scale) -> Result<Scale, Failure> {
    let name = scale.metadata.name.as_deref().unwrap_or_default();
    let body = serde_json::to_vec(scale).map_err(|error| Failure::other(format!("write a scale: {error}")))?;
    let request = kube::core::Request::new(api.resource_url());
    let request = request.replace_subresource("scale", name, &PostParams::default(), body);
    let request = request.map_err(|error| Failure::other(format!("write a scale: {error}")))?;
    Ok(client.request::<Scale>(request).await?)
}
