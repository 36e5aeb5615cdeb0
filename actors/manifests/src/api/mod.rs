//! The API as it is asked for objects of any kind: as JSON, so that nothing is lost that no type knows.

mod names;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use http::{Method, Request};
use k3sd_client::api::Connect;
use k3sd_objects::read::{field, items, text};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, APIResourceList};
use serde_json::{Value, json};
use tokio::sync::watch;

pub(crate) use self::names::{Gvk, Key};

/// Objects of one page of a list.
const PAGE_OBJECTS: u32 = 500;

/// What the API says of a kind that it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    pub gvk: Gvk,
    pub plural: String,
    pub namespaced: bool,
}

/// How a change is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchType {
    Strategic,
    Merge,
    Json,
}

impl PatchType {
    fn media(self) -> &'static str {
        match self {
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Json => "application/json-patch+json",
        }
    }
}

/// Which objects of a list.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Select<'a> {
    /// All namespaces, if empty.
    pub namespace: &'a str,
    pub labels: &'a str,
    pub fields: &'a str,
}

/// A client with what it knows of the kinds that are served. Clones share that.
#[derive(Clone)]
pub(crate) struct Cluster {
    connect: Connect,
    /// Made when it is needed first: it has to be inside of a runtime.
    client: Arc<OnceLock<kube::Client>>,
    /// Who writes, in `managedFields`.
    manager: String,
    served: Arc<watch::Sender<BTreeMap<Gvk, Served>>>,
}

impl Cluster {
    /// As K3s does it, its parts write as `deploy@NODE` and the like.
    pub(crate) fn new(connect: Connect, part: &str, node: &str) -> Self {
        let manager = names::escape(&format!("{part}@{node}"));
        Self { connect, client: Arc::default(), manager, served: Arc::default() }
    }

    /// What the API says of a kind; `None` if it doesn't serve it. Only what is served is remembered.
    pub(crate) async fn served(&self, gvk: &Gvk) -> kube::Result<Option<Served>> {
        let known = self.served.borrow().get(gvk).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let url = gvk.root();
        let listed = match self.ask::<APIResourceList>(Method::GET, &url, None, "").await {
            Ok(listed) => listed,
            Err(error) if code(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut served = BTreeMap::new();
        for APIResource { kind, name, namespaced, group, version, .. } in listed.resources {
            let is_own = group.is_none_or(|group| group.is_empty()) && version.is_none_or(|version| version.is_empty());
            // What stands below objects is no kind of its own.
            if is_own && !name.contains('/') {
                let gvk = Gvk { kind, ..gvk.clone() };
                served.insert(gvk.clone(), Served { gvk, plural: name, namespaced });
            }
        }
        let found = served.get(gvk).cloned();
        self.served.send_modify(|known| known.extend(served));
        Ok(found)
    }

    /// Forgets what is served in a group: it may have changed.
    pub(crate) fn forget(&self, group: &str) {
        self.served.send_modify(|known| known.retain(|gvk, _| gvk.group != group));
    }

    pub(crate) async fn get(&self, kind: &Served, key: &Key) -> kube::Result<Option<Value>> {
        match self.ask(Method::GET, &kind.url(key), None, "").await {
            Ok(object) => Ok(Some(object)),
            Err(error) if code(&error) == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All objects, page by page.
    pub(crate) async fn list(&self, kind: &Served, select: Select<'_>) -> kube::Result<Vec<Value>> {
        let mut found = Vec::new();
        let mut token = String::new();
        loop {
            let mut url = format!("{}?limit={PAGE_OBJECTS}", kind.collection(select.namespace));
            for (name, value) in
                [("labelSelector", select.labels), ("fieldSelector", select.fields), ("continue", token.as_str())]
            {
                if !value.is_empty() {
                    url += &format!("&{name}={}", names::escape(value));
                }
            }
            let mut page: Value = self.ask(Method::GET, &url, None, "").await?;
            token = text(field(&page, "metadata"), "continue").to_owned();
            if let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) {
                found.extend(items.into_iter().map(|item| kind.named(item)));
            }
            if token.is_empty() {
                return Ok(found);
            }
        }
    }

    pub(crate) async fn create(&self, kind: &Served, namespace: &str, object: &Value) -> kube::Result<Value> {
        let url = format!("{}?fieldManager={}", kind.collection(namespace), self.manager);
        self.ask(Method::POST, &url, Some(object), "application/json").await
    }

    pub(crate) async fn patch(&self, kind: &Served, key: &Key, form: PatchType, patch: &Value) -> kube::Result<Value> {
        let url = format!("{}?fieldManager={}", kind.url(key), self.manager);
        self.ask(Method::PATCH, &url, Some(patch), form.media()).await
    }

    /// Changes what only `status` holds.
    pub(crate) async fn patch_status(&self, kind: &Served, key: &Key, patch: &Value) -> kube::Result<Value> {
        let url = format!("{}/status?fieldManager={}", kind.url(key), self.manager);
        self.ask(Method::PATCH, &url, Some(patch), PatchType::Merge.media()).await
    }

    /// Deletes an object, and then what it owns; one that isn't there is deleted.
    pub(crate) async fn delete(&self, kind: &Served, key: &Key) -> kube::Result<()> {
        let options = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background" });
        match self.ask::<Value>(Method::DELETE, &kind.url(key), Some(&options), "application/json").await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == Some(404) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
        media: &str,
    ) -> kube::Result<T> {
        let mut request = Request::builder().method(method).uri(url);
        if body.is_some() {
            request = request.header(http::header::CONTENT_TYPE, media);
        }
        let bytes = body.map(k3sd_objects::decode::to_bytes).unwrap_or_default();
        let client = self.client.get_or_init(|| self.connect.client());
        client.request(request.body(bytes).map_err(kube::Error::HttpError)?).await
    }
}

impl Served {
    /// Where its objects are; `namespace` is empty for those of the cluster, and for all of them.
    fn collection(&self, namespace: &str) -> String {
        let root = self.gvk.root();
        if self.namespaced && !namespace.is_empty() {
            format!("{root}/namespaces/{}/{}", names::escape(namespace), self.plural)
        } else {
            format!("{root}/{}", self.plural)
        }
    }

    fn url(&self, key: &Key) -> String {
        format!("{}/{}", self.collection(&key.namespace), names::escape(&key.name))
    }

    /// An item of a list, which may not say what it is.
    fn named(&self, mut item: Value) -> Value {
        if let Some(fields) = item.as_object_mut() {
            fields.insert("apiVersion".to_owned(), self.gvk.api_version().into());
            fields.insert("kind".to_owned(), self.gvk.kind.as_str().into());
        }
        item
    }
}

/// The status code of an answer.
pub(crate) fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// What the API said, or why it couldn't be asked.
pub(crate) fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(error) = source {
                text += &format!(": {error}");
                source = error.source();
            }
            text
        }
    }
}

/// The conditions of an object that are true.
pub(crate) fn has_condition(object: &Value, condition: &str) -> bool {
    let conditions = items(field(object, "status"), "conditions");
    conditions.iter().any(|it| text(it, "type") == condition && text(it, "status") == "True")
}
