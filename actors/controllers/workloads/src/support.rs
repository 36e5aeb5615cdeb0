//! What the controllers of workloads have in common.

use k3sd_client::api::Connect;
use k3sd_client::controller::{Failure, Key, Loop};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Informer, Kind, ObjectKey};
use std::sync::OnceLock;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use kube::core::{Selector, SelectorExt as _};

/// Labels as they are written.
pub(crate) type Labels = std::collections::BTreeMap<String, String>;

/// The API as one controller sees it. The client is made by whoever asks first, inside the runtime, and then shared.
pub(crate) struct Access {
    connect: Connect,
    client: OnceLock<kube::Client>,
}

impl Access {
    pub(crate) fn new(connect: Connect) -> Self {
        Self { connect, client: OnceLock::new() }
    }

    pub(crate) fn client(&self) -> kube::Client {
        self.client.get_or_init(|| self.connect.client()).clone()
    }

    /// The objects of a kind in a namespace.
    pub(crate) fn of<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client(), namespace)
    }
}

/// A selector that objects can be held against. One that makes no sense selects nothing.
#[derive(Debug)]
pub(crate) struct Matcher(Option<Selector>);

impl Matcher {
    pub(crate) fn new(selector: &LabelSelector) -> Self {
        Self(selector.clone().try_into().ok())
    }

    /// One that wants all of these labels.
    pub(crate) fn of_labels(labels: &Labels) -> Self {
        Self(Some(labels.clone().into_iter().collect()))
    }

    /// One that selects nothing.
    pub(crate) fn nothing() -> Self {
        Self(None)
    }

    pub(crate) fn matches(&self, labels: Option<&Labels>) -> bool {
        let none = Labels::new();
        self.0.as_ref().is_some_and(|selector| selector.matches(labels.unwrap_or(&none)))
    }
}

/// Whether a selector selects everything.
pub(crate) fn selects_all(selector: &LabelSelector) -> bool {
    let is_empty = |empty: Option<bool>| empty.unwrap_or(true);
    is_empty(selector.match_labels.as_ref().map(|labels| labels.is_empty()))
        && is_empty(selector.match_expressions.as_ref().map(|expressions| expressions.is_empty()))
}

/// A number, or so many percent of `total`; `None` for what is neither.
pub(crate) fn scaled(value: &IntOrString, total: i32, round_up: bool) -> Option<i32> {
    match value {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
            let hundredths = percent.checked_mul(i64::from(total))?;
            let rounded = if round_up { hundredths.saturating_add(99) } else { hundredths }.div_euclid(100);
            i32::try_from(rounded).ok()
        }
    }
}

/// The text that people read about a failure: the API's own words.
pub(crate) fn message(failure: &Failure) -> String {
    match failure {
        Failure::Api(kube::Error::Api(status)) => status.message.clone(),
        other => other.chain(),
    }
}

/// Nothing can be made any more, because the namespace is being deleted.
pub(crate) fn is_namespace_terminating(failure: &Failure) -> bool {
    let Failure::Api(kube::Error::Api(status)) = failure else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// The reason that the API gave.
pub(crate) fn reason(failure: &Failure) -> &str {
    match failure {
        Failure::Api(kube::Error::Api(status)) => &status.reason,
        _ => "",
    }
}

/// Deletes this very object and no later one of its name.
pub(crate) fn this_one(uid: Option<&String>) -> DeleteParams {
    let preconditions = Preconditions { uid: uid.cloned(), resource_version: None };
    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }
}

/// Without what isn't there, or is another by now.
pub(crate) fn unless_gone<T>(outcome: Result<T, kube::Error>) -> Result<Option<T>, Failure> {
    match outcome.map_err(Failure::from) {
        Ok(done) => Ok(Some(done)),
        Err(failure) if failure.is_stale() => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The name of an object, empty before it has one.
pub(crate) fn name<K: Kind>(object: &K) -> &str {
    object.meta().name.as_deref().unwrap_or_default()
}

/// The namespace of an object, empty for those of the cluster.
pub(crate) fn namespace<K: Kind>(object: &K) -> &str {
    object.meta().namespace.as_deref().unwrap_or_default()
}

/// The `uid`, empty before it has one.
pub(crate) fn uid<K: Kind>(object: &K) -> &str {
    object.meta().uid.as_deref().unwrap_or_default()
}

/// An annotation.
pub(crate) fn annotation<'a, K: Kind>(object: &'a K, name: &str) -> Option<&'a str> {
    object.meta().annotations.as_ref()?.get(name).map(String::as_str)
}

/// A label.
pub(crate) fn label<'a, K: Kind>(object: &'a K, name: &str) -> Option<&'a str> {
    object.meta().labels.as_ref()?.get(name).map(String::as_str)
}

/// Adds the key of what changed.
pub(crate) fn itself<K: Kind>(old: Option<&K>, new: Option<&K>, keys: &mut Vec<ObjectKey>) {
    keys.extend(new.or(old).map(ObjectKey::of));
}

/// Events about objects in quarantine go to the object of the key.
pub(crate) fn quarantine<C, K>(looped: Loop<C>, recorder: &Recorder, informer: &Informer<K>) -> Loop<C>
where
    C: k3sd_client::controller::Controller<Key = ObjectKey>,
    K: Kind,
    ObjectKey: Key,
{
    let informer = informer.clone();
    looped.quarantine(recorder.clone(), move |key| {
        let shown = informer.snapshot()?;
        Some(shown.get(&key.namespace, &key.name)?.object_ref(&()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_are_rounded_as_asked() {
        let percent = |text: &str| IntOrString::String(text.to_owned());
        for (value, total, up, down) in [
            (IntOrString::Int(3), 10, Some(3), Some(3)),
            (percent("25%"), 10, Some(3), Some(2)),
            (percent("25%"), 4, Some(1), Some(1)),
            (percent("0%"), 7, Some(0), Some(0)),
            (percent("100%"), 7, Some(7), Some(7)),
            (percent("1%"), 1, Some(1), Some(0)),
            (percent("150%"), 3, Some(5), Some(4)),
            (percent("many"), 3, None, None),
            (percent("3"), 3, None, None),
        ] {
            assert_eq!((scaled(&value, total, true), scaled(&value, total, false)), (up, down), "{value:?} of {total}");
        }
    }

    #[test]
    fn a_selector_without_sense_selects_nothing() {
        let bad = serde_json::json!({"matchExpressions": [{"key": "a", "operator": "Near", "values": ["b"]}]});
        let bad: LabelSelector = serde_json::from_value(bad).expect("a selector");
        assert!(!Matcher::new(&bad).matches(None) && !selects_all(&bad));
        assert!(Matcher::new(&LabelSelector::default()).matches(None) && selects_all(&LabelSelector::default()));
        let labels = Labels::from([("a".to_owned(), "b".to_owned())]);
        assert!(Matcher::of_labels(&labels).matches(Some(&labels)) && !Matcher::of_labels(&labels).matches(None));
    }
}
