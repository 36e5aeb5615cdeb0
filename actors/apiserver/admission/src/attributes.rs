//! What is about to be done, and by whom.

use std::fmt;

use k3sd_apiserver_access::User;
use k3sd_apiserver_store::Resource;
use k3sd_objects::status::Status;
use serde_json::Value;

use crate::read::text;

/// What is done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// It is deleted, or asked to go.
    Delete,
    /// A stream to it is opened.
    Connect,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        })
    }
}

/// What is about to be done, and by whom, without the new object.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: &'a User,
    /// What is done.
    pub operation: Operation,
    /// With an object of what.
    pub resource: &'a Resource,
    /// With what of it; empty for the whole.
    pub subresource: &'a str,
    /// Namespace of the object, empty for the cluster's. A namespace counts as in itself.
    pub namespace: &'a str,
    /// Name of the object; empty for a new one that has none yet.
    pub name: &'a str,
    /// The object as it was, in the request's version, when it is updated or deleted.
    pub old: Option<&'a Value>,
    /// `CreateOptions`, `UpdateOptions`, `DeleteOptions`...
    pub options: &'a Value,
    /// Whether nothing is to be written.
    pub dry_run: bool,
}

impl Attributes<'_> {
    /// Whether it is about this resource, in whatever version.
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        &*self.resource.plural == plural && &*self.resource.group == group
    }

    /// Whether it is about whole pods.
    pub(crate) fn is_pod(&self) -> bool {
        self.subresource.is_empty() && self.is("", "pods")
    }

    /// The object as it was; null if there was none.
    pub(crate) fn before(&self) -> &Value {
        self.old.unwrap_or(&Value::Null)
    }

    /// 403 about the object, with the reason why.
    pub(crate) fn forbidden(&self, object: &Value, why: impl fmt::Display) -> Status {
        let metadata = object.get("metadata").unwrap_or(&Value::Null);
        let names = [self.name, text(metadata, "name"), text(metadata, "generateName")];
        let name = names.into_iter().find(|name| !name.is_empty()).unwrap_or("Unknown");
        Status::forbidden(self.resource.qualified(), name, why)
    }
}
