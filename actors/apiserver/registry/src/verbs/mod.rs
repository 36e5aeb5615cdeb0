//! What can be done with objects, for every kind alike.

mod create;
mod delete;
mod patch;
mod read;
mod scale;
mod update;
mod write;

use std::sync::Arc;

use k3sd_apiserver_admission::Attributes;
use k3sd_apiserver_admission::Operation;
use k3sd_apiserver_store::{Catalog, ObjectStore, ReadAt, Resource};
use k3sd_objects::object::Object;
use k3sd_objects::status::Status;
use serde_json::Value;

use crate::api::{Api, time_text};
use crate::call::{Call, Reply, Shown};
use crate::strategy::{self, Part, Strategy};
use crate::version;

pub(crate) use create::create;
pub(crate) use delete::{delete, delete_collection};
pub(crate) use patch::patch;
pub(crate) use read::{get, list, watch};
pub(crate) use scale::scale;
pub(crate) use update::update;
pub(crate) use write::new_uid;

/// What a verb works on.
#[derive(Clone)]
pub(crate) struct Scope<'a> {
    pub(crate) api: &'a Api,
    pub(crate) call: &'a Call,
    pub(crate) catalog: &'a Catalog,
    pub(crate) resource: &'a Arc<Resource>,
    pub(crate) store: Arc<ObjectStore>,
    pub(crate) part: Part,
    /// Empty for objects of the cluster, and for all namespaces at once.
    pub(crate) namespace: &'a str,
}

impl<'a> Scope<'a> {
    pub(crate) fn name(&self) -> &'a str {
        &self.call.info.name
    }

    pub(crate) fn subresource(&self) -> &'a str {
        &self.call.info.subresource
    }

    pub(crate) fn strategy(&self) -> &'static Strategy {
        strategy::of(self.resource)
    }

    /// Now, as objects write it.
    pub(crate) fn now_text(&self) -> String {
        time_text(self.call.now)
    }

    /// Who comes to own the fields of a write.
    pub(crate) fn manager(&self, field_manager: &str) -> String {
        k3sd_objects::apply::manager_or_user_agent(field_manager, &self.call.user_agent)
    }

    pub(crate) fn not_found(&self, name: &str) -> Status {
        Status::not_found(self.resource.qualified(), name)
    }

    /// The object that the call names, with every write in it that was acknowledged before.
    pub(crate) async fn latest(&self, name: &str) -> Result<Option<Object>, Status> {
        self.store.get(self.namespace, name, ReadAt::Latest).await
    }

    /// A stored object in the version of the request.
    pub(crate) fn shown(&self, object: &Object) -> Result<Value, Status> {
        version::to_resource(object.value(), self.resource)
    }

    /// The same for one that was read; none where it is in that version already.
    pub(crate) fn converted(&self, value: &Value) -> Result<Option<Value>, Status> {
        if self.resource.is_storage_version() {
            return Ok(None);
        }
        version::to_resource(value.clone(), self.resource).map(Some)
    }

    /// The answer with one object.
    pub(crate) fn reply(&self, code: u16, object: Shown) -> Reply {
        let (resource, subresource) = (self.resource.clone(), self.subresource().to_owned());
        Reply::Object { resource, subresource, code, object }
    }

    /// What admission is told.
    pub(crate) fn attributes<'b>(
        &'b self,
        operation: Operation,
        name: &'b str,
        old: Option<&'b Value>,
        options: &'b Value,
        dry_run: bool,
    ) -> Attributes<'b> {
        // A namespace counts as in itself.
        let is_namespace = (&*self.resource.group, &*self.resource.plural) == ("", "namespaces");
        Attributes {
            user: &self.call.user,
            operation,
            resource: self.resource,
            subresource: self.subresource(),
            namespace: if is_namespace { name } else { self.namespace },
            name,
            old,
            options,
            dry_run,
        }
    }
}
