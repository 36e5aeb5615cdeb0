//! Small things that these controllers have in common.

use k3sd_client::controller::Failure;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// A text, empty when there is none.
pub(crate) fn text(text: Option<&String>) -> &str {
    text.map_or("", String::as_str)
}

/// The identifier of an object's life; empty before it has one.
pub(crate) fn uid(meta: &ObjectMeta) -> &str {
    text(meta.uid.as_ref())
}

/// What people read about a failure: the API's own words.
pub(crate) fn said(failure: &Failure) -> String {
    match failure {
        Failure::Api(kube::Error::Api(status)) => status.message.clone(),
        other => other.chain(),
    }
}

/// An annotation.
pub(crate) fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}
